"""The package itself: version, lazy rooms, removed rooms, type marker."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nsl

ROOT = Path(nsl.__file__).parents[1]


@pytest.mark.parametrize("module", ["nsl", "nsl.configs", "nsl.files", "nsl.tools"])
def test_importing_what_needs_no_tensorflow_leaves_it_out(module: str) -> None:
    program = (
        f"import sys, {module}\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"


def test_the_rooms_are_attributes_and_listed() -> None:
    import nsl.configs

    assert {"configs", "keras", "lib", "tools", "__version__"} <= set(dir(nsl))
    assert nsl.configs is sys.modules["nsl.configs"]


def test_the_version_is_the_same_for_pip_the_citation_and_the_changelog() -> None:
    assert importlib.metadata.version("nsl") == nsl.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [nsl.__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.findall(r"^## \[(.*)\] - ", changelog, re.MULTILINE)[0]
    assert newest == nsl.__version__


def _deprecations(source: str) -> list[str]:
    """Lists the messages with which a file deprecates names."""
    return [
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "deprecated"
        and isinstance(node.args[0], ast.Constant)
    ]


def _is_due(message: str) -> bool:
    removal = re.search(r"^Use .*; .* is removed in nsl (\d+)\.(\d+)\.$", message)
    assert removal, f"{message!r} does not follow CONTRIBUTING.md, Deprecation"
    return tuple(map(int, removal.groups())) <= tuple(
        map(int, nsl.__version__.split(".")[:2])
    )


def test_what_is_deprecated_says_until_when_and_is_not_overdue() -> None:
    major = int(nsl.__version__.split(".")[0])
    source = f"""
@deprecated("Use f; g is removed in nsl {major}.0.")
def g(): ...
@deprecated("Use f; h is removed in nsl {major + 1}.0.")
def h(): ...
"""
    assert [_is_due(message) for message in _deprecations(source)] == [True, False]
    with pytest.raises(AssertionError, match="does not follow"):
        _is_due("g is old")
    for path in (ROOT / "nsl").rglob("*.py"):
        for message in _deprecations(path.read_text()):
            assert not _is_due(message), f"{path}: {message}"


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'layers'.*'keras'"):
        nsl.layers  # type: ignore[attr-defined]  # noqa: B018


def test_a_type_checker_sees_the_names_and_no_others(tmp_path: Path) -> None:
    # The rooms are left out: reading them takes long, and says nothing here.
    (tmp_path / "nsl").mkdir()
    (tmp_path / "nsl" / "__init__.py").write_text(Path(nsl.__file__).read_text())
    program = tmp_path / "program.py"
    program.write_text("import nsl\nnsl.configs\nnsl.evaluate_robustness\nnsl.config\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    found = subprocess.run(
        [*command, f"--cache-dir={tmp_path / 'cache'}", program.name],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    ).stdout
    assert 'program.py:4: error: Module has no attribute "config"' in found
    assert found.count("program.py:") == 1, found


@pytest.mark.parametrize(
    ("room", "foundation"), [("estimator", "tf.estimator"), ("experimental", "graph_")]
)
@pytest.mark.parametrize("package", ["nsl", "neural_structured_learning"])
def test_removed_rooms_say_why_and_what_to_use(
    room: str, foundation: str, package: str
) -> None:
    message = f"no longer exists.*{foundation}.*nsl.keras.GraphRegularization"
    module = __import__(package)
    with pytest.raises(AttributeError, match=message):
        getattr(module, room)
    for statement in (
        f"import {package}.{room}",
        f"from {package} import {room}",
        f"from {package}.{room} import anything",
    ):
        with pytest.raises(ImportError, match=message):
            exec(statement, {})
    assert not hasattr(module, room)


def test_the_type_marker_ships() -> None:
    assert (ROOT / "nsl" / "py.typed").exists()
