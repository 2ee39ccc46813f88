"""The radii of an evaluation."""

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from nsl.attacks.examples import Examples, Limits

_LISTED = 8


@attrs.define
class Radii:
    """The radii of an evaluation, smallest first.

    Attributes:
      keys: What the report calls each: the number, or a text.
      values: What attacks are called with.
      limits: The limits of all examples.
      assumptions: What was assumed, in sentences.
    """

    keys: list[Any]
    values: list[Any]
    limits: list[Limits]
    assumptions: list[str] = attrs.field(factory=list)

    @classmethod
    def read(cls, epsilons: Any, examples: Examples) -> "Radii":
        """Reads what `evaluate_robustness` was given."""
        if epsilons is None:
            raise ValueError("epsilons is needed: the radius to evaluate, or several.")
        values, assumptions = epsilons, []
        if isinstance(epsilons, Mapping) or np.ndim(epsilons) == 0:
            values = [epsilons]
        elif not isinstance(epsilons, list | tuple):
            shapes = [leaf.shape[1:] for leaf in examples.leaves]
            values = list(epsilons)
            if np.shape(epsilons) in shapes or np.ndim(epsilons) > 1:
                values = [epsilons]
                assumptions = ["epsilons is one radius for each coordinate."]
        if all(np.ndim(v) == 0 and not isinstance(v, Mapping) for v in values):
            values = sorted({float(v) for v in values})
            if not values or not all(np.isfinite(values)) or values[0] <= 0:
                raise ValueError(
                    "epsilons must be a number greater than 0, or several of them, but "
                    f"received {epsilons!r}."
                )
            keys: list[Any] = values
        else:
            keys = [v if isinstance(v, float) else value_text(v) for v in values]
            # Of two that read the same, the second is told apart.
            keys = [
                k if k not in keys[:i] else f"{k} ({i})" for i, k in enumerate(keys)
            ]
        limits = [examples.limits_of(value)[0][0] for value in values]
        return cls(keys, list(values), limits, assumptions)

    def at(self, positions: list[int]) -> "Radii":
        """Returns some of the radii."""
        keys, values = self.keys, self.values
        return Radii(
            [keys[k] for k in positions],
            [values[k] for k in positions],
            [self.limits[k] for k in positions],
        )

    @property
    def are_numbers(self) -> bool:
        """Whether every radius is a number."""
        return all(isinstance(value, float) for value in self.values)

    def containing(self, k: int) -> list[int]:
        """Returns which balls hold the k-th, itself included."""
        return [
            j for j in range(len(self.keys)) if _holds(self.limits[j], self.limits[k])
        ]


def _holds(larger: Limits, smaller: Limits) -> bool:
    def size(limits: Limits) -> list[Any]:
        scales = [np.float64(1) if s is None else s for s in limits.scale]
        masks = [np.float64(1) if m is None else m > 0 for m in limits.mask]
        return [
            np.max(limits.radius) * scale * mask
            for scale, mask in zip(scales, masks, strict=True)
        ]

    pairs = zip(size(larger), size(smaller), strict=True)
    return all(bool(np.all(a >= b)) for a, b in pairs)


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
