"""A classifier together with the features of all nodes, for `nsl.keras.few_labels`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from nsl.data.feature_rows import feature_rows, gather, is_floating
from nsl.keras.base_model import check_base_model, to_base_inputs
from nsl.lib import keras_internals
from nsl.progress import Progress

Floats = npt.NDArray[np.float32]

SMALLEST_PROBABILITY = 1e-7
# Features with at least this share of zeros get input dropout by default.
_SPARSE_SHARE, _SPARSE_DROPOUT = 0.9, 0.5


class NodeModel:
    """A classifier and the features of all nodes, which it is trained on.

    Attributes:
      model: The Keras model.
      nodes: The number of nodes.
      classes: The number of classes.
      seed: The seed, int64.
      features: The features as they were passed, those of a dataset concatenated.
      takes_sparse: Whether the model has sparse inputs.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        *,
        from_logits: bool | None,
        batch_size: int,
        learning_rate: float,
        input_dropout: float | None,
        seed: int | None,
    ) -> None:
        """Checks the model's output and loads the features.

        Args:
          model: A model with one output of shape [batch, classes].
          x: The features, or a `tf.data.Dataset` of batches of them.
          from_logits: Whether the model outputs logits; None reads it from the
            compiled loss.
          batch_size: The batch size of `predict`.
          learning_rate: The initial learning rate of `train`.
          input_dropout: The dropout rate of float features; None chooses it by the
            share of zeros.
          seed: The seed of all randomness; None draws one.

        Raises:
          TypeError: If `model` or a feature is of a wrong type.
          ValueError: If the features differ in length, or the model's output is not
            as described.
        """
        check_base_model(model)
        self.model = model
        self.seed = np.random.SeedSequence(seed).generate_state(1)[0].astype(np.int64)
        self._batch_size, self._learning_rate = batch_size, learning_rate
        features = _concatenated(x) if isinstance(x, tf.data.Dataset) else x
        self.nodes = _num_rows(features)
        inputs = getattr(model, "inputs", None) or ()
        self.takes_sparse = any(getattr(each, "sparse", False) for each in inputs)
        self._load(features, input_dropout)
        self._from_logits = (
            _outputs_logits(model) if from_logits is None else from_logits
        )
        output = self._output(self.batch(tf.range(min(2, self.nodes))), False)
        self.classes = self._check_output(keras.tree.flatten(output))

    def _load(self, x: Any, input_dropout: float | None) -> None:
        """Loads the features of the nodes."""
        self.features = x
        self._rows = tf.nest.map_structure(
            lambda value: feature_rows(value, "A feature of x", self.nodes), x
        )
        self._dropout = tf.nest.map_structure(
            lambda value: _dropout_rate(value, input_dropout), x
        )
        # A new partial: TensorFlow warns about repeated tracing of one function.
        self._predict_batch = tf.function(
            functools.partial(self._prediction),
            input_signature=[tf.TensorSpec([None], tf.int32)],
            autograph=False,
        )

    def reading(self, x: Any, input_dropout: float) -> NodeModel:
        """Returns the same model and settings with other features of the nodes.

        Args:
          x: The features.
          input_dropout: The dropout rate of float features.
        """
        other = copy.copy(self)
        other._load(x, input_dropout)
        return other

    def _check_output(self, outputs: list[Any]) -> int:
        """Checks that the model outputs what it should, and returns the classes."""
        shapes = [tuple(output.shape) for output in outputs]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2:
            raise ValueError(
                "few_labels trains models with one output of shape [batch, classes], "
                f"at least two classes, but {self.model.name!r} has outputs of shapes "
                f"{shapes}. For a model with several outputs, pass a keras.Model with "
                "only one of them; for binary labels, use two classes."
            )
        values = np.asarray(tf.cast(outputs[0], tf.float32))
        if not self._from_logits and not (
            (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2)
        ):
            raise ValueError(
                f"{self.model.name!r} must output probabilities, but outputs "
                f"{values[0]}. If these are logits, pass from_logits=True, or compile "
                "the model with a loss that has from_logits=True; otherwise end it "
                "with a softmax."
            )
        return shapes[0][1]

    def weights(self) -> list[npt.NDArray[Any]]:
        """Returns copies of all variables of the model."""
        return [variable.numpy() for variable in self.model.variables]

    def set_weights(self, values: list[npt.NDArray[Any]]) -> None:
        """Restores the variables that `weights` returned."""
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(value)

    def batch(
        self, nodes: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[Any, ...]:
        """Gathers the features of nodes.

        Args:
          nodes: Rows, an integer tensor of shape [batch].
          dropout_seed: The seed of input dropout, of shape [2]; None applies none.

        Returns:
          The features, flattened.
        """

        def of_feature(rows: Any, rate: float) -> Any:
            values = gather(rows, nodes)
            if dropout_seed is not None and rate:
                values = dropout(values, rate, dropout_seed)
            if isinstance(values, tf.SparseTensor) and not self.takes_sparse:
                return tf.sparse.to_dense(values)
            return values

        batch = tf.nest.map_structure(of_feature, self._rows, self._dropout)
        return tuple(tf.nest.flatten(batch))

    def _output(self, batch: tuple[Any, ...], training: bool) -> Any:
        inputs = tf.nest.pack_sequence_as(self._rows, batch)
        return self.model(to_base_inputs(self.model, inputs), training=training)

    def _prediction(self, rows: tf.Tensor) -> tf.Tensor:
        return self.log_probabilities(self.batch(rows), training=False)

    def log_probabilities(self, batch: tuple[Any, ...], training: bool) -> tf.Tensor:
        """Returns predicted log-probabilities, float32 of shape [batch, classes]."""
        output = tf.cast(self._output(batch, training), tf.float32)
        if self._from_logits:
            return tf.nn.log_softmax(output)
        return tf.math.log(tf.maximum(output, SMALLEST_PROBABILITY))

    def predict(self, rows: npt.NDArray[np.intp] | None = None) -> Floats:
        """Returns log-probabilities of some or all nodes, of shape [rows, classes]."""
        rows = np.arange(self.nodes) if rows is None else rows
        found = np.empty((len(rows), self.classes), np.float32)
        size = self._batch_size
        with Progress("Predicting", len(rows), "nodes") as progress:
            for first in range(0, len(rows), size):
                part = rows[first : first + size].astype(np.int32)
                found[first : first + size] = self._predict_batch(part).numpy()
                progress.advance(len(part))
        return found

    def correct(self, y: npt.NDArray[np.int64], rows: npt.NDArray[np.intp]) -> Floats:
        """Returns 1 for each of the given nodes that is classified correctly, else 0.

        Args:
          y: The classes of all nodes.
          rows: The nodes to classify.
        """
        correct = self.predict(rows).argmax(axis=1) == y[rows]
        return correct.astype(np.float32)

    def train(
        self,
        title: str,
        steps: int,
        batch: Callable[[tf.Tensor], Any],
        loss: Callable[..., tf.Tensor],
    ) -> None:
        """Trains the model with Adam and a cosine learning rate schedule.

        Args:
          title: The label of the progress line.
          steps: The number of updates.
          batch: Maps a step number to a batch, a tuple.
          loss: Maps a step number and the parts of its batch to a scalar loss.
        """
        variables = self.model.trainable_variables
        schedule = keras.optimizers.schedules.CosineDecay(self._learning_rate, steps)
        optimizer = keras.optimizers.Adam(schedule)
        if self.model.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(variables)

        @tf.function(autograph=False, reduce_retracing=True)
        def update(step: tf.Tensor, *parts: Any) -> None:
            with tf.GradientTape() as tape:
                total = tf.add_n([loss(step, *parts), *self.model.losses])
                total = optimizer.scale_loss(total)
            optimizer.apply(tape.gradient(total, variables), variables)

        # No AutoGraph: there is nothing to convert, and trying takes half a second.
        @tf.autograph.experimental.do_not_convert
        def numbered(step: tf.Tensor) -> Any:
            return step, *batch(step)

        batches = tf.data.Dataset.range(steps).map(
            numbered, num_parallel_calls=tf.data.AUTOTUNE
        )
        with Progress(title, steps, "steps") as progress:
            for parts in batches.prefetch(tf.data.AUTOTUNE):
                update(*parts)
                progress.advance(1)


def _outputs_logits(model: keras.Model) -> bool:
    """Returns whether the compiled loss of a model expects logits."""
    loss = getattr(model, "loss", None)
    _, settings = keras_internals.function_of_loss(loss)
    return bool(settings.get("from_logits", getattr(loss, "from_logits", False)))


def _dropout_rate(value: Any, input_dropout: float | None) -> float:
    """Returns the dropout rate of a feature."""
    if not is_floating(value):
        return 0.0
    if input_dropout is not None:
        return input_dropout
    zeros = 1.0
    if not (isinstance(value, tf.SparseTensor) or hasattr(value, "tocoo")):
        zeros = float(np.mean(np.asarray(value[: 1 << 10]) == 0))
    return _SPARSE_DROPOUT if zeros >= _SPARSE_SHARE else 0.0


def dropout(values: Any, rate: float, seed: tf.Tensor) -> Any:
    """Applies inverted dropout to a dense, sparse or ragged tensor."""
    if isinstance(values, tf.SparseTensor):
        return values.with_values(dropout(values.values, rate, seed))
    if isinstance(values, tf.RaggedTensor):
        return values.with_flat_values(dropout(values.flat_values, rate, seed))
    draws = tf.random.stateless_uniform(tf.shape(values), seed)
    return tf.where(draws >= rate, values / tf.cast(1 - rate, values.dtype), 0)


def _concatenated(dataset: Iterable[Any]) -> Any:
    """Concatenates the features of all batches of a dataset."""
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in dataset]
    if not batches:
        raise ValueError("x must have at least one batch, but is an empty dataset.")

    def concatenate(*parts: Any) -> Any:
        if isinstance(parts[0], tf.SparseTensor):
            return tf.sparse.concat(0, parts)
        if isinstance(parts[0], tf.RaggedTensor):
            return tf.concat(parts, axis=0)
        return np.concatenate([part.numpy() for part in parts])

    return tf.nest.map_structure(concatenate, *batches)


def _num_rows(features: Any) -> int:
    values = tf.nest.flatten(features)
    if not values:
        raise ValueError("x contains no features.")
    shape = getattr(values[0], "shape", None)
    return int(np.shape(values[0])[0] if shape is None else shape[0])
