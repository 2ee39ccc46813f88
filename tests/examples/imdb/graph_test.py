"""examples/imdb/graph.py in small, and the reviews that it reads."""

import gzip
import json
from pathlib import Path

import graph
import numpy as np
import pytest
import reviews


@pytest.mark.arithmetic
def test_the_whole_program_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    graph.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("24 labels"))
    plain, regularized = (float(row.split()[place]) for place in (3, 6))
    assert regularized > plain + 5
    assert any(line.startswith("all 600 labels") for line in lines)


def test_reviews_are_read_as_lines_and_as_they_are_unpacked(tmp_path: Path) -> None:
    texts, labels = ["so bad", "dull", "fine<br />film", "great"], [0, 0, 1, 1]
    lines, unpacked = tmp_path / "lines", tmp_path / "aclImdb"
    lines.mkdir()
    for part in ("train", "test"):
        path = lines / f"imdb_{part}.jsonl.gz"
        with gzip.open(path, "wt", encoding="utf-8") as file:
            for text, label in zip(texts, labels, strict=True):
                file.write(json.dumps({"text": text, "label": label}) + "\n")
        for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
            path = unpacked / part / ("neg", "pos")[label] / f"{i}_7.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (unpacked / part / "unsup").mkdir()
        (unpacked / part / "unsup" / "4_0.txt").write_text("of no class")
    for folder in (lines, unpacked):
        for part in ("train", "test"):
            found, truth = reviews.load(folder, part)
            assert found == ["so bad", "dull", "fine film", "great"]
            np.testing.assert_array_equal(truth, labels)


def test_labels_are_drawn_by_the_seed_from_both_classes() -> None:
    labels = np.arange(100) % 2
    rows = reviews.draw_labeled(labels, 20, seed=3)
    assert np.bincount(labels[rows]).tolist() == [10, 10]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(rows, reviews.draw_labeled(labels, 20, seed=3))
    assert set(rows) != set(reviews.draw_labeled(labels, 20, seed=4))


def test_batches_are_half_labeled_and_tell_no_other_label() -> None:
    train, new = reviews.make_up(0, 300), reviews.make_up(1, 300)
    task = graph.make_task(train, new, quick=True)
    rows = reviews.draw_labeled(task.labels, 20, seed=0)
    data = graph.graph_batches(task, rows, seed=0)
    # One epoch: each review without a label comes once.
    epoch = list(data.take(-(-2 * 280 // 64)).as_numpy_iterator())
    y, weight = (np.concatenate([batch[i] for batch in epoch]) for i in (1, 2))
    assert weight.sum() == len(weight) / 2 == 280
    assert y[weight == 1].mean() == 0.5
    assert not y[weight == 0].any()


def test_missing_data_is_told_with_where_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        graph.main([])
    assert "https://ai.stanford.edu/~amaas/data/sentiment" in capsys.readouterr().err


def test_missing_reviews_are_told_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"No reviews for train in [^$]*aclImdb_v1\.tar\.gz"
    ):
        reviews.load(tmp_path, "train")
