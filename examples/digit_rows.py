"""Rows of images of the digits 0 to 9, with the predictions of a network."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

RIGHT, WRONG = "#2a7f3e", "#c01f2e"


@dataclasses.dataclass(frozen=True)
class Row:
    """Images of the digits 0 to 9, with the predictions of a network.

    Attributes:
      title: The title to the left of the images.
      pixels: `[10, height, width]`, from 0 (white) to 1 (black).
      answers: The predicted digits, `[10]`, or None.
    """

    title: str
    pixels: np.ndarray
    answers: np.ndarray | None = None


def draw_row(axes: Sequence[Any], row: Row) -> None:
    """Draws a row into ten matplotlib axes."""
    axes[0].set_ylabel(
        row.title, rotation=0, ha="right", va="center", fontsize=12, labelpad=8
    )
    for digit, axis in enumerate(axes):
        axis.imshow(row.pixels[digit], cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_edgecolor("#bbbbbb")
        if row.answers is not None:
            right = row.answers[digit] == digit
            axis.set_xlabel(
                f"{row.answers[digit]} {'✓' if right else '✗'}",
                color=RIGHT if right else WRONG,
                fontsize=14,
                fontweight="bold",
                labelpad=2,
            )
