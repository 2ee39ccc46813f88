"""Adversarial neighbors: perturbations in a norm ball that raise a loss."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from nsl import configs
from nsl.lib import feature_mask, norms
from nsl.lib import features as feature_structures
from nsl.lib.features import is_perturbable

__all__ = ["gen_adv_neighbor", "is_perturbable", "projected_gradient_ascent"]

_Leaves = dict[int, tf.Tensor]


def gen_adv_neighbor(
    input_features: Any,
    labeled_loss: tf.Tensor | None,
    config: configs.AdvNeighborConfig,
    raise_invalid_gradient: bool = False,
    gradient_tape: tf.GradientTape | None = None,
    pgd_model_fn: Callable[[Any], Any] | None = None,
    pgd_loss_fn: Callable[[Any, Any], tf.Tensor] | None = None,
    pgd_labels: Any = None,
    regularizer_fn: Callable[[Any], tf.Tensor] | None = None,
    use_while_loop: bool = False,
    seed: Any = None,
) -> tuple[Any, tf.Tensor]:
    """Generates the adversarial neighbor of each sample in a batch.

    One iteration adds the steepest step of norm `config.adv_step_size`; further ones
    are projected gradient ascent. See `projected_gradient_ascent` for the formula.

    Example:
    ```python
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        loss = loss_fn(y, model(x))
        neighbor, _ = nsl.lib.gen_adv_neighbor(x, loss, config, gradient_tape=tape)
        total_loss = loss + 0.2 * loss_fn(y, model(neighbor))
    ```

    Args:
      input_features: A tensor or a structure of tensors, with the batch as first axis.
        Dense floating tensors are perturbed; all else comes back as it is.
      labeled_loss: The scalar loss at `input_features`. With `config.random_init` no
        gradient is taken of it, so it may be None.
      config: The norm, the step, the ball, masks and bounds.
      raise_invalid_gradient: Whether a feature that cannot be perturbed is an error.
        If not, it is warned of once.
      gradient_tape: The tape that watched the way from `input_features` to
        `labeled_loss`. Not needed where a graph is built. Nothing that happens in here
        is recorded on it. In eager mode any other active tape does record the
        iterations, unless it is paused (`tape.stop_recording()`).
      pgd_model_fn: Predictions of features. Needed for more than one iteration and for
        `config.random_init`, like `pgd_loss_fn`.
      pgd_loss_fn: Loss of labels and predictions.
      pgd_labels: What `pgd_loss_fn` gets as labels.
      regularizer_fn: A scalar of features that is added to the loss to be raised, in
        every iteration.
      use_while_loop: Whether iterations run in a `tf.while_loop` instead of being
        unrolled, which makes a smaller graph. `pgd_model_fn` must then have no Python
        side effects.
      seed: An integer tensor of shape [2] that determines the random start. None draws
        one, which `tf.random.set_seed` governs.

    Returns:
      The neighbors, in the structure, shapes and dtypes of `input_features`, with no
      gradient flowing back; and their weights, ones of shape [batch, 1], float32.

    Raises:
      ValueError: If no feature can be perturbed; if one cannot be and
        `raise_invalid_gradient` is set; if `pgd_model_fn` or `pgd_loss_fn` is missing;
        if a tape is missing in eager mode; or if a mask or bound does not fit.
    """
    iterates = config.pgd_iterations > 1 or config.random_init
    if iterates and (pgd_model_fn is None or pgd_loss_fn is None):
        raise ValueError(
            "pgd_model_fn and pgd_loss_fn are needed when pgd_iterations is greater "
            "than 1 or random_init is set, but received "
            f"pgd_model_fn={pgd_model_fn!r}, pgd_loss_fn={pgd_loss_fn!r}."
        )

    def gradient_fn(features: Any) -> Any:
        assert pgd_model_fn is not None
        assert pgd_loss_fn is not None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(_perturbable_leaves(features))
            loss = pgd_loss_fn(pgd_labels, pgd_model_fn(features))
            if regularizer_fn is not None:
                loss = loss + tf.cast(regularizer_fn(features), loss.dtype)
        return _gradients(loss, features, tape)

    gradients = None
    if not config.random_init:
        gradients = _first_gradients(
            input_features, labeled_loss, gradient_tape, regularizer_fn
        )
        if raise_invalid_gradient:
            _refuse_unperturbed(input_features, gradients)
    elif raise_invalid_gradient:
        _refuse_unperturbed(input_features, input_features)
    with _paused(gradient_tape):
        neighbor = projected_gradient_ascent(
            input_features,
            gradients,
            config,
            gradient_fn=gradient_fn if iterates else None,
            seed=seed,
            use_while_loop=use_while_loop,
        )
    leaf = _perturbable_leaves(input_features)[0]
    return neighbor, tf.ones(tf.stack([tf.shape(leaf)[0], 1]))


def projected_gradient_ascent(
    features: Any,
    gradients: Any,
    config: configs.AdvNeighborConfig,
    gradient_fn: Callable[[Any], Any] | None = None,
    seed: Any = None,
    use_while_loop: bool = False,
) -> Any:
    """Moves features towards a larger loss, within a ball around them.

    From x, the features or a random point of the ball around them,

        d = step * direction(mask * gradient(x))
        x <- clip(features + project(x + d - features))

    where the direction is of norm 1 over all features of an example together. For one
    iteration: Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572; for several:
    Madry et al. (2018), https://arxiv.org/abs/1706.06083.

    Gradients, norms and perturbations are computed in float32 at least. A gradient's
    coordinate that is not finite counts as zero. A radius given per feature scales
    that feature's coordinates, so that the ball is one of the scaled features.

    Args:
      features: A structure of tensors, with the batch as first axis.
      gradients: The loss's gradients at `features`, in the same structure; None for
        a leaf without a gradient. Unused with `config.random_init`.
      config: The norm, the step, the ball, masks and bounds.
      gradient_fn: Gradients at other features, for the iterations after the first (with
        `config.random_init` for all).
      seed: An integer tensor of shape [2] that determines the random start.
      use_while_loop: Whether iterations run in a `tf.while_loop`.

    Returns:
      The perturbed features, with no gradient flowing back. Leaves that cannot be
      perturbed are the same objects as in `features`.

    Raises:
      ValueError: If nothing can be perturbed, `gradient_fn` is missing, or a mask or
        bound does not fit the features.
    """
    if gradient_fn is None and (config.random_init or config.pgd_iterations > 1):
        raise ValueError(
            "gradient_fn is needed when pgd_iterations is greater than 1 or "
            "random_init is set."
        )
    ascent = _Ascent(features, config)
    if config.random_init:
        assert gradient_fn is not None
        point = ascent.random_start(seed)
        gradients = gradient_fn(ascent.restore(point))
    else:
        point = ascent.centers
    found = ascent.select(gradients)
    if not found:
        raise ValueError(_nothing_to_perturb(features))
    fixed = [
        n for i, n in enumerate(feature_structures.names(features)) if i not in found
    ]
    if fixed:
        _warn_of_fixed(tuple(fixed))

    def advance(point: _Leaves) -> _Leaves:
        assert gradient_fn is not None
        return ascent.step(point, ascent.select(gradient_fn(ascent.restore(point))))

    point = ascent.step({i: point[i] for i in found}, found)
    further = config.pgd_iterations - 1
    if use_while_loop and further:
        _, point = tf.while_loop(
            lambda i, _: i < further,
            lambda i, point: (i + 1, advance(point)),
            (tf.constant(0), point),
            parallel_iterations=1,
            maximum_iterations=further,
        )
    else:
        for _ in range(further):
            point = advance(point)
    return ascent.restore(point)


class _Ascent:
    """One batch's features, and what a config makes of them leaf by leaf.

    Perturbable leaves are handled as dicts from their position among all leaves.
    """

    def __init__(self, features: Any, config: configs.AdvNeighborConfig) -> None:
        self._features = features
        self._norm = config.adv_grad_norm
        leaves = tf.nest.flatten(features)
        dtypes = [_attack_dtype(leaf) for leaf in leaves]
        self.centers: _Leaves = {
            i: tf.stop_gradient(tf.cast(leaf, dtypes[i]))
            for i, leaf in enumerate(leaves)
            if is_perturbable(leaf)
        }

        def given(field: str) -> _Leaves:
            tensors = feature_structures.spread_tensors(
                getattr(config, field), features, field, dtypes
            )
            return {i: t for i, t in enumerate(tensors) if t is not None}

        self._masks = {
            i: feature_mask.in_unit_interval(mask)
            for i, mask in given("feature_mask").items()
        }
        self._low = given("clip_value_min")
        self._high = given("clip_value_max")
        self._radii = given("pgd_epsilon")
        self._steps = given("adv_step_size")
        for i, name in enumerate(feature_structures.names(features)):
            if i in self.centers and i not in self._steps:
                raise ValueError(f"adv_step_size has no entry for feature {name!r}.")

    def select(self, gradients: Any) -> _Leaves:
        """Returns the gradients there are, with zeros for what is not finite."""
        found = {}
        flat = [] if gradients is None else tf.nest.flatten(gradients)
        for i, gradient in enumerate(flat):
            if gradient is not None and i in self.centers:
                center = self.centers[i]
                gradient = tf.cast(tf.convert_to_tensor(gradient), center.dtype)
                finite = tf.math.is_finite(gradient)
                found[i] = tf.where(finite, gradient, tf.zeros_like(gradient))
        return found

    def random_start(self, seed: Any) -> _Leaves:
        """Draws a point of the ball, which has the step as radius if none is given."""
        unit = norms.random_in_norm_ball(self.centers, 1.0, self._norm, seed)
        radii = self._steps | self._radii
        return self._place({i: self._masked(i, unit[i]) * radii[i] for i in unit})

    def step(self, point: _Leaves, gradients: _Leaves) -> _Leaves:
        """Takes one steepest step and projects back onto the ball."""
        direction = norms.steepest_step(
            {i: self._masked(i, gradient) for i, gradient in gradients.items()},
            self._norm,
        )
        perturbation = {
            i: point[i] + self._steps[i] * direction[i] - self.centers[i]
            if i in direction
            else point[i] - self.centers[i]
            for i in point
        }
        return self._place(self._project(perturbation))

    def restore(self, point: _Leaves) -> Any:
        """Returns the features with the leaves of `point` in place of their own."""
        leaves = tf.nest.flatten(self._features)
        for i, value in point.items():
            leaves[i] = tf.stop_gradient(tf.cast(value, leaves[i].dtype))
        return tf.nest.pack_sequence_as(self._features, leaves)

    def _masked(self, i: int, value: tf.Tensor) -> tf.Tensor:
        return value * self._masks[i] if i in self._masks else value

    def _project(self, perturbation: _Leaves) -> _Leaves:
        bounded = {
            i: tf.math.divide_no_nan(perturbation[i], self._radii[i])
            for i in perturbation
            if i in self._radii
        }
        if not bounded:
            return perturbation
        projected = norms.project_to_ball(bounded, 1.0, self._norm)
        return perturbation | {i: projected[i] * self._radii[i] for i in projected}

    def _place(self, perturbation: _Leaves) -> _Leaves:
        placed = {}
        for i, value in perturbation.items():
            value = self.centers[i] + value
            if i in self._low:
                value = tf.maximum(value, self._low[i])
            if i in self._high:
                value = tf.minimum(value, self._high[i])
            placed[i] = tf.ensure_shape(value, self.centers[i].shape)
        return placed


def _attack_dtype(leaf: Any) -> tf.DType:
    """Returns the dtype to compute a leaf's perturbation in: at least float32."""
    return tf.float64 if getattr(leaf, "dtype", None) == tf.float64 else tf.float32


