"""One batch of an attack: what is perturbed, how far, and what is maximized."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nsl import configs
from nsl.attacks.model import AttackedModel
from nsl.attacks.objectives import Objective
from nsl.lib.features import described, is_perturbable
from nsl.lib.threat_model import ThreatModel

Leaves = list[tf.Tensor | None]


class Problem:
    """Maximizes an objective over the perturbations of a batch that are allowed.

    Perturbations are rows: one row holds the coordinates of all features of an example
    that can be perturbed. Allowed are those inside the ball and the box at once.

    Attributes:
      threat: The ball, the bounds and the mask.
      radius: The radius of each example's ball, a tensor of shape [batch, 1].
      low: Lower bounds of a perturbation, at most 0; they broadcast to the rows.
      high: Upper bounds of a perturbation, at least 0.
      labels: The true classes, of shape [batch]; with a loss of one's own, whatever
        was given.
      targets: The classes to reach, of shape [batch], or None.
      dtype: The dtype of the rows.

    Args:
      model: The model.
      features: The clean features, a structure of tensors with the batch first.
      labels: The true classes, or what `loss_fn` takes.
      targets: The classes to reach, or None.
      objective: What is maximized, of logits, labels and targets.
      loss_fn: Maximized instead if given: a function of labels and outputs.
      norm: The norm of the ball.
      radius: Its radius, of shape [batch, 1].
      low: Lower bound of each leaf of the features, or None.
      high: Upper bound of each leaf.
      mask: Factors of each leaf's gradient. Where one is 0, the feature stays.
      memory: What the variables start from that a call of the model changes.
      fooled: Whether the attack has succeeded, of predicted and true classes and
        targets.
    """

    def __init__(
        self,
        model: AttackedModel,
        features: Any,
        *,
        labels: Any,
        targets: tf.Tensor | None,
        objective: Objective,
        loss_fn: Callable[[Any, Any], tf.Tensor] | None,
        norm: configs.NormType,
        radius: tf.Tensor,
        low: Leaves,
        high: Leaves,
        mask: Leaves,
        memory: list[tf.Tensor],
        fooled: Callable[[tf.Tensor, tf.Tensor, tf.Tensor | None], tf.Tensor],
    ) -> None:
        self._fooled = fooled
        self._model = model
        self._objective = objective
        self._loss_fn = loss_fn
        self._memory = memory
        leaves = tf.nest.flatten(features)
        self.threat = ThreatModel(
            features,
            norm,
            radius=radius,
            low=_widened(tf.minimum, low, leaves),
            high=_widened(tf.maximum, high, leaves),
            mask=mask,
        )
        self.dtype = self.threat.centers.dtype
        self.radius = tf.cast(radius, self.dtype)
        self.low, self.high = self.threat.box()
        self.labels = labels
        self.targets = targets

    def project(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the nearest perturbation that is allowed."""
        return self.threat.norm.project_with_bounds(
            perturbation, self.radius, self.low, self.high
        )

    def clip_and_project(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns an allowed perturbation: clipped to the box, then projected.

        Under L1 and L2 it is not the nearest one, for on the way into the ball
        coordinates come off the bounds of the box.
        """
        clipped = tf.clip_by_value(perturbation, self.low, self.high)
        return self.threat.norm.project(clipped, self.radius)

    def random_start(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws perturbations uniformly from the ball and projects them.

        Args:
          seed: An integer tensor of shape [2].

        Returns:
          Rows.
        """
        shape = tf.shape(self.threat.centers)
        drawn = self.threat.norm.random_start(shape, self.radius, seed, self.dtype)
        drawn = tf.ensure_shape(drawn, self.threat.centers.shape)
        return self.project(self.threat.masked(drawn))

    def features(self, perturbation: tf.Tensor) -> Any:
        """Returns the perturbed features, in the structure of the clean ones."""
        return self.threat.restore(self.threat.place(perturbation))

    def logits(self, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns the logits of perturbed features, of shape [batch, classes]."""
        return self._model.logits(self.features(perturbation), self._memory)

    def evaluate(self, perturbation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs the model forward once.

        Args:
          perturbation: Rows.

        Returns:
          The objective, of shape [batch] and the dtype of the rows, and whether the
          attack has succeeded, which is False throughout with a loss of one's own.
        """
        return self._values(self.features(perturbation))

    def gradient(
        self, perturbation: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Runs the model forward and backward once.

        Args:
          perturbation: Rows.

        Returns:
          As `evaluate`, and the gradient of the objective, masked; rows.

        Raises:
          ValueError: If there is no gradient with respect to any feature.
        """
        x = self.features(perturbation)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            leaves = tf.nest.flatten(x)
            sources = {i: f for i, f in enumerate(leaves) if is_perturbable(f)}
            tape.watch(sources)
            values, fooled = self._values(x)
        found = tape.gradient(values, sources)
        gradients = [found.get(i) for i in range(len(leaves))]
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                "The model's outputs have no gradient with respect to any of the "
                f"features: {described(x)}. Give the model with all of its operations "
                "differentiable, or use a black-box attack (nsl.attacks.Square)."
            )
        return values, fooled, self.threat.masked(self.threat.rows(gradients))

    def movable(self, gradient: tf.Tensor, perturbation: tf.Tensor) -> tf.Tensor:
        """Returns a gradient with zeros where the box lets no step along it pass.

        Args:
          gradient: Rows.
          perturbation: Rows.

        Returns:
          Rows.
        """
        blocked = ((gradient > 0) & (perturbation >= self.high)) | (
            (gradient < 0) & (perturbation <= self.low)
        )
        return tf.where(blocked, tf.zeros_like(gradient), gradient)

    def _values(self, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if self._loss_fn is not None:
            outputs = self._model(x, self._memory)
            values = per_example(self._loss_fn(self.labels, outputs))
            batch = tf.shape(self.threat.centers)[0]
            return tf.cast(values, self.dtype), tf.zeros([batch], tf.bool)
        logits = self._model.logits(x, self._memory)
        values = self._objective(logits, self.labels, self.targets)
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        fooled = self._fooled(predicted, self.labels, self.targets)
        return tf.cast(per_example(values), self.dtype), fooled


def per_example(loss: Any) -> tf.Tensor:
    """Returns a loss as one value per example.

    Args:
      loss: A tensor with the batch as first axis; means are taken over the others.

    Returns:
      A tensor of shape [batch].

    Raises:
      ValueError: If it is a scalar.
    """
    loss = tf.convert_to_tensor(loss)
    if loss.shape.rank == 0:
        raise ValueError(
            "The loss of an attack must be one value per example, but received a "
            "scalar. Give a loss without reduction, such as "
            "keras.losses.MeanSquaredError(reduction=None)."
        )
    if loss.shape.rank == 1:
        return loss
    return tf.reduce_mean(loss, axis=list(range(1, loss.shape.rank)))


def _widened(
    extreme: Callable[[Any, Any], tf.Tensor], bounds: Leaves, leaves: list[Any]
) -> Leaves:
    """Returns bounds that the clean features are within."""
    return [
        None if bound is None else extreme(bound, tf.cast(leaf, bound.dtype))
        for bound, leaf in zip(bounds, leaves, strict=True)
    ]
