"""The wheel and the source archive: what is in them, byte for byte the same again."""

import email.message
import email.parser
import hashlib
import os
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import nsl
from tests.pages import ROOT

# All that is installed and is not Python.
DATA = {"nsl/py.typed", "nsl/robustness/report.html"}
PACKAGES = ("neural_structured_learning", "nsl")
# What the source archive holds in its first folder.
SOURCES = {
    ".ci",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "RELEASE.md",
    "SECURITY.md",
    "benchmarks",
    "docs",
    "examples",
    "mkdocs.yml",
    "neural_structured_learning",
    "nsl",
    "pyproject.toml",
    "scripts",
    "tests",
    "tools",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _build(builder: Any, folder: Path) -> Path:
    (path,) = builder(str(ROOT)).build(directory=str(folder))
    return Path(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    return _build(WheelBuilder, folder)


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    return _build(SdistBuilder, folder)


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as file:
        text = file.read(f"nsl-{nsl.__version__}.dist-info/METADATA").decode()
    return email.parser.HeaderParser().parsestr(text)


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    python = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    info = f"nsl-{nsl.__version__}.dist-info"
    about = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert len(names) == len(set(names))
    assert set(names) == python | DATA | {f"{info}/{name}" for name in about}


def test_the_source_archive_holds_what_is_listed(archive: Path) -> None:
    with tarfile.open(archive) as file:
        members = [Path(member.name) for member in file if member.isfile()]
    assert {path.parts[0] for path in members} == {f"nsl-{nsl.__version__}"}
    assert {path.parts[1] for path in members} == SOURCES
    suffixes = {path.suffix for path in members if len(path.parts) > 2}
    assert not suffixes & {".pyc", ".h5", ".keras", ".ipynb", ".tfr", ".npz"}


@pytest.mark.parametrize("kind", ["wheel", "archive"])
def test_a_second_build_gives_the_same_bytes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first: Path = request.getfixturevalue(kind)
    umask = os.umask(0o077)
    try:
        second = _build(WheelBuilder if kind == "wheel" else SdistBuilder, tmp_path)
    finally:
        os.umask(umask)
    assert first.name == second.name
    digests = {hashlib.sha256(path.read_bytes()).digest() for path in (first, second)}
    assert len(digests) == 1


def test_the_metadata_says_what_the_package_is(
    metadata: email.message.Message,
) -> None:
    assert metadata["Version"] == nsl.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Classifier", [])) == set(PROJECT["classifiers"])
    assert set(metadata["Keywords"].split(",")) == set(PROJECT["keywords"])
    extras = set(PROJECT["optional-dependencies"])
    assert set(metadata.get_all("Provides-Extra", [])) == extras


def test_the_description_leads_nowhere_that_an_index_has_not(
    metadata: email.message.Message,
) -> None:
    text = str(metadata.get_payload())
    assert "nsl.keras.AdversarialRegularization" in text
    targets = re.findall(r"\]\(([^)]*)\)", text)
    assert all(target.startswith("https://") for target in targets), targets


def test_the_classifiers_name_the_pythons_that_are_tested() -> None:
    minor = {
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if re.search(r":: 3\.\d+$", line)
    }
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    (tested,) = re.findall(r"python: \[(.*)\]", workflow)
    assert minor == set(re.findall(r"[\d.]+", tested))
    assert PROJECT["requires-python"] == f">={min(minor)}"
