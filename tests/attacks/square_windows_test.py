"""Sizes, patterns and places of the windows that the Square attack changes."""

import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks.square_windows import Windows, bump, level, place, tiling


def test_the_area_halves_on_the_schedule_of_the_paper() -> None:
    queries = tf.constant([0, 10, 11, 50, 51, 200, 201, 501, 1001, 2001, 4001, 9999])
    levels = level(queries, 10_000).numpy()
    np.testing.assert_array_equal(levels, [0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 9])


def test_the_schedule_scales_with_the_budget() -> None:
    levels = level(tf.constant([5, 6, 25, 26, 100, 101]), 5000).numpy()
    np.testing.assert_array_equal(levels, [0, 1, 1, 2, 2, 3])


def test_windows_of_an_image_have_the_share_of_its_area() -> None:
    windows = Windows(28, 28, 0.8, bumps=False)
    # sqrt(0.8 / 2^k * 784), rounded.
    assert windows.heights.tolist() == [25, 18, 13, 9, 6, 4, 3, 2, 2, 1]
    assert windows.widths.tolist() == windows.heights.tolist()
    # Both extremes of each axis stay on the canvas.
    uniform = tf.constant([[0.0, 0.0], [1.0, 1.0], [0.5, 0.2]])
    for i, height in enumerate(windows.heights):
        corners = windows.corners(i, uniform)
        areas = windows.areas(i, corners).numpy()
        np.testing.assert_array_equal(areas.sum((1, 2, 3)), [height**2] * 3)
        np.testing.assert_array_equal(corners[:2], [[0, 0], [28 - height] * 2])
        assert areas[2, int(corners[2, 0]), int(corners[2, 1])]


def test_windows_with_bumps_are_odd_and_at_least_3_wide() -> None:
    windows = Windows(28, 28, 0.8, bumps=True)
    assert windows.heights.tolist() == [25, 19, 13, 9, 7, 5, 3, 3, 3, 3]


def test_windows_of_a_vector_are_segments() -> None:
    windows = Windows(1, 100, 0.8, bumps=False)
    assert windows.heights.tolist() == [1] * 10
    assert windows.widths.tolist() == [80, 40, 20, 10, 5, 2, 1, 1, 1, 1]


def test_windows_fit_into_a_narrow_canvas() -> None:
    windows = Windows(2, 50, 0.8, bumps=True)
    assert windows.heights.max() == 2
    assert windows.widths.max() == 9


def _bump_by_the_loop_of_the_paper(size: int) -> np.ndarray:
    """Sums of growing squares, as the definition in section 3.3 has them."""

    def half(height: int, width: int) -> np.ndarray:
        pattern = np.zeros((height, width))
        for k in range(max(height // 2, width // 2) + 1):
            top, left = height // 2 - k, width // 2 - k
            pattern[max(top, 0) : top + 2 * k + 1, max(left, 0) : left + 2 * k + 1] += (
                1 / (k + 1) ** 2
            )
        return pattern / np.linalg.norm(pattern)

    both = np.concatenate([half(size // 2, size), -half(size - size // 2, size)])
    return both / np.linalg.norm(both)


@pytest.mark.parametrize("size", [3, 5, 9, 13])
def test_bump_is_that_of_the_paper(size: int) -> None:
    np.testing.assert_allclose(
        bump(size, size), _bump_by_the_loop_of_the_paper(size), atol=1e-6
    )


def test_bump_of_a_segment_has_both_signs() -> None:
    pattern = bump(1, 7)
    assert pattern.shape == (1, 7)
    assert (pattern > 0).any()
    assert (pattern < 0).any()
    assert np.linalg.norm(pattern) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(28, 28), (1, 30), (8, 8), (3, 4), (1, 2)])
def test_the_tiling_covers_the_middle(shape: tuple[int, int]) -> None:
    tiles, patterns = tiling(*shape)
    assert tiles.min() >= 0
    covered = np.any(patterns != 0, axis=0)
    assert covered.mean() > 0.5
    for tile in np.unique(tiles[covered]):
        norms = np.linalg.norm(patterns[:, (tiles == tile) & covered], axis=1)
        np.testing.assert_allclose(norms, 1.0, rtol=1e-5)


def test_place_moves_each_examples_canvas() -> None:
    canvases = np.zeros((2, 4, 5), np.float32)
    canvases[0, :2, :2] = 1.0
    canvases[1, :1, :3] = 7.0
    placed = place(
        tf.constant(canvases),
        tf.constant([0, 1]),
        tf.constant([2, 3]),
        tf.constant([3, 1]),
    ).numpy()
    expected = np.zeros((2, 4, 5, 1))
    expected[0, 2:, 3:] = 1.0
    expected[1, 3, 1:4] = 7.0
    np.testing.assert_array_equal(placed, expected)
