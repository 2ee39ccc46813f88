"""Tests of norm-ball geometry."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
from hypothesis.extra import numpy as hnp

from nsl import configs, lib
from nsl.lib import norms
from tests.conftest import golden

NORMS = ["l1", "l2", "infinity"]
ROWS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
    # Some libraries, once loaded, make the processor treat subnormals as zero.
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
)
RADII = st.floats(0.125, 16, width=32)


def length(rows, norm):
    order = {"l1": 1, "l2": 2, "infinity": np.inf}[norm]
    return np.linalg.norm(np.asarray(rows, np.float64), order, axis=1)


def steepest_step(rows, norm):
    return norms.Norm.of(norm).steepest_step(tf.convert_to_tensor(rows))


def apply_op(op, norm, structure):
    if op == "project_to_ball":
        return lib.project_to_ball(structure, 0.5, norm)
    if op == "random_in_norm_ball":
        return lib.random_in_norm_ball(structure, 0.5, norm, seed=[3, 4])
    return getattr(lib, op)(structure, norm)


OPS = [
    "maximize_within_unit_norm",
    "normalize",
    "project_to_ball",
    "random_in_norm_ball",
]


@pytest.fixture
def structure():
    rng = np.random.default_rng(0)
    return {
        "flat": rng.normal(size=[4]).astype(np.float32),
        "image": (
            rng.normal(size=[4, 2, 3]).astype(np.float32),
            [rng.normal(size=[4, 1]).astype(np.float32)],
        ),
    }


@pytest.mark.parametrize("case", golden("norms"))
def test_golden(case):
    config = dict(case["config"])
    op, norm = config.pop("op"), config.pop("norm_type")
    tensors = [tf.constant(t, tf.float32) for t in case["inputs"]]
    if op == "normalize":
        results = [lib.normalize(tensors[0], norm)]
    elif op == "project_to_ball":
        results = lib.project_to_ball(tensors, config["radius"], norm)
    else:
        results = lib.maximize_within_unit_norm(tensors, norm)
    assert len(results) == len(case["expected"])
    for result, expected in zip(results, case["expected"], strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@hypothesis.given(rows=ROWS, radius=RADII)
def test_projection_is_idempotent_and_in_ball(norm, rows, radius):
    once = lib.project_to_ball(rows, radius, norm).numpy()
    assert (length(once, norm) <= radius * (1 + 1e-5)).all()
    twice = lib.project_to_ball(once, radius, norm)
    np.testing.assert_allclose(twice, once, atol=1e-5)
    inside = length(rows, norm) <= radius
    np.testing.assert_array_equal(once[inside], rows[inside])


def nearest_in_l1_ball(row, radius):
    """Finds the soft threshold by bisection, another way than the library's."""
    row = np.asarray(row, np.float64)
    if np.abs(row).sum() <= radius:
        return row
    low, high = 0.0, np.abs(row).max()
    for _ in range(100):
        middle = (low + high) / 2
        if np.maximum(np.abs(row) - middle, 0).sum() > radius:
            low = middle
        else:
            high = middle
    return np.sign(row) * np.maximum(np.abs(row) - high, 0)


