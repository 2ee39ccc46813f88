"""The file that an evaluation goes on from."""

from pathlib import Path

import numpy as np
import pytest

from nsl.robustness.checkpoint import Checkpoint, settings_of

FINGERPRINT = {"x": "abc", "norm": "l2", "epsilons": [0.1, 0.2]}
OUTPUTS = np.array([[0.25, 0.75]])


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "resume.json"
    first = Checkpoint(path, FINGERPRINT, OUTPUTS)
    assert first.finished("pgd", 0.1) is None
    first.add("pgd", {0.1: {"fallen": "01"}, 0.2: {"fallen": "11"}})
    second = Checkpoint(path, FINGERPRINT, OUTPUTS + 1e-5)
    assert second.finished("pgd", 0.1) == {"fallen": "01"}
    assert second.finished("pgd", 0.2) == {"fallen": "11"}
    assert second.finished("square", 0.1) is None
    assert [file.name for file in tmp_path.iterdir()] == ["resume.json"]


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    checkpoint = Checkpoint(None, FINGERPRINT, OUTPUTS)
    checkpoint.add("pgd", {0.1: {"fallen": "01"}})
    assert checkpoint.finished("pgd", 0.1) == {"fallen": "01"}


@pytest.mark.parametrize(
    ("change", "outputs", "message"),
    [
        ({"norm": "l1"}, OUTPUTS, r"Differences: norm \(then 'l2', now 'l1'\)"),
        ({"x": "abd"}, OUTPUTS, "Differences: x. Use"),
        ({}, OUTPUTS + 0.01, "Differences: model"),
        ({}, np.ones((2, 3)), "Differences: model"),
        ({"x": "abd", "seed": 1}, OUTPUTS, r"Differences: x, seed. "),
    ],
)
def test_another_evaluation_is_refused(
    tmp_path: Path, change: dict[str, object], outputs: np.ndarray, message: str
) -> None:
    path = tmp_path / "resume.json"
    Checkpoint(path, FINGERPRINT, OUTPUTS).add("pgd", {0.1: {}})
    with pytest.raises(ValueError, match=message):
        Checkpoint(path, FINGERPRINT | change, outputs)


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": {}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "resume.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="was not written by evaluate_robustness"):
        Checkpoint(path, FINGERPRINT, OUTPUTS)


def test_settings_see_values_names_shapes_and_dtypes() -> None:
    array = np.arange(6.0, dtype=np.float32)
    texts = {
        settings_of(array),
        settings_of(array + 1),
        settings_of(array.reshape(2, 3)),
        settings_of(array.astype(np.float64)),
        settings_of({"a": array}),
        settings_of({"b": array}),
        settings_of({"b": np.array(["x", "y"], object)}),
    }
    assert len(texts) == 7
    assert settings_of(array[::2]) == settings_of(array[::2].copy())
