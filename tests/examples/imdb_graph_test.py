"""examples/imdb.py in small."""

import gzip
import json
from pathlib import Path

import imdb
import imdb_data
import numpy as np
import pytest
from imdb_data import Reviews

import nsl


def write_lines(path: Path, reviews: Reviews) -> None:
    rows = zip(reviews.texts, reviews.labels.tolist(), strict=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows)


@pytest.mark.arithmetic
def test_the_whole_program_in_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imdb.main(["--quick", f"--output_dir={tmp_path}"])
    table = (tmp_path / "imdb.txt").read_text()
    assert table in capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith("24 labels"))
    plain, graph = (float(row.split()[place]) for place in (3, 6))
    assert graph > plain + 5
    assert "plain with all 600 labels: " in table
    assert (tmp_path / "imdb.png").stat().st_size > 20_000


def test_reviews_are_read_as_lines_and_as_they_are_unpacked(tmp_path: Path) -> None:
    reviews = Reviews(["so bad", "dull", "fine<br />film", "great"], np.arange(4) // 2)
    lines, unpacked = tmp_path / "lines", tmp_path / "aclImdb"
    lines.mkdir()
    for part in ("train", "test"):
        write_lines(lines / f"imdb_{part}.jsonl.gz", reviews)
        for i, (text, label) in enumerate(
            zip(reviews.texts, reviews.labels, strict=True)
        ):
            file = unpacked / part / ("neg", "pos")[label] / f"{i}_7.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for folder in (lines, unpacked):
        for found in imdb_data.load(folder):
            assert list(found.texts) == ["so bad", "dull", "fine film", "great"]
            np.testing.assert_array_equal(found.labels, [0, 0, 1, 1])


def test_held_out_reviews_are_no_training_reviews() -> None:
    reviews = Reviews([str(i) for i in range(50)], np.arange(50))
    rest, held_out = imdb_data.hold_out(reviews)
    assert len(held_out.texts) == 10
    assert sorted([*rest.labels, *held_out.labels]) == list(range(50))
    assert [int(text) for text in held_out.texts] == held_out.labels.tolist()


def test_labels_are_drawn_by_the_seed_from_both_classes() -> None:
    labels = np.arange(100) % 2
    rows = imdb.draw_labeled(labels, 20, seed=3)
    assert np.bincount(labels[rows]).tolist() == [10, 10]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(rows, imdb.draw_labeled(labels, 20, seed=3))
    assert set(rows) != set(imdb.draw_labeled(labels, 20, seed=4))


def test_batches_are_half_labeled_and_tell_no_other_label() -> None:
    reviews, new = imdb_data.make_up(reviews=300)
    task = imdb.make_task(
        reviews, new, vocabulary=400, tokens=26, dimensions=16, candidates=10
    )
    rows = imdb.draw_labeled(task.labels, 20, seed=0)
    config = nsl.configs.make_graph_reg_config(max_neighbors=2)
    data = imdb.graph_batches(task, rows, imdb.QUICK, config, seed=0)
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
        imdb.main([])
    assert "https://ai.stanford.edu/~amaas/data/sentiment" in capsys.readouterr().err


def test_missing_reviews_are_told_with_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"No reviews for train in [^$]*aclImdb_v1\.tar\.gz"
    ):
        imdb_data.load(tmp_path)
