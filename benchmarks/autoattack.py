r"""Compares the standard suite of nsl with the original AutoAttack on PyTorch.

`nsl.evaluate_robustness` runs the four attacks of AutoAttack (Croce and Hein, 2020,
https://arxiv.org/abs/2003.01690) one after the other, each on the examples that are
still robust. So does the authors' implementation for PyTorch
(https://github.com/fra31/auto-attack). Here both use the same network, images, norm,
radius and seed. For each network and norm, this prints how many images are still
classified correctly after each attack, the CPU time of all attacks, and two verdicts:

- with nsl, no more images are robust than with the original. With several seeds, a
  difference of less than 2 standard errors is reported separately;
- nsl takes no more CPU time.

    git clone https://github.com/fra31/auto-attack
    python3 -m venv torch && torch/bin/pip install torch==2.13.0 numpy
    python examples/robust_mnist.py --output_dir=robust_mnist
    python benchmarks/autoattack.py robust_mnist/pgd-infinity-0.keras --data=mnist.npz \
        --autoattack=auto-attack --torch_python=torch/bin/python

The runs are interleaved, each in a separate process. The CPU time is that of the whole
evaluation after the network was loaded, including compilation and the checks that both
run. Finished runs are saved in --output_dir and not repeated.

The network is passed to PyTorch as a list of layers and weights, and must give the same
logits there, up to rounding. It can be a sequence of Conv2D, Dense, LSTM, MaxPooling2D,
AveragePooling2D, Flatten, Dropout and the activations ReLU and tanh, and must output
logits. --data is mnist.npz as stored by Keras, or another file with "x_test" and
"y_test". Floating features must be between 0 and 1, because the original supports no
other bounds.

Limits: the original only supports images, so vectors are passed as images of one row.
Its Square attack under L2 and L1 does not support these, and is skipped. With fewer
than four classes, neither has the targeted difference of logits ratio; nsl uses the
margin instead, the original has no replacement. With fewer than ten classes, the number
of targets of the original is reduced.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

OURS, ORIGINAL = "nsl", "original"
TOOLS = (ORIGINAL, OURS)
NORMS = {"infinity": "Linf", "l2": "L2", "l1": "L1"}
EPSILONS = {"infinity": 0.3, "l2": 2.0, "l1": 10.0}
BOUNDS = (0.0, 1.0)
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
_BATCH_SIZE = 250
_SAME_LOGITS = 1e-4
_OUTSIDE = 1e-4
# The original needs this many classes for its targeted loss, and this many pixels per
# side for Square.
_DLR_CLASSES, _GRID = 4, 5
_ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Case:
    """The settings of an evaluation, for either tool."""

    model: str
    data: str | None
    images: int
    norm: str
    epsilon: float
    seed: int

    def file(self, tool: str) -> str:
        """Returns the name of the results file."""
        name = Path(self.model).stem
        return f"{tool}-{name}-{self.norm}-{self.epsilon:g}-{self.images}-{self.seed}"


# --- conversion of the network


def describe(model: Any) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Returns a Keras model as plain layers, and their weights by name."""
    layers: list[dict[str, Any]] = []
    weights: dict[str, np.ndarray] = {}
    for i, layer in enumerate(model.layers):
        kind = type(layer).__name__
        if kind in ("InputLayer", "Dropout"):
            continue
        shape = list(layer.input.shape[1:])
        entry: dict[str, Any] = {"kind": kind, "number": i, "shape": shape}
        if kind in ("Conv2D", "MaxPooling2D", "AveragePooling2D"):
            size = layer.kernel_size if kind == "Conv2D" else layer.pool_size
            strides = list(layer.strides)
            entry |= {"size": list(size), "strides": strides}
            entry["padding"] = _padding(layer.padding, shape, size, strides)
            if kind == "AveragePooling2D" and layer.padding != "valid":
                raise ValueError(f"{layer!r}: padding must be 'valid'")
            if kind == "Conv2D" and (layer.groups > 1 or max(layer.dilation_rate) > 1):
                raise ValueError(f"{layer!r}: groups and dilation are not supported")
        elif kind == "LSTM":
            entry["sequences"] = layer.return_sequences
            if layer.recurrent_activation.__name__ != "sigmoid" or layer.go_backwards:
                raise ValueError(f"{layer!r}: only the default settings are supported")
        elif kind not in ("Dense", "Flatten", "ReLU", "Activation"):
            raise ValueError(f"{layer!r}: this layer is not supported")
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        entry["activation"] = "relu" if kind == "ReLU" else activation
        if entry["activation"] not in ("linear", "relu", "tanh"):
            raise ValueError(f"{layer!r}: its activation is not supported")
        for k, value in enumerate(layer.get_weights()):
            weights[f"{i}/{k}"] = value
        layers.append(entry)
    return layers, weights


