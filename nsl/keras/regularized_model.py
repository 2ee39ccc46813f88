"""The base class of the wrappers: a Keras model whose loss has further terms."""

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
    warn_of_unused_overrides,
)
from nsl.keras.batches import (
    as_tuples,
    batch_size,
    describe,
    named_arguments,
    to_tensor,
    where_keras_looks,
)
from nsl.keras.config_attribute import config_attributes
from nsl.keras.passes import CleanPass, Passes, run_base
from nsl.keras.preprocessing import (
    has_preprocessor,
    preprocessed,
)
from nsl.keras.replicas import of_global_batch
from nsl.keras.schedules import EpochCounter, snapshot
from nsl.keras.step_losses import StepLosses, summed_gradients
from nsl.keras.terms.term import Term
from nsl.keras.weight_perturbation import perturbed_weights
from nsl.lib import keras_internals
from nsl.lib.layer_outputs import find_layer


class RegularizedModel(keras_internals.StrategyHooks, keras.Model):
    """A Keras model whose loss is a base model's loss plus regularization terms.

    It owns no weights but the base model's, and predicts, saves and serves as that
    does. Loss, metrics and sample weights are handled by Keras as for any model; this
    class adds the terms. Wrapping a `RegularizedModel` adds to its terms.

    A batch goes through a training step as follows: `unpack` splits it into features,
    labels and weights, terms take their neighbors out of the features, one pass runs
    the samples, terms run their neighbors and compute their losses, and the optimizer
    applies the gradients of all losses.

    Where a batch with neighbors (labels) is called outside of a step, as in a custom
    loop, the losses of the terms are in `losses` until the next call, as in NSL 1.4;
    with labels inside of the batch the labeled loss is the first of them. That is left
    out with `training=False`. A subclass may override `call`: `fit` then runs it.

    Args:
      base_model: The model to train, a sequential, functional or subclassed
        `keras.Model`, or another wrapper.
      terms: The terms that are added to the labeled loss. A subclass that makes its
        term from a config overrides `own_terms` instead, and calls `_prepare_terms`
        once it has the config.
      **kwargs: Arguments of `keras.Model`, as `name`.

    Raises:
      TypeError: If `base_model` is no Keras model.
      ValueError: If it has a term of the same name already.
    """

    def __init__(
        self, base_model: keras.Model, terms: Sequence[Term] = (), **kwargs: Any
    ) -> None:
        check_base_model(base_model)
        kwargs.setdefault("dtype", base_model.dtype_policy)
        # The base model casts its inputs itself. Cast here, labels would suffer too.
        super().__init__(autocast=False, **kwargs)
        self.base_model = base_model
        self._core: keras.Model = getattr(base_model, "_core", base_model)
        if self._core is base_model:
            warn_of_unused_overrides(base_model)
        self.built = base_model.built
        self._terms = tuple(terms)
        self._term_metrics: dict[str, keras.metrics.Mean] = {}
        self._epoch: tf.Variable | None = None
        self._traced_configs: list[Any] | None = None
        if terms:
            self._prepare_terms()

    def own_terms(self) -> Sequence[Term]:
        """Returns the terms that this wrapper adds to those of its base model."""
        return self._terms

    def terms(self) -> list[Term]:
        """Returns all terms, those of wrapped wrappers first."""
        inner = self.base_model
        of_inner = inner.terms() if isinstance(inner, RegularizedModel) else []
        return [*of_inner, *self.own_terms()]

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch into features, labels and weights of its samples.

        Args:
          data: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

        Returns:
          `(x, y, sample_weight)`, where y and sample_weight may be None.
        """
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model.unpack(data)
        return keras.utils.unpack_x_y_sample_weight(data)

    def strip(self, x: Any) -> Any:
        """Removes what only training uses from features, as those of neighbors.

        Args:
          x: Features as `predict` and `evaluate` receive them.

        Returns:
          The features of the samples themselves.
        """
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model.strip(x)
        return x

    # --- what Keras calls

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; takes the arguments of `keras.Model.fit`."""
        arguments = self._arguments(super().fit, args, kwargs)
        if self._epoch is not None:
            counter = EpochCounter(self._epoch)
            arguments["callbacks"] = counter.among(arguments.get("callbacks"))
        try:
            return super().fit(**arguments)
        except Exception:
            # TensorFlow would not let a step that failed as it was compiled make the
            # optimizer's variables, once the data is right.
            self.train_function = None
            raise

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model; takes the arguments of `keras.Model.evaluate`."""
        return super().evaluate(**self._arguments(super().evaluate, args, kwargs))

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch; takes the arguments of `keras.Model.train_on_batch`."""
        arguments = self._arguments(super().train_on_batch, args, kwargs)
        return super().train_on_batch(**arguments)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch; takes the arguments of `keras.Model.test_on_batch`."""
        arguments = self._arguments(super().test_on_batch, args, kwargs)
        return super().test_on_batch(**arguments)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts; takes the arguments of `keras.Model.predict`."""
        arguments = named_arguments(super().predict, args, kwargs)
        arguments["x"] = as_tuples(arguments["x"])
        return super().predict(**self._preprocessed("predict", arguments))

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts one batch, as `keras.Model.predict_on_batch` does."""
        return super().predict_on_batch(
            **self._preprocessed("predict_on_batch", {"x": x})
        )

    # TensorFlow would rewrite all that a step calls in a custom loop, seconds of work,
    # for branches and loops over tensors that are not there.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass, the terms' own passes and one optimizer update."""
        x, y, sample_weight = self._tensors(data)
        self._check_training(x, sample_weight)
        if self._overrides_call:
            return self._step_of_keras(super().train_step, data, y, sample_weight)
        terms = self._terms_at_step(training=True)
        passes = self._passes(terms)
        clean = self._samples(terms, x, y, sample_weight, training=True)
        if any(t.needs_input_gradient or t.replaces_labeled_loss for t in terms):
            passes.check_loss()
        if any(term.replaces_labeled_loss for term in terms):
            passes.begin(clean)
        logs = {}
        for update in range(max((term.updates for term in terms), default=1)):
            if update:
                passes.begin_again(clean)
            for term in terms:
                clean.x, clean.moves = term.samples(passes, clean)
            logs = self._update(terms, passes, clean)
        return logs

    def _update(
        self, terms: list[Term], passes: Passes, clean: CleanPass
    ) -> dict[str, Any]:
        """Runs the passes of one update of the weights, and the update."""
        losses = StepLosses()
        gradients = self._gradients(terms, passes, clean, losses)
        weights = self.trainable_weights
        self._track_losses(losses, clean)
        factors = [term.weight_perturbation for term in terms if term.perturbs_weights]
        if weights and factors:
            again = dataclasses.replace(clean)
            with perturbed_weights(weights, gradients, sum(factors)) as perturbed:
                gradients = self._gradients(
                    terms, passes, again, StepLosses(losses.prepared), perturbed
                )
        if weights:
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "The model does not have any trainable weights.", stacklevel=2
            )
        return self.compute_metrics(
            clean.x, clean.y, clean.y_pred, sample_weight=clean.sample_weight
        )

    def _gradients(
        self,
        terms: list[Term],
        passes: Passes,
        clean: CleanPass,
        losses: StepLosses,
        perturbed: list[tf.Tensor] | None = None,
    ) -> list[Any]:
        """Runs the samples and the terms, and differentiates the sum of all losses.

        Args:
          terms: The terms.
          passes: Runs the base model.
          clean: The samples, which gets what the pass over them gives.
          losses: Gets the losses.
          perturbed: What stands in the place of the trainable weights, if anything.

        Returns:
          The gradients, scaled as the optimizer wants them.
        """
        # At perturbed weights the neighbors stay where they are.
        climbed = not perturbed and any(t.needs_input_gradient for t in terms)
        # The samples' own loss comes first, which terms climb.
        terms = sorted(terms, key=lambda term: not term.replaces_samples)
        first = [t for t in terms if t.replaces_samples or not t.needs_input_gradient]
        late = [term for term in terms if term not in first]
        with tf.GradientTape(persistent=climbed) as tape:
            tape.watch(perturbed or [])
            passes.run_samples(clean, tape if climbed else None)
            self._note_built(clean.x)
            own = self._own_losses()
            if not any(term.replaces_labeled_loss for term in terms):
                losses.all.append(clean.labeled_loss)
            for term in first:
                losses.add(term, passes, clean, tape)
            losses.all += own
            targets = [passes.scaled(loss) for loss in losses.all]
        weights = perturbed or self.trainable_weights
        if climbed:
            # One backward pass gives the gradient of the weights and of the input.
            # The losses besides the labeled one must not bend the attack.
            gradients, of_sources = tape.gradient(
                targets[0], (weights, passes.sources(clean))
            )
            passes.note_gradients(clean, of_sources)
            if targets[1:]:
                gradients = summed_gradients(
                    gradients, tape.gradient(targets[1:], weights)
                )
        else:
            gradients = tape.gradient(targets, weights)
        del tape
        for term in late:
            with tf.GradientTape() as tape:
                tape.watch(perturbed or [])
                loss = losses.add(term, passes, clean, tape)
                target = passes.scaled(loss)
            gradients = summed_gradients(gradients, tape.gradient(target, weights))
        return gradients

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass and the passes of terms that count in evaluation."""
        x, y, sample_weight = self._tensors(data)
        if self._overrides_call:
            logs = self._step_of_keras(super().test_step, data, y, sample_weight)
            return self._without_idle_terms(logs)
        terms = self._terms_at_step(training=False)
        passes = self._passes(terms)
        clean = CleanPass(self.strip(x), y, sample_weight, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            passes.run_samples(clean, tape if terms else None)
            self._note_built(clean.x)
            losses = StepLosses()
            losses.all += [clean.labeled_loss, *self._own_losses()]
            if any(term.replaces_labeled_loss for term in terms):
                # What a base model adds to a loss that it computes itself remains.
                losses.all[0] -= passes.labeled_loss(clean.x, clean.y_pred, clean)
            target = passes.scaled(clean.labeled_loss)
        if terms:
            of_sources = tape.gradient(target, passes.sources(clean))
            passes.note_gradients(clean, of_sources)
        for term in terms:
            losses.add(term, passes, clean)
        self._track_losses(losses, clean)
        logs = self.compute_metrics(
            clean.x, y, clean.y_pred, sample_weight=sample_weight
        )
        return self._without_idle_terms(logs)

    def call(self, inputs: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Runs the base model; labels and neighbor features are not needed.

        Args:
          inputs: Features, with neighbors and labels or without.
          training: Whether layers such as Dropout run in training mode. Unless it is
            False, losses of terms whose neighbors or labels are there are added.
          **kwargs: Further arguments of the base model's `call`, such as `mask`. The
            passes of terms get the same.

        Returns:
          The outputs of the base model.

        Raises:
          TypeError: If the base model's `call` takes no such argument.
          ValueError: If a `mask` comes with samples whose neighbors are to be run.
        """
        keywords = keras_internals.keywords_received(kwargs)
        if keywords:
            keywords = checked_keywords(self._core, keywords)
        samples = self.strip(inputs)
        step = _STEP.get()
        in_step = step is not None and step.wrapper is self
        symbolic = any(map(keras.backend.is_keras_tensor, tf.nest.flatten(inputs)))
        if symbolic or (training is False and not in_step) or not self.compiled:
            return run_base(self._core, samples, training, **keywords)
        x, y, sample_weight = self.unpack(inputs)
        inside = y is not None
        plain = not inside and len(tf.nest.flatten(samples)) == len(
            tf.nest.flatten(inputs)
        )
        if training is None and plain and not in_step:
            return run_base(self._core, samples, training, **keywords)
        if step is not None and in_step:
            y, sample_weight = step.y, step.sample_weight
        x, y, sample_weight = keras.tree.map_structure(to_tensor, (x, y, sample_weight))
        terms = self._terms_at_step(training=training is not False)
        terms = [term for term in terms if term.applies(x, y)]
        if not terms:
            return run_base(self._core, samples, training, **keywords)
        clean = self._samples(terms, x, y, sample_weight, bool(training))
        losses = self._regularized(terms, clean, keywords)
        if inside and not in_step and not terms[-1].replaces_labeled_loss:
            losses = [clean.labeled_loss, *losses]
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
        """Computes the loss of one pass as the base model computes it."""
        if computes_loss(self._core):
            return keras_internals.compiled_loss(
                self._core, x, y, y_pred, sample_weight, training
            )
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training; takes the arguments of `keras.Model.compile`.

        The base model is compiled alike, with the same optimizer and with metrics of
        its own, so that it can be evaluated and trained by itself. Metrics that cannot
        be made anew from their config are the wrapper's alone.
        """
        super().compile(*args, **kwargs)
        given = named_arguments(super().compile, args, kwargs)
        given |= {"optimizer": self.optimizer}
        for name in ("metrics", "weighted_metrics"):
            if given.get(name) is not None:
                given[name] = _copied_metrics(given[name])
        self.base_model.compile(**given)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, those that the base model updates itself included."""
        # Keras passes over the metrics of models inside of a model.
        return [*super().metrics, *keras_internals.own_metrics(self._core)]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, where the base model knows them."""
        return self._core.output_names

    # --- saving and serving, which are the base model's

    @keras_internals.default_build
    def build(self, input_shape: Any) -> None:
        """Makes the weights of the base model, as its own `build` does."""
        if not self._core.built:
            self._core.build(input_shape)
        self.built = self._core.built

    def get_build_config(self) -> dict[str, Any]:
        """Returns what `build_from_config` needs, which is the base model's."""
        return self._core.get_build_config() or {}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Restores the built state, which is that of the base model."""
        if config and not self._core.built:
            self._core.build_from_config(config)
        self.built = self._core.built

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the base model, so that serving needs no nsl.

        `keras.saving.save_model(model, path)` saves the whole wrapper instead; where
        that is loaded, `nsl` must have been imported.

        Args:
          filepath: Where to, as in `keras.Model.save`.
          *args: Further arguments of `keras.Model.save`.
          **kwargs: Further arguments of `keras.Model.save`.
        """
        self._core.save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the weights as the base model does, which can load the file too.

        Args:
          filepath: Where to, as in `keras.Model.save_weights`.
          *args: Further arguments of `keras.Model.save_weights`.
          **kwargs: Further arguments of `keras.Model.save_weights`.
        """
        self.base_model.save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Loads weights that this model, or the base model, has saved.

        Args:
          filepath: A file, as in `keras.Model.load_weights`.
          *args: Further arguments of `keras.Model.load_weights`.
          **kwargs: Further arguments of `keras.Model.load_weights`.
        """
        self.base_model.load_weights(filepath, *args, **kwargs)
        self.built = self._core.built

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the base model for serving, as `keras.Model.export` does.

        Args:
          filepath: Where to.
          *args: Further arguments of `keras.Model.export`.
          **kwargs: Further arguments of `keras.Model.export`.

        Returns:
          What the export of the base model returns.
        """
        return self._core.export(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs, the base model and configs included."""
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
        """Makes the wrapper from what `get_config` returned."""
        decode = functools.partial(keras.saving.deserialize_keras_object, **kwargs)
        arguments = {**config, "base_model": decode(config["base_model"])}
        for name, attribute in config_attributes(cls).items():
            arguments[name] = serialization.from_dict(
                attribute.kind, config[name], decode
            )
        return cls(**arguments)

    # --- helpers

    def _prepare_terms(self) -> None:
        """Checks the terms and makes what they need: metrics, and the epoch."""
        terms = self.terms()
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"'{self.base_model.name}' is regularized by the term '{names[-1]}' "
                "already. Wrap its base model instead, or change its config."
            )
        if self._core.built:
            for term in terms:
                for name in filter(
                    None, (term.embedding_layer, *term.perturbed_layers)
                ):
                    find_layer(self._core, name)
        for name in names:
            if name not in self._term_metrics:
                metric = keras.metrics.Mean(name=f"scaled_{name}_loss")
                self._term_metrics[name] = metric
        if self._epoch is None and any(term.start_epoch for term in terms):
            self._epoch = tf.Variable(0, False, dtype=tf.int64)

    def _arguments(self, method: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        """Follows configs that have changed, and names and preprocesses arguments."""
        terms = self.terms()
        configs = [snapshot(term.config) for term in terms]
        if configs != self._traced_configs:
            self._prepare_terms()
            self.train_function = self.test_function = None
            self._traced_configs = configs
        given = where_keras_looks(method, args, kwargs, self.unpack)
        return self._preprocessed(method.__name__, given)

    def _preprocess(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Preprocesses a batch as a base model with a preprocessor does."""
        inner = self.base_model
        if isinstance(inner, RegularizedModel):
            return inner._preprocess(x, y, sample_weight)
        return inner.preprocess_samples(x, y, sample_weight)

    def _preprocessed(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """Preprocesses the data of a method if the base model does so."""
        if not has_preprocessor(self._core):
            return given
        return preprocessed(self._preprocess, method, given)

    @property
    def _overrides_call(self) -> bool:
        return type(self).call is not RegularizedModel.call

    def _step_of_keras(self, step: Any, data: Any, y: Any, sample_weight: Any) -> Any:
        """Runs a step of Keras, in which `call` adds the losses of terms."""
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        token = _STEP.set(_Step(self, y, sample_weight))
        try:
            return step((x, y, sample_weight))
        finally:
            _STEP.reset(token)

    def _regularized(
        self, terms: list[Term], clean: CleanPass, keywords: dict[str, Any]
    ) -> list[tf.Tensor]:
        """Runs the samples and computes the losses of terms, for the caller's tape."""
        if clean.neighbors and "mask" in keywords:
            raise ValueError(
                "A mask was passed with a batch that holds neighbors, which have masks "
                "of their own. Let a layer of the base model make them (Masking, or "
                "Embedding with mask_zero=True), or call with training=False."
            )
        if clean.training:
            for term in terms:
                _refuse_updates(term)
        passes = self._passes(terms, keywords)
        if clean.training:
            if any(term.replaces_labeled_loss for term in terms):
                passes.begin(clean)
            for term in terms:
                clean.x, clean.moves = term.samples(passes, clean)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            passes.run_samples(clean, tape)
            target = None if clean.y is None else passes.scaled(clean.labeled_loss)
        if any(term.needs_input_gradient for term in terms):
            of_sources = tape.gradient(target, passes.sources(clean))
            passes.note_gradients(clean, of_sources)
        losses = StepLosses()
        with keras_internals.losses_kept(self._core):
            for term in terms:
                losses.add(term, passes, clean)
        self._track_terms(losses, clean)
        return losses.all

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

    def _samples(
        self, terms: list[Term], x: Any, y: Any, sample_weight: Any, training: bool
    ) -> CleanPass:
        """Takes the neighbors of terms out of the features."""
        neighbors = {}
        for term in terms:
            x, taken = term.take_neighbors(x, input_names(self._core))
            if taken is not None:
                neighbors[term.name] = taken
        return CleanPass(self.strip(x), y, sample_weight, training, neighbors=neighbors)

    def _terms_at_step(self, training: bool) -> list[Term]:
        """Lists the terms that take part, with the settings that they have now."""
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

    def _note_built(self, x: Any) -> None:
        self.built = True
        keras_internals.note_input_shape(self, x)

    def _own_losses(self) -> list[tf.Tensor]:
        """Returns the base model's own losses, of the pass just done."""
        if computes_loss(self._core):
            return []
        floats = [
            loss if loss.dtype.is_floating else tf.cast(loss, keras.config.floatx())
            for loss in map(tf.convert_to_tensor, self.losses)
        ]
        return [tf.reduce_sum(loss) for loss in floats]

    def _track_losses(self, losses: StepLosses, clean: CleanPass) -> None:
        parts = [tf.reduce_mean(of_global_batch(loss)) for loss in losses.all]
        keras_internals.track_loss(self, tf.add_n(parts), batch_size(clean.x))
        self._track_terms(losses, clean)

    def _track_terms(self, losses: StepLosses, clean: CleanPass) -> None:
        for name, loss in losses.of_terms.items():
            self._term_metrics[name].update_state(
                of_global_batch(loss), sample_weight=batch_size(clean.x)
            )

    def _without_idle_terms(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Drops the metrics of terms that do not count in evaluation."""
        idle = {term.name for term in self.terms() if not term.in_evaluation}
        idle_metrics = {self._term_metrics[name].name for name in idle}
        return {name: v for name, v in logs.items() if name not in idle_metrics}

    def _expected_data(self) -> str:
        """Names, for an error, the forms in which a batch may come."""
        return "x and y, or batches (x, y) or (x, y, sample_weight)"

    def _tensors(self, data: Any) -> tuple[Any, Any, Any]:
        """Unpacks a batch and makes sure of tensors and labels."""
        x, y, sample_weight = self.unpack(data)
        if y is None and self.loss is not None:
            raise ValueError(
                f"{self.name} needs labels to compute its loss: expected "
                f"{self._expected_data()}, but received no y and x = {describe(x)}."
            )
        return keras.tree.map_structure(to_tensor, (x, y, sample_weight))

    def _check_training(self, x: Any, sample_weight: Any) -> None:
        """Checks what only a training batch must hold."""
        if isinstance(self.base_model, RegularizedModel):
            self.base_model._check_training(x, sample_weight)

    def batch_to_build(self, data: Any) -> Any:
        """Returns a batch as Keras has to unpack it under a strategy."""
        x, y, sample_weight = self.unpack(data)
        return self.strip(x), y, sample_weight


class _Step(NamedTuple):
    """The step of Keras that runs: what `call` cannot see of the batch."""

    wrapper: RegularizedModel
    y: Any
    sample_weight: Any


# Replicas run in threads that take turns, so that an attribute would not do.
_STEP: contextvars.ContextVar[_Step | None] = contextvars.ContextVar(
    "step", default=None
)


def _refuse_updates(term: Term) -> None:
    """Raises ValueError if a term trains as only a step of `fit` does."""
    if term.updates > 1 or term.perturbs_weights:
        setting = "weight_perturbation" if term.perturbs_weights else "mode='free'"
        raise ValueError(
            f"The {term.name} term has {setting}, which updates the weights in a way "
            "of its own, but the model was called in training mode outside of its "
            "train_step, as by a custom loop or an overridden `call`. Train with fit "
            "or train_on_batch, or leave the setting out."
        )


def _copied_metrics(metrics: Any) -> Any:
    """Copies metrics, whose state belongs to one model; None if they do not let us."""

    def copied(metric: Any) -> Any:
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    try:
        return keras.tree.map_structure(copied, metrics)
    except Exception:
        return None
