"""Lists every public name with its signature, from the source code.

`make api` writes the list to tests/public_api.txt, if CHANGELOG.md mentions each name
that changed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tests" / "public_api.txt"


def _default(attribute: griffe.Attribute) -> str:
    """Returns the default of an attrs field, or the value of another attribute."""
    value = attribute.value
    if not isinstance(value, griffe.ExprCall) or "field" not in str(value.function):
        return f" = {value}" if value is not None else ""
    kept = [
        str(argument)
        for argument in value.arguments
        if isinstance(argument, griffe.ExprKeyword)
        and argument.name in ("default", "factory", "kw_only")
    ]
    return f" = field({', '.join(kept)})"


def _lines(path: str, found: griffe.Object | griffe.Alias) -> Iterator[str]:
    if found.is_module:
        # A function may hide the module of the same name that defines it.
        function = found.members.get(found.name)
        if function is None:
            yield f"{path}: module"
        else:
            yield from _lines(path, function)
    elif found.is_function:
        signature = found.signature(return_type=False).removeprefix(found.name)
        returns = f" -> {found.returns}" if found.returns else ""
        yield f"{path}{signature}{returns}"
    elif found.is_attribute:
        annotation = f": {found.annotation}" if found.annotation else ""
        computed = found.labels & {"instance-attribute", "property"}
        fixed = not computed or "class-attribute" in found.labels
        yield f"{path}{annotation}{_default(found) if fixed else ''}"
    elif found.is_class:
        bases = ", ".join(map(str, found.bases))
        yield f"class {path}({bases})"
        for name, member in sorted(found.all_members.items()):
            if not name.startswith("_") or name in ("__init__", "__call__"):
                yield from _lines(f"{path}.{name}", member)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for child in module.modules.values():
        if not child.is_alias:
            yield from _modules(child)


def public() -> dict[str, griffe.Object | griffe.Alias | str]:
    """Returns the object of each public path; aliases have the first path instead."""
    package = griffe.load("nsl", search_paths=[str(ROOT)])
    assert isinstance(package, griffe.Module)
    found: dict[str, griffe.Object | griffe.Alias | str] = {}
    first: dict[str, str] = {}
    for module in sorted(_modules(package), key=lambda module: module.path.count(".")):
        for name in module.exports or ():
            member, path = module.all_members[str(name)], f"{module.path}.{name}"
            other = first.setdefault(member.canonical_path, path)
            found[path] = member if other == path else other
    return found


def lines_of(path: str, found: griffe.Object | griffe.Alias | str) -> list[str]:
    """Lists the lines of a public name, including those of its members."""
    return [f"{path} is {found}"] if isinstance(found, str) else [*_lines(path, found)]


def describe() -> list[str]:
    """Lists the lines of all public names, sorted."""
    lines = [line for item in public().items() for line in lines_of(*item)]
    return sorted(lines, key=lambda line: line.removeprefix("class "))


def changed(old: list[str], new: list[str]) -> list[str]:
    """Lists the public names, without their packages, whose lines differ.

    A changed member counts as a change of its class.
    """
    names = set()
    for line in set(old) ^ set(new):
        path = re.split(r"[(: ]", line.removeprefix("class "))[0].split(".")
        rooms = [part for part in path[1:] if part.islower() and part in _rooms()]
        names.add(path[len(rooms) + 1] if len(path) > len(rooms) + 1 else path[-1])
    return sorted(names)


def _rooms() -> set[str]:
    return {path.name for path in (ROOT / "nsl").rglob("*") if path.is_dir()}


def unmentioned(names: list[str], changelog: str) -> list[str]:
    """Lists the names that the newest section of the changelog does not mention."""
    section = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    return [name for name in names if not re.search(rf"\b{name}\b", section)]


def main() -> int:
    """Writes the list; returns 1, without writing, if the changelog is incomplete."""
    old, new = SNAPSHOT.read_text().splitlines(), describe()
    missing = unmentioned(changed(old, new), (ROOT / "CHANGELOG.md").read_text())
    if missing:
        print(
            "The newest section of CHANGELOG.md does not mention the changes of "
            f"{', '.join(missing)}. Add them, then run this again.",
            file=sys.stderr,
        )
        return 1
    SNAPSHOT.write_text("".join(f"{line}\n" for line in new))
    return 0


if __name__ == "__main__":
    sys.exit(main())
