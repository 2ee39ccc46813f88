"""Builds the release and tests it as a user would, outside the checkout.

Writes the wheel and the source distribution to dist/, and a CycloneDX bill of materials
(SBOM) of the wheel with its dependencies to sbom/. Both are built twice, the wheel also
from the source distribution, and must be byte-identical. Then, for each extra, installs
the wheel into an empty environment, and runs its commands and the extra's program; that
of the extra "examples" is README.md.

    make package
    python scripts/package.py --extras=plot,beam

Nothing is uploaded.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    "nsl-build-graph",
    "nsl-pack-nbrs",
    "nsl-beam-build-graph",
    "nsl-beam-pack-nbrs",
)
README = "".join(
    re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
)
# A program that needs each extra; "none" is the wheel without extras, where a missing
# extra must raise an ImportError that names it.
PROGRAMS = {
    "none": """
import nsl
import nsl.attacks, nsl.configs, nsl.data, nsl.keras, nsl.lib, nsl.tools
import neural_structured_learning as old
assert old.keras is nsl.keras
try:
    import nsl.beam
except ImportError as error:
    assert "nsl[beam]" in str(error), error
else:
    raise SystemExit("nsl.beam was imported without the extra beam")
""",
    "plot": """
import keras, numpy as np
import nsl
x = np.random.default_rng(0).random((8, 4), np.float32)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
report = nsl.evaluate_robustness(
    model, x, np.arange(8) % 2, [0.1], attacks="quick", verbose=False
)
report.plot("plot.png")
""",
    "ann": """
import tensorflow as tf
import nsl
with tf.io.TFRecordWriter("embeddings.tfr") as writer:
    for i in range(40):
        floats = tf.train.FloatList(value=[1.0, i % 4])
        features = {
            "id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%d" % i])),
            "embedding": tf.train.Feature(float_list=floats),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(example.SerializeToString())
nsl.tools.build_graph_from_config(
    ["embeddings.tfr"],
    "graph.tsv",
    nsl.configs.GraphBuilderConfig(similarity_threshold=0.999, index="ivf"),
)
with open("graph.tsv") as file:
    assert len(file.readlines()) == 4 * 10 * 9
""",
    "beam": """
import apache_beam
import nsl.beam
""",
    "examples": README,
}


def run(*command: str | Path, folder: Path, **more: str) -> None:
    """Runs a command in a directory; prints its output only if it fails."""
    environment = {**os.environ, **more}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        words = " ".join(str(word).splitlines()[0] for word in command)
        raise SystemExit(f"{words}\n{done.stdout}{done.stderr}")


def uv(*words: str | Path, folder: Path = ROOT, **more: str) -> None:
    """Runs uv, which `make` installs into the environment of this Python."""
    run(sys.executable, "-m", "uv", *words, folder=folder, **more)


def commit_time() -> str:
    """Returns the time of the last commit, in seconds since 1970."""
    command = ["git", "log", "-1", "--format=%ct"]
    return subprocess.check_output(command, cwd=ROOT, text=True).strip()


def digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 digest of each distribution file, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("nsl-*"))
    }


def build(folder: Path) -> tuple[Path, dict[str, str]]:
    """Builds into a directory; raises SystemExit if a second build differs.

    Returns:
      The wheel, and the SHA-256 digests of both files.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or commit_time()
    for old in folder.glob("nsl-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as again:
        # The first wheel is built from the source distribution, the second from the
        # checkout.
        uv("build", "--out-dir", folder, SOURCE_DATE_EPOCH=epoch)
        uv("build", "--sdist", "--wheel", "--out-dir", again, SOURCE_DATE_EPOCH=epoch)
        first, second = digests(folder), digests(Path(again))
    if first != second:
        raise SystemExit(f"two builds differ:\n{first}\n{second}")
    (wheel,) = folder.glob("*.whl")
    uv("tool", "run", "twine", "check", "--strict", *folder.glob("nsl-*"))
    return wheel, first


def use(extra: str, wheel: Path, folder: Path) -> Path:
    """Installs the wheel with an extra, and runs its program and the commands.

    Returns:
      The Python interpreter of the environment.
    """
    environment = folder / extra
    uv("venv", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    wanted = f"nsl @ {wheel.as_uri()}"
    if extra != "none":
        wanted = f"nsl[{extra}] @ {wheel.as_uri()}"
    uv("pip", "install", "--compile-bytecode", "--python", python, wanted)
    uv("pip", "check", "--python", python)
    run(python, "-c", PROGRAMS[extra], folder=folder, TF_CPP_MIN_LOG_LEVEL="3")
    for command in COMMANDS:
        if extra == "beam" or not command.startswith("nsl-beam"):
            run(python.parent / command, "--help", folder=folder)
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, checks, installs and runs; stops at the first failure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    extras = ",".join(PROGRAMS)
    parser.add_argument("--extras", default=extras, help="default: %(default)s")
    chosen = parser.parse_args(arguments).extras.split(",")
    if not set(chosen) <= set(PROGRAMS):
        parser.error(f"--extras must be among {extras}, received {','.join(chosen)}")
    dist, sbom = ROOT / "dist", ROOT / "sbom"
    for folder in (dist, sbom):
        folder.mkdir(exist_ok=True)
    wheel, sums = build(dist)
    for name, digest in sums.items():
        print(f"{digest}  dist/{name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for extra in chosen:
            python = use(extra, wheel, Path(folder))
            print(f"extra {extra}: installed; its program runs", flush=True)
            if extra == "none":
                target = sbom / f"{wheel.stem.split('-py3')[0]}.cdx.json"
                words = ("tool", "run", "--from", "cyclonedx-bom", "cyclonedx-py")
                options = ("--output-reproducible", "--output-file", target)
                project = ("--pyproject", ROOT / "pyproject.toml")
                uv(*words, "environment", *options, *project, python)
                print(f"bill of materials: sbom/{target.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
