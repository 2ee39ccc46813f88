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
        If not, it comes back as it is, and is warned of once.
      gradient_tape: The tape that watched the way from `input_features` to
        `labeled_loss`. Not needed where a graph is built. Nothing that happens in here
        is recorded on it. In eager mode any other active tape does record the
        iterations, unless it is paused (`tape.stop_recording()`).
      pgd_model_fn: Predictions of features. Needed for more than one iteration and for
        `config.random_init`, like `pgd_loss_fn`.
      pgd_loss_fn: Loss of labels and predictions.
      pgd_labels: What `pgd_loss_fn` gets as labels.
      use_while_loop: Whether iterations run in a `tf.while_loop` instead of being
        unrolled, which makes a smaller graph. `pgd_model_fn` must then have no Python
        side effects.
      regularizer_fn: A scalar of perturbations and gradients that is added to the loss
        to be raised, as in Qin et al. (2019, https://arxiv.org/abs/1907.02610); the
        iteration that `labeled_loss` is for goes without it. Both arguments are dicts
        by the names of the features (by their positions in a list or tuple; by '' for
        a single tensor): how far each floating feature is from where it was, and the
        gradient of `pgd_loss_fn` at `input_features`, with zeros where it is not
        finite, of those features that have one. May stand before `use_while_loop`, as
        in the sources of NSL after release 1.4.0.
      seed: An integer tensor of shape [2] that determines the random start. None draws
        one, which `tf.random.set_seed` governs.

    Returns:
      The neighbors, in the structure, shapes and dtypes of `input_features`, with no
      gradient flowing back; and their weights, ones of shape [batch, 1], float32.

    Raises:
      ValueError: If there is no feature; if `config` names an embedding layer; if a
        feature cannot be perturbed and `raise_invalid_gradient` is set; if
        `pgd_model_fn` or `pgd_loss_fn` is missing; if a tape is missing in eager mode;
        or if a mask or bound does not fit.
    """
    if not tf.nest.flatten(input_features):
        raise ValueError("input_features holds no feature.")
    if config.embedding_layer:
        raise ValueError(
            "gen_adv_neighbor knows no layers, but received a config with "
            f"embedding_layer={config.embedding_layer!r}. Pass the layer's outputs as "
            "input_features, or use nsl.keras.AdversarialRegularization."
        )
    if callable(use_while_loop):
        in_a_loop = bool(regularizer_fn)
        regularizer_fn, use_while_loop = use_while_loop, in_a_loop
    iterates = config.pgd_iterations > 1 or config.random_init
    if iterates and (pgd_model_fn is None or pgd_loss_fn is None):
        raise ValueError(
            "pgd_model_fn and pgd_loss_fn are needed when pgd_iterations is greater "
            "than 1 or random_init is set, but received "
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
            _refuse_unperturbed(input_features, gradients)
    elif raise_invalid_gradient:
        _refuse_unperturbed(input_features, input_features)
    with _paused(gradient_tape):
        if iterates and regularizer_fn is not None:
            first_gradients = _finite(input_features, gradient_fn(input_features))
        neighbor = _ascend(
            input_features,
            gradients,
            config,
            gradient_fn=gradient_fn if iterates else None,
            seed=seed,
            use_while_loop=use_while_loop,
        )
    if neighbor is None:
        _warn_of_all(feature_structures.nothing_to_perturb(input_features))
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
    """Moves features towards a larger loss, within a ball around them.

    From x, the features or a random point of the ball around them,

        d = step * direction(mask * gradient(x))
        x <- clip(features + project(x + d - features))

    where the direction is of norm 1 over all features of an example together, or with
    `config.norm_per_position` over each position of them. For one iteration: Goodfellow
    et al. (2015), https://arxiv.org/abs/1412.6572; for several: Madry et al. (2018),
    https://arxiv.org/abs/1706.06083.

    Gradients, norms and perturbations are computed in float32 at least. A gradient's
    coordinate that is not finite counts as zero. A radius given per feature scales
    that feature's coordinates, so that the ball is one of the scaled features.

    Args:
      features: A structure of tensors, with the batch as first axis.
      gradients: The loss's gradients at `features`, or at `start`, in the same
        structure; None for a leaf without a gradient. Unused if the start is random.
      config: The norm, the step, the ball, masks and bounds.
      gradient_fn: Gradients at other features, for the iterations after the first (with
        `config.random_init` for all). With 0 iterations there is no step after a random
        start, but still the first one without.
      seed: An integer tensor of shape [2] that determines the random start.
      use_while_loop: Whether iterations run in a `tf.while_loop`.
      start: Where the ascent begins, in the structure of `features`, which remain the
        center of the ball. None begins at `features` or at random.

    Returns:
      The perturbed features, with no gradient flowing back. Leaves that cannot be
      perturbed are the same objects as in `features`.

    Raises:
      ValueError: If nothing can be perturbed, `gradient_fn` is missing, or a mask or
        bound does not fit the features.
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
    """Returns the box that adversarial neighbors of norm L-infinity are searched in.

    Args:
      features: A structure of tensors, with the batch as first axis.
      config: The radius, masks and bounds.

    Returns:
      The lower and the upper bounds of the features. Leaves that cannot be perturbed
      are the same objects as in `features`.

    Raises:
      ValueError: If nothing can be perturbed, or a mask or bound does not fit.
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
    """Does as `projected_gradient_ascent`, but returns None for nothing to perturb."""
    draws = config.random_init and start is None
    if gradient_fn is None and (draws or config.pgd_iterations > 1):
        raise ValueError(
            "gradient_fn is needed when pgd_iterations is greater than 1 or "
            "random_init is set."
        )
    if not _perturbable_leaves(features):
        return None
    ascent = _Ascent(features, config)
    threat = ascent.threat
    point = threat.centers if start is None else threat.rows(start)
    if draws:
        assert gradient_fn is not None
        point = ascent.random_start(seed)
        if not config.pgd_iterations:
            return threat.restore(point, _without(features, features))
        gradients = gradient_fn(threat.restore(point))
    kept = _without(features, gradients)
    if kept is None:
        return None
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


def _without(features: Any, gradients: Any) -> frozenset[int] | None:
    """Returns the positions of the leaves that stay as they are, warning of them.

    Returns None if that is all of them.
    """
    leaves = tf.nest.flatten(features)
    found = [None] * len(leaves) if gradients is None else tf.nest.flatten(gradients)
    moved = [
        is_perturbable(leaf) and gradient is not None
        for leaf, gradient in zip(leaves, found, strict=True)
    ]
    if not any(moved):
        return None
    names = feature_structures.names(features)
    fixed = [name for name, moves in zip(names, moved, strict=True) if not moves]
    if fixed:
        _warn_of_fixed(tuple(fixed))
    return frozenset(i for i, moves in enumerate(moved) if not moves)


class _Ascent:
    """The threat model of a config, and its steps."""

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
                raise ValueError(f"adv_step_size has no entry for feature {name!r}.")
        masks = [
            None if mask is None else feature_mask.in_unit_interval(mask)
            for mask in given("feature_mask")
        ]
        self._norm_type = config.adv_grad_norm
        self.threat = ThreatModel(
            features,
            config.adv_grad_norm,
            radius=None if config.pgd_epsilon is None else 1.0,
            scale=radii,
            low=given("clip_value_min"),
            high=given("clip_value_max"),
            mask=masks,
            per_position=config.norm_per_position,
        )
        self._steps = self.threat.spread(steps, 0.0)
        # Without a ball of its own, a feature starts as far as a step goes.
        reach = [
            s if r is None or s is None else tf.where(tf.math.is_finite(r), r, s)
            for s, r in zip(steps, radii, strict=True)
        ]
        own = given("random_init_radius")
        reach = [r if o is None else o for r, o in zip(reach, own, strict=True)]
        self._reach = self.threat.spread(reach, 0.0)

    def random_start(self, seed: Any) -> tf.Tensor:
        """Draws a point of the ball."""
        centers = self.threat.centers
        unit = norms.random_in_norm_ball(centers, 1.0, self._norm_type, seed)
        return self.threat.place(self.threat.masked(unit) * self._reach)

    def step(self, point: tf.Tensor, gradients: Any) -> tf.Tensor:
        """Takes one steepest step and projects back onto the ball."""
        direction = self.threat.steepest_step(self.threat.rows(gradients))
        perturbation = point + self._steps * direction - self.threat.centers
        return self.threat.place(self.threat.project(perturbation))


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
    features: Any, loss: tf.Tensor | None, tape: tf.GradientTape | None
) -> Any:
    """Returns the gradients of the given loss."""
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
        return _gradients(loss, features, tape)


def _perturbations(originals: Any, features: Any) -> dict[Any, tf.Tensor]:
    """Returns by key how far each feature that can be perturbed is from its place."""
    triples = zip(
        feature_structures.keys(originals),
        tf.nest.flatten(originals),
        tf.nest.flatten(features),
        strict=True,
    )
    return {key: moved - x for key, x, moved in triples if is_perturbable(x)}


def _finite(features: Any, gradients: Any) -> dict[Any, tf.Tensor]:
    """Returns the gradients that there are by key, zero where they are not finite."""
    found = {}
    keys = feature_structures.keys(features)
    for key, gradient in zip(keys, tf.nest.flatten(gradients), strict=True):
        if gradient is not None:
            g = tf.convert_to_tensor(gradient)
            found[key] = tf.where(tf.math.is_finite(g), g, tf.zeros_like(g))
    return found


@contextlib.contextmanager
def _paused(tape: tf.GradientTape | None) -> Iterator[None]:
    """Keeps a tape from recording, if it does."""
    with contextlib.ExitStack() as stack:
        if tape is not None:
            # Raised by a tape that is not recording now.
            with contextlib.suppress(RuntimeError, ValueError):
                stack.enter_context(tape.stop_recording())
        yield


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
            f"Cannot perturb features {feature_structures.described(fixed)}: they are "
            "not dense floating tensors, or the loss does not depend on them."
        )


@functools.cache
def _warn_of_fixed(names: tuple[str, ...]) -> None:
    logging.warning(
        "Features %s are not perturbed: they are not dense floating tensors, or the "
        "loss does not depend on them.",
        ", ".join(map(repr, names)),
    )


@functools.cache
def _warn_of_all(message: str) -> None:
    logging.warning("%s The features come back as they are.", message)


def _rows(leaf: Any) -> Any:
    """Returns the number of examples in a tensor of any kind."""
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    if isinstance(leaf, tf.RaggedTensor):
        return tf.cast(leaf.nrows(), tf.int32)
    return tf.shape(leaf)[0]
