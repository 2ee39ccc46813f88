"""The demo, examples/digits.py, with small settings."""

from pathlib import Path

import digits
import numpy as np
import pytest
from digits_adversarial import AdversarialSettings, attack, train_on_all
from digits_data import Images, Split, accuracy, choose_labeled, load_split
from digits_graph import build_graph


@pytest.fixture(scope="module")
def split() -> Split:
    return load_split()


def test_the_split_is_disjoint_and_always_the_same(split: Split) -> None:
    parts = (split.train, split.validation, split.test)
    assert [len(part.y) for part in parts] == [1000, 297, 500]
    rows = [row.tobytes() for part in parts for row in part.x]
    again = load_split()
    assert rows == [
        row.tobytes()
        for part in (again.train, again.validation, again.test)
        for row in part.x
    ]
    # Some digits occur twice in the data; apart from those the parts share nothing.
    assert len(set(rows)) >= len(rows) - 2


def test_two_images_a_class_keep_their_label(split: Split) -> None:
    chosen = choose_labeled(split.train.y, seed=3)
    assert sorted(split.train.y[chosen]) == sorted([*range(10)] * 2)
    assert len(set(chosen)) == 20
    assert set(chosen) != set(choose_labeled(split.train.y, seed=4))


def test_the_tool_joins_each_image_with_the_most_similar(
    split: Split, tmp_path: Path
) -> None:
    images = Images(split.train.x[:200], split.train.y[:200])
    graph = build_graph(images, 2, tmp_path)
    x = images.x / np.linalg.norm(images.x, axis=1, keepdims=True)
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
    settings = AdversarialSettings(epochs=5)
    model = train_on_all(split.train, settings, seed=0, adversarial=False)
    test = Images(split.test.x[:100], split.test.y[:100])
    for iterations in (1, 5):
        attacked = attack(model, test, 0.1, iterations)
        assert np.abs(attacked.x - test.x).max() <= 0.1 + 1e-6
        assert attacked.x.min() >= 0.0
        assert attacked.x.max() <= 1.0
        assert accuracy(model, attacked) < accuracy(model, test) - 0.2


@pytest.mark.arithmetic
def test_the_whole_demo_in_small(tmp_path: Path) -> None:
    digits.main([f"--output_dir={tmp_path / 'demo'}", "--quick"])
    table = (tmp_path / "demo" / "digits.txt").read_text()
    assert "20 labels" in table
    assert "500 test images" in table
    assert (tmp_path / "demo" / "digits.png").stat().st_size > 20_000

    width = table.index("plain") - 11
    cells = {line[:width].strip(): line[width:].split() for line in table.splitlines()}
    plain, regularized = (
        float(cells["under PGD, epsilon 0.1"][column]) for column in (0, 3)
    )
    assert regularized > plain + 10
