"""The radii of an evaluation."""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from nsl.attacks.examples import Examples, Limits

_LISTED = 8


@attrs.frozen
class Radius:
    """One radius of an evaluation.

    Attributes:
      key: Its name in the report: the number, or a text.
      value: The value to call attacks with.
      limits: The limits of all examples.
    """

    key: Any
    value: Any
    limits: Limits

    def is_in(self, larger: "Radius") -> bool:
        """Returns whether the ball of this radius lies within that of another."""
        sizes = zip(_sizes(larger.limits), _sizes(self.limits), strict=True)
        return all(bool(np.all(large >= small)) for large, small in sizes)


def read_radii(epsilons: Any, examples: Examples) -> tuple[list[Radius], list[str]]:
    """Reads the `epsilons` of `evaluate_robustness`.

    Returns:
      The radii, with numbers in ascending order; and sentences about what was assumed.

    Raises:
      ValueError: If a radius is missing, not greater than 0, or fits no feature.
    """
    if epsilons is None:
        raise ValueError("epsilons is needed: one radius to evaluate, or several.")
    values, assumptions = epsilons, []
    if isinstance(epsilons, Mapping) or np.ndim(epsilons) == 0:
        values = [epsilons]
    elif not isinstance(epsilons, list | tuple):
        shapes = [leaf.shape[1:] for leaf in examples.leaves]
        values = list(epsilons)
        if np.shape(epsilons) in shapes or np.ndim(epsilons) > 1:
            values = [epsilons]
            assumptions = ["epsilons is one radius per coordinate."]
    if all(np.ndim(v) == 0 and not isinstance(v, Mapping) for v in values):
        values = sorted({float(v) for v in values})
        if not values or not all(np.isfinite(values)) or values[0] <= 0:
            raise ValueError(
                "epsilons must be a number greater than 0, or several of them, but "
                f"received {epsilons!r}. The report always includes the accuracy "
                "without attacks."
            )
    keys = [v if isinstance(v, float) else value_text(v) for v in values]
    # Number the second of two equal names.
    keys = [k if k not in keys[:i] else f"{k} ({i})" for i, k in enumerate(keys)]
    limits = [examples.limits_of(value)[0][0] for value in values]
    return [*map(Radius, keys, values, limits)], assumptions


def _sizes(limits: Limits) -> list[Any]:
    """Returns how far each coordinate may move, for each leaf."""
    scales = [1.0 if scale is None else scale for scale in limits.scale]
    masks = [1.0 if mask is None else mask > 0 for mask in limits.mask]
    radius = np.max(limits.radius)
    return [radius * s * m for s, m in zip(scales, masks, strict=True)]


def value_text(value: Any) -> str:
    """Returns a short text for labels, outputs and radii."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value_text(part)}" for key, part in value.items())
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    if array.size > _LISTED and array.dtype.kind in "iuf":
        return f"{array.size} values from {array.min():.4g} to {array.max():.4g}"
    return " ".join(np.array2string(array, precision=4).split())
