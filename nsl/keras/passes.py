"""The passes of a step through the base model: over samples, over neighbors."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from nsl.keras.base_model import computes_loss, find_layer, to_base_inputs
from nsl.keras.batches import are_dense, batch_size, perturbable
from nsl.keras.compiled_losses import OutputLoss, output_losses
from nsl.keras.layer_outputs import checked, recorded_outputs
from nsl.keras.shared_pass import has_fixed_batch_size, may_share_pass, recurrent_states
from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """Neighbors that a batch holds beside its samples.

    Attributes:
      features: For each neighbor of the samples, its features.
      weights: For each neighbor, the weights of the edges to it, of shape
        `[batch_size, 1]`.
      differentiable: Whether the loss has a gradient through them. If not, the clean
        pass leaves them out, and the term runs them when it prepares its loss.
    """

    features: list[Any]
    weights: list[tf.Tensor]
    differentiable: bool = True


class PassOutputs(NamedTuple):
    """What one pass through the base model gave.

    Attributes:
      model: The outputs of the base model.
      layers: By layer name, the outputs of the layers that terms chose.
    """

    model: Any
    layers: dict[str, Any]

    def of(self, layer: str | None) -> Any:
        """Returns the outputs of a layer, or for None those of the model."""
        return self.model if layer is None else self.layers[layer]


_NOTHING = PassOutputs(None, {})


@dataclasses.dataclass
class CleanPass:
    """The samples of a batch, and what the pass over them gave.

    Attributes:
      x: The features of the samples, in the structure that the user chose.
      y: The labels, or None.
      sample_weight: The weights of the samples, or None.
      training: Whether this is a training step.
      neighbors: By term name, the neighbors that the term took out of the batch.
      states: The state of stateful recurrent layers before the pass.
      outputs: The outputs of the base model and of the layers that terms chose.
      neighbor_outputs: By term name, the outputs for each neighbor, if the neighbors
        went through the model together with the samples.
      labeled_loss: The compiled loss, without the base model's own losses.
      input_gradient: The gradient of `labeled_loss` in the structure of `x`, None for
        a feature without one. Known to terms that ask for it.
    """

    x: Any
    y: Any
    sample_weight: Any
    training: bool
    neighbors: dict[str, Neighbors] = dataclasses.field(default_factory=dict)
    states: list[tf.Tensor] = dataclasses.field(default_factory=list)
    outputs: PassOutputs = _NOTHING
    neighbor_outputs: dict[str, list[PassOutputs]] = dataclasses.field(
        default_factory=dict
    )
    labeled_loss: tf.Tensor | None = None
    input_gradient: Any = None

    @property
    def y_pred(self) -> Any:
        """The outputs of the base model; None before the pass."""
        return self.outputs.model


class Passes:
    """Runs a base model. This is all that a term may ask for.

    Args:
      wrapper: The compiled model around the base model.
      base_model: The base model.
      layers: The names of the layers whose outputs terms compare.
      keywords: Further arguments of the base model's `call`, the same in every pass.
    """

    def __init__(
        self,
        wrapper: keras.Model,
        base_model: keras.Model,
        layers: set[str],
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._base_model = base_model
        self._layers = sorted(layers)
        self._keywords = dict(keywords or {})

    def run_base(self, x: Any, training: bool | None) -> Any:
        """Runs the base model on features in the structure the user chose."""
        return run_base(self._base_model, x, training, **self._keywords)

    def begin(self, clean: CleanPass) -> CleanPass:
        """Notes the recurrent state that the passes of a batch start from."""
        if not self._base_model.built:
            # Not in a pass that leaves all state alone, variables being state.
            self.run_base(clean.x, training=False)
        clean.states = self._states()
        return clean

    def run_samples(self, clean: CleanPass) -> CleanPass:
        """Runs the samples, with their neighbors where nothing changes, and the loss.

        Args:
          clean: The samples, which gets the outputs and the labeled loss.

        Returns:
          The same.
        """
        clean.states = self._states()
        joining = {
            name: neighbors.features
            for name, neighbors in clean.neighbors.items()
            if neighbors.differentiable
        }
        batches = [clean.x, *(batch for part in joining.values() for batch in part)]
        if not self._may_join(batches) or not may_share_pass(self._base_model):
            batches, joining = [clean.x], {}
        clean.outputs, *rest = self._run(batches, clean.training)
        for name, features in joining.items():
            clean.neighbor_outputs[name] = rest[: len(features)]
            rest = rest[len(features) :]
        if clean.y is None and self._wrapper.loss is not None:
            # A custom loop has the labels, and a loss of its own.
            return clean
        # A loss that the base model computes itself includes its own losses.
        hidden = [] if computes_loss(self._base_model) else [self._wrapper]
        with keras_internals.losses_hidden(*hidden):
            clean.labeled_loss = self._compiled_loss(clean, clean.x, clean.y_pred)
        return clean

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
        if has_fixed_batch_size(self._base_model) or not self._may_join(neighbors):
            batches = [[neighbor] for neighbor in neighbors]
        else:
            batches = [neighbors]
        outputs: list[PassOutputs] = []
        for batch in batches:
            # Evaluation must not even draw a random number more than plain Keras.
            with self._restored(clean) if training else self._stateless(clean):
                outputs += self._run(batch, training)
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
        if loss_fn is None:
            self.check_loss()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(perturbable(x))
            with self._stateless(clean):
                y_pred = self.run_base(x, training=False)
            if loss_fn is None:
                loss = self.labeled_loss(x, y_pred, clean, training=False)
            else:
                loss = loss_fn(y_pred)
            target = self.scaled(loss)
        return self.unscaled(x, tape.gradient(target, perturbable(x)))

    def labeled_loss(
        self, x: Any, y_pred: Any, clean: CleanPass, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the compiled loss without the base model's own losses.

        Args:
          x: Features.
          y_pred: Outputs of the base model at `x`.
          clean: The clean pass, for labels and sample weights.
          training: Whether this is a training step; by default as the clean pass.

        Returns:
          The loss, reduced as compiled.
        """
        # Whatever the loss writes down, as the loss of each output, it has written
        # down for the clean pass.
        models = (self._wrapper, self._base_model)
        with keras_internals.losses_hidden(*models), keras.StatelessScope():
            return self._compiled_loss(clean, x, y_pred, training)

    def output_losses(self, clean: CleanPass) -> list[OutputLoss | None]:
        """Returns the compiled loss of each output; see `compiled_losses`."""
        # A base model that computes its loss itself has been compiled like its wrapper.
        known = keras_internals.losses_by_output(self._wrapper)
        known = known or keras_internals.losses_by_output(self._base_model)
        names, weight = self.output_names, clean.sample_weight
        return output_losses(known, names, clean.y, clean.y_pred, weight)

    @property
    def output_names(self) -> list[str]:
        """The names of the base model's outputs; none where it does not know them."""
        return list(getattr(self._base_model, "output_names", None) or [])

    @property
    def has_loss(self) -> bool:
        """Whether there is a labeled loss."""
        return self._wrapper.loss is not None or computes_loss(self._base_model)

    def check_loss(self) -> None:
        """Raises ValueError if there is no labeled loss to climb."""
        if not self.has_loss:
            raise ValueError(
                "Adversarial neighbors are found by the gradient of the compiled loss, "
                "but compile() received no loss."
            )

    @property
    def compiled_with(self) -> Any:
        """What `compile` received as loss."""
        return self._wrapper.loss

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales a loss so that half-precision gradients do not vanish."""
        optimizer = self._wrapper.optimizer
        return loss if optimizer is None else optimizer.scale_loss(loss)

    def unscaled(self, x: Any, gradients: list[tf.Tensor | None]) -> Any:
        """Puts unscaled gradients of the perturbable features in the structure of x."""
        scale = self.scaled(tf.ones([]))
        remaining = iter(gradients)

        def gradient_of(feature: Any) -> tf.Tensor | None:
            gradient = next(remaining) if is_perturbable(feature) else None
            if gradient is None:
                return None
            if gradient.dtype != tf.float64:
                gradient = tf.cast(gradient, tf.float32)
            return gradient / tf.cast(scale, gradient.dtype)

        return tf.nest.map_structure(gradient_of, x)

    def _compiled_loss(
        self, clean: CleanPass, x: Any, y_pred: Any, training: bool | None = None
    ) -> tf.Tensor:
        if not self.has_loss:
            # Terms alone, as for samples without labels.
            return tf.zeros([])
        training = clean.training if training is None else training
        return keras_internals.compiled_loss(
            self._wrapper, x, clean.y, y_pred, clean.sample_weight, training
        )

    def _run(self, batches: list[Any], training: bool) -> list[PassOutputs]:
        """Runs batches as one and returns the outputs of each."""
        x = batches[0]
        if len(batches) > 1:
            x = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
        layers = [find_layer(self._base_model, name) for name in self._layers]
        with contextlib.ExitStack() as stack:
            recorded = {
                layer.name: stack.enter_context(recorded_outputs(layer))
                for layer in layers
            }
            y_pred = self.run_base(x, training)
        outputs = PassOutputs(
            y_pred,
            {layer.name: checked(recorded[layer.name], layer) for layer in layers},
        )
        if len(batches) == 1:
            return [outputs]
        sizes = [batch_size(batch) for batch in batches]
        parts = [_split(output, sizes) for output in tf.nest.flatten(outputs)]
        return [
            tf.nest.pack_sequence_as(outputs, part) for part in zip(*parts, strict=True)
        ]

    def _may_join(self, batches: list[Any]) -> bool:
        """Tells whether batches can be run as one; keywords may be of one batch."""
        return not self._keywords and are_dense(batches)

    def _states(self) -> list[tf.Tensor]:
        """Copies the recurrent states as they are now."""
        return [tf.identity(state) for state in recurrent_states(self._base_model)]

    def _before(self, clean: CleanPass) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Pairs each recurrent state with its value before the batch."""
        states = recurrent_states(self._base_model)
        # A model that the clean pass has just built started from zeros.
        values = clean.states or [tf.zeros_like(state) for state in states]
        return list(zip(states, values, strict=True))

    def _stateless(self, clean: CleanPass) -> keras.StatelessScope:
        """Runs the body from the state before the batch, and changes no state."""
        return keras.StatelessScope(state_mapping=self._before(clean))

    @contextlib.contextmanager
    def _restored(self, clean: CleanPass) -> Iterator[None]:
        """Runs the body from the state before the batch, and then undoes its changes.

        A stateful layer hands the state at the end of a batch on to the next one. All
        passes over neighbors belong to the same batch.
        """
        pairs = self._before(clean)
        after = [tf.identity(state) for state, _ in pairs]
        for state, value in pairs:
            state.assign(value)
        yield
        for (state, _), value in zip(pairs, after, strict=True):
            state.assign(value)


def _split(output: tf.Tensor, sizes: list[tf.Tensor]) -> list[tf.Tensor]:
    """Splits an output along the batch, its mask too."""
    parts, mask = tf.split(output, sizes), keras_internals.mask_of(output)
    if mask is not None:
        for part, kept in zip(parts, tf.split(mask, sizes), strict=True):
            keras_internals.keep_mask(part, kept)
    return parts


def run_base(
    base_model: keras.Model, x: Any, training: bool | None, **keywords: Any
) -> Any:
    """Runs a base model on features in the structure the user chose.

    Args:
      base_model: The base model.
      x: Features of a batch.
      training: Whether layers such as Dropout run in training mode.
      **keywords: Further arguments of the base model's `call`.

    Returns:
      The outputs of the base model.
    """
    inputs = to_base_inputs(base_model, x)
    if keras_internals.takes_training(base_model):
        keywords["training"] = training
    return base_model(inputs, **keywords)
