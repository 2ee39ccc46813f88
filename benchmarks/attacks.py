"""Compares the attacks of nsl with ART and foolbox, on the same trained models.

Each tool runs in a separate process, interleaved, on the same Keras model, images,
norm, epsilon, step count, step size and batch size. The results of all tools are
verified in the same way: the norm and the bounds of the perturbations, and how many
examples are robust (still classified correctly). For each attack, this prints the
median time with its quartiles, and two verdicts:

- with nsl, no more examples are robust than with the strongest other tool. Since that
  is the best of several, a difference of less than 2 standard errors is reported
  separately;
- the fastest of the other tools takes at least 2 times as long as nsl.

nsl runs twice: with all steps for all examples, like the others, and with `early_stop`,
like nsl.evaluate_robustness: examples that are already fooled drop out. "bare passes"
is the lower limit with all steps: only the forward and backward passes of the model, in
one compiled loop.

The first run of each tool, which loads and compiles, has a separate column ("first")
and does not count. --before names another checkout of nsl to include: nsl should take
at most 1.05 times as long as that. On a busy machine, use --cpu_time with --threads=1
to measure CPU time instead of wall time. If the other tools are missing, they are
installed into virtual environments below --environments, with this Python and this
version of TensorFlow, by `python -m venv` and `pip install`.

The models are trained and saved by examples/robust_mnist.py:

    python examples/robust_mnist.py --output_dir=robust_mnist
    python benchmarks/attacks.py robust_mnist/{plain,pgd}-infinity-0.keras
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

PACKAGES = {
    "ART": "adversarial-robustness-toolbox==1.20.1",
    "foolbox": "foolbox==3.3.4",
}
TORCH = "torch==2.13.0"
OURS = "nsl TF"
EARLY = "nsl early-stop"
OLD, OLD_EARLY = "old TF", "old early-stop"
BARE = "bare passes"
OTHERS = ("ART TF", "foolbox TF", "ART torch", "foolbox torch")
SPEED_GOAL = 2.0
BEFORE_LIMIT = 1.05
CLASSES = 10
BOUNDS = (0.0, 1.0)
_ROOT = Path(__file__).resolve().parents[1]

Run = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack that several tools implement.

    Attributes:
      kind: 'fgsm', 'pgd' (one random start) or 'apgd' (Auto-PGD on the cross-entropy).
      norm: 'infinity' or 'l2'.
      epsilon: The radius of the ball.
      steps: The number of gradients taken.
      step_size: The length of one step. Auto-PGD adapts its step size.
      libraries: The other libraries that have it, on TensorFlow and on PyTorch.
    """

    kind: str
    norm: str
    epsilon: float
    steps: int = 1
    step_size: float | None = None
    libraries: tuple[str, ...] = ("ART", "foolbox")

    def is_run_by(self, tool: str) -> bool:
        """Returns whether a tool has this attack; one step cannot stop early."""
        if tool in (EARLY, OLD_EARLY):
            return self.steps > 1
        return tool in (OURS, OLD, BARE) or tool.split()[0] in self.libraries

    def __str__(self) -> str:
        steps = "" if self.kind == "fgsm" else f"-{self.steps}"
        step_size = f" x {self.step_size}" if self.step_size else ""
        return f"{self.kind.upper()}{steps}{step_size}, {self.norm} {self.epsilon}"


ATTACKS = (
    Attack("fgsm", "infinity", 0.3),
    Attack("pgd", "infinity", 0.3, 40, 0.01),
    Attack("apgd", "infinity", 0.3, 40, libraries=("ART",)),
    Attack("fgsm", "l2", 2.0),
    Attack("pgd", "l2", 2.0, 40, 0.1),
    Attack("apgd", "l2", 2.0, 40, libraries=("ART",)),
)


# --- the process of each tool


