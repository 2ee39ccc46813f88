"""Measures the cost of a training step relative to the passes that the method needs.

In one process, interleaved, this times a plain training step of the base model (one
forward and one backward pass, F+B), one pass for the gradient of the input, and the
step of each wrapper. It prints the ratio of each to its lower limit:

- FGSM: 2 (F+B)
- PGD with k iterations: 2 (F+B), and k-1 passes for the gradient of the input
- graph with k neighbors: F+B at the (1+k)-fold batch size
- one step of N-FGSM instead of the samples: one pass for the gradient of the input, and
  F+B; with weight perturbation, one more F+B
- interval bounds: F+B, and two more for the bounds
- free training with k updates per batch: k (F+B)
- PGD at an embedding layer: 2 (F+B), and k-1 passes for the gradient of the layer's
  outputs, through the layers above it only

A pass is measured where it costs least: F+B is a whole training step of the base model,
and the gradient of the input is a function of its own that does nothing else. So
2 (F+B) contains two updates of the weights, of which the wrapper makes one, and for PGD
at a layer two lookups of the embeddings, of which it also makes one. What the wrapper
adds to the passes, above all the steps of the ascent, projection included, is not in
the limit.

Then it measures the peak memory of PGD in separate processes. The numbers are medians
and quartiles.

    python benchmarks/step_cost.py [--models mlp,cnn,lstm,text,transformer]
    python benchmarks/step_cost.py --before ../older

With --before, the steps of the wrappers are timed in one process of each checkout,
interleaved, and the ratio of the medians, new to old, is printed instead.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import attrs
import keras
import numpy as np
import tensorflow as tf

import nsl

BATCH = 128
PGD = (5, 20)
NEIGHBORS = (1, 3, 5)
# Large enough that activations need more memory than the runtime.
MEMORY_BATCH = {"mlp": 16384, "cnn": 1024, "lstm": 2048}
GOALS = {
    "FGSM": 1.10,
    "PGD": 1.10,
    "bounds": 1.10,
    "fast": 1.10,
    "weights": 1.10,
    "free": 1.10,
    "graph": 1.05,
    "memory": 1.1,
    "layer": 1.05,
}
REPLAYS = 4
BEFORE_LIMIT = 1.02
WORDS, TOKENS, WIDTH = 10_000, 64, 64


def mlp():
    return (28 * 28,), [keras.layers.Dense(128, "relu"), keras.layers.Dense(10)]


def cnn():
    return (28, 28, 1), [
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]


def lstm():
    return (64, 32), [keras.layers.LSTM(64), keras.layers.Dense(10)]


def text():
    return (TOKENS,), [
        keras.layers.Embedding(WORDS, WIDTH, name="embedding"),
        keras.layers.LSTM(64),
        keras.layers.Dense(10),
    ]


def transformer():
    vectors = keras.Input((TOKENS, WIDTH))
    attended = keras.layers.MultiHeadAttention(4, WIDTH // 4)(vectors, vectors)
    hidden = keras.layers.LayerNormalization()(vectors + attended)
    between = keras.layers.Dense(4 * WIDTH, "gelu")(hidden)
    between = keras.layers.Dense(WIDTH)(between)
    outputs = keras.layers.LayerNormalization()(hidden + between)
    return (TOKENS,), [
        keras.layers.Embedding(WORDS, WIDTH, name="embedding"),
        keras.Model(vectors, outputs),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(10),
    ]


MODELS = {"mlp": mlp, "cnn": cnn, "lstm": lstm}
OF_TOKENS = {"text": text, "transformer": transformer}


def base_model(name):
    keras.utils.set_random_seed(0)
    shape, layers = {**MODELS, **OF_TOKENS}[name]()
    dtype = "int32" if name in OF_TOKENS else "float32"
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers])


def batch(name, size, neighbors=0):
    random = np.random.default_rng(0)
    if name in OF_TOKENS:
        tokens = random.integers(0, WORDS, (size, TOKENS)).astype("int32")
        return tokens, random.integers(0, 10, size)
    shape, _ = MODELS[name]()
    x = {"x": random.random((size, *shape), "float32")}
    for i in range(neighbors):
        x[f"NL_nbr_{i}_x"] = random.random((size, *shape), "float32")
        x[f"NL_nbr_{i}_weight"] = np.ones((size, 1), "float32")
    return x if neighbors else x["x"], random.integers(0, 10, size)


def training_step(model, data, jit_compile):
    """Compiles a model and returns a function that runs one training step."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit_compile)
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(data).cache().repeat())
    return lambda: model.train_function(batches)["loss"].numpy()


