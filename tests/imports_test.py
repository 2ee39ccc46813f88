"""Imports point one way: configs <- lib <- data <- keras; files <- tools <- beam."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nsl

PACKAGE = Path(nsl.__file__).parent

# What the files of each room may import from the rooms of nsl besides their own.
ALLOWED = {
    "configs": set(),
    "files": {"progress"},
    "lib": {"configs"},
    "attacks": {"configs", "lib", "progress"},
    "robustness": {"attacks", "configs", "files", "lib"},
    "data": {"configs", "files", "lib", "ranks"},
    "keras": {"attacks", "configs", "data", "lib", "progress", "robustness"},
    "tools": {"configs", "files", "progress", "ranks"},
    "beam": {"configs", "files", "tools"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def _imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yields (line, absolute dotted name) of every import, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def _room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.parent != PACKAGE],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_imports_of(file: Path) -> None:
    room = _room(file)
    assert room in ALLOWED, f"say in ALLOWED which rooms nsl/{room} may know"
    package = ("nsl", *file.relative_to(PACKAGE).parts[:-1])
    for line, name in _imported(file.read_text(), package):
        where = f"{file}:{line} imports {name}"
        top, _, rest = name.partition(".")
        if top == "nsl":
            assert rest.split(".")[0] in {room, *ALLOWED[room]}, where
        if room != "keras":
            assert top not in {"keras", "tf_keras"}, where
            assert not name.startswith("tensorflow.keras"), where
        assert top != "neural_structured_learning", where


@pytest.mark.parametrize("room", ["beam", "configs", "files", "tools"])
def test_no_tensorflow_at_module_level_in(room: str) -> None:
    for file in sorted((PACKAGE / room).rglob("*.py")):
        tree = ast.parse(file.read_text(), str(file))
        for node in tree.body:
            names = (
                ast.dump(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            )
            assert "'tensorflow" not in names, f"{file}:{node.lineno}"


def test_only_nsl_keras_speaks_of_keras() -> None:
    for file in FILES:
        if _room(file) == "keras":
            continue
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            uses_tf_keras = (
                isinstance(node, ast.Attribute)
                and node.attr == "keras"
                and isinstance(node.value, ast.Name)
                and node.value.id == "tf"
            )
            assert not uses_tf_keras, f"{file}:{getattr(node, 'lineno', 0)}: tf.keras"


def test_the_reader_of_imports_sees_all_forms() -> None:
    source = (
        "import keras.ops\n"
        "from nsl import lib\n"
        "from . import norms\n"
        "from ..keras.layers import x\n"
        "def f():\n    from nsl.keras import y\n"
    )
    assert set(_imported(source, ("nsl", "lib"))) == {
        (1, "keras.ops"),
        (2, "nsl.lib"),
        (3, "nsl.lib.norms"),
        (4, "nsl.keras.layers.x"),
        (6, "nsl.keras.y"),
    }


def _private_names(file: Path) -> set[str]:
    """Returns the private names that a file uses of other objects than its own."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {name for name in names if re.fullmatch(r"_[a-z]\w*|keras\.src\..*", name)}


def test_private_names_of_keras_are_in_one_file() -> None:
    internals = PACKAGE / "lib" / "keras_internals.py"
    private = _private_names(internals)
    assert {"_inputs_struct", "_keras_mask", "_losses", "_fn_kwargs"} <= private
    for file in FILES:
        if file != internals:
            found = private & _private_names(file)
            assert not found, f"{file} uses {found}: see lib/keras_internals.py"


def test_each_private_name_of_keras_has_a_test() -> None:
    tests = (Path(__file__).parent / "keras" / "internals_test.py").read_text()
    # multi_worker_test.py runs the first; the second stands for many modules.
    private = _private_names(PACKAGE / "lib" / "keras_internals.py")
    for name in private - {"_in_multi_worker_mode", "keras.src."}:
        assert name in tests, f"add a test of {name} to tests/keras/internals_test.py"