@hypothesis.given(rows=ROWS, radius=RADII)
def test_l1_projection_is_nearest_point(rows, radius):
    projected = lib.project_to_ball(rows, radius, "l1").numpy()
    expected = np.stack([nearest_in_l1_ball(row, radius) for row in rows])
    np.testing.assert_allclose(projected, expected, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@hypothesis.given(rows=ROWS, radius=RADII, seed=st.integers(0, 1000))
def test_no_point_of_ball_is_nearer_than_projection(norm, rows, radius, seed):
    projected = lib.project_to_ball(rows, radius, norm).numpy()
    other = lib.random_in_norm_ball(rows, radius, norm, seed=[seed, 0]).numpy()
    # For a convex set: the angle at the projection is at least a right one.
    product = ((rows - projected) * (other - projected)).sum(axis=1)
    assert (product <= 1e-3).all()


@pytest.mark.parametrize("norm", NORMS)
@hypothesis.given(rows=ROWS, seed=st.integers(0, 1000))
def test_steepest_step_maximizes_inner_product(norm, rows, seed):
    step = steepest_step(rows, norm).numpy()
    moving = length(rows, norm) > 0
    np.testing.assert_allclose(length(step, norm), moving, atol=1e-5)
    dual = {"l1": "infinity", "l2": "l2", "infinity": "l1"}[norm]
    gain = (step * rows).sum(axis=1)
    np.testing.assert_allclose(gain, length(rows, dual), rtol=1e-4, atol=1e-6)
    other = lib.random_in_norm_ball(rows, 1.0, norm, seed=[seed, 0]).numpy()
    assert ((other * rows).sum(axis=1) <= gain + 1e-4).all()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("norm", NORMS)
def test_structure_is_measured_as_its_concatenation(op, norm, structure):
    joined = tf.concat(
        [tf.reshape(t, [4, -1]) for t in tf.nest.flatten(structure)], axis=1
    )
    result = apply_op(op, norm, structure)
    tf.nest.assert_same_structure(result, structure)
    assert [r.shape for r in tf.nest.flatten(result)] == [
        s.shape for s in tf.nest.flatten(structure)
    ]
    result = tf.concat(
        [tf.reshape(t, [4, -1]) for t in tf.nest.flatten(result)], axis=1
    )
    np.testing.assert_allclose(result, apply_op(op, norm, joined), atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("norm", NORMS)
def test_graph_and_xla_agree_with_eager(op, norm, jit_compile, structure):
    traced = tf.function(
        lambda s: apply_op(op, norm, s), jit_compile=jit_compile, autograph=False
    )
    # XLA draws other random numbers, but the same each time.
    random = op == "random_in_norm_ball" and jit_compile
    reference = traced if random else lambda s: apply_op(op, norm, s)
    pairs = zip(
        tf.nest.flatten(traced(structure)),
        tf.nest.flatten(reference(structure)),
        strict=True,
    )
    for result, expected in pairs:
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_unknown_sizes(norm):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 2])])
    def run(x):
        return [apply_op(op, norm, x) for op in OPS]

    rng = np.random.default_rng(1)
    for shape in ([2, 3, 2], [5, 1, 2], [0, 3, 2]):
        x = rng.normal(size=shape).astype(np.float32)
        for op, result in zip(OPS, run(x), strict=True):
            assert result.shape == tuple(shape)
            np.testing.assert_allclose(result, apply_op(op, norm, x), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("norm", NORMS)
def test_dtype_is_kept(dtype, norm):
    x = tf.cast([[0.5, -2.0, 1.0], [0.25, 0.125, 0.0]], dtype)
    for op in OPS:
        result = apply_op(op, norm, {"x": x})["x"]
        assert result.dtype == dtype
        if op != "random_in_norm_ball":
            expected = apply_op(op, norm, tf.cast(x, tf.float32))
            np.testing.assert_allclose(
                tf.cast(result, tf.float32), expected, rtol=1e-2, atol=1e-2
            )


@pytest.mark.parametrize("norm", NORMS)
def test_float64_is_computed_in_float64(norm):
    x = np.random.default_rng(0).normal(size=[3, 7])
    projected = lib.project_to_ball(x, 0.5, norm)
    np.testing.assert_allclose(length(projected, norm), 0.5, rtol=1e-14)


def test_half_precision_does_not_overflow():
    x = tf.fill([1, 100], tf.constant(6e4, tf.float16))
    step = lib.maximize_within_unit_norm(x, "l2")
    np.testing.assert_allclose(tf.cast(step, tf.float32), 0.1, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("norm", NORMS)
def test_steepest_step_ignores_scale(norm, scale):
    x = np.array([[3.0, -4.0, 0.0]], np.float32)
    step = steepest_step(x * np.float32(scale), norm)
    np.testing.assert_allclose(step, steepest_step(x, norm), atol=1e-6)


def test_epsilon_bounds_the_divisor():
    tiny = tf.constant([[3e-9, 4e-9]])
    step = lib.maximize_within_unit_norm(tiny, "l2", epsilon=1e-6)
    np.testing.assert_allclose(step, [[3e-3, 4e-3]], rtol=1e-5)
    for norm in NORMS:
        divided = lib.normalize(tiny, norm, epsilon=1e-2)
        np.testing.assert_allclose(divided, [[3e-7, 4e-7]], rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_zeros_stay_zeros(norm):
    zeros = tf.zeros([2, 3])
    for op in OPS[:3]:
        np.testing.assert_array_equal(apply_op(op, norm, zeros), zeros)
    np.testing.assert_array_equal(steepest_step(zeros, norm), zeros)
    np.testing.assert_array_equal(lib.normalize(zeros, norm, epsilon=0.0), zeros)


def test_l1_step_is_shared_among_equals():
    step = lib.maximize_within_unit_norm(tf.constant([[2.0, -2.0, 1.0]]), "l1")
    np.testing.assert_allclose(step, [[0.5, -0.5, 0.0]])


@pytest.mark.parametrize("norm", NORMS)
def test_radius_for_each_example(norm):
    x = np.random.default_rng(0).normal(size=[3, 2, 2]).astype(np.float32)
    radius = np.array([0.25, 0.0, 100.0], np.float32)
    results = [
        lib.project_to_ball(x, radius, norm),
        lib.random_in_norm_ball(x, radius, norm, seed=[0, 0]),
    ]
    for result in results:
        sizes = length(np.reshape(result, [3, -1]), norm)
        assert (sizes <= radius * (1 + 1e-5)).all()
    np.testing.assert_array_equal(results[0][2], x[2])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1, 3])
def test_random_points_fill_the_ball_evenly(norm, size, jit_compile):
    radius = 2.0
    structure = [tf.zeros([20000, size - 1]), tf.zeros([20000])]
    draw = tf.function(
        lambda seed: lib.random_in_norm_ball(structure, radius, norm, seed),
        jit_compile=jit_compile,
    )
    parts = draw(tf.constant([5, 6]))
    points = np.concatenate([parts[0], parts[1][:, np.newaxis]], axis=1)
    # The part of the volume within the norm of a uniform point is uniform in [0, 1].
    volume = np.sort((length(points, norm) / radius) ** size)
    assert volume.max() <= 1 + 1e-5
    np.testing.assert_allclose(volume, np.linspace(0, 1, 20000), atol=0.02)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.05)
    for coordinate in points.T:
        np.testing.assert_allclose(
            coordinate.std(), points.std(), rtol=0.03, err_msg="not symmetric"
        )


