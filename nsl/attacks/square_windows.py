"""The windows of the Square attack: their sizes and patterns."""

from typing import cast

import numpy as np
import tensorflow as tf

# The shares of the queries after which the changed area halves, as in the paper.
_HALVINGS = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]) / 10_000
_TILES = 5


def level(query: tf.Tensor, num_queries: int) -> tf.Tensor:
    """Returns how often the area has been halved before a query, int32, at most 9."""
    limits = tf.constant(_HALVINGS * num_queries, tf.float32)
    passed = tf.expand_dims(tf.cast(query, tf.float32), -1) > limits
    return tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1)


class Windows:
    """The windows of each level on a canvas of `height` by `width`.

    On a canvas of height or width 1, windows are segments. With `bumps` (L2, L1),
    windows contain bumps instead of constants, have odd size, and are at least 3 wide
    if the canvas is.

    Attributes:
      heights, widths: The size of the window of each level, int32 arrays.
      bumps: Canvases with the two patterns of `bump` at the top left, of shape
        [2 * levels, height, width]; empty without `bumps`.
    """

    def __init__(
        self, height: int, width: int, initial_share: float, bumps: bool
    ) -> None:
        shares = initial_share / 2.0 ** np.arange(len(_HALVINGS) + 1)
        if min(height, width) == 1:
            sizes = np.round(shares * height * width).astype(int)
        else:
            sizes = np.round(np.sqrt(shares * height * width)).astype(int)
        sizes = np.maximum(sizes, 1)
        if bumps:
            sizes = np.maximum(sizes, 3)
            sizes += sizes % 2 == 0
        self._height, self._width = height, width
        self.heights = np.minimum(sizes, height).astype(np.int32)
        self.widths = np.minimum(sizes, width).astype(np.int32)
        both = list(zip(self.heights, self.widths, strict=True)) if bumps else []
        self.bumps = np.zeros((2 * len(both), height, width), np.float32)
        for i, (h, w) in enumerate(both):
            self.bumps[2 * i, :h, :w] = bump(h, w)
            self.bumps[2 * i + 1, :h, :w] = bump(w, h).T

    def corners(self, level: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Returns the top left corner of each example's window, int32 [batch, 2].

        `uniform` are numbers drawn from [0, 1), of shape [batch, 2].
        """
        sizes = tf.stack(
            [tf.gather(self.heights, level), tf.gather(self.widths, level)]
        )
        last = tf.constant([self._height, self._width]) - sizes
        # Rounding may increase the product to the number of positions.
        places = tf.cast(last + 1, uniform.dtype)
        return tf.minimum(tf.cast(uniform * places, tf.int32), last)

    def areas(self, level: tf.Tensor, corners: tf.Tensor) -> tf.Tensor:
        """Returns the pixels of each window, bool [batch, height, width, 1]."""
        down = tf.range(self._height) - corners[:, :1]
        right = tf.range(self._width) - corners[:, 1:]
        rows = (down >= 0) & (down < tf.gather(self.heights, level))
        columns = (right >= 0) & (right < tf.gather(self.widths, level))
        return rows[:, :, None, None] & columns[:, None, :, None]


def bump(height: int, width: int) -> np.ndarray:
    """Returns the pattern eta: a hill in one half of a window, a pit in the other.

    A float32 array of shape [height, width] and L2 norm 1, split along the height.
    Andriushchenko et al. (2020), equation 2 and section 3.3. Elevations decrease with
    the L-infinity distance from the center of the half.
    """
    if height == 1:
        # A segment is split along its width.
        return np.ones((1, 1), np.float32) if width == 1 else bump(width, 1).T
    upper = height // 2
    pattern = np.concatenate([_hill(upper, width), -_hill(height - upper, width)])
    return (pattern / np.linalg.norm(pattern)).astype(np.float32)


def _hill(height: int, width: int) -> np.ndarray:
    peak = max(height // 2, width // 2) + 1
    # Elevation is the sum of 1 / k^2 for k from distance + 1 to the peak.
    sums = np.append(0.0, np.cumsum(1.0 / np.arange(1, peak + 1) ** 2))
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    distance = np.maximum(rows[:, np.newaxis], columns)
    hill = sums[peak] - sums[distance]
    return hill / np.linalg.norm(hill)


def tiling(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the grid of bumps that the L2 attack starts with.

    Returns:
      The tile of each pixel, numbered from 0, int32 of shape [height, width]; and the
      bumps of all tiles in both orientations, float32 of shape [2, height, width], zero
      outside the grid.
    """
    tile_height, tile_width = max(height // _TILES, 1), max(width // _TILES, 1)
    grid_height, grid_width = height // tile_height, width // tile_width
    tiles = np.zeros((height, width), np.int32)
    patterns = np.zeros((2, height, width), np.float32)
    top = (height - grid_height * tile_height) // 2
    left = (width - grid_width * tile_width) // 2
    both = np.stack([bump(tile_height, tile_width), bump(tile_width, tile_height).T])
    for i, j in np.ndindex(grid_height, grid_width):
        rows = slice(top + i * tile_height, top + (i + 1) * tile_height)
        columns = slice(left + j * tile_width, left + (j + 1) * tile_width)
        tiles[rows, columns] = i * grid_width + j
        patterns[:, rows, columns] = both
    return tiles, patterns


def place(
    canvases: tf.Tensor, chosen: tf.Tensor, top: tf.Tensor, left: tf.Tensor
) -> tf.Tensor:
    """Shifts a canvas of each example's choice down and to the right, cyclically.

    Args:
      canvases: A tensor of shape [count, height, width].
      chosen: The index of each example's canvas, int32 of shape [batch].
      top: The shift down, int32 of shape [batch].
      left: The shift to the right, int32 of shape [batch].

    Returns:
      A tensor of shape [batch, height, width, 1].
    """
    _, height, width = cast(tuple[int, int, int], canvases.shape)
    rows = tf.math.floormod(tf.range(height) - top[:, tf.newaxis], height)
    columns = tf.math.floormod(tf.range(width) - left[:, tf.newaxis], width)
    index = (
        chosen[:, tf.newaxis, tf.newaxis] * (height * width)
        + rows[:, :, tf.newaxis] * width
        + columns[:, tf.newaxis, :]
    )
    return tf.gather(tf.reshape(canvases, [-1]), index)[..., tf.newaxis]
