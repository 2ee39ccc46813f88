"""Every point is strictly inside ball and bounds, in the dtype it comes back in."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nsl import attacks
from nsl.attacks.examples import Examples
from nsl.attacks.model_adapter import ModelAdapter
from nsl.attacks.problem import Problem
from nsl.configs import NormType

ORDERS = {"l1": 1, "l2": 2, "infinity": np.inf}
EPSILONS = {"l1": 0.7, "l2": 0.3, "infinity": 0.1}
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
RNG = np.random.default_rng(0)
X = RNG.uniform(0.0, 1.0, (12, 6))
WEIGHTS = RNG.normal(size=(6, 3))

KINDS = {
    "fgsm": (attacks.FGSM, {}),
    "pgd": (attacks.PGD, {"steps": 3}),
    "mifgsm": (attacks.MIFGSM, {"steps": 3}),
    "autopgd": (attacks.AutoPGD, {"steps": 6}),
    "fab": (attacks.FAB, {"steps": 3, "target_classes": 1, "early_stop": False}),
    "square": (attacks.Square, {"steps": 10, "early_stop": False}),
    "hopskipjump": (attacks.HopSkipJump, {"steps": 2, "samples": 6}),
}


class Model:
    """A linear model that computes in a dtype of its own."""

    def __init__(self, dtype: Any) -> None:
        self.weights = tf.constant(WEIGHTS, dtype)

    def __call__(self, x: Any) -> tf.Tensor:
        return tf.cast(x, self.weights.dtype) @ self.weights


MODELS = {"float32": Model(tf.float32), "float64": Model(tf.float64)}


def _check(found: Any, x: np.ndarray, norm: str, epsilon: Any) -> np.ndarray:
    """Checks points, and returns how far each has gone."""
    assert found.dtype == x.dtype
    moved = found.astype(np.float64) - x.astype(np.float64)
    length = np.linalg.norm(moved, ORDERS[norm], axis=1)
    # Norms that are sums are themselves rounded.
    rounded = 0.0 if norm == "infinity" else 4 * np.finfo(np.float64).eps
    assert np.all(length <= epsilon * (1 + rounded))
    return length


def _cases() -> list[Any]:
    """Each attack in each norm, in one of four dtypes, in turn."""
    return [
        pytest.param(name, norm, DTYPES[(i + j) % 4], id=f"{name}-{norm}")
        for i, name in enumerate(KINDS)
        for j, norm in enumerate(ORDERS)
        if (name, norm) != ("hopskipjump", "l1")
    ]


@pytest.mark.parametrize(("name", "norm", "dtype"), _cases())
def test_every_attack_in_every_dtype(name: str, norm: str, dtype: Any) -> None:
    kind, settings = KINDS[name]
    x = X.astype(dtype)
    low, high = np.array([0.1], dtype), np.array([0.9], dtype)
    model = MODELS["float64" if dtype == np.float64 else "float32"]
    y = np.argmax(model(tf.constant(x)), axis=1)
    found = kind(norm=norm, **settings)(
        model, x, y, epsilon=EPSILONS[norm], bounds=(low, high)
    )
    length = _check(found, x, norm, EPSILONS[norm])
    assert np.all(found >= np.minimum(x, low))
    assert np.all(found <= np.maximum(x, high))
    # The ball is used up, but for what rounds off.
    share = {2: 0.9, 4: 0.99, 8: 0.99}[np.dtype(dtype).itemsize]
    if name in ("fgsm", "pgd", "square"):
        assert length.max() > share * EPSILONS[norm]
    else:
        assert length.max() > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_and_model_of_other_dtypes(dtype: Any) -> None:
    x = X.astype(dtype)
    model = MODELS["float32" if dtype == np.float64 else "float64"]
    y = np.argmax(model(tf.constant(x)), axis=1)
    expected = attacks.FGSM()(MODELS["float64"], X, y, epsilon=0.1)
    for name in ("pgd", "autopgd", "fab", "square"):
        kind, settings = KINDS[name]
        found = kind(**settings)(model, x, y, epsilon=0.1)
        _check(found, x, "infinity", 0.1)
    np.testing.assert_allclose(
        attacks.FGSM()(model, x, y, epsilon=0.1), expected, atol=1e-6
    )


def test_a_radius_of_float64_counts_to_its_last_digit() -> None:
    """In float32 both the radius and the sum would round up."""
    x, epsilon = np.full((1, 6), 0.7), 0.1
    y = np.argmax(MODELS["float64"](x), axis=1)
    found = attacks.FGSM()(MODELS["float64"], x, y, epsilon=epsilon)
    length = _check(found, x, "infinity", epsilon)
    assert length[0] > epsilon * (1 - 1e-12)


def test_a_structure_of_several_dtypes_has_one_ball() -> None:
    x: dict[str, Any] = {
        "a": X[:, :2].astype(np.float16),
        "b": X[:, 2:4].astype(np.float32),
        "c": X[:, 4:],
        "n": np.arange(12),
    }

    def model(x: Any) -> tf.Tensor:
        parts = [tf.cast(x[name], tf.float64) for name in "abc"]
        return MODELS["float64"](tf.concat(parts, axis=1))

    y = np.argmax(model(x), axis=1)
    for norm, order in ORDERS.items():
        attack = attacks.PGD(norm=norm, steps=3)
        found: dict[str, Any] = attack(model, x, y, epsilon=EPSILONS[norm])
        assert {k: v.dtype for k, v in found.items()} == {
            k: v.dtype for k, v in x.items()
        }
        joint = [
            np.concatenate([v[name].astype(np.float64) for name in "abc"], axis=1)
            for v in (found, x)
        ]
        length = np.linalg.norm(joint[0] - joint[1], order, axis=1)
        assert np.all(length <= EPSILONS[norm])
        assert np.all(length > 0.95 * EPSILONS[norm])


@given(
    st.sampled_from(sorted(ORDERS)),
    st.sampled_from(range(4)),
    st.integers(0, 10_000),
    st.sampled_from([1e-3, 1.0, 300.0]),
    st.sampled_from([1e-3, 0.1, 1.0]),
)
def test_rounding_never_leads_out_of_the_ball(
    norm: str, dtype: int, seed: int, scale: float, share: float
) -> None:
    """Whatever the features and the perturbation on the border are."""
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(5, 7))).astype(DTYPES[dtype])
    epsilon = scale * share
    examples = Examples(x)
    [limits], _ = examples.limits_of(epsilon)
    batch = examples.batch(np.arange(5), limits)
    problem = Problem(ModelAdapter(MODELS["float64"]), batch, norm=norm)
    drawn = tf.constant(10 * epsilon * rng.normal(size=(5, 7)), problem.dtype)

    point = problem.features(problem.project(drawn)).numpy()
    found = batch.inside(point, NormType(norm))
    length = _check(found, x, norm, epsilon)
    # Only as much is lost as a unit in the last place of each coordinate, or two.
    sizes = np.abs(x.astype(np.float64)) + epsilon
    unit = np.finfo(np.float32).eps if dtype > 1 else (2.0**-10, 2.0**-7)[dtype]
    lost = 3 * unit * np.linalg.norm(sizes, ORDERS[norm], axis=1) + 1e-5 * epsilon
    assert np.all(length >= epsilon - lost)


@pytest.mark.parametrize("norm", ["l1", "infinity"])
def test_a_radius_of_nothing_changes_nothing(norm: str) -> None:
    for name in ("pgd", "autopgd", "fab", "square"):
        kind, settings = KINDS[name]
        attack = kind(norm=norm, **settings)
        x = X.astype(np.float32)
        np.testing.assert_array_equal(attack(MODELS["float32"], x, epsilon=0.0), x)
