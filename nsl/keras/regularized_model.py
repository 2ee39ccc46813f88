"""The base class of the wrappers: a Keras model with regularization terms."""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import keras
import tensorflow as tf

from nsl.configs import serialization
from nsl.keras.base_model import (
    check_base_model,
    checked_keywords,
    computes_loss,
    input_names,
    run_base,
    warn_of_unused_overrides,
)
from nsl.keras.batches import (
    batch_size,
    describe,
    dicts_to_tuples,
    named_arguments,
    to_tensor,
    unpacked_arguments,
)
from nsl.keras.clean_pass import CleanPass
from nsl.keras.config_attribute import config_attributes
from nsl.keras.passes import Passes
from nsl.keras.preprocessing import has_preprocessor, preprocessed
from nsl.keras.replicas import of_global_batch
from nsl.keras.schedules import EpochCounter, snapshot
from nsl.keras.step import Step
from nsl.keras.terms.term import Term
from nsl.keras.weight_perturbation import perturbed_weights
from nsl.lib import keras_internals
from nsl.lib.layer_outputs import find_layer


class RegularizedModel(keras_internals.StrategyHooks, keras.Model):
    """A Keras model whose loss is a base model's loss plus regularization terms.

    The wrapper shares the weights of the base model, and predicts, saves and exports as
    the base model does. Keras handles the loss, metrics and sample weights as for any
    model; this class adds the terms. A wrapper around a wrapper has the terms of both.

    `train_step` processes a batch as follows:

    1. `unpack` splits it into features, labels and sample weights.
    2. Terms take their neighbors out of the features.
    3. The clean pass runs the samples.
    4. Terms run their neighbors and compute their losses.
    5. The optimizer applies the gradients of the sum of all losses.

    In a custom loop, call the model on a batch that holds neighbors or labels: the
    losses of the terms are then in `losses` until the next call, as in NSL 1.4. If the
    batch holds labels, the labeled loss comes first. With `training=False`, `losses`
    does not include the terms. A subclass may override `call`, which `fit` then uses.

    Args:
      base_model: The model to train: a sequential, functional or subclassed
        `keras.Model`, or another wrapper.
      terms: The regularization terms. A subclass that makes its terms from a config
        overrides `own_terms` instead, and calls `_prepare_terms` once the config is
        set.
      **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
      TypeError: If `base_model` is not a Keras model.
      ValueError: If a wrapped wrapper has a term of the same name.
    """

    def __init__(
        self, base_model: keras.Model, terms: Sequence[Term] = (), **kwargs: Any
    ) -> None:
        check_base_model(base_model)
        kwargs.setdefault("dtype", base_model.dtype_policy)
        # The base model casts its inputs. Autocasting would cast labels as well.
        super().__init__(autocast=False, **kwargs)
        self.base_model = base_model
        # The base model inside of all wrappers.
        self._core: keras.Model = getattr(base_model, "_core", base_model)
        if self._core is base_model:
            warn_of_unused_overrides(base_model)
        self.built = base_model.built
        inputs = keras_internals.input_structure(self._core)
        if inputs is not None:
            keras_internals.note_input_shape(self, inputs)
        self._terms = tuple(terms)
        self._term_metrics: dict[str, keras.metrics.Mean] = {}
        self._epoch: tf.Variable | None = None
        self._traced_configs: list[Any] | None = None
        if terms:
            self._prepare_terms()

    def own_terms(self) -> Sequence[Term]:
        """Returns the terms of this wrapper, without those of a wrapped wrapper."""
        return self._terms

    def terms(self) -> list[Term]:
        """Returns all terms, starting with those of the innermost wrapper."""
        wrapped = self.base_model
        terms = wrapped.terms() if isinstance(wrapped, RegularizedModel) else []
        return [*terms, *self.own_terms()]

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch into features, labels and sample weights.

        Args:
          data: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
          `(x, y, sample_weight)`, where `y` and `sample_weight` may be None.
        """
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model.unpack(data)
        return keras.utils.unpack_x_y_sample_weight(data)

    def strip(self, x: Any) -> Any:
        """Removes features that only training uses, such as those of neighbors.

        Args:
          x: The features of a batch.

        Returns:
          The features that the base model takes.
        """
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model.strip(x)
        return x

    # --- Training, evaluation and prediction

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model, with the arguments of `keras.Model.fit`."""
        arguments = self._prepared_arguments(super().fit, args, kwargs)
        if self._epoch is not None:
            counter = EpochCounter(self._epoch)
            arguments["callbacks"] = counter.added_to(arguments.get("callbacks"))
        try:
            return super().fit(**arguments)
        except Exception:
            # A tf.function whose tracing failed cannot create the variables of the
            # optimizer when it is called again.
            self.train_function = None
            raise

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model, with the arguments of `keras.Model.evaluate`."""
        arguments = self._prepared_arguments(super().evaluate, args, kwargs)
        return super().evaluate(**arguments)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch, as `keras.Model.train_on_batch` does."""
        arguments = self._prepared_arguments(super().train_on_batch, args, kwargs)
        return super().train_on_batch(**arguments)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch, as `keras.Model.test_on_batch` does."""
        arguments = self._prepared_arguments(super().test_on_batch, args, kwargs)
        return super().test_on_batch(**arguments)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts, with the arguments of `keras.Model.predict`."""
        arguments = named_arguments(super().predict, args, kwargs)
        arguments["x"] = dicts_to_tuples(arguments["x"])
        return super().predict(**self._preprocessed("predict", arguments))

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts one batch, as `keras.Model.predict_on_batch` does."""
        return super().predict_on_batch(
            **self._preprocessed("predict_on_batch", {"x": x})
        )

    # Steps use no Python control flow on tensors. AutoGraph would spend seconds on
    # converting everything that they call.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass, the passes of all terms, and the optimizer update."""
        x, y, sample_weight = self._unpacked_tensors(data)
        self._check_training(x, sample_weight)
        if self._overrides_call:
            return self._keras_step(super().train_step, data, y, sample_weight)
        terms = self._active_terms(training=True)
        passes = self._passes(terms)
        clean = self._without_neighbors(terms, x, y, sample_weight, training=True)
        if any(t.needs_input_gradient or t.replaces_labeled_loss for t in terms):
            passes.check_loss()
        if any(term.replaces_labeled_loss for term in terms):
            passes.save_states(clean)
        logs = {}
        for update in range(max((term.updates for term in terms), default=1)):
            if update:
                passes.restore_states(clean)
            for term in terms:
                clean.x, clean.perturbations = term.samples(passes, clean)
            self._update_weights(terms, passes, clean)
            logs = self.compute_metrics(
                clean.x, y, clean.y_pred, sample_weight=sample_weight
            )
        return logs

    def _update_weights(
        self, terms: list[Term], passes: Passes, clean: CleanPass
    ) -> None:
        """Computes the gradients of all losses and applies them."""
        step = Step(terms, passes, clean)
        gradients = step.gradients()
        self._mark_built(clean.x)
        weights = self.trainable_weights
        self._track_losses(step, clean)
        if not weights:
            warnings.warn(
                "The model does not have any trainable weights.", stacklevel=2
            )
            return
        factors = [term.weight_perturbation for term in terms if term.perturbs_weights]
        if factors:
            again = Step(terms, passes, dataclasses.replace(clean), step.prepared)
            with perturbed_weights(weights, gradients, sum(factors)) as perturbed:
                gradients = again.gradients(perturbed)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass and the passes of terms that are part of evaluation."""
        x, y, sample_weight = self._unpacked_tensors(data)
        if self._overrides_call:
            logs = self._keras_step(super().test_step, data, y, sample_weight)
            return self._without_training_terms(logs)
        terms = self._active_terms(training=False)
        passes = self._passes(terms)
        clean = CleanPass(self.strip(x), y, sample_weight, training=False)
        step = Step(terms, passes, clean)
        step.evaluate()
        self._mark_built(clean.x)
        self._track_losses(step, clean)
        logs = self.compute_metrics(
            clean.x, y, clean.y_pred, sample_weight=sample_weight
        )
        return self._without_training_terms(logs)

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Runs the base model. Labels and neighbors are optional.

        Args:
          inputs: Features, with or without neighbors and labels.
          training: Whether layers such as Dropout run in training mode. Unless it is
            False, the losses of terms whose neighbors or labels are in `inputs` are
            added to `losses`.
          **kwargs: Further arguments of the base model's `call`, such as `mask`, which
            the passes of terms receive too. Those that are None are optional.

        Returns:
          The outputs of the base model.

        Raises:
          TypeError: If the base model's `call` does not take an argument.
          ValueError: If `inputs` hold neighbors and a `mask` is passed.
        """
        keywords = keras_internals.keywords_received(kwargs)
        if keywords:
            keywords = checked_keywords(self._core, keywords)
        samples = self.strip(inputs)
        run = functools.partial(run_base, self._core, samples, training, **keywords)
        step = _KERAS_STEP.get()
        in_step = step is not None and step.wrapper is self
        symbolic = any(map(keras.backend.is_keras_tensor, tf.nest.flatten(inputs)))
        # Keras builds a model by calling it, in a graph that is thrown away.
        builds = step is not None and in_step and step.graph is not _current_graph()
        if symbolic or builds or (training is False and not in_step):
            return run()
        x, y, sample_weight = self.unpack(inputs)
        holds_labels = y is not None
        holds_more = len(tf.nest.flatten(samples)) < len(tf.nest.flatten(inputs))
        if training is None and not (holds_labels or holds_more or in_step):
            return run()
        if step is not None and in_step:
            y, sample_weight = step.y, step.sample_weight
        x, y, sample_weight = keras.tree.map_structure(to_tensor, (x, y, sample_weight))
        terms = self._active_terms(training=training is not False)
        terms = [term for term in terms if term.applies(x, y)]
        if not self.compiled:
            terms = self._terms_before_compile(terms, training)
        if not terms:
            return run()
        clean = self._without_neighbors(terms, x, y, sample_weight, bool(training))
        token = _KERAS_STEP.set(None)
        try:
            losses = self._losses_of_call(terms, clean, keywords)
        finally:
            _KERAS_STEP.reset(token)
        replaced = terms[-1].replaces_labeled_loss or not self.compiled
        if holds_labels and not in_step and not replaced:
            losses = [clean.labeled_loss, *losses]
        if step is not None and in_step:
            step.losses.extend(losses)
        else:
            self.add_loss(losses)
        return clean.y_pred

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes the loss of one pass, by `compute_loss` of the base model if any."""
        if computes_loss(self._core):
            loss = keras_internals.compiled_loss(
                self._core, x, y, y_pred, sample_weight, training
            )
        else:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        step = _KERAS_STEP.get()
        if step is not None and step.wrapper is self:
            for term_loss in step.losses:
                loss += tf.cast(term_loss, loss.dtype)
        return loss

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training, with the arguments of `keras.Model.compile`.

        Compiles the base model too, so that it can be trained and evaluated by itself.
        Both share the optimizer. The base model gets copies of the metrics, or none if
        a metric cannot be copied through its config.
        """
        super().compile(*args, **kwargs)
        given = named_arguments(super().compile, args, kwargs)
        given |= {"optimizer": self.optimizer}
        for name in ("metrics", "weighted_metrics"):
            if given.get(name) is not None:
                given[name] = _copy_metrics(given[name])
        self.base_model.compile(**given)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model with the arguments it was saved with."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, including those that the base model's own code updates."""
        # Keras does not collect the metrics of nested models.
        return [*super().metrics, *keras_internals.own_metrics(self._core)]

    @property
    def output_names(self) -> list[str]:
        """The names of the base model's outputs."""
        return self._core.output_names

    # --- Saving and export

    @keras_internals.default_build
    def build(self, input_shape: Any) -> None:
        """Creates the weights of the base model.

        Args:
          input_shape: As in `build` of the base model.
        """
        if not self._core.built:
            self._core.build(input_shape)
        self.built = self._core.built

    def get_build_config(self) -> dict[str, Any]:
        """Returns the argument of `build_from_config`, that of the base model."""
        return self._core.get_build_config() or {}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the base model from its build config."""
        if config and not self._core.built:
            self._core.build_from_config(config)
        self.built = self._core.built

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the base model, which can be loaded without nsl.

        To save the wrapper with its config and the optimizer state, use
        `keras.saving.save_model(model, path)`. Import `nsl` before loading it.

        Args:
          filepath: The path of the file, as in `keras.Model.save`.
          *args: Further arguments of `keras.Model.save`.
          **kwargs: Further arguments of `keras.Model.save`.
        """
        self._core.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the weights in the base model's format, which both can load.

        Args:
          filepath: The path of the file, as in `keras.Model.save_weights`.
          *args: Further arguments of `keras.Model.save_weights`.
          **kwargs: Further arguments of `keras.Model.save_weights`.
        """
        self.base_model.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Loads weights that this model or its base model saved.

        Args:
          filepath: The path of the file, as in `keras.Model.load_weights`.
          *args: Further arguments of `keras.Model.load_weights`.
          **kwargs: Further arguments of `keras.Model.load_weights`.
        """
        self.base_model.load_weights(filepath, *args, **kwargs)
        self.built = self._core.built

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the base model for serving, as `keras.Model.export` does.

        Args:
          filepath: The path of the artifact, as in `keras.Model.export`.
          *args: Further arguments of `keras.Model.export`.
          **kwargs: Further arguments of `keras.Model.export`.

        Returns:
          The result of the base model's `export`.
        """
        return self._core.export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialized."""
        return {
            "name": self.name,
            "base_model": keras.saving.serialize_keras_object(self.base_model),
            **{
                name: serialization.to_dict(
                    getattr(self, name), keras.saving.serialize_keras_object
                )
                for name in config_attributes(type(self))
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], **kwargs: Any) -> Self:
        """Creates the wrapper from the result of `get_config`."""
        decode = functools.partial(keras.saving.deserialize_keras_object, **kwargs)
        arguments = {**config, "base_model": decode(config["base_model"])}
        for name, attribute in config_attributes(cls).items():
            arguments[name] = serialization.from_dict(
                attribute.kind, config[name], decode
            )
        return cls(**arguments)

    # --- Helpers

    def _prepare_terms(self) -> None:
        """Checks the terms, and creates their metrics and the epoch variable."""
        terms = self.terms()
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"'{self.base_model.name}' has the term '{names[-1]}' already. Wrap "
                "its base model instead, or change the config of the existing term."
            )
        if self._core.built:
            for term in terms:
                for name in (term.embedding_layer, *term.perturbed_layers):
                    if name:
                        find_layer(self._core, name)
        for name in names:
            if name not in self._term_metrics:
                metric = keras.metrics.Mean(name=f"scaled_{name}_loss")
                self._term_metrics[name] = metric
        if self._epoch is None and any(term.start_epoch for term in terms):
            self._epoch = tf.Variable(0, False, dtype=tf.int64)  # type: ignore[arg-type]

    def _prepared_arguments(
        self, method: Any, args: Any, kwargs: Any
    ) -> dict[str, Any]:
        """Returns the arguments of a method of `keras.Model` by name, preprocessed.

        If a config has changed, steps are compiled again.
        """
        terms = self.terms()
        configs = [snapshot(term.config) for term in terms]
        if configs != self._traced_configs:
            self._prepare_terms()
            self.train_function = self.test_function = None
            self._traced_configs = configs
        given = unpacked_arguments(method, args, kwargs, self.unpack)
        return self._preprocessed(method.__name__, given)

    def _preprocess(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Preprocesses a batch by the preprocessor of the base model."""
        base_model = self.base_model
        if isinstance(base_model, RegularizedModel):
            return base_model._preprocess(x, y, sample_weight)
        return base_model.preprocess_samples(x, y, sample_weight)

    def _preprocessed(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """Preprocesses the data among arguments if the base model has a preprocessor.

        Args:
          method: The name of a method of `keras.Model`.
          given: Its arguments by name.

        Returns:
          The arguments by name.
        """
        if not has_preprocessor(self._core):
            return given
        return preprocessed(self._preprocess, method, given)

    @property
    def _overrides_call(self) -> bool:
        return type(self).call is not RegularizedModel.call

    def _keras_step(self, step: Any, data: Any, y: Any, sample_weight: Any) -> Any:
        """Runs a step of `keras.Model`, in which `call` computes the terms' losses."""
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        token = _KERAS_STEP.set(
            _KerasStep(self, y, sample_weight, _current_graph(), [])
        )
        try:
            return step((x, y, sample_weight))
        finally:
            _KERAS_STEP.reset(token)

    def _terms_before_compile(
        self, terms: list[Term], training: bool | None
    ) -> list[Term]:
        """Lists the terms that a call can compute before `compile`."""
        lacking = [term.name for term in terms if term.needs_loss]
        if lacking and training:
            raise ValueError(
                f"{self.name} was called with training=True, but its {lacking[0]} term "
                "depends on the compiled loss, and the model is not compiled. Call "
                "compile(optimizer, loss) first, or call with training=False to leave "
                "the term out."
            )
        return [term for term in terms if not term.needs_loss]

    def _losses_of_call(
        self, terms: list[Term], clean: CleanPass, keywords: dict[str, Any]
    ) -> list[tf.Tensor]:
        """Runs the clean pass and computes the losses of terms, for a custom loop."""
        if clean.neighbors and "mask" in keywords:
            raise ValueError(
                "A mask was passed with a batch that holds neighbors, which have masks "
                "of their own. Let a layer of the base model make the masks (Masking, "
                "or Embedding with mask_zero=True), or call with training=False."
            )
        passes = self._passes(terms, keywords)
        if clean.training:
            for term in terms:
                term.check_plain_update("a call outside of train_step")
            if any(term.replaces_labeled_loss for term in terms):
                passes.save_states(clean)
            for term in terms:
                clean.x, clean.perturbations = term.samples(passes, clean)
        step = Step(terms, passes, clean)
        step.run_samples(attacked=any(term.needs_input_gradient for term in terms))
        with keras_internals.losses_kept(self._core):
            step.add_terms()
        self._track_terms(step, clean)
        return step.losses

    def _passes(
        self, terms: list[Term], keywords: dict[str, Any] | None = None
    ) -> Passes:
        return Passes(
            self,
            self._core,
            layers={term.embedding_layer for term in terms if term.embedding_layer},
            perturbed=[name for term in terms for name in term.perturbed_layers],
            perturbs_features=any(
                term.perturbs_features
                or (term.needs_input_gradient and not term.perturbed_layers)
                for term in terms
            ),
            keywords=keywords,
        )

    def _without_neighbors(
        self, terms: list[Term], x: Any, y: Any, sample_weight: Any, training: bool
    ) -> CleanPass:
        """Separates the samples of a batch from the neighbors that terms take."""
        neighbors = {}
        for term in terms:
            x, taken = term.take_neighbors(x, input_names(self._core))
            if taken is not None:
                neighbors[term.name] = taken
        return CleanPass(self.strip(x), y, sample_weight, training, neighbors=neighbors)

    def _active_terms(self, training: bool) -> list[Term]:
        """Lists the terms that take part in a step, with their schedules resolved."""
        epoch, step = self._epoch if training else None, self._step()
        return [
            term.at(step, epoch)
            for term in self.terms()
            if (training or term.in_evaluation)
            and (callable(term.multiplier) or term.multiplier)
        ]

    def _step(self) -> Any:
        optimizer = getattr(self, "optimizer", None)
        return 0 if optimizer is None else optimizer.iterations

    def _mark_built(self, x: Any) -> None:
        self.built = True
        keras_internals.note_input_shape(self, x)

    def _track_losses(self, step: Step, clean: CleanPass) -> None:
        """Updates the metric 'loss' and the metrics of terms."""
        parts = [tf.reduce_mean(of_global_batch(loss)) for loss in step.losses]
        keras_internals.track_loss(self, tf.add_n(parts), batch_size(clean.x))
        self._track_terms(step, clean)

    def _track_terms(self, step: Step, clean: CleanPass) -> None:
        for name, loss in step.term_losses.items():
            self._term_metrics[name].update_state(
                of_global_batch(loss), sample_weight=batch_size(clean.x)
            )

    def _without_training_terms(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Drops the metrics of terms that are not part of evaluation."""
        dropped = {
            self._term_metrics[term.name].name
            for term in self.terms()
            if not term.in_evaluation
        }
        return {name: value for name, value in logs.items() if name not in dropped}

    def _expected_data(self) -> str:
        """Describes the accepted forms of data, for error messages."""
        return "x and y, or batches (x, y) or (x, y, sample_weight)"

    def _unpacked_tensors(self, data: Any) -> tuple[Any, Any, Any]:
        """Unpacks a batch into tensors, and checks that labels are there."""
        x, y, sample_weight = self.unpack(data)
        if y is None and self.loss is not None:
            raise ValueError(
                f"{self.name} needs labels to compute its loss: expected "
                f"{self._expected_data()}, but received no y and x = {describe(x)}."
            )
        return keras.tree.map_structure(to_tensor, (x, y, sample_weight))

    def _check_training(self, x: Any, sample_weight: Any) -> None:
        """Checks what only training batches must hold."""
        if isinstance(self.base_model, RegularizedModel):
            self.base_model._check_training(x, sample_weight)

    def batch_to_build(self, data: Any) -> Any:
        """Returns a batch in the form from which Keras builds a distributed model."""
        x, y, sample_weight = self.unpack(data)
        return self.strip(x), y, sample_weight


class _KerasStep(NamedTuple):
    """The running step of `keras.Model`, and the parts of its batch `call` lacks.

    `call` puts the losses of terms into `losses`, and `compute_loss` adds them. Those
    of `add_loss` are the same list for all replicas of a strategy, and Keras divides
    them by the number of replicas.
    """

    wrapper: RegularizedModel
    y: Any
    sample_weight: Any
    graph: tf.Graph | None
    losses: list[tf.Tensor]


# A context variable, as the replicas of a strategy run in threads.
_KERAS_STEP: contextvars.ContextVar[_KerasStep | None] = contextvars.ContextVar(
    "keras_step", default=None
)


def _current_graph() -> tf.Graph | None:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _copy_metrics(metrics: Any) -> Any:
    """Copies metrics through their configs; None if a metric cannot be copied."""

    def copied(metric: Any) -> Any:
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    try:
        return keras.tree.map_structure(copied, metrics)
    except Exception:
        return None
