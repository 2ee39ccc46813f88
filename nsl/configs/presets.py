"""Recipes of adversarial training, each as it was published.

A recipe is an `AdvRegConfig` to pass to `nsl.keras.AdversarialRegularization`. All
perturb each sample within a ball of radius `epsilon` around it and take as many steps
as their authors; `docs/guides/robust_training.md` says which to choose.
"""

from collections.abc import Mapping
from typing import Any

from nsl.configs import fields
from nsl.configs.adversarial import AdvRegConfig, NormType, make_adv_reg_config

Bounds = tuple[Any, Any]

# Of a ball's radius, how long all steps of an ascent are together.
_STEPS_PER_RADIUS = 2.5


def pgd(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    steps: int = 10,
    weight_perturbation: float | fields.Schedule = 0.0,
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

    Returns:
      The config.
    """
    return make_adv_reg_config(
        mode="replace",
        weight_perturbation=weight_perturbation,
        **_ball(epsilon, norm, bounds, steps),
    )


def trades(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    steps: int = 10,
    beta: float | fields.Schedule = 6.0,
    weight_perturbation: float | fields.Schedule = 0.0,
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

    Returns:
      The config.
    """
    return make_adv_reg_config(
        multiplier=beta,
        objective="trades",
        weight_perturbation=weight_perturbation,
        **_ball(epsilon, norm, bounds, steps),
    )


def fast(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
) -> AdvRegConfig:
    """Trains on samples attacked with one step from noise: N-FGSM.

    De Jorge et al. (2022), https://arxiv.org/abs/2202.01181: noise of radius
    2 * epsilon, a step of epsilon from there, and no projection onto the ball. That
    keeps one-step training from collapsing, where a network withstands the one step and
    nothing else.

    Args:
      epsilon: See `pgd`, as for all.
      norm: The norm of the ball.
      bounds: The range of valid features.

    Returns:
      The config.
    """
    low, high = bounds or (None, None)
    return make_adv_reg_config(
        mode="replace",
        adv_step_size=epsilon,
        adv_grad_norm=norm,
        random_init=True,
        random_init_radius=_times(epsilon, 2.0),
        clip_value_min=low,
        clip_value_max=high,
    )


def free(
    epsilon: Any,
    norm: NormType | str = NormType.INFINITY,
    bounds: Bounds | None = (0.0, 1.0),
    replays: int = 8,
) -> AdvRegConfig:
    """Trains several times on each batch, which moves on after each: free training.

    Shafahi et al. (2019), https://arxiv.org/abs/1904.12843. A step is as long as the
    radius. Train for `replays` times fewer epochs than otherwise.

    Args:
      epsilon: See `pgd`, as for all but `replays`.
      norm: The norm of the ball.
      bounds: The range of valid features.
      replays: How often each batch is trained on, m in the paper.

    Returns:
      The config.
    """
    return make_adv_reg_config(
        mode="free",
        **{**_ball(epsilon, norm, bounds, replays), "adv_step_size": epsilon},
    )


def _ball(
    epsilon: Any, norm: NormType | str, bounds: Bounds | None, steps: int
) -> dict[str, Any]:
    low, high = bounds or (None, None)
    return {
        "adv_step_size": _times(epsilon, _STEPS_PER_RADIUS / steps),
        "adv_grad_norm": norm,
        "pgd_iterations": steps,
        "pgd_epsilon": epsilon,
        "random_init": True,
        "clip_value_min": low,
        "clip_value_max": high,
    }


def _times(value: Any, factor: float) -> Any:
    """Multiplies a number, or each in a structure of them."""
    if isinstance(value, Mapping):
        return {key: _times(item, factor) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_times(item, factor) for item in value)
    if callable(value):
        raise TypeError(
            "A preset takes epsilon as a number, an array or a structure of them, but "
            f"received {value!r}. For a schedule, set adv_step_size and pgd_epsilon in "
            "make_adv_reg_config."
        )
    return factor * value
