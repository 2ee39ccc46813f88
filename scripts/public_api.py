"""Every public name with its signature, read from the sources.

`make api` writes them to tests/public_api.txt, once CHANGELOG.md speaks of each name
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
    """Returns the default of a field of attrs, or the value as it stands."""
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
        # A function hides the module of its name that it is defined in.
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
    """Returns what each public path names: an object, or another path."""
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
    """Lists the lines of a public name, those of its members included."""
    return [f"{path} is {found}"] if isinstance(found, str) else [*_lines(path, found)]


def describe() -> list[str]:
    """Lists a line for each public name, in order."""
    lines = [line for item in public().items() for line in lines_of(*item)]
    return sorted(lines, key=lambda line: line.removeprefix("class "))


def changed(old: list[str], new: list[str]) -> list[str]:
    """Lists the public names, without their rooms, whose lines differ.

    A member stands under the name of its class.
    """
    names = set()
    for line in set(old) ^ set(new):
        path = re.split(r"[(: ]", line.removeprefix("class "))[0].split(".")
        rooms = [part for part in path[1:] if part.islower() and part in _rooms()]
        names.add(path[len(rooms) + 1] if len(path) > len(rooms) + 1 else path[-1])
    return sorted(names)


def _rooms() -> set[str]:
    return {path.name for path in (ROOT / "nsl").rglob("*") if path.is_dir()}


def untold(names: list[str], changelog: str) -> list[str]:
    """Lists the names that the newest section of the changelog does not speak of."""
    section = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    return [name for name in names if not re.search(rf"\b{name}\b", section)]


def main() -> int:
    """Writes the names; returns 1, and writes nothing, if the changelog is silent."""
    old, new = SNAPSHOT.read_text().splitlines(), describe()
    silent = untold(changed(old, new), (ROOT / "CHANGELOG.md").read_text())
    if silent:
        print(
            "The newest section of CHANGELOG.md says nothing of what changed in"
            f" {', '.join(silent)}. Add it there, then run this again.",
            file=sys.stderr,
        )
        return 1
    SNAPSHOT.write_text("".join(f"{line}\n" for line in new))
    return 0


if __name__ == "__main__":
    sys.exit(main())
