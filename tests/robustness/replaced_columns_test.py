"""Evaluations of replaced columns: norm="l0" and `nsl.attacks.Substitution`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import nsl
from nsl.attacks import PGD, Substitution
from nsl.robustness import RobustnessReport, Within

REGIONS = ["north", "south", "west"]
RNG = np.random.default_rng(0)
X = {
    "region": RNG.choice(REGIONS, 60).astype(object),
    "visits": RNG.integers(0, 4, 60).astype("int32"),
    "grade": RNG.integers(0, 3, 60),
}
REPLACEMENTS = {"region": REGIONS, "visits": range(4), "grade": range(3)}


def scores(x: Any) -> tf.Tensor:
    west = tf.cast(x["region"] == "west", tf.float32)
    rest = tf.cast(x["visits"], tf.float32) - tf.cast(x["grade"], tf.float32)
    return tf.stack([2.25 * west + rest, tf.ones_like(west)], axis=1)


def labels(x: Any) -> tf.Tensor:
    return tf.argmax(scores(x), axis=1, output_type=tf.int32)


Y = np.where(RNG.random(60) < 0.9, labels(X), 1 - labels(X))


@pytest.mark.parametrize("model", [scores, labels])
def test_the_worst_case_is_that_of_the_attack(model: Any) -> None:
    expected = Substitution(REPLACEMENTS, max_changes=3).report(model, X, Y)
    report = nsl.evaluate_robustness(
        model, X, Y, [1, 2, 3], "l0", [Substitution(REPLACEMENTS)]
    )
    assert report.clean_accuracy == pytest.approx(1 - expected.by_changes[0])
    for k, share in report.robust_accuracy.items():
        assert share == pytest.approx(1 - expected.by_changes[int(k)])
    assert report.warnings == []
    assert 0 < report.robust_accuracy[1] < report.clean_accuracy
    assert "L0 norm" in str(report)
    assert RobustnessReport.from_json(report.to_json()) == report


def test_columns_apart_and_together(tmp_path: Path) -> None:
    attacks = {
        "region": Substitution({"region": REGIONS}),
        "all": Substitution(REPLACEMENTS),
    }
    settings = {"epsilons": 1, "norm": "l0", "attacks": attacks}
    path = tmp_path / "evaluation.json"
    report = nsl.evaluate_robustness(scores, X, Y, **settings, resume=path)
    assert nsl.evaluate_robustness(scores, X, Y, **settings, resume=path) == report
    alone = Substitution(REPLACEMENTS).report(scores, X, Y)
    by_region = report.clean_accuracy - report.accuracy["region"][1]
    assert by_region == pytest.approx(alone.by_column["region"])
    report.to_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "number of columns replaced" in page
    apart = nsl.evaluate_robustness(scores, X, Y, **settings, cascade=False)
    assert apart.robust_accuracy == report.robust_accuracy


def test_missing_numbers_beside_categories() -> None:
    x = {"code": np.array([0, 1]), "income": np.array([np.nan, 1.0], "float32")}

    def model(x: dict[str, np.ndarray]) -> np.ndarray:
        return np.eye(2)[np.asarray(x["code"])]

    attack = Substitution({"code": [0, 1]})
    report = nsl.evaluate_robustness(model, x, [0, 1], 1, "l0", [attack])
    assert report.robust_accuracy == {1.0: 0.0}
    assert report.warnings == []


def test_regression() -> None:
    def price(x: Any) -> tf.Tensor:
        return 5.0 * scores(x)[:, :1]

    y = price(X).numpy()
    report = nsl.evaluate_robustness(
        price, X, y, 1, "l0", [Substitution(REPLACEMENTS)], criterion=Within(12.0)
    )
    moves = np.array([11.25, 15.0, 10.0])
    visits = 5.0 * np.maximum(X["visits"], 3 - X["visits"])
    expected = np.mean(np.maximum(visits, moves[[0]]) <= 12.0)
    assert report.robust_accuracy[1.0] == pytest.approx(expected)


class Cheating(Substitution):
    """Gives values that are not allowed."""

    def __call__(self, model: Any, x: Any, y: Any = None, **options: Any) -> Any:
        return {**x, "visits": x["visits"] * 0 + 9}


def test_what_is_not_allowed_does_not_count() -> None:
    with pytest.warns(nsl.robustness.RobustnessWarning, match="left_the_ball"):
        report = nsl.evaluate_robustness(
            scores, X, Y, 1, "l0", [Cheating(REPLACEMENTS)]
        )
    assert report.robust_accuracy[1.0] == report.clean_accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l0"}, r"columns that may change.*Substitution\(\{name"),
        ({"norm": "l0", "attacks": "square"}, "received the attack 'square'"),
        ({"norm": "l0", "attacks": [PGD()]}, "'pgd' does not fit norm='l0'"),
        ({"norm": "l0", "epsilons": 0.5}, "number of replaced columns"),
        ({"norm": "l0", "bounds": (0, 1)}, "none of bounds"),
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    given = {"epsilons": 1, "attacks": [Substitution(REPLACEMENTS)], **arguments}
    if arguments == {"norm": "l0"}:
        del given["attacks"]
    with pytest.raises(ValueError, match=message):
        nsl.evaluate_robustness(scores, X, Y, **given)


def test_substitution_in_another_norm() -> None:
    x = {"a": np.zeros((2, 1), "float32")}
    with pytest.raises(ValueError, match=r"does not fit norm='l2'.*norm='l0'"):
        nsl.evaluate_robustness(
            lambda x: tf.concat([x["a"], 1 - x["a"]], 1),
            x,
            [1, 1],
            0.1,
            "l2",
            [Substitution({"a": [1.0]})],
        )
