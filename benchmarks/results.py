"""Updates the tables and plots of docs/results.md: every example, over several seeds.

Runs the programs in examples/, which takes hours. Each program saves the results of
every seed, so an interrupted run resumes, and finished seeds are not run again.
Examples whose data is missing are skipped: their sections of the page do not change.

    make results DATA=folder
    python benchmarks/results.py --data_dir=folder --output_dir=results
    python benchmarks/results.py --only=digits,tables

The data folder contains cora.npz (see examples/cora.py), mnist.npz (as stored by Keras)
and the files of film reviews (see examples/imdb.py), or some of these.
"""

import argparse
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"


@dataclasses.dataclass(frozen=True)
class Example:
    """A program in examples/ that compares networks over seeds.

    Attributes:
      name: The name of the program and of its table file.
      data: The pattern of its data in the data folder, or '' if it needs none. The
        program receives the file, or the folder if there are several files.
      pictures: The names of its plots.
      options: Further options, if the default settings take too long.
    """

    name: str
    data: str = ""
    pictures: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


EXAMPLES = (
    Example("digits", pictures=("digits.png",)),
    Example("tables", pictures=("tables.png",)),
    Example("robust_table"),
    Example("time_series", pictures=("time_series.png",)),
    Example("pipeline", pictures=("pipeline.png",)),
    Example("cora", "cora.npz", ("cora_labels.png", "cora_embeddings.png")),
    Example("mnist", "mnist.npz", ("mnist.png",)),
    Example(
        "robust_mnist",
        "mnist.npz",
        ("robust_mnist.png",),
        ("--seeds=5", "--images=250"),
    ),
    Example("imdb", "imdb_*.jsonl.gz", ("imdb.png",)),
    Example("imdb_taught", "imdb_*.jsonl.gz"),
)


def command(example: Example, data_dir: Path | None, folder: Path) -> list[str] | None:
    """Returns the command that runs an example, or None if its data is missing."""
    words = [sys.executable, str(ROOT / "examples" / f"{example.name}.py")]
    words += [f"--output_dir={folder}", *example.options]
    if not example.data:
        return words
    found = sorted(data_dir.glob(example.data)) if data_dir else []
    if not found:
        return None
    return [*words, f"--data={found[0] if len(found) == 1 else data_dir}"]


def replace_table(page: str, name: str, table: str) -> str:
    """Replaces the table in the block after the comment with its name.

    Raises:
      ValueError: If the page does not have exactly one such block.
    """
    block = rf"(<!-- table of {name} -->\n\n```text\n)(?:(?!```).*\n)*(```\n)"
    replaced, count = re.subn(
        block, lambda found: f"{found[1]}{table.rstrip()}\n{found[2]}", page
    )
    if count != 1:
        raise ValueError(
            f"The page needs one line <!-- table of {name} -->, followed by an empty "
            f"line and a block of text; it has {count}."
        )
    return replaced


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = [example.name for example in EXAMPLES]
    add("--data_dir", type=Path, help="the data folder")
    add("--output_dir", type=Path, default=Path("results"), help="default: %(default)s")
    add("--only", default=",".join(names), help="default: %(default)s")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if not set(chosen) <= set(names):
        parser.error(f"--only must be among {','.join(names)}, received {chosen}")
    for example in EXAMPLES:
        if example.name not in chosen:
            continue
        folder = options.output_dir / example.name
        words = command(example, options.data_dir, folder)
        if words is None:
            print(f"{example.name}: skipped, --data_dir has no {example.data}")
            continue
        print(f"{example.name}: {' '.join(words)}", flush=True)
        subprocess.run(words, check=True)
        table = (folder / f"{example.name}.txt").read_text()
        PAGE.write_text(replace_table(PAGE.read_text(), example.name, table))
        for picture in example.pictures:
            shutil.copyfile(folder / picture, IMAGES / picture)
    print(f"tables and plots: {PAGE}")


if __name__ == "__main__":
    main()