def _perturbable_leaves(features: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(features) if is_perturbable(leaf)]


def _gradients(loss: tf.Tensor, features: Any, tape: tf.GradientTape | None) -> Any:
    """Returns the gradients of a loss in the structure of the features."""
    leaves = tf.nest.flatten(features)
    positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, tf.Tensor)]
    positions = [i for i in positions if is_perturbable(leaves[i])]
    sources = [leaves[i] for i in positions]
    if tape is None:
        found = tf.gradients(loss, sources) if sources else []
    else:
        found = tape.gradient(loss, sources)
    flat: list[Any] = [None] * len(leaves)
    for i, gradient in zip(positions, found, strict=True):
        flat[i] = gradient
    return tf.nest.pack_sequence_as(features, flat)


def _first_gradients(
    features: Any,
    loss: tf.Tensor | None,
    tape: tf.GradientTape | None,
    regularizer_fn: Callable[[Any], tf.Tensor] | None,
) -> Any:
    """Returns the gradients of the given loss and of the regularizer."""
    if tape is None and tf.executing_eagerly():
        raise ValueError(
            "gradient_tape is needed in eager mode: compute labeled_loss in the "
            "context of a tf.GradientTape that watches the features (tape.watch), and "
            "pass that tape. Without one, call this within a tf.function."
        )
    if loss is None:
        raise ValueError("labeled_loss is needed unless random_init is set.")
    # A tape that is not persistent is used up by taking the gradient, not paused.
    persistent = getattr(tape, "_persistent", False)
    with _paused(tape if persistent else None):
        gradients = _gradients(loss, features, tape)
    if regularizer_fn is None:
        return gradients
    with _paused(tape), tf.GradientTape(watch_accessed_variables=False) as own_tape:
        own_tape.watch(_perturbable_leaves(features))
        regularizer = regularizer_fn(features)
    with _paused(tape):
        extra = tf.nest.flatten(_gradients(regularizer, features, own_tape))
        return tf.nest.pack_sequence_as(
            features,
            [
                b if a is None else a if b is None else a + b
                for a, b in zip(tf.nest.flatten(gradients), extra, strict=True)
            ],
        )