def nsl_attack(model: Any, attack: Attack, batch_size: int, framework: str) -> Run:
    import nsl

    settings: dict[str, Any] = {"norm": attack.norm}
    settings["early_stop"] = framework == EARLY.split()[1]
    if attack.kind == "fgsm":
        made = nsl.attacks.FGSM(**settings)
    elif attack.kind == "pgd":
        made = nsl.attacks.PGD(
            steps=attack.steps, step_size=attack.step_size, **settings
        )
    else:
        made = nsl.attacks.AutoPGD(steps=attack.steps, **settings)

    def run(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        return made(
            model,
            x,
            y,
            epsilon=attack.epsilon,
            bounds=BOUNDS,
            seed=seed,
            batch_size=batch_size,
        )

    return run


def bare_passes(model: Any, attack: Attack, batch_size: int, framework: str) -> Run:
    import tensorflow as tf

    @tf.function
    def passes(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(attack.steps):  # type: ignore[attr-defined]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                logits = model(x, training=False)
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            # Too small to change x, but not optimized away.
            x += 1e-20 * tape.gradient(loss, x)
        return x

    def run(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        found = []
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            found.append(passes(tf.constant(x[part]), tf.constant(y[part])).numpy())
        return np.concatenate(found)

    return run


def art_attack(model: Any, attack: Attack, batch_size: int, framework: str) -> Run:
    from art.attacks import evasion
    from art.estimators import classification

    if framework == "TF":
        import keras

        classifier = classification.TensorFlowV2Classifier(
            model=model,
            nb_classes=CLASSES,
            input_shape=model.input_shape[1:],
            loss_object=keras.losses.CategoricalCrossentropy(from_logits=True),
            clip_values=BOUNDS,
        )
    else:
        import torch

        classifier = classification.PyTorchClassifier(
            model=model,
            nb_classes=CLASSES,
            input_shape=model.input_shape,
            loss=torch.nn.CrossEntropyLoss(),
            clip_values=BOUNDS,
            device_type="cpu",
        )
    settings = {
        "norm": np.inf if attack.norm == "infinity" else 2,
        "eps": attack.epsilon,
        "batch_size": batch_size,
    }
    if attack.kind == "fgsm":
        made = evasion.FastGradientMethod(classifier, **settings)
    elif attack.kind == "pgd":
        made = evasion.ProjectedGradientDescent(
            classifier,
            eps_step=attack.step_size,
            max_iter=attack.steps,
            num_random_init=1,
            verbose=False,
            **settings,
        )
    else:
        made = evasion.AutoProjectedGradientDescent(
            classifier,
            eps_step=2 * attack.epsilon,
            max_iter=attack.steps,
            nb_random_init=1,
            loss_type="cross_entropy",
            verbose=False,
            **settings,
        )

    def run(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        np.random.seed(seed)  # noqa: NPY002
        return made.generate(x, np.eye(CLASSES, dtype=np.float32)[y])

    return run


def foolbox_attack(model: Any, attack: Attack, batch_size: int, framework: str) -> Run:
    import foolbox

    if framework == "TF":
        import tensorflow as tf

        wrapped = foolbox.TensorFlowModel(model, bounds=BOUNDS, device="/CPU:0")
        tensor, set_seed = tf.constant, tf.random.set_seed
    else:
        import torch

        wrapped = foolbox.PyTorchModel(model, bounds=BOUNDS, device="cpu")
        tensor, set_seed = torch.tensor, torch.manual_seed
    infinity = attack.norm == "infinity"
    if attack.kind == "fgsm":
        made = (
            foolbox.attacks.LinfFastGradientAttack()
            if infinity
            else foolbox.attacks.L2FastGradientAttack()
        )
    else:
        kind = foolbox.attacks.LinfPGD if infinity else foolbox.attacks.L2PGD
        made = kind(
            abs_stepsize=attack.step_size, steps=attack.steps, random_start=True
        )

    def run(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
        set_seed(seed)
        found = []
        for start in range(0, len(x), batch_size):
            part = slice(start, start + batch_size)
            _, clipped, _ = made(
                wrapped, tensor(x[part]), tensor(y[part]), epsilons=attack.epsilon
            )
            found.append(clipped.numpy())
        return np.concatenate(found)

    return run


def to_torch(model: Any) -> Any:
    """Converts a Keras model of convolutions and dense layers to a PyTorch module.

    The module takes images of shape `[batch, channels, height, width]`.
    """
    import torch

    layers: list[Any] = []
    image = None
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "Flatten":
            image = layer.input.shape[1:]
            layers.append(torch.nn.Flatten())
            continue
        kernel, bias = (torch.tensor(value) for value in layer.get_weights())
        if kind == "Conv2D":
            height, _, channels, filters = kernel.shape
            stride = layer.strides[0]
            made = torch.nn.Conv2d(
                channels, filters, height, stride, padding=(height - stride) // 2
            )
            kernel = kernel.permute(3, 2, 0, 1)
        elif kind == "Dense":
            if image is not None:
                # Keras flattens channels last, PyTorch channels first.
                kernel = kernel.reshape(*image, -1).permute(2, 0, 1, 3).flatten(0, 2)
                image = None
            made = torch.nn.Linear(*kernel.shape)
            kernel = kernel.T
        else:
            raise ValueError(f"no PyTorch layer for {layer!r}")
        made.weight.data, made.bias.data = kernel.contiguous(), bias
        layers.append(made)
        if layer.activation.__name__ == "relu":
            layers.append(torch.nn.ReLU())
    module = torch.nn.Sequential(*layers).eval()
    _, height, width, channels = model.input_shape
    module.input_shape = (channels, height, width)
    example = np.random.default_rng(0).random((8, height, width, channels), np.float32)
    np.testing.assert_allclose(
        module(torch.tensor(example).permute(0, 3, 1, 2)).detach().numpy(),
        model(example).numpy(),
        atol=1e-3,
    )
    return module


def serve(
    tool: str, images: str, batch_size: int, threads: int, clock: Callable[[], float]
) -> None:
    """Runs the attacks requested on standard input, one line of JSON each."""
    answers = os.fdopen(os.dup(1), "w")
    # Redirect what the libraries print, because the results go to standard output.
    os.dup2(2, 1)
    import keras

    library, framework = tool.split()
    with np.load(images) as file:
        x, y = file["x"], file["y"]
    if framework == "torch":
        import torch

        torch.set_num_threads(threads)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    make = {
        "nsl": nsl_attack,
        "old": nsl_attack,
        "bare": bare_passes,
        "ART": art_attack,
        "foolbox": foolbox_attack,
    }[library]
    models: dict[str, Any] = {}
    runs: dict[tuple[str, int], Run] = {}
    for line in sys.stdin:
        order = json.loads(line)
        path, number = order["model"], order["attack"]
        if path not in models:
            model = keras.models.load_model(path)
            models[path] = to_torch(model) if framework == "torch" else model
        start = clock()
        if (path, number) not in runs:
            attack = ATTACKS[number]
            runs[path, number] = make(models[path], attack, batch_size, framework)
        attacked = np.asarray(runs[path, number](x, y, order["seed"]))
        seconds = clock() - start
        if framework == "torch":
            attacked = attacked.transpose(0, 2, 3, 1)
        np.save(order["output"], attacked)
        print(json.dumps(seconds), file=answers, flush=True)


# --- the comparison


def python_of(tool: str, environments: Path) -> str:
    """Returns a Python that can import the tool, which is installed if missing."""
    library, framework = tool.split()
    if tool in (OURS, EARLY, OLD, OLD_EARLY, BARE):
        return sys.executable
    import tensorflow as tf

    environment = environments / library.lower()
    python = environment / "bin" / "python"
    installed = environment / f"{framework}-installed"
    if not installed.exists():
        print(f"installing {tool} in {environment}", file=sys.stderr)
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        packages = [PACKAGES[library], f"tensorflow=={tf.__version__}"]
        if framework == "torch":
            packages.append(TORCH)
        command = [python, "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(command, check=True)
        installed.touch()
    return str(python)


class Process:
    """The process of a tool, which runs attacks on request."""

    def __init__(self, tool: str, python: str, options: Any) -> None:
        self._tool = tool
        environment = dict(os.environ)
        # Hide the packages of this environment from the others.
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        if tool in (OLD, OLD_EARLY):
            environment["PYTHONPATH"] = str(options.before.resolve())
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            environment[name] = str(options.threads)
        self._process = subprocess.Popen(
            [
                *(python, __file__, "--serve", tool, str(options.selected)),
                *(f"--batch_size={options.batch_size}", f"--threads={options.threads}"),
                *(["--cpu_time"] if options.cpu_time else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not sys.stderr.isatty() else None,
            text=True,
            cwd=_ROOT,
            env=environment,
        )

    def run(self, **order: Any) -> float:
        """Runs one attack and returns its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            _, errors = self._process.communicate()
            raise RuntimeError(f"the process of {self._tool} ended:\n{errors or ''}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def standing(model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.argmax(model.predict(x, batch_size=500, verbose=0), axis=-1) == y


def check(attack: Attack, tool: str, x: np.ndarray, attacked: np.ndarray) -> None:
    """Raises RuntimeError if perturbations leave the ball or the bounds."""
    difference = (attacked.astype(np.float64) - x).reshape(len(x), -1)
    order = np.inf if attack.norm == "infinity" else 2
    largest = np.linalg.norm(difference, order, axis=1).max()
    low, high = attacked.min(), attacked.max()
    if largest > attack.epsilon + 1e-5 or low < 0.0 or high > 1.0:
        raise RuntimeError(
            f"{tool} left the ball or the bounds of {attack}: norm {largest}, values "
            f"from {low} to {high}."
        )


@dataclasses.dataclass
class Measured:
    """The results of a tool for an attack: seconds and robust examples per run."""

    first: float
    seconds: list[float]
    left: list[int]


def compare(
    attack: Attack, path: str, processes: dict[str, Process], options: Any
) -> dict[str, Measured]:
    """Runs one attack on one model with all tools, interleaved."""
    import keras

    model = keras.models.load_model(path)
    with np.load(options.selected) as file:
        x, y = file["x"], file["y"]
    output = options.selected.with_name("attacked.npy")
    results: dict[str, Measured] = {}
    tools = [tool for tool in processes if attack.is_run_by(tool)]
    for repetition in range(options.repetitions + 1):
        for tool in tools:
            seconds = processes[tool].run(
                model=str(Path(path).resolve()),
                attack=ATTACKS.index(attack),
                seed=repetition,
                output=str(output),
            )
            if repetition == 0:
                results[tool] = Measured(seconds, [], [])
                continue
            attacked = np.load(output)
            if tool != BARE and tool not in (OLD, OLD_EARLY):
                check(attack, tool, x, attacked)
            results[tool].seconds.append(seconds)
            results[tool].left.append(int(standing(model, attacked, y).sum()))
    return results


def compared(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Returns whether no more examples are robust, apart from random variation."""
    more = np.mean(ours) - np.mean(theirs)
    if more <= 0:
        return "met"
    chance = np.sqrt((np.var(ours) + np.var(theirs)) / max(1, len(ours) - 1))
    return "more, but by less than 2 standard errors" if more < 2 * chance else "MISSED"


def verdicts(results: dict[str, Measured]) -> Iterator[str]:
    """Compares nsl with the other tools, and both with the bare passes."""
    seconds = {tool: np.median(found.seconds) for tool, found in results.items()}
    for ours, old in ((OURS, OLD), (EARLY, OLD_EARLY)):
        if old in results:
            ratio = seconds[ours] / seconds[old]
            best = min(results[ours].seconds) / min(results[old].seconds)
            left, before = (np.mean(results[one].left) for one in (ours, old))
            yield (
                f"{ours}: {ratio:.2f} times as long as before (best runs {best:.2f}), "
                f"limit {BEFORE_LIMIT:.2f}; robust {left:.1f}, before "
                f"{before:.1f}"
            )
    mine = (OURS, EARLY, OLD, OLD_EARLY, BARE)
    others = {k: v for k, v in results.items() if k not in mine}
    if not others:
        return
    fewest = min((found.left for found in others.values()), key=np.mean)
    fastest = min(others, key=lambda tool: seconds[tool])
    for ours in (OURS, EARLY):
        if ours not in results:
            continue
        left = results[ours].left
        ratio = seconds[fastest] / seconds[ours]
        yield (
            f"{ours}: robust {np.mean(left):.1f}, strongest other tool "
            f"{np.mean(fewest):.1f}   {compared(left, fewest)}"
        )
        yield (
            f"{ours}: {fastest} takes {ratio:.2f} times as long, goal {SPEED_GOAL:.2f}"
            f"   {'met' if ratio >= SPEED_GOAL else 'MISSED'}"
        )
    if BARE in results:
        yield (
            f"relative to bare passes: {OURS} {seconds[OURS] / seconds[BARE]:.2f}, "
            f"{fastest} {seconds[fastest] / seconds[BARE]:.2f}"
        )


def report(attack: Attack, results: dict[str, Measured]) -> None:
    print(f"\n  {attack}")
    print(f"  {'':14}{'first s':>9}{'s':>9} {'quartiles':>16}{'robust':>10}   range")
    for tool, found in results.items():
        low, middle, high = np.percentile(found.seconds, [25, 50, 75])
        print(
            f"  {tool:14}{found.first:9.2f}{middle:9.3f} {f'{low:.3f}-{high:.3f}':>16}"
            f"{np.mean(found.left):10.1f}   {min(found.left)}-{max(found.left)}"
        )
    for verdict in verdicts(results):
        print(f"  {verdict}", flush=True)


def load_images(path: str | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the first test images from a file, or lets Keras download them."""
    if path is None:
        import keras

        _, (x, y) = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as file:
            x, y = file["x_test"], file["y_test"]
    x = (x[:count] / 255).astype(np.float32)[..., np.newaxis]
    return x, y[:count].astype(np.int64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("models", nargs="*", help="models saved by examples/robust_mnist.py")
    add("--data", help="mnist.npz as stored by Keras; downloaded by default")
    add(
        "--environments",
        type=Path,
        default=Path("~/.cache/nsl-benchmarks").expanduser(),
        help="folder for the environments of the other tools (default: %(default)s)",
    )
    add("--before", type=Path, help="another checkout of nsl to compare with")
    add("--others", default=",".join(OTHERS), help="default: %(default)s")
    add("--attacks", default="fgsm,pgd,apgd", help="default: %(default)s")
    add("--images", type=int, default=500, help="default: %(default)s")
    add("--batch_size", type=int, default=250, help="default: %(default)s")
    add("--repetitions", type=int, default=5, help="default: %(default)s")
    add("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    add("--cpu_time", action="store_true", help="measure CPU time")
    add("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        [images] = options.models
        clock = time.process_time if options.cpu_time else time.perf_counter
        serve(options.serve, images, options.batch_size, options.threads, clock)
        return
    if not options.models:
        parser.error("at least one model is required")

    tools = [OURS, EARLY, BARE, *filter(None, options.others.split(","))]
    if options.before is not None:
        tools[1:1] = [OLD, OLD_EARLY]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options.selected = folder / "images.npz"
        x, y = load_images(options.data, options.images)
        np.savez(options.selected, x=x, y=y)
        processes = {
            tool: stack.enter_context(
                Process(tool, python_of(tool, options.environments), options)
            )
            for tool in tools
        }
        print(
            f"{len(x)} test images in batches of {options.batch_size}, "
            f"{options.repetitions} runs each, {options.threads} threads, seconds of "
            f"{'CPU time' if options.cpu_time else 'wall time'}"
        )
        for path in options.models:
            print(f"\n{path}")
            for attack in ATTACKS:
                if attack.kind not in options.attacks.split(","):
                    continue
                report(attack, compare(attack, path, processes, options))


if __name__ == "__main__":
    main()
