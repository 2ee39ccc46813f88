"""Examples in docstrings: they run, or call what there is with arguments it has.

Those at a prompt (>>>) run. The others need data that the reader has: only their names
and arguments are checked.
"""

import ast
import doctest
import re
import textwrap
from collections.abc import Iterator

import griffe
import numpy as np
import pytest
import tensorflow as tf

import nsl
from tests.pages import ROOT

PACKAGE = griffe.load("nsl", search_paths=[str(ROOT)])


def _objects(found: griffe.Object | griffe.Alias) -> Iterator[griffe.Object]:
    assert isinstance(found, griffe.Object)
    yield found
    for member in found.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _examples() -> Iterator[tuple[str, str]]:
    for found in _objects(PACKAGE):
        text = found.docstring.value if found.docstring else ""
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        for number, block in enumerate(blocks):
            yield f"{found.path}-{number}", textwrap.dedent(block)


EXAMPLES = dict(_examples())
AT_A_PROMPT = {
    found.path: found.docstring.value
    for found in _objects(PACKAGE)
    if found.docstring and ">>> " in found.docstring.value
}


def _problems(source: str) -> list[str]:
    """Lists names of nsl and arguments of functions that do not exist."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call | ast.Attribute):
            continue
        path = ast.unparse(node.func if isinstance(node, ast.Call) else node)
        if not re.fullmatch(r"nsl(\.\w+)+", path):
            continue
        try:
            found = PACKAGE[path.removeprefix("nsl.")]
        except KeyError:
            problems.append(f"{path} does not exist")
            continue
        if found.is_module and found.name in found.members:
            found = found[found.name]  # the function hides the module of its name
        if isinstance(node, ast.Call) and (found.is_class or found.is_function):
            problems += _unknown_arguments(path, found, node)
    return problems


def _unknown_arguments(
    path: str, found: griffe.Object | griffe.Alias, call: ast.Call
) -> list[str]:
    if found.is_class and "__init__" not in found.all_members:
        known = {name for name in found.all_members if not name.startswith("_")}
    else:
        parameters = list(found.parameters)
        if any(each.kind is griffe.ParameterKind.var_keyword for each in parameters):
            return []
        known = {each.name for each in parameters}
    given = [each.arg for each in call.keywords if each.arg]
    return [f"{path} has no argument {name!r}" for name in given if name not in known]


@pytest.mark.parametrize("path", EXAMPLES)
def test_the_example_of(path: str) -> None:
    assert not _problems(EXAMPLES[path])


@pytest.mark.parametrize("path", AT_A_PROMPT)
def test_the_example_at_a_prompt_of(path: str) -> None:
    names = {"nsl": nsl, "np": np, "tf": tf}
    found = doctest.DocTestParser().get_doctest(AT_A_PROMPT[path], names, path, path, 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    said: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(found, out=said.append)
    assert not said, "".join(said)


def test_there_are_examples_and_mistakes_are_found() -> None:
    assert len(EXAMPLES) > 20
    assert AT_A_PROMPT
    assert _problems("nsl.lib.normalise(x)") == ["nsl.lib.normalise does not exist"] * 2
    assert _problems("nsl.attacks.PGD(stepz=1)") == [
        "nsl.attacks.PGD has no argument 'stepz'"
    ]
    assert _problems("nsl.lib.normalize(x, norm='l2')") == [
        "nsl.lib.normalize has no argument 'norm'"
    ]
    assert not _problems("nsl.attacks.PGD(steps=1)(model, x, y, epsilon=0.1)")
