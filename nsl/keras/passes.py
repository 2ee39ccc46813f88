"""The passes of a step through the base model: over samples, over neighbors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from nsl.keras.base_model import computes_loss, to_base_inputs
from nsl.keras.batches import are_dense, batch_size, describe, perturbable
from nsl.keras.compiled_losses import OutputLoss, output_losses
from nsl.keras.shared_pass import has_fixed_batch_size, may_share_pass, recurrent_states
from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable
from nsl.lib.interval_bounds import interval_bounds
from nsl.lib.layer_outputs import Change, checked, find_layer, recorded_outputs


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


# By layer name, what is added to the layer's outputs, in float32 or float64.
Moves: TypeAlias = dict[str, list[tf.Tensor]]


class Point(NamedTuple):
    """What a base model is run on.

    Attributes:
      x: Features, in the structure that the user chose.
      moves: What is added to the outputs of layers.
    """

    x: Any
    moves: Moves


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
# By layer name, what becomes of the layer's outputs.
_Changes: TypeAlias = dict[str, Change] | None


@dataclasses.dataclass
class CleanPass:
    """The samples of a batch, and what the pass over them gave.

    Attributes:
      x: The features of the samples, in the structure that the user chose.
      y: The labels, or None.
      sample_weight: The weights of the samples, or None.
      training: Whether this is a training step.
      moves: What the pass over the samples adds to the outputs of layers: nothing but
        where adversarial neighbors replace the samples.
      neighbors: By term name, the neighbors that the term took out of the batch.
      states: The state of stateful recurrent layers before the pass.
      outputs: The outputs of the base model and of the layers that terms chose.
      neighbor_outputs: By term name, the outputs for each neighbor, if the neighbors
        went through the model together with the samples.
      labeled_loss: The compiled loss, without the base model's own losses.
      input_gradient: The gradient of `labeled_loss` in the structure of `x`, None for
        a feature without one. Known to terms that ask for it.
      layer_gradients: The same for the outputs of the layers that terms perturb.
      centers: By layer name, the outputs that perturbations of the layer start from.
    """

    x: Any
    y: Any
    sample_weight: Any
    training: bool
    moves: Moves = dataclasses.field(default_factory=dict)
    neighbors: dict[str, Neighbors] = dataclasses.field(default_factory=dict)
    states: list[tf.Tensor] = dataclasses.field(default_factory=list)
    outputs: PassOutputs = _NOTHING
    neighbor_outputs: dict[str, list[PassOutputs]] = dataclasses.field(
        default_factory=dict
    )
    labeled_loss: tf.Tensor | None = None
    input_gradient: Any = None
    layer_gradients: dict[str, Any] | None = None
    centers: dict[str, list[tf.Tensor]] = dataclasses.field(default_factory=dict)

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
      perturbed: The names of the layers whose outputs terms perturb.
      perturbs_features: Whether terms perturb the features.
      keywords: Further arguments of the base model's `call`, the same in every pass.
    """

    def __init__(
        self,
        wrapper: keras.Model,
        base_model: keras.Model,
        layers: Collection[str] = (),
        perturbed: Collection[str] = (),
        perturbs_features: bool = True,
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._base_model = base_model
        self._layers = sorted({*layers, *perturbed})
        self._perturbed = sorted(set(perturbed))
        self._perturbs_features = perturbs_features
        self._keywords = dict(keywords or {})
        # What the pass over the samples gave at the perturbed layers, with the rows of
        # the neighbors that went through the model together with them.
        self._joined: dict[str, list[tf.Tensor]] = {}

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

    def begin_again(self, clean: CleanPass) -> None:
        """Puts recurrent state back to where the passes of a batch start from."""
        for state, value in self._before(clean):
            state.assign(value)

    def run_samples(
        self, clean: CleanPass, tape: tf.GradientTape | None = None
    ) -> CleanPass:
        """Runs the samples, with their neighbors where nothing changes, and the loss.

        Args:
          clean: The samples, which gets the outputs and the labeled loss.
          tape: The tape that will differentiate the loss with respect to `sources`, if
            that is wanted.

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
        changes: _Changes = None
        if clean.moves:
            changes = _additions(clean.moves)
            if tape is not None:
                tape.watch(tf.nest.flatten(clean.moves))
        elif tape is not None:
            watched = functools.partial(_watched, tape)
            changes = dict.fromkeys(self._perturbed, watched)
        if tape is not None and self._perturbs_features:
            tape.watch(perturbable(clean.x))
        outputs = self._run_as_one(batches, clean.training, changes)
        self._joined = {name: outputs.layers[name] for name in self._perturbed}
        clean.outputs, *rest = _parted(outputs, batches)
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

    def sources(self, clean: CleanPass) -> list[tf.Tensor]:
        """Lists what the labeled loss is differentiated with respect to, for the terms.

        Args:
          clean: The samples, after `run_samples`.

        Returns:
          The features that can be perturbed, and the outputs of the perturbed layers.
        """
        features = perturbable(clean.x) if self._perturbs_features else []
        return [*features, *tf.nest.flatten(self._joined)]

    def note_gradients(
        self, clean: CleanPass, gradients: list[tf.Tensor | None]
    ) -> None:
        """Hands the gradients with respect to `sources` to the terms.

        Args:
          clean: The samples, which gets the gradients.
          gradients: Of the scaled labeled loss.
        """
        layers = tf.nest.flatten(self._joined)
        count = len(gradients) - len(layers)
        if self._perturbs_features:
            clean.input_gradient = self.unscaled(clean.x, gradients[:count])
        if layers:
            # Neighbors in the same pass have no part in the labeled loss.
            rows = [
                tf.shape(output)[0] for output in tf.nest.flatten(self.centers(clean))
            ]
            of_samples = [
                None if gradient is None else gradient[:n]
                for gradient, n in zip(gradients[count:], rows, strict=True)
            ]
            clean.layer_gradients = self.unscaled(self._joined, of_samples)

    def centers(self, clean: CleanPass) -> dict[str, list[tf.Tensor]]:
        """Returns the outputs that perturbations of layers start from.

        These are the outputs of the clean pass. Before it, they are computed with
        `training=False`, and no state changes.

        Args:
          clean: The samples, which keeps what is returned.

        Returns:
          By name of each perturbed layer, its outputs; nothing if no layer is.
        """
        if self._perturbed and not clean.centers:
            if clean.y_pred is None:
                self.evaluate_samples(clean)
            else:
                clean.centers = self._perturbed_outputs(clean.outputs)
        return clean.centers

    def evaluate_samples(self, clean: CleanPass) -> Any:
        """Runs the samples with `training=False`, and starts perturbations from there.

        Args:
          clean: The samples, which gets the outputs of perturbed layers.

        Returns:
          The outputs of the base model.
        """
        with self._stateless(clean):
            [outputs] = self._run([clean.x], training=False)
        clean.centers = self._perturbed_outputs(outputs)
        return outputs.model

    def tables(self) -> dict[str, tf.Tensor]:
        """Returns the vectors among which perturbed layers choose, by layer name.

        They are the entries of `Embedding` layers, as the layer returns them, without
        that of padding, of shape `[entries, d]`; and for layers that encode as one-hot
        or multi-hot, 0 and 1 of shape `[2, 1]`.
        """
        found = {}
        for name in self._perturbed:
            layer = find_layer(self._base_model, name)
            if isinstance(layer, keras.layers.Embedding):
                entries = tf.range(int(layer.mask_zero), layer.input_dim)
                # Not through Keras, which would add losses of activities.
                found[name] = tf.stop_gradient(layer.call(entries[tf.newaxis])[0])
            elif getattr(layer, "output_mode", None) in ("one_hot", "multi_hot"):
                found[name] = tf.constant([[0.0], [1.0]])
        return found

    def _perturbed_outputs(self, outputs: PassOutputs) -> dict[str, list[tf.Tensor]]:
        found = {name: outputs.layers[name] for name in self._perturbed}
        for name, tensors in found.items():
            if not all(map(is_perturbable, tensors)):
                raise ValueError(
                    f"embedding_layer is '{name}', whose outputs cannot be perturbed: "
                    f"expected dense floating tensors, but it returns "
                    f"{describe(tensors)}. Choose a layer behind it."
                )
        return found

    def run_perturbed(self, point: Point, clean: CleanPass) -> Any:
        """Runs the base model on adversarial neighbors, in the mode of the clean pass.

        Moves are added to what a layer returns in this pass, so that gradients reach
        the weights below it.

        Args:
          point: The neighbors.
          clean: The clean pass.

        Returns:
          The outputs of the base model.
        """
        changes = _additions(point.moves)
        [outputs] = self._run_beside(clean, [[point.x]], clean.training, changes)
        return outputs.model

    def worst_outputs(self, lower: Any, upper: Any, clean: CleanPass) -> Any:
        """Bounds the outputs of the base model by the worst ones over a box.

        Args:
          lower: The lower bounds of features, in the structure of `clean.x`.
          upper: The upper bounds.
          clean: The clean pass, for the labels.

        Returns:
          Outputs in the structure of the model's: logits or, if the compiled loss takes
          them, probabilities that are no better for the labels than any in the box.
          Outputs without a loss are those of the samples.

        Raises:
          ValueError: If a compiled loss is no crossentropy of Keras, or nothing is
            known of a layer.
        """
        inputs = [to_base_inputs(self._base_model, x) for x in (lower, upper)]
        intervals = interval_bounds(self._base_model, *inputs)
        known = self.output_losses(clean)
        flat = zip(
            keras.tree.flatten(intervals),
            keras.tree.flatten(clean.y_pred),
            known,
            strict=True,
        )
        worst = [
            own if loss is None else loss.worst_output(interval)
            for interval, own, loss in flat
        ]
        return keras.tree.pack_sequence_as(clean.y_pred, worst)

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
        outputs = self._run_beside(clean, batches, training)
        return [output.of(layer) for output in outputs]

    def _run_beside(
        self,
        clean: CleanPass,
        batches: list[list[Any]],
        training: bool,
        changes: _Changes = None,
    ) -> list[PassOutputs]:
        """Runs batches that leave the state of the model as the clean pass left it."""
        outputs: list[PassOutputs] = []
        for batch in batches:
            # Evaluation must not even draw a random number more than plain Keras.
            with self._restored(clean) if training else self._stateless(clean):
                outputs += self._run(batch, training, changes)
        return outputs

    def input_gradient(
        self,
        point: Point,
        clean: CleanPass,
        loss_fn: Callable[[Any], tf.Tensor] | None = None,
    ) -> Point:
        """Differentiates a loss with respect to features and outputs of layers.

        The pass runs with `training=False`, changes no state and is seen by no tape
        but its own.

        Args:
          point: Where the gradient is taken.
          clean: The clean pass, for labels, sample weights and what layers returned.
          loss_fn: A loss of the outputs of the base model, by default the labeled loss.

        Returns:
          The gradients in the structure of `point`, in float32 or float64; None for
          what has none, as features that no term perturbs.
        """
        if loss_fn is None:
            self.check_loss()
        x, moves = point
        features = perturbable(x) if self._perturbs_features else []
        added = tf.nest.flatten(moves)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([features, added])
            with self._stateless(clean):
                [outputs] = self._run([x], False, self._placed(moves, clean))
            if loss_fn is None:
                loss = self.labeled_loss(x, outputs.model, clean, training=False)
            else:
                loss = loss_fn(outputs.model)
            target = self.scaled(loss)
        of_features, of_moves = tape.gradient(target, (features, added))
        return Point(
            self.unscaled(x, of_features) if self._perturbs_features else None,
            self.unscaled(moves, of_moves),
        )

    def _placed(self, moves: Moves, clean: CleanPass) -> _Changes:
        """Makes the model go on from moved outputs of layers.

        What the clean pass gave takes the place of the outputs of a layer that nothing
        below moves, so that nothing below has to run.
        """
        if len(moves) == 1 and not self._perturbs_features:
            [(name, added)] = moves.items()
            if len(added) == 1:
                [center] = self.centers(clean)[name]
                return {name: functools.partial(_replaced, center, added[0])}
        return _additions(moves)

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
    def may_branch(self) -> bool:
        """Whether some passes may be left out where a tensor says so.

        Several replicas must stay in step, and XLA compiles no recurrent layer inside
        of a branch.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return False
        return not self._wrapper.jit_compile or not any(
            isinstance(layer, keras.layers.RNN)
            for layer in keras_internals.all_layers(self._base_model)
        )

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

    def _run_as_one(
        self, batches: list[Any], training: bool | None, changes: _Changes = None
    ) -> PassOutputs:
        """Runs the rows of all batches together."""
        changes = changes or {}
        x = batches[0]
        if len(batches) > 1:
            x = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
        layers = {name: find_layer(self._base_model, name) for name in self._layers}
        with contextlib.ExitStack() as stack:
            recorded = {
                name: stack.enter_context(recorded_outputs(layer, changes.get(name)))
                for name, layer in layers.items()
            }
            y_pred = self.run_base(x, training)
        return PassOutputs(
            y_pred,
            {name: checked(recorded[name], layer) for name, layer in layers.items()},
        )

    def _run(
        self, batches: list[Any], training: bool | None, changes: _Changes = None
    ) -> list[PassOutputs]:
        """Runs batches as one and returns the outputs of each."""
        return _parted(self._run_as_one(batches, training, changes), batches)

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
        states, after = recurrent_states(self._base_model), self._states()
        self.begin_again(clean)
        yield
        for state, value in zip(states, after, strict=True):
            state.assign(value)


def _parted(outputs: PassOutputs, batches: list[Any]) -> list[PassOutputs]:
    """Splits the outputs of a pass over several batches."""
    if len(batches) == 1:
        return [outputs]
    sizes = [batch_size(batch) for batch in batches]
    parts = [_split(output, sizes) for output in tf.nest.flatten(outputs)]
    return [
        tf.nest.pack_sequence_as(outputs, part) for part in zip(*parts, strict=True)
    ]


def _watched(tape: tf.GradientTape, position: int, output: tf.Tensor) -> tf.Tensor:
    """Lets a tape watch an output of a layer."""
    del position
    if is_perturbable(output):
        tape.watch(output)
    return output


def _replaced(
    center: tf.Tensor, move: tf.Tensor, position: int, output: tf.Tensor
) -> tf.Tensor:
    """Puts a known output and what is added to it in the place of an output."""
    del position
    point = tf.cast(tf.stop_gradient(center), move.dtype) + move
    return tf.ensure_shape(tf.cast(point, output.dtype), output.shape)


def _additions(moves: Moves) -> _Changes:
    return {
        name: functools.partial(_added, name, added) for name, added in moves.items()
    }


def _added(
    name: str, moves: list[tf.Tensor], position: int, output: tf.Tensor
) -> tf.Tensor:
    """Adds a move to an output of a layer, of which the first rows are samples."""
    if position >= len(moves):
        raise ValueError(
            f"embedding_layer '{name}' ran more often than in the clean pass, where it "
            f"returned {len(moves)} outputs. Choose a layer that every pass runs alike."
        )
    move = tf.cast(moves[position], output.dtype)
    rest = tf.shape(output)[0] - tf.shape(move)[0]
    paddings = [[0, rest], *[[0, 0]] * (output.shape.rank - 1)]
    return output + tf.ensure_shape(tf.pad(move, paddings), output.shape)


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
