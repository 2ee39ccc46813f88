"""Recipes of adversarial training, each as it was published.

A recipe is an `AdvRegConfig` to pass to `nsl.keras.AdversarialRegularization`, for
robustness within a ball of radius `epsilon` around each sample.
`docs/guides/robust_training.md` says which to choose.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import keras

from nsl.configs import AdvRegConfig, NormType, fields, make_adv_reg_config

Bounds = tuple[Any, Any]

# Of a ball's radius, how long all steps of an ascent are together.
_STEPS_PER_RADIUS = 2.5


def pgd(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    steps: int = 10,
    weight_perturbation: float | fields.Schedule = 0.0,
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """Trains on attacked samples alone: PGD training.

    Madry et al. (2018), https://arxiv.org/abs/1706.06083. Their 40 steps on MNIST
    are 7 on CIFAR-10; a step is 2.5 * epsilon / steps, as in their appendix on L2.

    Args:
      epsilon: The radius of the ball, or one for each feature.
      norm: The norm of the ball, a `NormType` or its value.
      bounds: `(low, high)`, the range of valid features. None sets no bounds.
      steps: The number of ascent steps, each a forward and a backward pass.
      weight_perturbation: See `AdvRegConfig`.
      warmup_steps: The number of optimizer updates in which the radius grows from 0,
        steadily. Where it is a large part of the range of the features, as 0.3 is on
        MNIST, a network that meets all of it at once may learn nothing. Needs one
        number as `epsilon`.

    Returns:
      The config.
    """
    return make_adv_reg_config(
        mode="replace",
        weight_perturbation=weight_perturbation,
        **_ball(epsilon, norm, bounds, steps, warmup_steps),
    )


def trades(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    steps: int = 10,
    beta: float | fields.Schedule = 6.0,
    weight_perturbation: float | fields.Schedule = 0.0,
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """Trains on the samples, and on equal predictions for their neighbors: TRADES.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573, with `beta` 6 on CIFAR-10
    and 1 on MNIST, where they took 40 steps. A larger one gives up clean accuracy for
    robust accuracy.

    Args:
      epsilon: See `pgd`, as for all but `beta`.
      norm: The norm of the ball.
      bounds: The range of valid features.
      steps: The number of ascent steps.
      beta: Factor of the divergence, 1 / lambda in the paper.
      weight_perturbation: See `AdvRegConfig`.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.
    """
    return make_adv_reg_config(
        multiplier=beta,
        objective="trades",
        weight_perturbation=weight_perturbation,
        **_ball(epsilon, norm, bounds, steps, warmup_steps),
    )


def fast(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """Trains on samples attacked with one step from noise: N-FGSM.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181: noise of radius
    2 * epsilon, a step of epsilon from there, and no projection onto the ball. At radii
    such as 16/255 of images that keeps one-step training from collapsing, where a
    network withstands the one step and nothing else. Watch it with `RobustAccuracy`.

    Args:
      epsilon: See `pgd`, as for all.
      norm: The norm of the ball.
      bounds: The range of valid features.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.
    """
    return make_adv_reg_config(
        mode="replace",
        adv_step_size=_radius(epsilon, 1.0, warmup_steps),
        adv_grad_norm=norm,
        random_init=True,
        random_init_radius=_radius(epsilon, 2.0, warmup_steps),
        **_within(bounds),
    )


def free(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    replays: int = 8,
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """Trains several times on each batch, which moves on after each: free training.

    Shafahi et al. (2019), https://arxiv.org/abs/1904.12843. A step is as long as the
    radius. Train for `replays` times fewer epochs than otherwise.

    Args:
      epsilon: See `pgd`, as for all but `replays`.
      norm: The norm of the ball.
      bounds: The range of valid features.
      replays: How often each batch is trained on, m in the paper.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.
    """
    return make_adv_reg_config(
        mode="free",
        **_ball(epsilon, norm, bounds, replays, warmup_steps, step=1.0),
    )


def interval_bounds(
    epsilon: Any,
    bounds: Bounds | None = (0.0, 1.0),
    multiplier: float | fields.Schedule = 1.0,
    steps: int = 0,
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """Trains on bounds of the outputs over the whole ball, of norm L-infinity.

    What withstands them is certified: no attack can do anything. With `steps=0` the
    bounds are added to the loss at the samples (Gowal et al., 2018,
    https://arxiv.org/abs/1810.12715, kappa 1/2). Otherwise they are added to that at
    attacked samples (MTL-IBP: De Palma et al., 2024, https://arxiv.org/abs/2305.13991,
    where alpha is multiplier / (1 + multiplier)): a multiplier such as 0.1 certifies
    less, and withstands more attacks, at a higher clean accuracy. The bounds keep
    even training with one step from collapsing.

    Args:
      epsilon: See `pgd`.
      bounds: The range of valid features.
      multiplier: Factor of the loss at the bounds.
      steps: The number of steps that attack the samples.
      warmup_steps: The number of updates in which the radius grows. It takes many, such
        as a third of all: with all of the radius at once a network learns nothing.

    Returns:
      The config.
    """
    # One step is half as long as those of PGD together: Wong et al. (2020).
    step = _STEPS_PER_RADIUS / max(steps, 2)
    return make_adv_reg_config(
        multiplier=multiplier,
        mode="replace" if steps else "add",
        objective="interval_bounds",
        **{
            **_ball(epsilon, "infinity", bounds, steps, warmup_steps, step),
            "random_init": steps > 0,
        },
    )


def _ball(
    epsilon: Any,
    norm: NormType | str,
    bounds: Bounds | None,
    steps: int,
    warmup_steps: int,
    step: float | None = None,
) -> dict[str, Any]:
    """Returns the settings of an ascent in a ball; `step` is in units of epsilon."""
    step = _STEPS_PER_RADIUS / steps if step is None else step
    return {
        "adv_step_size": _radius(epsilon, step, warmup_steps),
        "adv_grad_norm": norm,
        "pgd_iterations": steps,
        "pgd_epsilon": _radius(epsilon, 1.0, warmup_steps),
        "random_init": True,
        **_within(bounds),
    }


def _within(bounds: Bounds | None) -> dict[str, Any]:
    low, high = bounds or (None, None)
    return {"clip_value_min": low, "clip_value_max": high}


def _radius(epsilon: Any, factor: float, warmup_steps: int) -> Any:
    """Multiplies a radius, or each in a structure of them; growing, if asked for."""
    if callable(epsilon) or (warmup_steps and not isinstance(epsilon, numbers.Real)):
        raise TypeError(
            "A preset takes epsilon as a number, or without warmup_steps an array or a "
            f"structure of them, but received {epsilon!r} and warmup_steps="
            f"{warmup_steps!r}. Set adv_step_size and pgd_epsilon in "
            "make_adv_reg_config."
        )
    if warmup_steps:
        return keras.optimizers.schedules.PolynomialDecay(
            0.0, warmup_steps, factor * epsilon
        )
    if isinstance(epsilon, Mapping):
        return {key: _radius(item, factor, 0) for key, item in epsilon.items()}
    if isinstance(epsilon, list | tuple):
        return type(epsilon)(_radius(item, factor, 0) for item in epsilon)
    return factor * epsilon