def _padding(
    kind: str, shape: Sequence[int], size: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Returns the padding to the left, right, top and bottom of images."""
    padding: list[int] = []
    sides = zip(shape[1::-1], size[::-1], strides[::-1], strict=True)
    for length, window, stride in sides:
        outputs = -(-length // stride)
        total = (
            0 if kind == "valid" else max((outputs - 1) * stride + window - length, 0)
        )
        padding += [total // 2, total - total // 2]
    return padding


def to_torch(layers: Sequence[dict[str, Any]], weights: Any) -> Any:
    """Returns the layers as a PyTorch module for [batch, channels, height, width]."""
    import torch

    class Reshape(torch.nn.Module):
        """Reshapes images to rows or sequences."""

        def __init__(self, shape: Sequence[int]) -> None:
            super().__init__()
            self._shape = shape

        def forward(self, x: Any) -> Any:
            return x.reshape(len(x), *self._shape)

    class Lstm(torch.nn.LSTM):
        """Returns the outputs of all steps, or the last one."""

        sequences = False

        def forward(self, x: Any) -> Any:
            outputs, _ = super().forward(x)
            return outputs if self.sequences else outputs[:, -1]

    shape, made = layers[0]["shape"], []
    if len(shape) < 3:
        made.append(Reshape(shape))
    channels_last = None
    for layer in layers:
        values = [
            torch.tensor(weights[f"{layer['number']}/{k}"])
            for k in range(3)
            if f"{layer['number']}/{k}" in weights
        ]
        kind = layer["kind"]
        if "padding" in layer and any(layer["padding"]):
            least = float("-inf") if kind == "MaxPooling2D" else 0.0
            made.append(torch.nn.ConstantPad2d(layer["padding"], least))
        if kind == "Conv2D":
            kernel = values[0].permute(3, 2, 0, 1).contiguous()
            module = torch.nn.Conv2d(
                kernel.shape[1],
                kernel.shape[0],
                layer["size"],
                layer["strides"],
                bias=len(values) > 1,
            )
            _fill(module, weight=kernel, bias=values[1:])
        elif kind == "Dense":
            kernel = values[0]
            if channels_last is not None:
                # Keras flattens channels last, PyTorch channels first.
                kernel = kernel.reshape(*channels_last, -1)
                kernel = kernel.permute(2, 0, 1, 3).flatten(0, 2)
                channels_last = None
            module = torch.nn.Linear(*kernel.shape, bias=len(values) > 1)
            _fill(module, weight=kernel.T.contiguous(), bias=values[1:])
        elif kind == "LSTM":
            inputs, units = values[0].shape[0], values[1].shape[0]
            module = Lstm(inputs, units, batch_first=True)
            module.sequences = layer["sequences"]
            zeros = torch.zeros(4 * units)
            _fill(module, weight_ih_l0=values[0].T, weight_hh_l0=values[1].T)
            _fill(module, bias_ih_l0=values[2], bias_hh_l0=zeros)
        elif kind == "Flatten":
            channels_last = layer["shape"] if len(layer["shape"]) == 3 else None
            module = torch.nn.Flatten()
        elif kind in ("MaxPooling2D", "AveragePooling2D"):
            name = "MaxPool2d" if kind == "MaxPooling2D" else "AvgPool2d"
            module = getattr(torch.nn, name)(layer["size"], layer["strides"])
        else:
            module = torch.nn.Identity()
        made.append(module)
        if kind != "LSTM" and layer["activation"] != "linear":
            made.append(
                {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[layer["activation"]]()
            )
    return torch.nn.Sequential(*made).eval()


def _fill(module: Any, **values: Any) -> None:
    """Sets parameters; skips those whose value is an empty list."""
    for name, value in values.items():
        if isinstance(value, list):
            if not value:
                continue
            [value] = value
        getattr(module, name).data = value.contiguous()


# --- the process of each tool


def run_ours(case: Case) -> dict[str, Any]:
    """Evaluates with nsl."""
    import keras

    import nsl

    model = keras.models.load_model(case.model)
    x, y = load_images(model.input_shape[1:], case.data, case.images)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = nsl.evaluate_robustness(
            model,
            x,
            y,
            epsilons=case.epsilon,
            norm=case.norm,
            bounds=BOUNDS,
            seed=case.seed,
            verbose=False,
        )
    seconds = time.process_time() - start
    left = {
        # The replacement for few classes counts as the attack that it replaces.
        {"apgd-margin": "apgd-t"}.get(name, name): int(result.robust[0].sum())
        for name, result in report.results.items()
    }
    return {"clean": int(report.correct.sum()), "standing": left, "seconds": seconds}


def run_original(case: Case, network: str, checkout: str) -> dict[str, Any]:
    """Evaluates with the original, in a process with PyTorch."""
    sys.path.insert(0, checkout)
    import torch
    from autoattack import AutoAttack  # type: ignore[attr-defined]

    torch.set_num_threads(int(os.environ["TF_NUM_INTRAOP_THREADS"]))
    with np.load(network) as file:
        content = dict(file)
    layers = json.loads(str(content["layers"]))
    module = to_torch(layers, content)
    images, labels = content["x"], torch.tensor(content["y"])
    if images.ndim == 4:
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim == 3:
        images = images[:, np.newaxis]
    else:
        images = images[:, np.newaxis, np.newaxis]
    x = torch.tensor(np.ascontiguousarray(images))
    with torch.no_grad():
        logits = module(x).numpy()
    size = max(1.0, float(np.abs(content["logits"]).max()))
    difference = float(np.abs(logits - content["logits"]).max())
    if difference > _SAME_LOGITS * size:
        raise RuntimeError(f"logits of {case.model} differ by {difference} in PyTorch")

    classes = logits.shape[1]
    start = time.process_time()
    attack = AutoAttack(
        module,
        norm=NORMS[case.norm],
        eps=case.epsilon,
        seed=case.seed,
        version="standard",
        device="cpu",
        verbose=False,
    )
    for part in (attack.apgd_targeted, attack.fab):
        part.n_target_classes = min(part.n_target_classes, classes - 1)
    correct = torch.tensor(logits.argmax(axis=1)) == labels
    standing = correct.clone()
    left: dict[str, int] = {}
    for name in ATTACKS:
        if name == "apgd-t" and classes < _DLR_CLASSES:
            continue
        if name == "square" and case.norm != "infinity" and min(x.shape[2:]) < _GRID:
            continue
        [index] = torch.nonzero(standing, as_tuple=True)
        if len(index):
            attack.attacks_to_run = [name]
            found = attack.run_standard_evaluation(
                x[index], labels[index], bs=_BATCH_SIZE
            )
            with torch.no_grad():
                fallen = module(found).argmax(dim=1) != labels[index]
            fallen &= is_inside(found, x[index], case)
            standing[index[fallen]] = False
        left[name] = int(standing.sum())
    seconds = time.process_time() - start
    return {"clean": int(correct.sum()), "standing": left, "seconds": seconds}


def is_inside(found: Any, x: Any, case: Case) -> Any:
    """Returns which points are within ball and box, up to rounding."""
    order = {"infinity": float("inf"), "l2": 2, "l1": 1}[case.norm]
    length = (found - x).double().flatten(1).norm(order, dim=1)
    in_box = (found >= BOUNDS[0]) & (found <= BOUNDS[1])
    return (length <= case.epsilon * (1 + _OUTSIDE)) & in_box.flatten(1).all(dim=1)


# --- the comparison


def load_images(
    shape: Sequence[int], path: str | None, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the first test images from a file, or lets Keras download them."""
    if path is None:
        import keras

        _, (x, y) = keras.datasets.mnist.load_data()
    else:
        with np.load(path) as file:
            x, y = file["x_test"], file["y_test"]
    x, y = x[:count], y[:count].astype(np.int64)
    x = (x / 255 if x.dtype == np.uint8 else x).astype(np.float32)
    return x.reshape(-1, *shape), y


def hand_over(case: Case, path: Path) -> None:
    """Writes the network and the examples for the process with PyTorch."""
    import keras

    model = keras.models.load_model(case.model)
    x, y = load_images(model.input_shape[1:], case.data, case.images)
    if x.min() < BOUNDS[0] or x.max() > BOUNDS[1]:
        raise ValueError(f"{case.data} has features from {x.min()} to {x.max()}")
    layers, weights = describe(model)
    logits = model.predict(x, batch_size=_BATCH_SIZE, verbose=0)
    np.savez(path, layers=json.dumps(layers), x=x, y=y, logits=logits, **weights)


def run(tool: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Runs an evaluation in a separate process, or returns its saved result."""
    kept = options.output_dir / f"{case.file(tool)}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    environment = dict(os.environ)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment[name] = str(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        order = dataclasses.asdict(case)
        python = sys.executable
        if tool == ORIGINAL:
            network = Path(folder) / "network.npz"
            hand_over(case, network)
            order |= {"network": str(network), "checkout": str(options.autoattack)}
            python = str(options.torch_python)
            # Hide the packages of this environment from the other.
            environment.pop("PYTHONPATH", None)
        else:
            paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        answer = Path(folder) / "answer.json"
        order["answer"] = str(answer)
        subprocess.run(
            [python, __file__, "--run", json.dumps(order)],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        result = json.loads(answer.read_text())
    options.output_dir.mkdir(parents=True, exist_ok=True)
    unfinished = kept.with_suffix(".part")
    unfinished.write_text(json.dumps({**dataclasses.asdict(case), **result}, indent=2))
    unfinished.rename(kept)
    return result


def serve(order: dict[str, Any]) -> None:
    """Runs the evaluation that the parent process requests."""
    answer, network = Path(order.pop("answer")), order.pop("network", None)
    checkout = order.pop("checkout", None)
    case = Case(**order)
    if network is None:
        result = run_ours(case)
    else:
        result = run_original(case, network, checkout)
    answer.write_text(json.dumps(result))


def verdict(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Returns whether the mean is no larger, apart from random variation."""
    more = np.mean(ours) - np.mean(theirs)
    if more <= 0:
        return "met"
    chance = np.sqrt((np.var(ours) + np.var(theirs)) / max(1, len(ours) - 1))
    return "more, but by less than 2 standard errors" if more < 2 * chance else "MISSED"


def table(results: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Yields the table lines for both tools in one norm on one network."""
    yield f"  {'robust after':14}" + "".join(f"{tool:>22}" for tool in results)
    for name in ("clean", *ATTACKS):
        line = f"  {name:14}"
        for runs in results.values():
            found = [
                r["clean"] if name == "clean" else r["standing"].get(name) for r in runs
            ]
            line += f"{_mean_and_range(found):>22}"
        yield line
    line = f"  {'CPU seconds':14}"
    for runs in results.values():
        line += f"{np.mean([r['seconds'] for r in runs]):22.1f}"
    yield line
    if len(results) < len(TOOLS):
        return
    left = {tool: [last(r) for r in runs] for tool, runs in results.items()}
    yield f"  no more robust: {verdict(left[OURS], left[ORIGINAL])}"
    seconds = {t: np.mean([r["seconds"] for r in runs]) for t, runs in results.items()}
    ratio = seconds[OURS] / seconds[ORIGINAL]
    yield (
        f"  CPU time: {ratio:.2f} of the original's"
        f"   {'met' if ratio <= 1.0 else 'MISSED'}"
    )


def last(result: dict[str, Any]) -> int:
    """Returns how many images are robust against all attacks."""
    return list(result["standing"].values())[-1]


def _mean_and_range(found: Sequence[int | None]) -> str:
    numbers = [number for number in found if number is not None]
    if not numbers:
        return "-"
    if min(numbers) == max(numbers):
        return str(numbers[0])
    return f"{np.mean(numbers):.1f} ({min(numbers)}-{max(numbers)})"


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("models", nargs="*", help="Keras models, as saved by examples/robust_mnist.py")
    add("--data", help="mnist.npz as stored by Keras; downloaded by default")
    add("--images", type=int, default=200, help="default: %(default)s")
    add("--norms", type=_listed, default=",".join(NORMS), help="default: %(default)s")
    numbers = ",".join(f"{epsilon:g}" for epsilon in EPSILONS.values())
    add("--epsilons", type=_listed, help=f"one per norm (default: {numbers})")
    add("--seeds", type=_listed, default="0", help="default: %(default)s")
    add("--autoattack", type=Path, help="a checkout of the original")
    add("--torch_python", type=Path, help="a Python with PyTorch and NumPy")
    add("--tools", type=_listed, default=",".join(TOOLS), help="default: %(default)s")
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--output_dir", type=Path, default=Path("autoattack"), help="for results")
    add("--run", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        serve(json.loads(options.run))
        return
    if not options.models:
        parser.error("at least one model is required")
    if ORIGINAL in options.tools and not (options.autoattack and options.torch_python):
        parser.error("the original needs --autoattack and --torch_python")
    epsilons = options.epsilons or [EPSILONS[norm] for norm in options.norms]
    if len(epsilons) != len(options.norms):
        parser.error("--epsilons must have one value per norm")
    print(f"{options.images} test examples, seeds {', '.join(options.seeds)}")
    for path in options.models:
        for norm, epsilon in zip(options.norms, epsilons, strict=True):
            results: dict[str, list[dict[str, Any]]] = {t: [] for t in options.tools}
            for seed in options.seeds:
                data = options.data and str(Path(options.data).resolve())
                model = str(Path(path).resolve())
                case = Case(
                    model, data, options.images, norm, float(epsilon), int(seed)
                )
                for tool in options.tools:
                    results[tool].append(run(tool, case, options))
            print(f"\n{path}, {norm} {float(epsilon):g}")
            print("\n".join(table(results)), flush=True)


if __name__ == "__main__":
    main()