@pytest.mark.parametrize("norm", NORMS)
def test_seed_governs_random_points(norm):
    x = tf.zeros([2, 3])
    one = lib.random_in_norm_ball(x, 1.0, norm, seed=[1, 2])
    np.testing.assert_array_equal(
        one, lib.random_in_norm_ball(x, 1.0, norm, seed=[1, 2])
    )
    other = lib.random_in_norm_ball(x, 1.0, norm, seed=[1, 3])
    assert not np.allclose(one, other)
    tf.random.set_seed(7)
    first = [lib.random_in_norm_ball(x, 1.0, norm) for _ in range(2)]
    tf.random.set_seed(7)
    again = [lib.random_in_norm_ball(x, 1.0, norm) for _ in range(2)]
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first[0], first[1])


def test_nothing_stays_nothing():
    assert lib.maximize_within_unit_norm({}, "l2") == {}


def test_unknown_norm():
    with pytest.raises(ValueError, match=r"'l3', but the norms are .*'infinity'"):
        lib.project_to_ball(tf.zeros([1, 1]), 1.0, "l3")


def test_every_norm_type_has_a_norm():
    for norm_type in configs.NormType.all():
        assert norms.Norm.of(norm_type) is norms.Norm.of(norm_type.value)


def test_random_points_refuse_integers_and_unequal_batches():
    with pytest.raises(ValueError, match=r"floating tensors.*int32"):
        lib.random_in_norm_ball(tf.zeros([1, 1], tf.int32), 1.0, "l2")
    with pytest.raises(ValueError, match=r"equal batch sizes.*\(1, 2\), \(3, 2\)"):
        lib.random_in_norm_ball([tf.zeros([1, 2]), tf.zeros([3, 2])], 1.0, "l2")


def boxed_case(seed, coordinates=4):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=[6, coordinates]) * rng.choice([0.1, 1, 5], size=[6, 1])
    low = -rng.uniform(0, 1, rows.shape) * (rng.random(rows.shape) > 0.2)
    high = rng.uniform(0, 1, rows.shape) * (rng.random(rows.shape) > 0.2)
    radius = rng.uniform(0.1, 2, [6, 1])
    return rows, radius, low, high


