"""benchmarks/results.py, and the page that it fills."""

import re
from pathlib import Path

import numpy as np
import pytest
import results
from results import import_module, pictures

from nsl.robustness.report import AttackResult, RobustnessReport

PAGE = """
<!-- table of one -->

```text
old
```

<!-- table of two -->

```text
stays
```
"""


def test_a_table_replaces_that_of_its_name_only() -> None:
    page = results.replace_table(PAGE, "one", "new ± 1\nnew ± 2\n")
    assert page == PAGE.replace("old", "new ± 1\nnew ± 2")


def test_a_page_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table of three"):
        results.replace_table(PAGE, "three", "new")


def test_the_page_has_a_table_of_every_example_and_its_pictures() -> None:
    page = results.PAGE.read_text()
    for example in results.EXAMPLES:
        assert example.path.exists()
        assert results.replace_table(page, example.name, "new") != page
        for picture in example.pictures:
            assert f"images/{picture}" in page
            assert (results.IMAGES / picture).exists()
    assert re.findall(r"<!-- table of (\w+) -->", page) == [
        example.name for example in results.EXAMPLES
    ]


def test_data_that_is_missing_leaves_an_example_out(
    tmp_path: Path,
) -> None:
    imdb = next(each for each in results.EXAMPLES if each.name == "imdb")
    mnist = next(each for each in results.EXAMPLES if each.name == "mnist")
    assert results.find_data(mnist, tmp_path) is None
    assert results.find_data(imdb, None) is None
    for name in ("mnist.npz", "imdb_train.jsonl.gz", "imdb_test.jsonl.gz"):
        (tmp_path / name).touch()
    assert results.find_data(mnist, tmp_path) == tmp_path / "mnist.npz"
    assert results.find_data(imdb, tmp_path) == tmp_path


def _drawn(path: Path) -> bool:
    return path.stat().st_size > 20_000


FIGURES = [{"one": [50.0, 60.0, 70.0], "robust accuracy": [40.0, 80.0, 90.0]}] * 2
IMAGES = np.zeros((10, 8, 8))


def test_the_pictures_of_images_are_drawn(tmp_path: Path) -> None:
    names, answers = ("plain", "PGD training", "TRADES"), [np.arange(10)] * 3
    shown = names, IMAGES, [IMAGES] * 3, answers, "title"
    pictures.mnist(tmp_path / "mnist.png", FIGURES, *shown)
    curves = [{0.0: 99.0, 0.3: 50.0}] * 3
    path = tmp_path / "robust.png"
    pictures.robust_mnist(path, FIGURES, *shown, curves, 0.3, "title")
    assert _drawn(tmp_path / "mnist.png")
    assert _drawn(path)


def test_the_pictures_of_bars_are_drawn(tmp_path: Path) -> None:
    errors = np.arange(30.0)
    path = tmp_path / "tables.png"
    pictures.tables(path, FIGURES, errors, [errors] * 2, [errors + 1] * 2, 60.0)
    assert _drawn(path)
    example = import_module("time_series")
    series, kinds = example.make_series(60, seed=0)
    names, graph = (
        [example.KINDS[kind] for kind in kinds],
        example.make_graph(series, 2),
    )
    path = tmp_path / "series.png"
    pictures.time_series(path, FIGURES, series, names, graph)
    assert _drawn(path)
    path, raw = tmp_path / "pipeline.png", np.random.default_rng(0).random((3, 4))
    graph = {"5": {"6": 1.0}, "6": {"7": 0.5}}
    pictures.pipeline(
        path, FIGURES, np.array([5, 6, 7]), np.array([-1, 0, 1]), raw, graph
    )
    assert _drawn(path)


def test_the_pictures_of_curves_are_drawn(tmp_path: Path) -> None:
    few = {"250 labels (1%)": [60.0, 76.0, 83.0], "2,500 labels (10%)": [77, 78, 85]}
    path = tmp_path / "imdb.png"
    pictures.imdb(path, [few | {"all 25,000 labels": [84.0]}, few])
    assert _drawn(path)
    curve = {"5 labels a class": [40.0, 70.0], "20 labels a class": [55.0, 80.0]}
    path, names = tmp_path / "cora.png", ("labels alone", "labels and graph")
    pictures.cora_labels(path, [curve] * 2, names)
    assert _drawn(path)
    hidden = np.random.default_rng(0).random((12, 5), np.float32)
    path = tmp_path / "embeddings.png"
    pictures.cora_embeddings(path, names, [hidden] * 2, np.arange(12) % 4, [50.0, 80.0])
    assert _drawn(path)


def test_a_report_per_network_gives_a_row_per_attack() -> None:
    reports = [
        RobustnessReport(
            norm="infinity",
            epsilons=(0.3,),
            correct=np.array([True, True, True, False]),
            results={
                "apgd": AttackResult(
                    np.array([[True, True, first, False]]), [1.0], [4]
                ),
                "square": AttackResult(
                    np.array([[True, first, first, False]]), [1.0], [4]
                ),
            },
            certified=np.array([[first, False, False, False]]),
        )
        for first in (False, True)
    ]
    assert results.robust_rows(reports) == {
        "clean": [75.0, 75.0],
        "after apgd": [50.0, 75.0],
        "then square": [25.0, 75.0],
        "robust accuracy": [25.0, 75.0],
        "certified": [0.0, 25.0],
    }
