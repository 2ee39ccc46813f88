"""What runs on GitHub: actions pinned by digest, the pairs that `make matrix` has."""

import re
from pathlib import Path

import pytest

from tests.pages import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_digest_and_name_their_version(path: Path) -> None:
    used = re.findall(r"uses: *(.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_each_action_has_one_digest() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    digests = dict(re.findall(r"uses: *(\S+)@(\S+)", text))
    assert set(re.findall(r"uses: *(\S+)@(\S+)", text)) == set(digests.items())


def test_the_pairs_are_those_of_the_program() -> None:
    program = (ROOT / "benchmarks" / "matrix.py").read_text()
    pythons = re.findall(r"^PYTHONS = \((.*)\)$", program, re.MULTILINE)
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    assert re.findall(r"python: \[(.*)\]", workflow) == pythons
    assert re.findall(r"age: \[(.*)\]", workflow) == ["oldest, newest"]


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    for path in WORKFLOWS:
        text = path.read_text()
        assert "\npermissions:\n  contents: read\n" in text
        before, *after = text.split("id-token: write")
        assert len(after) == (path.stem == "release")
        assert not after or "\n  publish:\n" in before
