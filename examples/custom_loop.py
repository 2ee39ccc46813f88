"""Trains a model in a custom training loop with the functions of `nsl.lib`.

One `tf.function` sums three losses: the labeled loss, the labeled loss at adversarial
neighbors in the L-infinity norm (`nsl.keras.adversarial_loss`), and the distance
between the predictions for an image and for its adversarial neighbor in the L2 norm
(`nsl.lib.gen_adv_neighbor`, `nsl.lib.pairwise_distance_wrapper`). The data is
scikit-learn's handwritten digits. The program plots the losses of all epochs.

    python examples/custom_loop.py --epochs=20
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nsl

PIXELS = {"clip_value_min": 0.0, "clip_value_max": 1.0}
INFINITY_BALL = nsl.configs.make_adv_reg_config(
    adv_step_size=0.1, adv_grad_norm="infinity", **PIXELS
)
L2_BALL = nsl.configs.AdvNeighborConfig(adv_step_size=0.5, adv_grad_norm="l2", **PIXELS)
SQUARED_DISTANCE = nsl.configs.DistanceConfig(distance_type="l2", sum_over_axis=-1)
COLORS = {"labeled": "#c2571a", "adversarial": "#1f6fb4", "distance": "#2a7f3e"}

TrainStep = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


class Result(NamedTuple):
    """The mean of each loss in each epoch, and the accuracies on test images."""

    losses: list[dict[str, float]]
    clean_accuracy: float
    attacked_accuracy: float


def make_model() -> keras.Model:
    hidden = keras.layers.Dense(128, activation="relu")
    outputs = keras.layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((64,)), hidden, outputs])


def make_train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, distance_weight: float
) -> TrainStep:
    loss_fn = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def train_step(x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as weight_tape:
            # Persistent, because two attacks use this clean pass.
            with tf.GradientTape(persistent=True) as input_tape:
                input_tape.watch(x)
                predictions = model(x, training=True)
                labeled = loss_fn(y, predictions)
            adversarial = nsl.keras.adversarial_loss(
                x,
                y,
                model,
                loss_fn,
                adv_config=INFINITY_BALL,
                labeled_loss=labeled,
                gradient_tape=input_tape,
                model_kwargs={"training": True},
            )
            neighbor, _ = nsl.lib.gen_adv_neighbor(
                x, labeled, L2_BALL, gradient_tape=input_tape
            )
            moved = model(neighbor, training=True)
            distance = nsl.lib.pairwise_distance_wrapper(
                predictions, moved, distance_config=SQUARED_DISTANCE
            )
            loss = labeled + 0.5 * adversarial + distance_weight * distance
        gradients = weight_tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return {"labeled": labeled, "adversarial": adversarial, "distance": distance}

    return train_step


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(model(x).numpy().argmax(axis=1) == y))


def train(epochs: int, seed: int, distance_weight: float = 0.5) -> Result:
    keras.utils.set_random_seed(seed)
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (x / 16).astype("float32"), y, test_size=500, stratify=y, random_state=0
    )
    data = tf.data.Dataset.from_tensor_slices((x_train, y_train))
    batches = data.shuffle(len(x_train), seed=seed).batch(64, drop_remainder=True)
    model, adam = make_model(), keras.optimizers.Adam(0.002)
    train_step = make_train_step(model, adam, distance_weight)
    losses = []
    for epoch in range(1, epochs + 1):
        steps = [train_step(x, y) for x, y in batches]
        losses.append({n: float(np.mean([s[n] for s in steps])) for n in steps[0]})
        shown = "  ".join(f"{name} {loss:.4f}" for name, loss in losses[-1].items())
        print(f"epoch {epoch:3d}/{epochs}  {shown}", flush=True)
    attacked = nsl.attacks.FGSM()(model, x_test, y_test, epsilon=0.1, bounds=(0, 1))
    return Result(losses, *(accuracy(model, x, y_test) for x in (x_test, attacked)))


def draw(path: Path, result: Result) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis, epochs = figure.subplots(), range(1, len(result.losses) + 1)
    for name, color in COLORS.items():
        losses = [losses[name] for losses in result.losses]
        axis.plot(epochs, losses, "o-", color=color, markersize=4, label=name)
    clean, attacked = result.clean_accuracy, result.attacked_accuracy
    title = f"test accuracy {clean:.1%}, after a gradient sign step {attacked:.1%}"
    axis.set(xlabel="epoch", ylabel="mean loss", yscale="log", title=title)
    axis.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=int, default=20, help="default: 20")
    add("--seed", type=int, default=0, help="default: 0")
    add("--quick", action="store_true", help="two epochs")
    add("--output_dir", type=Path, default="custom_loop", help="for the plot")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, received {options.epochs}")
    result = train(2 if options.quick else options.epochs, options.seed)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    picture = options.output_dir / "custom_loop.png"
    draw(picture, result)
    print(f"500 test images: accuracy {result.clean_accuracy:.1%}, after a gradient")
    print(f"sign step of 0.1 per pixel {result.attacked_accuracy:.1%}\nplot: {picture}")


if __name__ == "__main__":
    main()
