"""Which distribution the outputs of a model stand for, as its loss tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_CATEGORICAL = (
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
)


@dataclasses.dataclass(frozen=True)
class OutputDistribution:
    """How an output is to be read.

    Attributes:
      from_logits: Whether it holds logits instead of probabilities.
      binary: Whether each of its elements is a distribution of its own, of yes and no,
        instead of one class of several along the last axis.
    """

    from_logits: bool
    binary: bool


def output_distributions(
    model: keras.Model, y_pred: Any
) -> list[OutputDistribution | None]:
    """Reads from the compiled loss of each output what the output is.

    Args:
      model: A compiled model that has computed its loss once.
      y_pred: Its outputs.

    Returns:
      For each output, in the order of `keras.tree.flatten`, its distribution, or None
      if the loss is no crossentropy of Keras.
    """
    compiled = getattr(model, "_compile_loss", None)
    by_path = {
        loss.path: _distribution(loss.loss)
        for loss in getattr(compiled, "_flat_losses", None) or []
    }
    paths = [path for path, _ in keras.tree.flatten_with_path(y_pred)]
    names = getattr(model, "output_names", None) or []
    found = []
    for i, path in enumerate(paths):
        # A loss given by output name is found under the name.
        name = (names[i],) if len(names) == len(paths) else path
        found.append(by_path.get(path, by_path.get(name)))
    return found


def _distribution(loss: keras.losses.Loss) -> OutputDistribution | None:
    """Reads what a loss object takes; Keras wraps plain functions in one."""
    function: Any = getattr(loss, "fn", None)
    if not getattr(function, "__module__", "").startswith("keras.src.losses."):
        return None
    if function.__name__ not in _BINARY + _CATEGORICAL:
        return None
    from_logits = bool(loss._fn_kwargs.get("from_logits", False))
    return OutputDistribution(from_logits, function.__name__ in _BINARY)
