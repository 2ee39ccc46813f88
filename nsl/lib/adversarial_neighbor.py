"""Adversarial neighbors: examples perturbed within a norm ball to increase a loss."""

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
from nsl.lib.threat_model import ThreatModel

__all__ = [
    "gen_adv_neighbor",
    "is_perturbable",
    "perturbation_box",
    "projected_gradient_ascent",
]


def gen_adv_neighbor(
    input_features: Any,
    labeled_loss: tf.Tensor | None,
    config: configs.AdvNeighborConfig,
    raise_invalid_gradient: bool = False,
    gradient_tape: tf.GradientTape | None = None,
    pgd_model_fn: Callable[[Any], Any] | None = None,
    pgd_loss_fn: Callable[[Any, Any], tf.Tensor] | None = None,
    pgd_labels: Any = None,
    use_while_loop: bool | Callable[..., Any] = False,
    regularizer_fn: Callable[[dict[Any, Any], dict[Any, Any]], Any] | None = None,
    seed: Any = None,
) -> tuple[Any, tf.Tensor]:
    """Generates the adversarial neighbor of each sample in a batch.

    The first iteration takes one steepest-ascent step of norm `config.adv_step_size`;
    further iterations are projected gradient ascent. `projected_gradient_ascent` gives
    the formula.

    Example:
    ```python
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        loss = loss_fn(y, model(x))
        neighbor, _ = nsl.lib.gen_adv_neighbor(x, loss, config, gradient_tape=tape)
        total_loss = loss + 0.2 * loss_fn(y, model(neighbor))
    ```

    Args:
      input_features: A tensor, or a structure of tensors, of shape [batch, ...]. Dense
        floating tensors are perturbed; all others are returned unchanged.
      labeled_loss: The scalar loss at `input_features`. May be None with
        `config.random_init`, which does not use its gradient.
      config: The norm, step size, radius, masks and bounds.
      raise_invalid_gradient: Whether to raise an error for a feature that cannot be
        perturbed. Otherwise it is returned unchanged, with one warning.
      gradient_tape: The tape that recorded `labeled_loss` as a function of
        `input_features`. Not needed inside a graph. This function records nothing on
        it. In eager mode, other active tapes do record the iterations unless paused
        (`tape.stop_recording()`).
      pgd_model_fn: Maps features to predictions. Like `pgd_loss_fn`, required for more
        than one iteration, and for `config.random_init`.
      pgd_loss_fn: Maps labels and predictions to a loss.
      pgd_labels: The labels passed to `pgd_loss_fn`.
      use_while_loop: Whether to run the iterations in a `tf.while_loop` instead of
        unrolling them, which makes a smaller graph. `pgd_model_fn` must then have no
        Python side effects.
      regularizer_fn: Maps perturbations and gradients to a scalar that is added to the
        loss being maximized, as in Qin et al. (2019, https://arxiv.org/abs/1907.02610).
        The step along the gradient of `labeled_loss` does not use it. Both arguments
        are dicts keyed by feature name (by position for a list or tuple; by '' for a
        single tensor): the current perturbation of each floating feature, and the
        gradient of `pgd_loss_fn` at `input_features`, with non-finite values replaced
        by 0, for each feature that has a gradient. It may also be passed as the
        positional argument before `use_while_loop`, as in NSL's sources after 1.4.0.
      seed: An integer tensor of shape [2] that determines the random start. If None,
        the seed is drawn at random, controlled by `tf.random.set_seed`.

    Returns:
      The neighbors, in the structure, shapes and dtypes of `input_features`, with
      gradients stopped; and their weights, ones of shape [batch, 1], float32.

    Raises:
      ValueError: If there are no features; if `config` names an embedding layer; if a
        feature cannot be perturbed and `raise_invalid_gradient` is set; if
        `pgd_model_fn` or `pgd_loss_fn` is missing; if the tape is missing in eager
        mode; or if a mask or bound does not broadcast to its feature.
    """
    if not tf.nest.flatten(input_features):
        raise ValueError("input_features contains no features.")
    if config.embedding_layer:
        raise ValueError(
            "gen_adv_neighbor does not support "
            f"embedding_layer={config.embedding_layer!r}. Pass the layer's outputs as "
            "input_features, or use nsl.keras.AdversarialRegularization."
        )
    if callable(use_while_loop):
        regularizer_fn, use_while_loop = use_while_loop, bool(regularizer_fn)
    iterates = _needs_gradient_fn(config, config.random_init)
    if iterates and (pgd_model_fn is None or pgd_loss_fn is None):
        raise ValueError(
            "pgd_model_fn and pgd_loss_fn are needed for more than one iteration, and "
            "for any after a random start, but received "
            f"pgd_model_fn={pgd_model_fn!r}, pgd_loss_fn={pgd_loss_fn!r}."
        )

    first_gradients: dict[Any, Any] | None = None

    def gradient_fn(features: Any) -> Any:
        assert pgd_model_fn is not None
        assert pgd_loss_fn is not None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(_perturbable_leaves(features))
            loss = pgd_loss_fn(pgd_labels, pgd_model_fn(features))
            if first_gradients is not None:
                assert regularizer_fn is not None
                perturbations = _perturbations(input_features, features)
                regularizer = regularizer_fn(perturbations, first_gradients)
                loss = loss + tf.cast(regularizer, loss.dtype)
        return _gradients(loss, features, tape)

    gradients = None
    if not config.random_init:
        gradients = _first_gradients(input_features, labeled_loss, gradient_tape)
        if raise_invalid_gradient:
            _raise_if_unperturbed(input_features, gradients)
    elif raise_invalid_gradient:
        _raise_if_unperturbed(input_features, input_features)
    with _paused(gradient_tape):
        if iterates and regularizer_fn is not None:
            first_gradients = _finite_by_key(
                input_features, gradient_fn(input_features)
            )
        neighbor = _ascend(
            input_features,
            gradients,
            config,
            gradient_fn=gradient_fn if iterates else None,
            seed=seed,
            use_while_loop=use_while_loop,
        )
    if neighbor is None:
        _warn_nothing_perturbed(feature_structures.nothing_to_perturb(input_features))
        neighbor = input_features
    [rows, *_] = map(_rows, tf.nest.flatten(input_features))
    return neighbor, tf.ones(tf.stack([rows, 1]))


