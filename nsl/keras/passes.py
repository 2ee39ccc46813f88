"""The passes of a step through the base model: over samples and over neighbors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from nsl.keras.base_model import computes_loss, run_base, to_base_inputs
from nsl.keras.batches import are_dense, batch_size, describe, perturbable
from nsl.keras.clean_pass import CleanPass, PassOutputs, Perturbations, Point
from nsl.keras.compiled_losses import OutputLoss, losses_given, output_losses
from nsl.keras.layer_changes import (
    Changes,
    adding,
    replacing,
    watching,
)
from nsl.keras.replicas import share_of_replica
from nsl.keras.shared_pass import has_fixed_batch_size, may_share_pass, recurrent_states
from nsl.keras.side_branches import SideBranches
from nsl.lib import keras_internals
from nsl.lib.features import is_perturbable
from nsl.lib.interval_bounds import interval_bounds
from nsl.lib.layer_outputs import checked, find_layer, recorded_outputs
from nsl.lib.masks import note_padding


class Passes:
    """Runs a base model on behalf of terms.

    Args:
      wrapper: The compiled model around the base model.
      base_model: The base model.
      layers: Names of the layers whose outputs terms compare.
      perturbed: Names of the layers whose outputs terms perturb.
      perturbs_features: Whether terms perturb the features.
      keywords: Further arguments of the base model's `call`, for every pass. None
        outside of a call of the wrapper.
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
        self._in_call = keywords is not None
        self._side_branches: SideBranches | None = None
        # Outputs of the perturbed layers in the pass over the samples, with the rows of
        # neighbors that shared it.
        self._perturbed_rows: dict[str, list[tf.Tensor]] = {}

    def run_base(self, x: Any, training: bool | None) -> Any:
        """Runs the base model on features in the structure of the batch."""
        return run_base(self._base_model, x, training, **self._keywords)

    def save_states(self, clean: CleanPass) -> CleanPass:
        """Stores the recurrent states before a batch in its clean pass."""
        if not self._base_model.built:
            # A stateless pass cannot create variables.
            self.run_base(clean.x, training=False)
        clean.states = self._states()
        return clean

    def restore_states(self, clean: CleanPass) -> None:
        """Resets the recurrent states to their values before the batch."""
        for state, value in self._states_before(clean):
            state.assign(value)

    def run_samples(
        self, clean: CleanPass, tape: tf.GradientTape | None = None
    ) -> CleanPass:
        """Runs the clean pass and computes the labeled loss.

        Neighbors share the pass if that does not change the result.

        Args:
          clean: The samples. Receives the outputs and the labeled loss.
          tape: The tape that will differentiate the loss with respect to
            `attacked_inputs`, if any.

        Returns:
          `clean`.
        """
        clean.states = self._states()
        sharing = {
            name: neighbors.features
            for name, neighbors in clean.neighbors.items()
            if neighbors.differentiable
        }
        batches = [clean.x, *(batch for part in sharing.values() for batch in part)]
        if not self._can_concatenate(batches) or not may_share_pass(self._base_model):
            batches, sharing = [clean.x], {}
        changes: Changes | None = None
        if clean.perturbations:
            changes = adding(clean.perturbations, shared=len(batches) > 1)
            if tape is not None:
                tape.watch(tf.nest.flatten(clean.perturbations))
        elif tape is not None:
            changes = watching(tape, self._perturbed)
        if tape is not None and self._perturbs_features:
            tape.watch(perturbable(clean.x))
        outputs = self._run_concatenated(batches, clean.training, changes)
        self._perturbed_rows = {name: outputs.layers[name] for name in self._perturbed}
        clean.outputs, *rest = _split_outputs(outputs, batches)
        for name, features in sharing.items():
            clean.neighbor_outputs[name] = rest[: len(features)]
            rest = rest[len(features) :]
        if clean.y is None and (self._in_call or self._wrapper.loss is not None):
            # A custom loop holds the labels and computes the labeled loss itself.
            clean.labeled_loss = tf.zeros([])
            return clean
        # An overridden compute_loss of the base model includes its own losses.
        hidden = [] if computes_loss(self._base_model) else [self._wrapper]
        with keras_internals.losses_hidden(*hidden):
            clean.labeled_loss = self._compiled_loss(clean, clean.x, clean.y_pred)
        return clean

    def attacked_inputs(self, clean: CleanPass) -> list[tf.Tensor]:
        """Lists the tensors that terms perturb.

        Args:
          clean: The clean pass, after `run_samples`.

        Returns:
          The perturbable features, and the outputs of the perturbed layers.
        """
        features = perturbable(clean.x) if self._perturbs_features else []
        return [*features, *tf.nest.flatten(self._perturbed_rows)]

    def set_gradients(
        self, clean: CleanPass, gradients: list[tf.Tensor | None]
    ) -> None:
        """Stores the gradients of the labeled loss in the clean pass.

        Args:
          clean: The clean pass. Receives `input_gradient` and `layer_gradients`.
          gradients: The gradients of the scaled labeled loss with respect to
            `attacked_inputs`.
        """
        layers = tf.nest.flatten(self._perturbed_rows)
        count = len(gradients) - len(layers)
        if self._perturbs_features:
            clean.input_gradient = self.unscaled(clean.x, gradients[:count])
        if layers:
            # The rows of neighbors do not enter the labeled loss.
            rows = [
                tf.shape(output)[0] for output in tf.nest.flatten(self.centers(clean))
            ]
            of_samples = [
                None if gradient is None else gradient[:n]
                for gradient, n in zip(gradients[count:], rows, strict=True)
            ]
            clean.layer_gradients = self.unscaled(self._perturbed_rows, of_samples)

    def centers(self, clean: CleanPass) -> dict[str, list[tf.Tensor]]:
        """Returns the unperturbed outputs of the perturbed layers.

        These are the outputs of the clean pass. Before the clean pass, they are
        computed with `training=False` and without changing any state.

        Args:
          clean: The clean pass. Caches the result.

        Returns:
          By name of each perturbed layer, its outputs. Empty if no layer is perturbed.
        """
        if self._perturbed and not clean.centers:
            if clean.y_pred is None:
                self.evaluate_samples(clean)
            else:
                clean.centers = self._perturbed_outputs(clean.outputs)
        return clean.centers

    def evaluate_samples(self, clean: CleanPass) -> Any:
        """Runs the samples with `training=False` and without changing any state.

        Args:
          clean: The samples. Receives `centers`, the outputs of perturbed layers.

        Returns:
          The outputs of the base model.
        """
        with self._stateless(clean):
            [outputs] = self._run([clean.x], training=False)
        clean.centers = self._perturbed_outputs(outputs)
        return outputs.model

    def tables(self) -> dict[str, tf.Tensor]:
        """Returns the possible output vectors of perturbed layers, by layer name.

        For an `Embedding` layer, these are its entries as the layer returns them,
        without the padding entry, of shape `[entries, d]`; for a layer with a one-hot
        or multi-hot encoding, 0 and 1, of shape `[2, 1]`. Other layers have none.
        """
        found = {}
        for name in self._perturbed:
            layer = find_layer(self._base_model, name)
            if isinstance(layer, keras.layers.Embedding):
                entries = tf.range(int(layer.mask_zero), layer.input_dim)
                # `__call__` would add activity regularization losses.
                found[name] = tf.stop_gradient(layer.call(entries[tf.newaxis])[0])
            elif keras_internals.output_mode(layer) in ("one_hot", "multi_hot"):
                found[name] = tf.constant([[0.0], [1.0]])
        return found

    def _perturbed_outputs(self, outputs: PassOutputs) -> dict[str, list[tf.Tensor]]:
        found = {name: outputs.layers[name] for name in self._perturbed}
        for name, tensors in found.items():
            if not all(map(is_perturbable, tensors)):
                raise ValueError(
                    f"embedding_layer is '{name}', whose outputs cannot be perturbed: "
                    f"expected dense floating tensors, but it returns "
                    f"{describe(tensors)}. Choose a later layer."
                )
        return found

    def run_perturbed(self, point: Point, clean: CleanPass) -> Any:
        """Runs the base model on adversarial neighbors, in the mode of the clean pass.

        Perturbations are added to what a layer returns in this pass, so that gradients
        reach the weights below the layer.

        Args:
          point: The adversarial neighbors.
          clean: The clean pass.

        Returns:
          The outputs of the base model.
        """
        changes = adding(point.perturbations)
        [outputs] = self._run_isolated(clean, [[point.x]], clean.training, changes)
        return outputs.model

    def worst_outputs(self, lower: Any, upper: Any, clean: CleanPass) -> Any:
        """Computes outputs whose loss bounds the loss of all points of a box.

        See `nsl.lib.interval_bounds`.

        Args:
          lower: Lower bounds of the features, in the structure of `clean.x`.
          upper: Upper bounds of the features.
          clean: The clean pass, for the labels.

        Returns:
          Outputs in the structure of the model's: logits, or probabilities if the
          compiled loss takes those, with a loss at least as large as anywhere in the
          box. Outputs without a loss are those of the samples.

        Raises:
          ValueError: If the worst case of a compiled loss or the bounds of a layer are
            not known.
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
        """Runs the base model on neighbors of the samples.

        Stateful recurrent layers start from their states before the clean pass, and
        keep those after it for the next batch.

        Args:
          neighbors: The features of the i-th neighbor of every sample, in the structure
            of `clean.x`, for each i.
          clean: The clean pass.
          training: Whether layers such as Dropout run in training mode; by default as
            in the clean pass. With False, the model's state does not change.
          layer: The name of a layer.

        Returns:
          For each neighbor, the outputs of the layer, or of the base model if none is
          named.
        """
        training = clean.training if training is None else training
        concatenated = self._can_concatenate(neighbors)
        if concatenated and not has_fixed_batch_size(self._base_model):
            batches = [neighbors]
        else:
            batches = [[neighbor] for neighbor in neighbors]
        outputs = self._run_isolated(clean, batches, training)
        return [output.of(layer) for output in outputs]

    def _run_isolated(
        self,
        clean: CleanPass,
        batches: list[list[Any]],
        training: bool,
        changes: Changes | None = None,
    ) -> list[PassOutputs]:
        """Runs batches without changing the state that the clean pass left."""
        outputs: list[PassOutputs] = []
        for batch in batches:
            # In evaluation, seed generators must not advance either.
            with self._restored(clean) if training else self._stateless(clean):
                outputs += self._run(batch, training, changes)
        return outputs

    def input_gradient(
        self,
        point: Point,
        clean: CleanPass,
        loss_fn: Callable[[Any], tf.Tensor] | None = None,
    ) -> Point:
        """Computes the gradient of a loss with respect to features and perturbations.

        The pass runs with `training=False` and changes no state.

        Args:
          point: Where the gradient is taken.
          clean: The clean pass, for labels, sample weights and outputs of layers.
          loss_fn: A loss of the outputs of the base model, by default the labeled loss.

        Returns:
          The gradients in the structure of `point`, in float32 or float64; None where
          there is no gradient, such as for features that no term perturbs.
        """
        if loss_fn is None:
            self.check_loss()
        x, perturbations = point
        features = perturbable(x) if self._perturbs_features else []
        added = tf.nest.flatten(perturbations)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([features, added])
            with self._stateless(clean):
                [outputs] = self._run([x], False, self._changes(perturbations, clean))
            if loss_fn is None:
                loss = self.labeled_loss(x, outputs.model, clean, training=False)
            else:
                loss = loss_fn(outputs.model)
            target = self.scaled(loss)
        gradients: Any = tape.gradient(target, (features, added))
        of_features, of_added = gradients
        return Point(
            self.unscaled(x, of_features) if self._perturbs_features else None,
            self.unscaled(perturbations, of_added),
        )

    @contextlib.contextmanager
    def sharing_side_branches(self, clean: CleanPass) -> Iterator[None]:
        """Makes all calls of `input_gradient` in the body share parts of their passes.

        In a functional or sequential model, layers that do not depend on the perturbed
        layers run only once, also those of nested models.

        Args:
          clean: The samples.
        """
        model = self._base_model
        # Within a call of the wrapper, layers would inherit its `training`.
        fixed = not (self._perturbs_features or self._in_call)
        if fixed and keras_internals.has_operations(model):
            layers = [find_layer(model, name) for name in self._perturbed]
            branches = SideBranches(model, layers)
            if branches.exist:
                with self._stateless(clean):
                    branches.run_once(to_base_inputs(model, clean.x))
                self._side_branches = branches
        try:
            yield
        finally:
            self._side_branches = None

    def _changes(self, perturbations: Perturbations, clean: CleanPass) -> Changes:
        """Perturbs layers, and replaces the output of one that alone is perturbed.

        An ascent then runs only what lies above the layer.
        """
        if len(perturbations) == 1 and not self._perturbs_features:
            [(name, added)] = perturbations.items()
            if len(added) == 1:
                [center] = self.centers(clean)[name]
                return replacing(name, center, added[0])
        return adding(perturbations)

    def labeled_loss(
        self, x: Any, y_pred: Any, clean: CleanPass, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the compiled loss without the base model's own losses.

        Args:
          x: Features.
          y_pred: Outputs of the base model at `x`.
          clean: The clean pass, for labels and sample weights.
          training: Whether this is a training step; by default as in the clean pass.

        Returns:
          The loss, with the reduction it was compiled with.
        """
        # Metrics such as the loss of each output count the clean pass only.
        models = (self._wrapper, self._base_model)
        with keras_internals.losses_hidden(*models), keras.StatelessScope():
            return self._compiled_loss(clean, x, y_pred, training)

    def output_losses(self, clean: CleanPass) -> list[OutputLoss | None]:
        """Returns the compiled loss of each output; see `compiled_losses`."""
        # A base model that overrides compute_loss was compiled along with its wrapper.
        known = keras_internals.losses_by_output(self._wrapper)
        known = known or keras_internals.losses_by_output(self._base_model)
        names, weight = self.output_names, clean.sample_weight
        known = known or losses_given(self._wrapper.loss, clean.y_pred)
        return output_losses(known, names, clean.y, clean.y_pred, weight)

    @property
    def can_branch(self) -> bool:
        """Whether `tf.cond` may skip passes.

        Replicas must run the same collective operations, and XLA cannot compile a
        recurrent layer inside of a branch.
        """
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return False
        return not self._wrapper.jit_compile or not any(
            isinstance(layer, keras.layers.RNN)
            for layer in keras_internals.all_layers(self._base_model)
        )

    @property
    def output_names(self) -> list[str]:
        """The names of the base model's outputs; empty for a subclassed model."""
        return list(getattr(self._base_model, "output_names", None) or [])

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The trainable weights of the model."""
        return list(self._wrapper.trainable_weights)

    def own_losses(self) -> list[tf.Tensor]:
        """Returns the base model's own losses of the latest pass, as scalars.

        These are the losses of weight and activity regularizers and of `add_loss`; of
        each, this replica's share. Empty if the base model overrides `compute_loss`,
        which includes them.
        """
        if computes_loss(self._base_model):
            return []
        floats = [
            loss if loss.dtype.is_floating else tf.cast(loss, keras.config.floatx())
            for loss in map(tf.convert_to_tensor, self._wrapper.losses)
        ]
        return [share_of_replica(tf.reduce_sum(loss)) for loss in floats]

    @property
    def has_loss(self) -> bool:
        """Whether there is a labeled loss."""
        return self._wrapper.loss is not None or computes_loss(self._base_model)

    def check_loss(self) -> None:
        """Raises ValueError if there is no labeled loss to maximize."""
        if not self.has_loss:
            raise ValueError(
                "The search for adversarial neighbors follows the gradient of the "
                "compiled loss, but compile() received no loss. Compile with a loss."
            )

    @property
    def loss_argument(self) -> Any:
        """The `loss` that `compile` received."""
        return self._wrapper.loss

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """Scales a loss as the optimizer does against underflow of half precision."""
        optimizer = getattr(self._wrapper, "optimizer", None)
        return loss if optimizer is None else optimizer.scale_loss(loss)

    def unscaled(self, x: Any, gradients: list[tf.Tensor | None]) -> Any:
        """Undoes the scaling of gradients, and arranges them like the features `x`.

        Args:
          x: Features.
          gradients: The scaled gradients of the perturbable features.

        Returns:
          The gradients in float32 or float64, in the structure of `x`; None for
          features that are not perturbable.
        """
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
            # The terms alone are minimized.
            return tf.zeros([])
        training = clean.training if training is None else training
        return keras_internals.compiled_loss(
            self._wrapper, x, clean.y, y_pred, clean.sample_weight, training
        )

    def _run_concatenated(
        self,
        batches: list[Any],
        training: bool | None,
        changes: Changes | None = None,
    ) -> PassOutputs:
        """Runs batches as one batch."""
        changes = changes or {}
        x = batches[0]
        if len(batches) > 1:
            x = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *batches)
        # An ascent that shares side branches does not run the layers in them.
        names = self._layers if self._side_branches is None else self._perturbed
        layers = {name: find_layer(self._base_model, name) for name in names}
        with contextlib.ExitStack() as stack:
            recorded = {
                name: stack.enter_context(recorded_outputs(layer, changes.get(name)))
                for name, layer in layers.items()
            }
            if self._side_branches is None:
                y_pred = self.run_base(x, training)
            else:
                inputs = to_base_inputs(self._base_model, x)
                y_pred = self._side_branches.run_rest(inputs)
        outputs = {name: checked(recorded[name], part) for name, part in layers.items()}
        self._check_batch_axis(outputs, x)
        note_padding(self._base_model, outputs, x, y_pred)
        return PassOutputs(y_pred, outputs)

    def _check_batch_axis(self, outputs: dict[str, list[tf.Tensor]], x: Any) -> None:
        """Raises ValueError for outputs that all samples share.

        Such as embeddings of positions, which are of shape [length, d].
        """
        first = next(feature for feature in tf.nest.flatten(x) if feature is not None)
        size = first.shape[0]
        if size is None and has_fixed_batch_size(self._base_model):
            return
        for name, tensors in outputs.items():
            for tensor in tensors:
                rows = 1 if tensor.shape.rank == 0 else tensor.shape[0]
                # A sample may have several rows, such as a document's sentences.
                if rows is not None and (not size or rows % size):
                    raise ValueError(
                        f"embedding_layer is '{name}', whose outputs all samples "
                        f"share: expected shape [{size or 'batch'}, ...], but it "
                        f"returns {describe(tensors)}. Choose a layer whose outputs "
                        "depend on the features."
                    )

    def _run(
        self,
        batches: list[Any],
        training: bool | None,
        changes: Changes | None = None,
    ) -> list[PassOutputs]:
        """Runs batches as one batch, and returns the outputs of each."""
        outputs = self._run_concatenated(batches, training, changes)
        return _split_outputs(outputs, batches)

    def _can_concatenate(self, batches: list[Any]) -> bool:
        """Returns whether batches can be run as one batch.

        Keywords such as `mask` hold values of the samples alone.
        """
        return not self._keywords and are_dense(batches)

    def _states(self) -> list[tf.Tensor]:
        """Copies the current recurrent states."""
        return [tf.identity(state) for state in recurrent_states(self._base_model)]

    def _states_before(
        self, clean: CleanPass
    ) -> list[tuple[keras.Variable, tf.Tensor]]:
        """Pairs each recurrent state with its value before the batch."""
        states = recurrent_states(self._base_model)
        # The states of a model that the clean pass built were zeros.
        values = clean.states or [tf.zeros_like(state) for state in states]
        return list(zip(states, values, strict=True))

    def _stateless(self, clean: CleanPass) -> keras.StatelessScope:
        """Runs the body from the states before the batch, without changing any."""
        return keras.StatelessScope(state_mapping=self._states_before(clean))

    @contextlib.contextmanager
    def _restored(self, clean: CleanPass) -> Iterator[None]:
        """Runs the body from the states before the batch, and undoes its changes.

        The next batch continues from the states after the clean pass.
        """
        states, after = recurrent_states(self._base_model), self._states()
        self.restore_states(clean)
        yield
        for state, value in zip(states, after, strict=True):
            state.assign(value)


def _split_outputs(outputs: PassOutputs, batches: list[Any]) -> list[PassOutputs]:
    """Splits the outputs of a pass over several batches into those of each batch."""
    if len(batches) == 1:
        return [outputs]
    sizes = [batch_size(batch) for batch in batches]
    parts = [_split(output, sizes) for output in tf.nest.flatten(outputs)]
    return [
        tf.nest.pack_sequence_as(outputs, part) for part in zip(*parts, strict=True)
    ]


def _split(output: tf.Tensor, sizes: list[tf.Tensor]) -> list[tf.Tensor]:
    """Splits an output and its padding mask along the batch axis."""
    parts, mask = tf.split(output, sizes), keras_internals.mask_of(output)
    if mask is not None:
        for part, kept in zip(parts, tf.split(mask, sizes), strict=True):
            keras_internals.keep_mask(part, kept)
    return parts
