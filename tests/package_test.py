"""The package itself: version, lazy rooms, removed rooms, type marker."""

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


def test_the_version_is_the_same_for_pip_and_for_the_module() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in pyproject
    assert 'path = "nsl/__init__.py"' in pyproject
    assert nsl.__version__.split(".")[0] == "2"


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'layers'.*'keras'"):
        nsl.layers  # noqa: B018


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
