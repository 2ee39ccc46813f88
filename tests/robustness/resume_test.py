"""An evaluation is resumed if and only if everything that counts is the same."""

import warnings
from pathlib import Path
from typing import Any

import attrs
import keras
import numpy as np
import pytest
import tensorflow as tf

from nsl.attacks import PGD
from nsl.robustness import RobustnessReport, ShareRight, Within, evaluate_robustness
from nsl.robustness.checkpoint import settings_of

RNG = np.random.default_rng(0)
X = RNG.random((20, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(6, 3)).astype(np.float32)
Y = (X @ KERNEL).argmax(axis=1)


class Counted:
    """An attack that does nothing, and counts how often; the count is no setting."""

    calls = 0

    def __init__(self, size: float = 0.0) -> None:
        self.size = size

    def __call__(self, model: Any, x: Any, y: Any, **_: Any) -> Any:
        Counted.calls += 1
        return x


@attrs.frozen
class Frozen(Counted):
    size: float = 0.0
    table: Any = attrs.field(factory=dict)


class Longer(PGD):
    """A class of the user's own that no decorator has seen."""

    def length(self, problem: Any) -> tf.Tensor:
        return 2 * super().length(problem)


def model(x: Any) -> tf.Tensor:
    return x @ tf.constant(KERNEL)


def _evaluate(path: Path, **given: Any) -> tuple[RobustnessReport, int]:
    """Returns the report, and how often an attack was called for it."""
    arguments = {
        "model": model,
        "x": X,
        "y": Y,
        "epsilons": 0.1,
        "attacks": {"a": Counted()},
        "check": False,
        "verbose": False,
        "resume": path,
    }
    Counted.calls = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = evaluate_robustness(**{**arguments, **given})
    return report, Counted.calls


def _keras(weights: Any = KERNEL) -> keras.Model:
    layer = keras.layers.Dense(3, use_bias=False)
    network = keras.Sequential([keras.Input((6,)), layer])
    network.set_weights([weights])
    return network


def _loss(y: Any, outputs: Any) -> Any:
    return outputs[:, 0]


def _right(y: Any, outputs: Any) -> Any:
    return outputs[:, 0] < 5.0


def _above(limit: float) -> Any:
    return lambda y, outputs: outputs[:, 0] < limit


TASK = {"loss": _loss, "criterion": _right}

SAME: dict[str, Any] = {
    "all": dict,
    "keras": lambda: {"model": _keras()},
    "object": lambda: {"attacks": {"a": Counted(3.0)}},
    "attrs": lambda: {"attacks": {"a": Frozen(3.0, {"b": np.ones(3)})}},
    "bounds": lambda: {"bounds": (X - 1, X + 1)},
    "grid": lambda: {"x": np.round(X * 8) / 8, "grid": 0.125},
    "columns": lambda: {"epsilons": [np.full(6, 0.1), np.full(6, 0.2)]},
    "task": lambda: TASK,
    "closure": lambda: {"loss": _loss, "criterion": _above(2.0)},
    "within": lambda: {"y": X @ KERNEL, "criterion": Within(0.5)},
    "dataset": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
        "y": None,
    },
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_is_resumed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "resume.json"
    first, calls = _evaluate(path, **SAME[name]())
    assert calls > 0
    again, calls = _evaluate(path, **SAME[name]())
    assert calls == 0
    assert again == first


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "weights": ({"model": _keras()}, {"model": _keras(KERNEL + 1e-6)}, "weights"),
    "x": ({}, {"x": X + np.float32(1e-6)}, "x"),
    "y": ({}, {"y": np.where(np.arange(20) == 3, (Y + 1) % 3, Y)}, "y"),
    "norm": ({}, {"norm": "l2"}, "norm"),
    "epsilons": ({}, {"epsilons": [0.1, 0.2]}, "epsilons"),
    "bounds": ({"bounds": (0, 1)}, {"bounds": (0, 1.5)}, "limits"),
    "bounds of an example": (
        {"bounds": (X - 1, X + 1)},
        {"bounds": (X - 1, X + 1 + np.eye(20, 6))},
        "limits",
    ),
    "mask": ({}, {"feature_mask": np.array([0.0, 1, 1, 1, 1, 1])}, "limits"),
    "grid": ({"grid": 0.1}, {"grid": 0.2}, "limits"),
    "columns": (
        {"epsilons": [np.full(6, 0.1)]},
        {"epsilons": [np.full(6, 0.1) + 0.01 * np.eye(6)[0]]},
        "limits|epsilons",
    ),
    "settings of an object": (
        {"attacks": {"a": Counted(1.0)}},
        {"attacks": {"a": Counted(2.0)}},
        "attacks",
    ),
    "an array of an attrs class": (
        {"attacks": {"a": Frozen(1.0, {"b": np.ones(3)})}},
        {"attacks": {"a": Frozen(1.0, {"b": np.zeros(3)})}},
        "attacks",
    ),
    "a subclass without attrs": (
        {"attacks": {"a": Longer(steps=1)}},
        {"attacks": {"a": Longer(steps=2)}},
        "attacks",
    ),
    "an attack": (
        {"attacks": {"a": PGD(steps=1)}},
        {"attacks": {"a": PGD(steps=1, step_size=0.3)}},
        "attacks",
    ),
    "the code of an objective": (
        {"attacks": {"a": PGD(steps=1, objective=lambda z, y, t=None: z[:, 0])}},
        {"attacks": {"a": PGD(steps=1, objective=lambda z, y, t=None: z[:, 1])}},
        "attacks",
    ),
    "another name": ({}, {"attacks": {"b": Counted()}}, "attacks"),
    "loss": (TASK, {**TASK, "loss": lambda y, z: z[:, 1]}, "loss"),
    "criterion": (TASK, {**TASK, "criterion": _above(3.0)}, "criterion"),
    "what a criterion closes over": (
        {"loss": _loss, "criterion": _above(1.0)},
        {"loss": _loss, "criterion": _above(2.0)},
        "criterion",
    ),
    "a tolerance": (
        {"y": X @ KERNEL, "criterion": Within(0.5)},
        {"y": X @ KERNEL, "criterion": Within(0.6)},
        "criterion",
    ),
    "seed": ({}, {"seed": 1}, "seed"),
    "cascade": ({}, {"cascade": False}, "cascade"),
    "logits": ({}, {"from_logits": True, "model": lambda x: model(x) * 2}, "model"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_any_difference_is_refused(tmp_path: Path, name: str) -> None:
    before, after, message = CHANGES[name]
    path = tmp_path / "resume.json"
    _evaluate(path, **before)
    told = rf"another evaluation\. Differences: .*({message})"
    with pytest.raises(ValueError, match=told):
        _evaluate(path, **{**before, **after})
    # The file is as it was.
    _, calls = _evaluate(path, **before)
    assert calls == 0


def test_parts_are_resumed_each_from_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    given = {"y": (X @ KERNEL > 0).astype(int), "criterion": "per_label"}
    first, calls = _evaluate(path, **given)
    assert calls > 0
    again, calls = _evaluate(path, **given)
    assert calls == 0
    assert again == first
    assert len(list(tmp_path.iterdir())) == 3


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    class Odd:
        __slots__ = ("size",)

        def __call__(self, model: Any, x: Any, y: Any, **_: Any) -> Any:
            return x

    with pytest.raises(ValueError, match=r"resume cannot identify .*Odd"):
        _evaluate(tmp_path / "resume.json", attacks={"a": Odd()})


def test_texts_of_settings() -> None:
    assert settings_of(None) == "None"
    assert settings_of(0.1) == "0.1"
    texts = [
        settings_of(value)
        for value in (
            Within(0.5),
            Within(0.25),
            ShareRight(0.5),
            PGD(),
            PGD(steps=3),
            _loss,
            _right,
            _above(1.0),
            _above(2.0),
            Counted(1.0),
            Counted(2.0),
            KERNEL,
            tf.constant(KERNEL + 1),
            [KERNEL],
        )
    ]
    assert len(set(texts)) == len(texts)
    # No address, and nothing that another process would have otherwise.
    assert settings_of(_above(1.0)) == settings_of(_above(1.0))
    assert settings_of(_keras()) == settings_of(_keras())
    assert settings_of(_keras()) != settings_of(_keras(KERNEL + 1))
