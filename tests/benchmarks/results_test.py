"""benchmarks/results.py, and the page that it fills."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> ModuleType:
    path = ROOT / "benchmarks" / "results.py"
    spec = importlib.util.spec_from_file_location("results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_a_table_replaces_that_of_its_name_only(results: ModuleType) -> None:
    page = results.replace_table(PAGE, "one", "new ± 1\nnew ± 2\n")
    assert page == PAGE.replace("old", "new ± 1\nnew ± 2")


def test_a_page_without_the_table_is_refused(results: ModuleType) -> None:
    with pytest.raises(ValueError, match="table of three"):
        results.replace_table(PAGE, "three", "new")


def test_the_page_has_a_table_of_every_example_and_its_pictures(
    results: ModuleType,
) -> None:
    page = results.PAGE.read_text()
    for example in results.EXAMPLES:
        assert (ROOT / "examples" / f"{example.name}.py").exists()
        assert results.replace_table(page, example.name, "new") != page
        for picture in example.pictures:
            assert f"images/{picture}" in page
            assert (results.IMAGES / picture).exists()
    assert re.findall(r"<!-- table of (\w+) -->", page) == [
        example.name for example in results.EXAMPLES
    ]


def test_data_that_is_missing_leaves_an_example_out(
    results: ModuleType, tmp_path: Path
) -> None:
    imdb = next(each for each in results.EXAMPLES if each.name == "imdb")
    mnist = next(each for each in results.EXAMPLES if each.name == "mnist")
    assert results.command(mnist, tmp_path, Path("out")) is None
    assert results.command(imdb, None, Path("out")) is None
    for name in ("mnist.npz", "imdb_train.jsonl.gz", "imdb_test.jsonl.gz"):
        (tmp_path / name).touch()
    words = results.command(mnist, tmp_path, Path("out"))
    assert words[-2:] == ["--output_dir=out", f"--data={tmp_path / 'mnist.npz'}"]
    words = results.command(imdb, tmp_path, Path("out"))
    assert words[-1] == f"--data={tmp_path}"