@contextlib.contextmanager
def _paused(tape: tf.GradientTape | None) -> Iterator[None]:
    """Keeps a tape from recording, if it does."""
    with contextlib.ExitStack() as stack:
        if tape is not None:
            # Raised by a tape that is not recording now.
            with contextlib.suppress(RuntimeError, ValueError):
                stack.enter_context(tape.stop_recording())
        yield


def _kind(leaf: Any) -> str:
    if isinstance(leaf, tf.RaggedTensor):
        return f"ragged, {leaf.dtype.name}"
    if isinstance(leaf, tf.SparseTensor):
        return f"sparse, {leaf.dtype.name}"
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else tf.as_dtype(dtype).name


def _described(features: Any) -> str:
    named = zip(
        feature_structures.names(features), tf.nest.flatten(features), strict=True
    )
    return ", ".join(
        f"{name!r} ({_kind(leaf)})" if name else f"a tensor of {_kind(leaf)}"
        for name, leaf in named
    )


def _nothing_to_perturb(features: Any) -> str:
    return (
        "None of the features can be perturbed: "
        f"{_described(features)}. Only dense floating tensors that the loss depends on "
        "can. Cast integers to float32 before the model sees them (images of uint8, "
        "for instance: tf.cast(x, tf.float32) / 255). If a feature is floating, the "
        "tape must have watched it (tape.watch) before the model was called on it."
    )


def _refuse_unperturbed(features: Any, gradients: Any) -> None:
    fixed = {
        name: leaf
        for name, leaf, gradient in zip(
            feature_structures.names(features),
            tf.nest.flatten(features),
            tf.nest.flatten(gradients),
            strict=True,
        )
        if gradient is None or not is_perturbable(leaf)
    }
    if fixed:
        raise ValueError(
            f"Cannot perturb features {_described(fixed)}: they are not dense floating "
            "tensors, or the loss does not depend on them."
        )


@functools.cache
def _warn_of_fixed(names: tuple[str, ...]) -> None:
    logging.warning(
        "Features %s are not perturbed: they are not dense floating tensors, or the "
        "loss does not depend on them.",
        ", ".join(map(repr, names)),
    )