def projected_gradient_ascent(
    features: Any,
    gradients: Any,
    config: configs.AdvNeighborConfig,
    gradient_fn: Callable[[Any], Any] | None = None,
    seed: Any = None,
    use_while_loop: bool = False,
    start: Any = None,
) -> Any:
    """Maximizes a loss over a norm ball around the features.

    Starting with x at the features, or at a random point of the ball around them,

        d = step * direction(mask * gradient(x))
        x <- clip(features + project(x + d - features))

    where the direction has norm 1, measured over all features of an example together,
    or with `config.norm_per_position` over each position separately. One iteration:
    Goodfellow et al. (2015), https://arxiv.org/abs/1412.6572; several: Madry et al.
    (2018), https://arxiv.org/abs/1706.06083.

    Gradients, norms and perturbations are computed in float32 or wider. Non-finite
    gradient coordinates count as 0. A radius per feature scales the coordinates of that
    feature; the ball is then a ball of the scaled features.

    Args:
      features: A structure of tensors of shape [batch, ...].
      gradients: The gradients of the loss at `features`, or at `start`, in the same
        structure; None for a leaf without a gradient. Ignored with a random start.
      config: The norm, step size, radius, masks and bounds.
      gradient_fn: Maps features to gradients, for the iterations after the first (with
        a random start, for all). With 0 iterations a random start is returned as it
        is; any other start still takes the first step.
      seed: An integer tensor of shape [2] that determines the random start.
      use_while_loop: Whether to run the iterations in a `tf.while_loop`.
      start: The first point of the ascent, in the structure of `features`, which remain
        the center of the ball. If None, `features` or a random point.

    Returns:
      The perturbed features, with gradients stopped. Leaves that cannot be perturbed
      are the same objects as in `features`.

    Raises:
      ValueError: If nothing can be perturbed, `gradient_fn` is missing, or a mask or
        bound does not broadcast to its feature.
    """
    perturbed = _ascend(
        features, gradients, config, gradient_fn, seed, use_while_loop, start
    )
    if perturbed is None:
        raise ValueError(feature_structures.nothing_to_perturb(features))
    return perturbed


def perturbation_box(
    features: Any, config: configs.AdvNeighborConfig
) -> tuple[Any, Any]:
    """Returns the box that contains every adversarial neighbor of the features.

    For the L-infinity norm the box is the search space itself; balls of the other norms
    lie within it.

    Args:
      features: A structure of tensors of shape [batch, ...].
      config: The radius, masks and bounds.

    Returns:
      The lower and the upper bounds of the features. Leaves that cannot be perturbed
      are the same objects as in `features`.

    Raises:
      ValueError: If nothing can be perturbed, or a mask or bound does not broadcast to
        its feature.
    """
    return _Ascent(features, config).threat.enclosing_box()


