"""Published methods of adversarial training as configs.

Each function returns an `AdvRegConfig` for `nsl.keras.AdversarialRegularization` that
trains for robustness within a ball of radius `epsilon` around each sample.
`docs/guides/robust_training.md` compares the methods.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import keras

from nsl.configs import AdvRegConfig, NormType, fields, make_adv_reg_config

Bounds = tuple[Any, Any]

# The total length of all steps of an attack, in units of the radius.
_STEPS_PER_RADIUS = 2.5


def pgd(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    steps: int = 10,
    weight_perturbation: float | fields.Schedule = 0.0,
    warmup_steps: int = 0,
) -> AdvRegConfig:
    """PGD training: trains on adversarial examples only.

    Madry et al. (2018), https://arxiv.org/abs/1706.06083. They take 40 steps on MNIST
    and 7 on CIFAR-10. The step size is 2.5 * epsilon / steps, as in their appendix on
    the L2 norm.

    Args:
      epsilon: The radius of the ball, or a structure with one radius per feature.
      norm: The norm of the ball, a `NormType` or its value.
      bounds: `(low, high)`, the range of valid features. None for no bounds.
      steps: The number of attack steps, each with a forward and a backward pass.
      weight_perturbation: The size of the weight perturbation; see `AdvRegConfig`.
      warmup_steps: The number of optimizer updates in which the radius grows linearly
        from 0 to `epsilon`. A network may fail to learn if it starts with a radius that
        is large compared to the range of the features, such as 0.3 on MNIST. Needs a
        number as `epsilon`.

    Returns:
      The config.

    Raises:
      TypeError: If `epsilon` is a callable, or is not a number and `warmup_steps` is
        not 0.
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
    """TRADES: trains on the samples, and for equal predictions at their neighbors.

    Zhang et al. (2019), https://arxiv.org/abs/1901.08573. They take `beta` = 6 on
    CIFAR-10, and `beta` = 1 with 40 steps on MNIST. A larger `beta` trades clean
    accuracy for robust accuracy.

    Args:
      epsilon: See `pgd`, also for the other arguments but `beta`.
      norm: The norm of the ball.
      bounds: The range of valid features.
      steps: The number of attack steps.
      beta: The factor of the KL divergence, 1 / lambda in the paper.
      weight_perturbation: The size of the weight perturbation.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.

    Raises:
      TypeError: See `pgd`.
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
    """N-FGSM: trains on one attack step from a noisy start.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181: noise of radius
    2 * epsilon, one step of size epsilon, and no projection onto the ball. Up to radii
    such as 16/255 on images, the noise prevents catastrophic overfitting, where a
    network is robust to single-step attacks only. The callback `RobustAccuracy` warns
    of it.

    Args:
      epsilon: See `pgd`, also for the other arguments.
      norm: The norm of the ball.
      bounds: The range of valid features.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.

    Raises:
      TypeError: See `pgd`.
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
    """Free training: updates weights and perturbations by the same backward pass.

    Shafahi et al. (2019), https://arxiv.org/abs/1904.12843. Trains `replays` times on
    each batch, with one attack step of size epsilon in between. Divide the number of
    epochs by `replays`.

    Args:
      epsilon: See `pgd`, also for the other arguments but `replays`.
      norm: The norm of the ball.
      bounds: The range of valid features.
      replays: The number of updates per batch, m in the paper.
      warmup_steps: The number of updates in which the radius grows.

    Returns:
      The config.

    Raises:
      TypeError: See `pgd`.
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
    """Interval bound propagation: trains on bounds of the outputs over a whole ball.

    The norm is L-infinity. Samples whose bounds classify them correctly are certified:
    no attack within the ball can succeed. With `steps=0`, the loss at the bounds is
    added to the loss at the samples (Gowal et al., 2018,
    https://arxiv.org/abs/1810.12715, with kappa = 1/2). Otherwise it is added to the
    loss at adversarial examples (MTL-IBP: De Palma et al., 2024,
    https://arxiv.org/abs/2305.13991, where alpha is multiplier / (1 + multiplier)). A
    small multiplier such as 0.1 then lowers the certified accuracy, and raises clean
    and robust accuracy. The bounds prevent catastrophic overfitting even with one step.

    Args:
      epsilon: See `pgd`.
      bounds: The range of valid features.
      multiplier: The factor of the loss at the bounds.
      steps: The number of attack steps.
      warmup_steps: The number of updates in which the radius grows. Use many, such as a
        third of all updates: a network does not learn if it starts with the full
        radius.

    Returns:
      The config.

    Raises:
      TypeError: See `pgd`.
    """
    # A single step has size 1.25 * epsilon, as in Wong et al. (2020).
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
    """Returns the settings of an attack in a ball, with `step` in units of epsilon."""
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
    """Multiplies a radius, or a structure of radii, and schedules its warmup."""
    if callable(epsilon) or (warmup_steps and not isinstance(epsilon, numbers.Real)):
        raise TypeError(
            "Presets expect a number as epsilon, or, without warmup_steps, also an "
            f"array or a structure of them, but received {epsilon!r} and "
            f"warmup_steps={warmup_steps!r}. For other schedules, set adv_step_size "
            "and pgd_epsilon in make_adv_reg_config."
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
