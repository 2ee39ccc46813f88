"""The base class of the wrappers: one train step for every regularization term."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from nsl.keras.base_model import input_names
from nsl.keras.batch import are_dense, batch_size, perturbable
from nsl.keras.data_forms import named_arguments
from nsl.keras.gradients import add_gradients
from nsl.keras.layer_outputs import checked, find_layer, recorded_outputs
from nsl.keras.own_losses import own_losses_hidden
from nsl.keras.recurrent_state import RecurrentState
from nsl.keras.schedules import EpochCounter
from nsl.keras.shared_pass import has_fixed_batch_size, may_share_pass
from nsl.keras.terms.term import CleanPass, Neighbors, PassOutputs, Term
from nsl.keras.wrapped_model import WrappedModel
from nsl.lib.features import is_perturbable


class RegularizedModel(WrappedModel):
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
        super().__init__(base_model, **kwargs)
        inner = getattr(base_model, "_terms", ())
        self._terms = (*inner, *terms)
        names = [term.name for term in self._terms]
        if len(set(names)) < len(names):
            raise ValueError(
                f"'{base_model.name}' is regularized by the term '{terms[0].name}' "
                "already. Wrap its base model instead, or change its config."
            )
        if self._core.built:
            self._embedding_layers()
        self._term_metrics = {
            term.name: keras.metrics.Mean(name=f"scaled_{term.name}_loss")
            for term in self._terms
        }

        delayed = any(term.start_epoch for term in self._terms)
        self._epoch = tf.Variable(0, False, dtype=tf.int64) if delayed else None

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; takes the arguments of `keras.Model.fit`."""
        if self._epoch is None:
            return super().fit(*args, **kwargs)
        # Keras's own method names the arguments; that of the base class takes any.
        keras_fit = functools.partial(keras.Model.fit, self)
        arguments = named_arguments(keras_fit, args, kwargs)
        counter = EpochCounter(self._epoch)
        callbacks = counter.among(arguments.pop("callbacks", None))
        return super().fit(callbacks=callbacks, **arguments)

    # As in `fit`. In a loop of one's own TensorFlow would rewrite all that a step
    # calls, seconds of work, for branches and loops over tensors that are not there.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass, the terms' own passes and one optimizer update."""
        x, y, sample_weight = self._tensors(data)
        self._check_training(x, sample_weight)
        terms = self._terms_at_step(training=True)
        neighbors = {}
        for term in terms:
            x, taken = term.take_neighbors(x, input_names(self._core))
            if taken is not None:
                neighbors[term.name] = taken
        early = [term for term in terms if not term.needs_input_gradient]
        late = [term for term in terms if term.needs_input_gradient]
        replaced = any(term.replaces_labeled_loss for term in terms)
        if late or replaced:
            self._check_loss()
        if replaced:
            start = self.before_pass(x, y, sample_weight, training=True)
            for term in terms:
                start.x = term.samples(self, start)
            x = start.x

        with tf.GradientTape(persistent=bool(late)) as tape:
            if late:
                tape.watch(perturbable(x))
            clean = self._clean_pass(x, y, sample_weight, neighbors, training=True)
            losses = [] if replaced else [clean.labeled_loss]
            losses += self._own_losses()
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

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, Any]:
        """Runs the clean pass and the passes of terms that count in evaluation."""
        x, y, sample_weight = self._tensors(data)
        x = self.strip(x)
        terms = [t for t in self._terms_at_step(training=False) if t.in_evaluation]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if terms:
                tape.watch(perturbable(x))
            clean = self._clean_pass(x, y, sample_weight, {}, training=False)
            losses = [clean.labeled_loss, *self._own_losses()]
            if any(term.replaces_labeled_loss for term in terms):
                # What a base model adds to a loss that it computes itself remains.
                losses[0] -= self.labeled_loss(x, y, clean.y_pred, sample_weight, False)
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

    def before_pass(
        self, x: Any, y: Any, sample_weight: Any, training: bool
    ) -> CleanPass:
        """Gathers what terms can be told before the clean pass, of a built model.

        Args:
          x: Features.
          y: Labels.
          sample_weight: Weights of the samples, or None.
          training: Whether this is a training step.

        Returns:
          A clean pass without outputs, loss and gradient.
        """
        if not self._core.built:
            # Not in a pass that leaves all state alone, variables being state.
            self.run_base(x, training=False)
        return CleanPass(
            x=x,
            y=y,
            sample_weight=sample_weight,
            training=training,
            recurrent_state=RecurrentState(self._core),
        )

    def run_neighbors(
        self,
        neighbors: list[Any],
        clean: CleanPass,
        training: bool | None = None,
        layer: str | None = None,
    ) -> list[Any]:
        """Runs the base model on neighbors of the samples of the clean pass.

        Stateful recurrent layers begin where the clean pass began, and the next batch
        goes on where the clean pass ended.

        Args:
          neighbors: Features of neighbors, one structure like `clean.x` for each
            neighbor of the samples.
          clean: The clean pass.
          training: Whether layers such as Dropout run in training mode; by default as
            in the clean pass. If not, no state of the model changes.
          layer: The name of a layer.

        Returns:
          For each neighbor, the outputs of the base model or, if one is named, of the
          layer.
        """
        training = clean.training if training is None else training
        if has_fixed_batch_size(self._core) or not are_dense(neighbors):
            batches = [[neighbor] for neighbor in neighbors]
        else:
            batches = [neighbors]
        outputs = []
        for batch in batches:
            if training:
                state = clean.recurrent_state.restored()
            else:
                # Evaluation must not even draw a random number more than plain Keras.
                before = clean.recurrent_state.before()
                state = keras.StatelessScope(state_mapping=before)
            with state:
                outputs += self._run_joined(batch, training)
        return [output.of(layer) for output in outputs]

    def input_gradient(
        self,
        x: Any,
        clean: CleanPass,
        loss_fn: Callable[[Any], tf.Tensor] | None = None,
    ) -> Any:
        """Differentiates a loss with respect to features.

        The pass runs with `training=False`, changes no state and is seen by no tape
        but its own.

        Args:
          x: Features, as `clean.x`, at which the gradient is taken.
          clean: The clean pass, for labels and sample weights.
          loss_fn: A loss of the outputs of the base model, by default the labeled loss.

        Returns:
          The gradients in the structure of `x`, in float32 or float64; None for a
          feature that has none.
        """
        state = clean.recurrent_state.before()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbable(x))
            with keras.StatelessScope(state_mapping=state):
                y_pred = self.run_base(x, training=False)
            if loss_fn is None:
                loss = self.labeled_loss(x, clean.y, y_pred, clean.sample_weight, False)
            else:
                loss = loss_fn(y_pred)
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

    def _clean_pass(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        neighbors: dict[str, Neighbors],
        training: bool,
    ) -> CleanPass:
        state = RecurrentState(self._core)
        outputs, neighbor_outputs = self._run_together(x, neighbors, training)
        y_pred = outputs.model
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
            layer_outputs=outputs.layers,
            neighbor_outputs=neighbor_outputs,
            recurrent_state=state,
        )

    def _run_together(
        self, x: Any, neighbors: dict[str, Neighbors], training: bool
    ) -> tuple[PassOutputs, dict[str, list[PassOutputs]]]:
        """Runs the samples, and their neighbors with them where nothing changes."""
        joining = {
            name: n.features for name, n in neighbors.items() if n.differentiable
        }
        batches = [x, *(batch for features in joining.values() for batch in features)]
        if not are_dense(batches) or not may_share_pass(self._core):
            return self._run(x, training), {}
        of_samples, *rest = self._run_joined(batches, training)
        outputs = {}
        for name, features in joining.items():
            outputs[name], rest = rest[: len(features)], rest[len(features) :]
        return of_samples, outputs

    def _run_joined(self, batches: list[Any], training: bool) -> list[PassOutputs]:
        """Runs several batches as one and returns the outputs of each."""
        if len(batches) == 1:
            return [self._run(batches[0], training)]
        joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
        outputs = self._run(joined, training)
        sizes = [batch_size(batch) for batch in batches]
        parts = [tf.split(output, sizes) for output in tf.nest.flatten(outputs)]
        return [
            tf.nest.pack_sequence_as(outputs, part) for part in zip(*parts, strict=True)
        ]

    def _run(self, x: Any, training: bool) -> PassOutputs:
        """Runs one batch, with the layers recorded that terms ask for."""
        layers = self._embedding_layers()
        with contextlib.ExitStack() as stack:
            recorded = {
                layer.name: stack.enter_context(recorded_outputs(layer))
                for layer in layers
            }
            y_pred = self.run_base(x, training=training)
        return PassOutputs(
            y_pred,
            {layer.name: checked(recorded[layer.name], layer) for layer in layers},
        )

    def _terms_at_step(self, training: bool) -> list[Term]:
        """Lists the terms that take part, with the settings that they have now."""
        epoch, step = self._epoch if training else None, self._step()
        return [term.at(step, epoch) for term in self._terms if term.multiplier]

    def _step(self) -> Any:
        return 0 if self.optimizer is None else self.optimizer.iterations

    def _check_loss(self) -> None:
        if self.loss is None and not self._base_computes_loss():
            raise ValueError(
                "Adversarial neighbors are found by the gradient of the compiled loss, "
                "but compile() received no loss."
            )

    def _embedding_layers(self) -> list[keras.layers.Layer]:
        names = {term.embedding_layer for term in self._terms if term.multiplier}
        return [find_layer(self._core, name) for name in sorted(names - {None})]

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
