"""The demo, examples/digits.py, with small settings."""

from pathlib import Path

import digits
import numpy as np
import pytest
from digits_adversarial import AdversarialSettings, attack, train_on_all
from digits_data import Images, Split, accuracy, choose_labeled, load_split
from digits_graph import GraphSettings, pack_neighbors, read_packed


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


def test_packed_batches_hold_neighbors_and_weigh_labels(
    split: Split, tmp_path: Path
) -> None:
    images = Images(split.train.x[:200], split.train.y[:200])
    settings = GraphSettings(max_neighbors=2, batch_size=200)
    packed = pack_neighbors(images, settings, 0, tmp_path)
    features, labels, weights = next(
        iter(read_packed(packed, settings, seed=0).as_numpy_iterator())
    )
    assert set(features) == {
        "pixels",
        *(f"NL_nbr_{i}_{name}" for i in (0, 1) for name in ("pixels", "weight")),
    }
    assert np.count_nonzero(weights) == 20
    assert weights.mean() == pytest.approx(1.0)
    assert sorted(labels[weights > 0]) == sorted([*range(10)] * 2)

    x = features["pixels"]
    neighbor, weight = features["NL_nbr_0_pixels"], features["NL_nbr_0_weight"][:, 0]
    cosine = (x * neighbor).sum(1) / np.maximum(
        np.linalg.norm(x, axis=1) * np.linalg.norm(neighbor, axis=1), 1e-6
    )
    assert weight[weight > 0].min() >= settings.similarity_threshold
    np.testing.assert_allclose(cosine[weight > 0], weight[weight > 0], atol=2e-6)


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