def convex_solution(objective, gradient, radius, low, high, norm):
    """Minimizes over ball and box with a general solver.

    For L1, over the positive and the negative part, which makes it smooth.
    """
    size = len(low)
    if norm == "l1":
        split = [*zip(np.zeros(size), high, strict=True)]
        split += [*zip(np.zeros(size), -low, strict=True)]
        result = scipy.optimize.minimize(
            lambda v: objective(v[:size] - v[size:]),
            np.zeros(2 * size),
            jac=lambda v: np.concatenate(
                [gradient(v[:size] - v[size:]), -gradient(v[:size] - v[size:])]
            ),
            bounds=split,
            constraints={"type": "ineq", "fun": lambda v: radius - v.sum()},
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 500},
        )
        return result.x[:size] - result.x[size:]
    limits = np.array([low, high])
    if norm == "infinity":
        limits = np.clip(limits, -radius, radius)
    result = scipy.optimize.minimize(
        objective,
        np.zeros(size),
        jac=gradient,
        bounds=limits.T,
        constraints=(
            {"type": "ineq", "fun": lambda v: radius**2 - v @ v} if norm == "l2" else ()
        ),
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return result.x


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_projection_onto_ball_and_box_is_that_of_a_general_solver(norm, seed):
    rows, radius, low, high = boxed_case(seed)
    found = norms.Norm.of(norm).project_with_bounds(
        tf.constant(rows), tf.constant(radius), tf.constant(low), tf.constant(high)
    )
    for i in range(len(rows)):
        expected = convex_solution(
            lambda v, i=i: 0.5 * np.sum((v - rows[i]) ** 2),
            lambda v, i=i: v - rows[i],
            radius[i, 0],
            low[i],
            high[i],
            norm,
        )
        np.testing.assert_allclose(found[i], expected, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_steepest_step_within_box_gains_as_much_as_a_general_solver(norm, seed):
    rows, radius, low, high = boxed_case(seed)
    found = (
        norms.Norm.of(norm)
        .steepest_step_with_bounds(
            tf.constant(rows), tf.constant(radius), tf.constant(low), tf.constant(high)
        )
        .numpy()
    )
    assert np.all(length(found, norm) <= radius[:, 0] * (1 + 1e-6))
    assert np.all((found >= low) & (found <= high))
    for i in range(len(rows)):
        expected = convex_solution(
            lambda v, i=i: -(v @ rows[i]),
            lambda v, i=i: -rows[i],
            radius[i, 0],
            low[i],
            high[i],
            norm,
        )
        np.testing.assert_allclose(found[i] @ rows[i], expected @ rows[i], rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "infinity"])
def test_ascent_step_stays_at_the_optimum_of_a_linear_objective(norm):
    of_norm = norms.Norm.of(norm)
    gradient, radius, low, high = map(tf.constant, boxed_case(2, coordinates=20))
    best = of_norm.steepest_step_with_bounds(gradient, radius, low, high)
    assert np.sum((best == low) | (best == high)) > 10
    step = of_norm.ascent_step(gradient, 0.3, low - best, high - best)
    again = of_norm.project_with_bounds(best + step, radius, low, high)
    np.testing.assert_allclose(again, best, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_no_part_of_an_ascent_step_is_lost_at_bounds(norm):
    """As on images, where most of the gradient points out of the bounds."""
    gradient = tf.constant([[-9.0, 8.0, 2.0, -1.0], [-9.0, 8.0, 0.0, 0.0]])
    low = tf.constant([[0.0, -1.0, -1.0, -1.0]])
    high = tf.constant([[1.0, 0.0, 1.0, 1.0]])
    step = norms.Norm.of(norm).ascent_step(gradient, 0.5, low, high)
    moved = tf.clip_by_value(step, low, high).numpy()
    np.testing.assert_allclose(length(moved, norm), [0.5, 0.0], rtol=1e-6)
    assert moved[0, 2] > 0 >= moved[0, 3]


@pytest.mark.parametrize("norm", NORMS)
@hypothesis.given(rows=ROWS, radius=RADII)
def test_projection_without_bounds_is_that_onto_the_ball(norm, rows, radius):
    of_norm, infinity = norms.Norm.of(norm), np.float32(np.inf)
    both = of_norm.project_with_bounds(rows, radius, -infinity, infinity)
    np.testing.assert_allclose(both, of_norm.project(rows, radius), atol=2e-5)


@pytest.mark.parametrize("norm", NORMS)
@hypothesis.given(rows=ROWS, radius=RADII, bound=st.floats(0, 4, width=32))
def test_projection_onto_ball_and_box_is_in_both_and_idempotent(
    norm, rows, radius, bound
):
    of_norm = norms.Norm.of(norm)
    once = of_norm.project_with_bounds(rows, radius, -0.5 * bound, bound).numpy()
    assert np.all(length(once, norm) <= radius * (1 + 1e-5))
    assert np.all((once >= -0.5 * bound) & (once <= bound))
    twice = of_norm.project_with_bounds(once, radius, -0.5 * bound, bound)
    np.testing.assert_allclose(twice, once, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_onto_ball_and_box_under_xla(norm):
    rows, radius, low, high = (
        tf.constant(part, tf.float32) for part in boxed_case(7, coordinates=50)
    )
    of_norm = norms.Norm.of(norm)
    for method in (of_norm.project_with_bounds, of_norm.steepest_step_with_bounds):
        compiled = tf.function(method, jit_compile=True, autograph=False)
        np.testing.assert_allclose(
            compiled(rows, radius, low, high),
            method(rows, radius, low, high),
            atol=1e-5,
        )


@pytest.mark.parametrize("norm", NORMS)
def test_a_radius_of_zero_leaves_nothing(norm):
    rows, _, low, high = boxed_case(1)
    of_norm = norms.Norm.of(norm)
    for method in (of_norm.project_with_bounds, of_norm.steepest_step_with_bounds):
        np.testing.assert_allclose(method(rows, 0.0, low, high), 0 * rows, atol=1e-12)
