"""The demo, examples/digits.py, with small settings."""

from pathlib import Path

import digits
import numpy as np
import pytest

Split = list[digits.Images]


@pytest.fixture(scope="module")
def split() -> Split:
    return digits.load()


def test_the_split_is_disjoint_and_always_the_same(split: Split) -> None:
    assert [len(y) for _, y in split] == [1000, 297, 500]
    rows = [row.tobytes() for x, _ in split for row in x]
    assert rows == [row.tobytes() for x, _ in digits.load() for row in x]
    # Some digits occur twice in the data; apart from those the parts share nothing.
    assert len(set(rows)) >= len(rows) - 2


def test_two_images_a_class_keep_their_label(split: Split) -> None:
    (_, y), *_ = split
    chosen = digits.choose_labeled(y, seed=3)
    assert sorted(y[chosen]) == sorted([*range(10)] * 2)
    assert len(set(chosen)) == 20
    assert set(chosen) != set(digits.choose_labeled(y, seed=4))


def test_the_tool_joins_each_image_with_the_most_similar(split: Split) -> None:
    images = split[0][0][:200]
    graph = digits.build_graph(images, 2)
    x = images.reshape(200, -1)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -1)
    nearest = np.argsort(-cosine, axis=1)[:, :2]
    assert graph.num_nodes == 200
    for row in range(200):
        joined = graph.targets[graph.row_splits[row] : graph.row_splits[row + 1]]
        assert set(nearest[row]) <= set(joined)
        assert all(other in nearest[row] or row in nearest[other] for other in joined)


@pytest.mark.arithmetic
def test_attacks_stay_within_epsilon_and_lower_accuracy(split: Split) -> None:
    model = digits.train_on_all(split[0], seed=0, adversarial=False, quick=True)
    x, y = (part[:100] for part in split[2])
    for attack in digits.ATTACKS.values():
        attacked = attack(model, x, y, epsilon=0.1, bounds=(0, 1))
        assert np.abs(attacked - x).max() <= 0.1 + 1e-6
        assert attacked.min() >= 0.0
        assert attacked.max() <= 1.0
        lowered = digits.accuracy(model, attacked, y)
        assert lowered < digits.accuracy(model, x, y) - 20


@pytest.mark.arithmetic
def test_the_whole_demo_in_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits.main([f"--output_dir={tmp_path / 'demo'}", "--quick"])
    table = capsys.readouterr().out
    assert "20 labels" in table
    assert "500 test images" in table
    assert (tmp_path / "demo" / "digits.png").stat().st_size > 20_000
    assert "<figcaption>clean" in (tmp_path / "demo" / "robustness.html").read_text()

    width = table.index("plain") - 11
    cells = {line[:width].strip(): line[width:].split() for line in table.splitlines()}
    plain, regularized = (
        float(cells["under PGD, epsilon 0.1"][column]) for column in (0, 3)
    )
    assert regularized > plain + 10
