"""benchmarks/results.py, and the page that it fills."""

import re
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import results
from results import import_module

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


FIGURES = [
    {
        "5 labels a class": [50.0, 60.0, 70.0, 80.0],
        "20 labels a class": [40.0, 80.0, 90.0, 80.0],
        "robust accuracy": [40.0, 80.0, 90.0, 80.0],
    }
] * 2


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, list[float]]]:
    """Figures that are in place of those that take hours."""
    figures = [dict(found) for found in FIGURES]
    monkeypatch.setattr(results, "_figures", lambda *_, **__: figures)
    return figures


@pytest.fixture
def mnist_file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(256, size=(20, 28, 28)) for part in PARTS}
    arrays |= {f"y_{part}": np.arange(20) % 10 for part in PARTS}
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path / "mnist.npz"


PARTS = ("train", "test")


def check(
    example: Callable[[Path, Path | None], str], folder: Path, data: Path | None
) -> None:
    """Draws all pictures of an example, and writes its table."""
    assert "20 labels a class" in example(folder, data)
    [one] = [each for each in results.EXAMPLES if each.run is example]
    for picture in one.pictures:
        assert (folder / picture).stat().st_size > 20_000


@pytest.mark.usefixtures("figures")
def test_tables_and_pictures_without_a_data_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = import_module("tables")
    monkeypatch.setattr(
        example, "train", lambda known, *_, **__: example.make_model(known)
    )
    check(results.tables, tmp_path, None)
    check(results.time_series, tmp_path, None)
    check(results.robust_table, tmp_path, None)
    example, folder = import_module("pipeline"), tmp_path / "seed-0"
    folder.mkdir()
    example.write_raw_files(folder, seed=0)
    example.pack(folder)
    monkeypatch.setattr(
        results.subprocess, "run", lambda *_, **__: Namespace(stdout="")
    )
    check(results.pipeline, tmp_path, None)


@pytest.mark.usefixtures("figures")
def test_tables_and_pictures_of_images(
    tmp_path: Path, mnist_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = import_module("mnist")
    models = [example.make_model((28, 28, 1))] * 3
    monkeypatch.setattr(example, "train", lambda *_: models)
    check(results.mnist, tmp_path, mnist_file)
    example = import_module("robust_mnist")
    for name in example.NAMES:
        model = example.make_model((28, 28, 1), contrast=False)
        model.save(tmp_path / f"{name}-infinity-0.keras")
    check(results.robust_mnist, tmp_path, mnist_file)


def test_tables_and_pictures_of_graphs(
    tmp_path: Path,
    figures: list[dict[str, list[float]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = import_module("cora")
    monkeypatch.setattr(example, "load", lambda _: example.make_up())
    monkeypatch.setattr(example, "train", lambda *_: example.make_model(300, 4, 0.5))
    del figures[0]["robust accuracy"], figures[1]["robust accuracy"]
    check(results.cora, tmp_path, None)
    reviews = import_module("reviews")
    monkeypatch.setattr(
        reviews, "load", lambda _, part: reviews.make_up(len(part), 400)
    )
    figures[0]["all labels"] = [84.0]
    check(results.imdb, tmp_path, None)
    check(results.imdb_taught, tmp_path, None)


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