def input_gradient_pass(name, jit_compile):
    model = base_model(name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    features, labels = batch(name, BATCH)
    x, y = tf.constant(features), tf.constant(labels)
    if name in OF_TOKENS:
        embedding, *above = model.layers
        x = embedding(x)
        model = keras.Sequential([keras.Input((TOKENS, WIDTH)), *above])

    @tf.function(jit_compile=jit_compile)
    def run():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            value = loss(y, model(x, training=False))
        return tape.gradient(value, x)

    return lambda: run().numpy()


def adversarial(name, iterations):
    layer = {"embedding_layer": "embedding"} if name in OF_TOKENS else {}
    config = nsl.configs.make_adv_reg_config(
        adv_step_size=0.01,
        adv_grad_norm="infinity",
        pgd_iterations=iterations,
        pgd_epsilon=0.1,
        **layer,
    )
    return nsl.keras.AdversarialRegularization(base_model(name), adv_config=config)


def graph(name, neighbors):
    config = nsl.configs.make_graph_reg_config(max_neighbors=neighbors, multiplier=0.1)
    return nsl.keras.GraphRegularization(base_model(name), config)


def adversarial_steps(name, jit_compile):
    """Returns the functions to time for adversarial regularization, by label."""
    data = batch(name, BATCH)
    steps = {
        "plain step (F+B)": training_step(base_model(name), data, jit_compile),
        "input gradient": input_gradient_pass(name, jit_compile),
    }
    for k in (1, *PGD):
        label = method(name, k)
        steps[label] = training_step(adversarial(name, k), data, jit_compile)
    return steps


def robust_steps(name, jit_compile):
    """Returns the functions to time for presets of robust training, by label."""
    fast = nsl.keras.presets.fast(0.1)
    configs = {
        "fast": fast,
        "weights": attrs.evolve(fast, weight_perturbation=0.01),
        f"free-{REPLAYS}": nsl.keras.presets.free(0.1, replays=REPLAYS),
    }
    if name != "lstm":
        configs["bounds"] = nsl.keras.presets.interval_bounds(0.1)
    return {
        label: training_step(
            nsl.keras.AdversarialRegularization(base_model(name), adv_config=config),
            batch(name, BATCH),
            jit_compile,
        )
        for label, config in configs.items()
    }


def method(name, iterations):
    """Returns the label of an adversarial method."""
    if name in OF_TOKENS:
        return f"layer-{iterations}"
    return "FGSM" if iterations == 1 else f"PGD-{iterations}"


def graph_steps(name, neighbors, jit_compile):
    """Returns the functions to time for a number of neighbors, by label."""
    size = BATCH * (1 + neighbors)
    plain = training_step(base_model(name), batch(name, size), jit_compile)
    data = batch(name, BATCH, neighbors)
    wrapped = training_step(graph(name, neighbors), data, jit_compile)
    return {f"plain step, batch {size}": plain, f"graph-{neighbors}": wrapped}


def timed(steps, rounds):
    """Times all steps, interleaved; returns seconds by label, one per round."""
    for step in steps.values():
        for _ in range(3):
            step()
    seconds = {label: [] for label in steps}
    for done in range(rounds):
        for label, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[label].append(time.perf_counter() - start)
        if sys.stderr.isatty():
            print(f"\r{done + 1}/{rounds} rounds", end="", file=sys.stderr)
    return {label: np.array(values) for label, values in seconds.items()}


def limits(name, medians):
    """Returns the cost of the passes that each adversarial method needs."""
    plain, gradient = medians["plain step (F+B)"], medians["input gradient"]
    return {
        **{method(name, k): 2 * plain + (k - 1) * gradient for k in (1, *PGD)},
        "bounds": 3 * plain,
        "fast": gradient + plain,
        "weights": gradient + 2 * plain,
        f"free-{REPLAYS}": REPLAYS * plain,
    }


def report_time(name, rounds, jit_compile):
    print(f"\n{name}, batch {BATCH}{', XLA' if jit_compile else ''}")
    print(f"{'':24}{'ms':>8} {'quartiles':>15} {'/plain':>7} {'/limit':>7}   goal")
    steps = adversarial_steps(name, jit_compile)
    if name in MODELS:
        steps |= robust_steps(name, jit_compile)
    seconds = timed(steps, rounds)
    medians = {label: np.median(values) for label, values in seconds.items()}
    needed = limits(name, medians)
    for k in () if name in OF_TOKENS else NEIGHBORS:
        pair = timed(graph_steps(name, k, jit_compile), rounds)
        seconds |= pair
        plain, wrapped = pair
        medians |= {label: np.median(values) for label, values in pair.items()}
        needed[wrapped] = medians[plain]
    for label, values in seconds.items():
        low, middle, high = np.percentile(1000 * values, [25, 50, 75])
        relative = medians[label] / medians["plain step (F+B)"]
        line = f"{label:24}{middle:8.2f} {f'{low:.2f}-{high:.2f}':>15} {relative:7.2f}"
        if label in needed:
            goal = GOALS[label.split("-")[0]]
            ratio = medians[label] / needed[label]
            line += f" {ratio:7.2f}   {goal:.2f} {'met' if ratio <= goal else 'MISSED'}"
        print(line)


def serve(name, jit_compile):
    """Runs the step named by each line of the input, and prints its seconds."""
    steps = {}
    for label, step in adversarial_steps(name, jit_compile).items():
        if label != "input gradient":
            steps[label] = step
    for k in NEIGHBORS:
        steps |= {
            label: step
            for label, step in graph_steps(name, k, jit_compile).items()
            if label == f"graph-{k}"
        }
    timed(steps, 0)
    print(json.dumps(list(steps)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        steps[line.strip()]()
        print(time.perf_counter() - start, flush=True)


def report_change(name, rounds, jit_compile, before):
    """Times the steps of this checkout and of another one, interleaved."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, __file__, "--serve", name]
    command += ["--jit_compile"] if jit_compile else []
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(path.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        for path in (root, before)
    ]
    labels, _ = (json.loads(process.stdout.readline()) for process in running)
    seconds = {label: ([], []) for label in labels}
    for done in range(rounds):
        for label in labels:
            for process, values in zip(running, seconds[label], strict=True):
                print(label, file=process.stdin, flush=True)
                values.append(float(process.stdout.readline()))
        if sys.stderr.isatty():
            print(f"\r{done + 1}/{rounds} rounds", end="", file=sys.stderr)
    for process in running:
        process.stdin.close()
        process.wait()
    print(f"\n{name}, batch {BATCH}{', XLA' if jit_compile else ''}, new to old")
    print(f"{'':24}{'ms':>8}{'before':>8}{'median':>8}{'best':>8}   limit")
    for label, pair in seconds.items():
        new, old = (np.array(values) for values in pair)
        ratio = np.median(new) / np.median(old)
        print(
            f"{label:24}{1000 * np.median(new):8.2f}{1000 * np.median(old):8.2f}"
            f"{ratio:8.2f}{new.min() / old.min():8.2f}   {BEFORE_LIMIT:.2f} "
            f"{'met' if ratio <= BEFORE_LIMIT else 'MISSED'}",
            flush=True,
        )


def resident(field):
    """Returns the bytes used now (VmRSS) or at the peak since the reset (VmHWM)."""
    with open("/proc/self/status") as status:
        return next(int(x.split()[1]) for x in status if x.startswith(field)) * 1024


def peak_memory(name, iterations):
    """Returns the peak bytes of training steps, without model and data."""
    data = batch(name, MEMORY_BATCH[name])
    step = training_step(adversarial(name, iterations), data, False)
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    for _ in range(3):
        step()
    return resident("VmHWM") - before


def report_memory(name):
    peaks = {}
    for iterations in (1, 20):
        command = [sys.executable, __file__, "--peak_memory", f"{name},{iterations}"]
        result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks[iterations] = int(result.stdout)
    ratio = peaks[20] / peaks[1]
    print(
        f"{name}: peak memory of PGD-20 {peaks[20] / 2**20:.0f} MiB, of PGD-1 "
        f"{peaks[1] / 2**20:.0f} MiB at batch {MEMORY_BATCH[name]}: {ratio:.2f}   "
        f"{GOALS['memory']:.2f} {'met' if ratio <= GOALS['memory'] else 'MISSED'}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="default: all, with --before mlp,cnn,lstm")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--jit_compile", action="store_true", help="run under XLA")
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--peak_memory", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_memory:
        name, iterations = args.peak_memory.split(",")
        print(peak_memory(name, int(iterations)))
        return
    if args.serve:
        serve(args.serve, args.jit_compile)
        return
    names = list(MODELS) if args.before else [*MODELS, *OF_TOKENS]
    names = args.models.split(",") if args.models else names
    for name in names:
        if args.before:
            report_change(name, args.rounds, args.jit_compile, args.before)
        else:
            report_time(name, args.rounds, args.jit_compile)
    if args.before:
        return
    print()
    for name in names:
        if name in MODELS:
            report_memory(name)


if __name__ == "__main__":
    main()
