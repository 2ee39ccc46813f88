"""The base class of the wrappers: one train step for every regularization term."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from nsl.keras.base_model import (
    check_base_model,
    input_names,
    to_base_inputs,
    warn_of_unused_overrides,
)
from nsl.keras.batch import are_dense, batch_size, describe, perturbable, to_tensor
from nsl.keras.data_forms import DataForms
from nsl.keras.gradients import add_gradients
from nsl.keras.own_losses import own_losses_hidden
from nsl.keras.recurrent_state import RecurrentState
from nsl.keras.shared_pass import has_fixed_batch_size, may_share_pass
from nsl.keras.terms.term import CleanPass, Neighbors, Term
from nsl.lib.features import is_perturbable


class RegularizedModel(DataForms):
    """A Keras model whose loss is a base model's loss plus regularization terms.

    It owns no weights but the base model's. Loss, metrics and sample weights are
    handled by Keras as for any model; this class adds the terms. Wrapping a
    `RegularizedModel` adds to its terms.

    Args:
      base_model: The model to train, a sequential, functional or subclassed
        `keras.Model`.
      terms: The terms that are added to the labeled loss.
      **kwargs: Arguments of `keras.Model`, as `name`.
    """

    def __init__(
        self, base_model: keras.Model, terms: Sequence[Term], **kwargs: Any
    ) -> None:
        check_base_model(base_model)
        kwargs.setdefault("dtype", base_model.dtype_policy)
        # The base model casts its inputs itself. Cast here, labels would suffer too.
        super().__init__(autocast=False, **kwargs)
        self.base_model = base_model
        wrapped = isinstance(base_model, RegularizedModel)
        if not wrapped:
            warn_of_unused_overrides(base_model)
        self._core = base_model._core if wrapped else base_model
        self._terms = (*(base_model._terms if wrapped else ()), *terms)
        names = [term.name for term in self._terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"'{base_model.name}' is regularized by the term '{terms[0].name}' "
                "already. Wrap its base model instead, or change its config."
            )
        self._term_metrics = {
            term.name: keras.metrics.Mean(name=f"scaled_{term.name}_loss")
            for term in self._terms
        }
        self.built = base_model.built

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch into features, labels and weights of its samples."""
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model.unpack(data)
        return super().unpack(data)

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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the base model; labels and neighbor features are not needed."""
        return self.run_base(self.strip(inputs), training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass, the terms' own passes and one optimizer update."""
        x, y, sample_weight = self._tensors(data)
        self._check_training(x, sample_weight)
        terms = [term for term in self._terms if term.multiplier]
        neighbors = {}
        for term in terms:
            x, taken = term.take_neighbors(x, input_names(self._core))
            if taken is not None:
                neighbors[term.name] = taken
        early = [term for term in terms if not term.needs_input_gradient]
        late = [term for term in terms if term.needs_input_gradient]

        with tf.GradientTape(persistent=bool(late)) as tape:
            if late:
                tape.watch(perturbable(x))
            clean = self._clean_pass(x, y, sample_weight, neighbors, training=True)
            losses = [clean.labeled_loss, *self._own_losses()]
            losses += [self._term_loss(term, clean, tape) for term in early]
            targets = [self._scale(loss) for loss in losses]
        weights = self.trainable_weights
        if late:
            # One backward pass gives the gradient of the weights and of the input.
            # The losses besides the labeled one must not bend the attack.
            gradients, input_gradient = tape.gradient(
                targets[0], (weights, perturbable(x))
            )
            clean.input_gradient = self._unscale(x, input_gradient)
            if targets[1:]:
                gradients = add_gradients(
                    gradients, tape.gradient(targets[1:], weights)
                )
        else:
            gradients = tape.gradient(targets, weights)
        del tape
        for term in late:
            with tf.GradientTape() as tape:
                losses.append(self._term_loss(term, clean, tape))
                target = self._scale(losses[-1])
            gradients = add_gradients(gradients, tape.gradient(target, weights))

        self._track_loss(losses, x)
        if weights:
            self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "The model does not have any trainable weights.", stacklevel=2
            )
        return self.compute_metrics(x, y, clean.y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass and the passes of terms that count in evaluation."""
        x, y, sample_weight = self._tensors(data)
        x = self.strip(x)
        terms = [term for term in self._terms if term.multiplier and term.in_evaluation]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if terms:
                tape.watch(perturbable(x))
            clean = self._clean_pass(x, y, sample_weight, {}, training=False)
            losses = [clean.labeled_loss, *self._own_losses()]
            target = self._scale(clean.labeled_loss)
        if terms:
            input_gradient = tape.gradient(target, perturbable(x))
            clean.input_gradient = self._unscale(x, input_gradient)
        losses += [self._term_loss(term, clean) for term in terms]
        self._track_loss(losses, x)
        logs = self.compute_metrics(x, y, clean.y_pred, sample_weight=sample_weight)
        for term in self._terms:
            if not term.in_evaluation:
                logs.pop(self._term_metrics[term.name].name, None)
        return logs

    def run_base(self, x: Any, training: bool | None) -> Any:
        """Runs the base model on features in the structure the user chose.

        Args:
          x: Features of a batch.
          training: Whether layers such as Dropout run in training mode.

        Returns:
          The outputs of the base model.
        """
        inputs = to_base_inputs(self._core, x, self._keys_beside_features())
        if self._core._call_has_training_arg:
            return self._core(inputs, training=training)
        return self._core(inputs)

    def run_neighbors(self, neighbors: list[Any], clean: CleanPass) -> list[Any]:
        """Runs the base model on neighbors of the samples of the clean pass.

        Stateful recurrent layers begin where the clean pass began, and the next batch
        goes on where the clean pass ended.

        Args:
          neighbors: Features of neighbors, one structure like `clean.x` for each
            neighbor of the samples.
          clean: The clean pass, which also tells whether this is training.

        Returns:
          The outputs of the base model for each neighbor.
        """
        if has_fixed_batch_size(self._core) or not are_dense(neighbors):
            batches = [[neighbor] for neighbor in neighbors]
        else:
            batches = [neighbors]
        outputs = []
        for batch in batches:
            if clean.training:
                state = clean.recurrent_state.restored()
            else:
                # Evaluation must not even draw a random number more than plain Keras.
                before = clean.recurrent_state.before()
                state = keras.StatelessScope(state_mapping=before)
            with state:
                outputs += self._run_joined(batch, clean.training)
        return outputs

    def input_gradient(self, x: Any, clean: CleanPass) -> Any:
        """Differentiates the labeled loss with respect to features.

        The pass runs with `training=False`, changes no state and is seen by no tape
        but its own.

        Args:
          x: Features, as `clean.x`, at which the gradient is taken.
          clean: The clean pass, for labels and sample weights.

        Returns:
          The gradients in the structure of `x`, in float32 or float64; None for a
          feature that has none.
        """
        state = clean.recurrent_state.before()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbable(x))
            with keras.StatelessScope(state_mapping=state):
                y_pred = self.run_base(x, training=False)
            loss = self.labeled_loss(x, clean.y, y_pred, clean.sample_weight, False)
            target = self._scale(loss)
        return self._unscale(x, tape.gradient(target, perturbable(x)))

    def labeled_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
    ) -> tf.Tensor:
        """Computes the compiled loss without the base model's own losses.

        Args:
          x: Features.
          y: Labels.
          y_pred: Outputs of the base model at `x`.
          sample_weight: Weights of the samples, or None.
          training: Whether this is a training step.

        Returns:
          The loss, reduced as compiled.
        """
        # Whatever the loss writes down, as the loss of each output, it has written
        # down for the clean pass.
        with own_losses_hidden(self, self._core), keras.StatelessScope():
            return self._compute_loss(
                x=x,
                y=y,
                y_pred=y_pred,
                sample_weight=sample_weight,
                training=training,
            )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes the loss of one pass as the base model computes it."""
        if self._base_computes_loss():
            return self._core._compute_loss(x, y, y_pred, sample_weight, training)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training; takes the arguments of `keras.Model.compile`."""
        super().compile(*args, **kwargs)
        if self._base_computes_loss():
            settings = inspect.signature(super().compile).bind(*args, **kwargs)
            self._core.compile(
                optimizer=self.optimizer,
                loss=settings.arguments.get("loss"),
                loss_weights=settings.arguments.get("loss_weights"),
            )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All metrics, those that the base model updates itself included."""
        # Keras passes over the metrics of models inside of a model.
        return [*super().metrics, *self._core._metrics]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, where the base model knows them."""
        return self._core.output_names

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Restores the built state, which is that of the base model."""
        del config
        self.built = self.base_model.built

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the base model, so that serving needs no nsl.

        `keras.saving.save_model(model, path)` saves the whole wrapper instead; where
        that is loaded, `nsl.keras` must have been imported.

        Args:
          filepath: Where to, as in `keras.Model.save`.
          *args: Further arguments of `keras.Model.save`.
          **kwargs: Further arguments of `keras.Model.save`.
        """
        self._core.save(filepath, *args, **kwargs)

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
        """Returns what `from_config` needs, the base model included."""
        return {
            "name": self.name,
            "base_model": keras.saving.serialize_keras_object(self.base_model),
        }

    def _keys_beside_features(self) -> tuple[str, ...]:
        """Keys of a dict of features that are no feature unless an input's name."""
        if isinstance(self.base_model, RegularizedModel):
            return self.base_model._keys_beside_features()
        return ()

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

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras unpacks the batch here by itself, under a distribution strategy.
        if data_batch is not None:
            x, y, sample_weight = self.unpack(data_batch)
            data_batch = (self.strip(x), y, sample_weight)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def _clean_pass(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        neighbors: dict[str, Neighbors],
        training: bool,
    ) -> CleanPass:
        state = RecurrentState(self._core)
        y_pred, neighbor_outputs = self._run_together(x, neighbors, training)
        self.built = True
        # A loss that the base model computes itself includes its own losses.
        with own_losses_hidden(*([] if self._base_computes_loss() else [self])):
            labeled_loss = self._compute_loss(
                x=x,
                y=y,
                y_pred=y_pred,
                sample_weight=sample_weight,
                training=training,
            )
        return CleanPass(
            x=x,
            y=y,
            sample_weight=sample_weight,
            y_pred=y_pred,
            labeled_loss=labeled_loss,
            training=training,
            neighbors=neighbors,
            neighbor_outputs=neighbor_outputs,
            recurrent_state=state,
        )

    def _run_together(
        self, x: Any, neighbors: dict[str, Neighbors], training: bool
    ) -> tuple[Any, dict[str, list[Any]]]:
        """Runs the samples, and their neighbors with them where nothing changes."""
        batches = [x]
        for taken in neighbors.values():
            batches += taken.features
        if not are_dense(batches) or not may_share_pass(self._core):
            return self.run_base(x, training=training), {}
        y_pred, *rest = self._run_joined(batches, training)
        outputs = {}
        for name, taken in neighbors.items():
            count = len(taken.features)
            outputs[name], rest = rest[:count], rest[count:]
        return y_pred, outputs

    def _run_joined(self, batches: list[Any], training: bool) -> list[Any]:
        """Runs several batches as one and returns the outputs of each."""
        if len(batches) == 1:
            return [self.run_base(batches[0], training=training)]
        joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
        outputs = self.run_base(joined, training=training)
        sizes = [batch_size(batch) for batch in batches]
        parts = [tf.split(output, sizes) for output in tf.nest.flatten(outputs)]
        return [
            tf.nest.pack_sequence_as(outputs, part) for part in zip(*parts, strict=True)
        ]

    def _base_computes_loss(self) -> bool:
        return type(self._core).compute_loss is not keras.Model.compute_loss

    def _own_losses(self) -> list[tf.Tensor]:
        """The base model's own losses, of the pass just done."""
        if self._base_computes_loss():
            return []
        return [self._aggregate_additional_loss(loss) for loss in self.losses]

    def _term_loss(
        self, term: Term, clean: CleanPass, tape: tf.GradientTape | None = None
    ) -> tf.Tensor:
        with tape.stop_recording() if tape else contextlib.nullcontext():
            prepared = term.prepare(self, clean)
        loss = term.multiplier * term.loss(self, clean, prepared)
        self._term_metrics[term.name].update_state(
            _of_global_batch(loss), sample_weight=batch_size(clean.x)
        )
        return loss

    def _track_loss(self, losses: list[tf.Tensor], x: Any) -> None:
        total = tf.add_n([tf.reduce_mean(_of_global_batch(loss)) for loss in losses])
        self._loss_tracker.update_state(total, sample_weight=batch_size(x))

    def _scale(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales a loss so that half-precision gradients do not vanish."""
        return loss if self.optimizer is None else self.optimizer.scale_loss(loss)

    def _unscale(self, x: Any, gradients: list[tf.Tensor | None]) -> Any:
        """Puts unscaled gradients of the perturbable features in the structure of x."""
        scale = self._scale(tf.ones([]))
        remaining = iter(gradients)

        def gradient_of(feature: Any) -> tf.Tensor | None:
            gradient = next(remaining) if is_perturbable(feature) else None
            if gradient is None:
                return None
            if gradient.dtype != tf.float64:
                gradient = tf.cast(gradient, tf.float32)
            return gradient / tf.cast(scale, gradient.dtype)

        return tf.nest.map_structure(gradient_of, x)


def _of_global_batch(loss: tf.Tensor) -> tf.Tensor:
    """Undoes the division of a loss among replicas."""
    return loss * tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, loss.dtype)