def _ascend(
    features: Any,
    gradients: Any,
    config: configs.AdvNeighborConfig,
    gradient_fn: Callable[[Any], Any] | None,
    seed: Any,
    use_while_loop: bool,
    start: Any = None,
) -> Any:
    """`projected_gradient_ascent`, but returns None if nothing can be perturbed."""
    draws = config.random_init and start is None
    if gradient_fn is None and _needs_gradient_fn(config, draws):
        raise ValueError(
            "gradient_fn is needed for more than one iteration, and for any after a "
            "random start, but received None."
        )
    if not _perturbable_leaves(features):
        return None
    ascent = _Ascent(features, config)
    threat = ascent.threat
    point = threat.centers if start is None else threat.rows(start)
    if draws:
        point = ascent.random_start(seed)
        gradients = features
        if config.pgd_iterations:
            assert gradient_fn is not None
            gradients = gradient_fn(threat.restore(point))
    kept = _unperturbed(features, gradients)
    if len(kept) == len(tf.nest.flatten(features)):
        return None
    if kept:
        _warn_unperturbed(tuple(kept.values()))
    if draws and not config.pgd_iterations:
        return threat.restore(point, kept)
    if draws and kept:
        point = threat.rows(threat.restore(point, kept))

    def advance(point: tf.Tensor) -> tf.Tensor:
        assert gradient_fn is not None
        return ascent.step(point, gradient_fn(threat.restore(point, kept)))

    point = ascent.step(point, gradients)
    further = max(config.pgd_iterations - 1, 0)
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
    return threat.restore(point, kept)


def _needs_gradient_fn(config: configs.AdvNeighborConfig, random_start: bool) -> bool:
    """Returns whether gradients are needed beyond those at the features."""
    return config.pgd_iterations > (0 if random_start else 1)


def _unperturbed(features: Any, gradients: Any) -> dict[int, str]:
    """Returns the leaves that cannot be perturbed: names by position."""
    leaves = tf.nest.flatten(features)
    found = [None] * len(leaves) if gradients is None else tf.nest.flatten(gradients)
    return {
        i: name
        for i, name in enumerate(feature_structures.names(features))
        if found[i] is None or not is_perturbable(leaves[i])
    }


class _Ascent:
    """The threat model of a config, its random starts and its steps."""

    def __init__(self, features: Any, config: configs.AdvNeighborConfig) -> None:
        leaves = tf.nest.flatten(features)
        dtypes = [_attack_dtype(leaf) for leaf in leaves]

        def given(field: str) -> list[tf.Tensor | None]:
            return feature_structures.spread_tensors(
                getattr(config, field), features, field, dtypes
            )

        radii, steps = given("pgd_epsilon"), given("adv_step_size")
        for name, leaf, step in zip(
            feature_structures.names(features), leaves, steps, strict=True
        ):
            if is_perturbable(leaf) and step is None:
                raise ValueError(
                    f"adv_step_size has no entry for feature {name!r}: every dense "
                    "floating feature needs a step size."
                )
        masks = [
            None if mask is None else feature_mask.in_unit_interval(mask)
            for mask in given("feature_mask")
        ]
        self._norm_type = config.adv_grad_norm
        radius, scale = _ball(config.pgd_epsilon, radii)
        self.threat = ThreatModel(
            features,
            config.adv_grad_norm,
            radius=radius,
            scale=scale,
            low=given("clip_value_min"),
            high=given("clip_value_max"),
            mask=masks,
            per_position=config.norm_per_position,
        )
        self._steps: Any = self.threat.spread(steps, 0.0)
        # A feature without a radius starts within the distance of one step.
        reach = [
            s if r is None or s is None else tf.where(tf.math.is_finite(r), r, s)
            for s, r in zip(steps, radii, strict=True)
        ]
        own = given("random_init_radius")
        reach = [r if o is None else o for r, o in zip(reach, own, strict=True)]
        self._reach: Any = self.threat.spread(reach, 0.0)

    def random_start(self, seed: Any) -> tf.Tensor:
        """Draws a point of the ball."""
        centers = self.threat.centers
        unit = norms.random_in_norm_ball(centers, 1.0, self._norm_type, seed)
        return self.threat.place(self.threat.masked(unit) * self._reach)

    def step(self, point: tf.Tensor, gradients: Any) -> tf.Tensor:
        """Takes one steepest-ascent step and projects it onto the ball."""
        direction = self.threat.steepest_step(self.threat.rows(gradients))
        perturbation = point + self._steps * direction - self.threat.centers
        return self.threat.place(self.threat.project(perturbation))


def _ball(
    epsilon: Any, radii: list[tf.Tensor | None]
) -> tuple[Any, list[tf.Tensor | None] | None]:
    """Returns the radius of the ball and the scale of each leaf, as `ThreatModel`s.

    One radius for all features needs no scale.
    """
    if all(radius is None for radius in radii):
        return None, None
    if not tf.nest.is_nested(epsilon):
        [radius, *_] = (radius for radius in radii if radius is not None)
        if radius.shape.rank == 0:
            return radius, None
    return 1.0, radii


def _attack_dtype(leaf: Any) -> tf.DType:
    """Returns the dtype to compute a leaf's perturbation in: at least float32."""
    return tf.float64 if getattr(leaf, "dtype", None) == tf.float64 else tf.float32


def _perturbable_leaves(features: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(features) if is_perturbable(leaf)]


def _gradients(loss: tf.Tensor, features: Any, tape: tf.GradientTape | None) -> Any:
    """Returns the gradients of a loss, in the structure of the features."""
    leaves = tf.nest.flatten(features)
    positions = [
        i
        for i, leaf in enumerate(leaves)
        if isinstance(leaf, tf.Tensor) and is_perturbable(leaf)
    ]
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
    features: Any, loss: tf.Tensor | None, tape: tf.GradientTape | None
) -> Any:
    """Returns the gradients of `labeled_loss`."""
    if tape is None and tf.executing_eagerly():
        raise ValueError(
            "gradient_tape is needed in eager mode: compute labeled_loss inside a "
            "tf.GradientTape that watches the features (tape.watch), and pass that "
            "tape. Inside a tf.function none is needed."
        )
    if loss is None:
        raise ValueError("labeled_loss is needed unless random_init is set.")
    # A tape that is not persistent cannot be paused; taking the gradient ends it.
    persistent = getattr(tape, "_persistent", False)
    with _paused(tape if persistent else None):
        return _gradients(loss, features, tape)


def _perturbations(originals: Any, features: Any) -> dict[Any, tf.Tensor]:
    """Returns the current perturbation of each perturbable feature, by key."""
    triples = zip(
        feature_structures.keys(originals),
        tf.nest.flatten(originals),
        tf.nest.flatten(features),
        strict=True,
    )
    return {key: moved - x for key, x, moved in triples if is_perturbable(x)}


def _finite_by_key(features: Any, gradients: Any) -> dict[Any, tf.Tensor]:
    """Returns the existing gradients by key, with non-finite values set to 0."""
    found = {}
    keys = feature_structures.keys(features)
    for key, gradient in zip(keys, tf.nest.flatten(gradients), strict=True):
        if gradient is not None:
            g = tf.convert_to_tensor(gradient)
            found[key] = tf.where(tf.math.is_finite(g), g, tf.zeros_like(g))
    return found


@contextlib.contextmanager
def _paused(tape: tf.GradientTape | None) -> Iterator[None]:
    """Pauses the recording of a tape, if it is recording."""
    with contextlib.ExitStack() as stack:
        if tape is not None:
            # A tape that is not recording raises one of these.
            with contextlib.suppress(RuntimeError, ValueError):
                stack.enter_context(tape.stop_recording())
        yield


def _raise_if_unperturbed(features: Any, gradients: Any) -> None:
    leaves = tf.nest.flatten(features)
    fixed = {name: leaves[i] for i, name in _unperturbed(features, gradients).items()}
    if fixed:
        raise ValueError(
            f"Cannot perturb features {feature_structures.described(fixed)}: they are "
            "not dense floating tensors, or the loss does not depend on them."
        )


@functools.cache
def _warn_unperturbed(names: tuple[str, ...]) -> None:
    logging.warning(
        "Features %s are not perturbed: they are not dense floating tensors, or the "
        "loss does not depend on them.",
        ", ".join(map(repr, names)),
    )


@functools.cache
def _warn_nothing_perturbed(message: str) -> None:
    logging.warning("%s The features are returned unchanged.", message)


def _rows(leaf: Any) -> Any:
    """Returns the number of examples in a tensor of any kind."""
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    if isinstance(leaf, tf.RaggedTensor):
        return tf.cast(leaf.nrows(), tf.int32)
    return tf.shape(leaf)[0]
