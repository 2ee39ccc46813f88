"""Trains a model in a custom training loop with the functions of `nsl.lib`.

One `tf.function` sums three losses: the labeled loss, the labeled loss at adversarial
neighbors in the L-infinity norm (`nsl.keras.adversarial_loss`), and the distance
between the predictions for an image and for its adversarial neighbor in the L2 norm
(`nsl.lib.gen_adv_neighbor`, `nsl.lib.pairwise_distance_wrapper`). The data is
scikit-learn's handwritten digits, which need no download. The program plots the losses
of all epochs.

    python examples/custom_loop.py --epochs=20
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
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


@dataclasses.dataclass
class Result:
    """The results of training.

    Attributes:
      losses: The mean of each loss in each epoch.
      clean_accuracy: The accuracy on the test images.
      attacked_accuracy: The accuracy on the same images after one gradient sign step.
    """

    losses: list[dict[str, float]]
    clean_accuracy: float
    attacked_accuracy: float


def make_model() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    adversarial_weight: float = 0.5,
    distance_weight: float = 0.5,
) -> TrainStep:
    loss_fn = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def train_step(x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as weight_tape:
            # Persistent, because two attacks use this clean pass.
            with tf.GradientTape(persistent=True) as input_tape:
                input_tape.watch(x)
                predictions = model(x, training=True)
                labeled_loss = loss_fn(y, predictions)
            adversarial_loss = nsl.keras.adversarial_loss(
                x,
                y,
                model,
                loss_fn,
                adv_config=INFINITY_BALL,
                labeled_loss=labeled_loss,
                gradient_tape=input_tape,
                model_kwargs={"training": True},
            )
            neighbor, _ = nsl.lib.gen_adv_neighbor(
                x, labeled_loss, L2_BALL, gradient_tape=input_tape
            )
            distance = nsl.lib.pairwise_distance_wrapper(
                predictions,
                model(neighbor, training=True),
                distance_config=SQUARED_DISTANCE,
            )
            loss = (
                labeled_loss
                + adversarial_weight * adversarial_loss
                + distance_weight * distance
            )
        gradients = weight_tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        return {
            "labeled": labeled_loss,
            "adversarial": adversarial_loss,
            "distance": distance,
        }

    return train_step


def attack(model: keras.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Perturbs each image by one gradient sign step."""
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    images = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = loss_fn(y, model(images, training=False))
    attacked, _ = nsl.lib.gen_adv_neighbor(
        images, loss, INFINITY_BALL.adv_neighbor_config, gradient_tape=tape
    )
    return attacked.numpy()


def accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    predictions = model(x, training=False).numpy()
    return float(np.mean(np.argmax(predictions, axis=-1) == y))


def train(epochs: int, seed: int, distance_weight: float = 0.5) -> Result:
    keras.utils.set_random_seed(seed)
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        (images / 16).astype(np.float32),
        labels,
        test_size=500,
        stratify=labels,
        random_state=0,
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((x_train, y_train))
        .shuffle(len(x_train), seed=seed)
        .batch(64, drop_remainder=True)
    )
    model = make_model()
    train_step = make_train_step(
        model, keras.optimizers.Adam(0.002), distance_weight=distance_weight
    )
    losses = []
    for epoch in range(1, epochs + 1):
        steps = [
            {name: float(loss) for name, loss in train_step(x, y).items()}
            for x, y in batches
        ]
        losses.append({name: np.mean([s[name] for s in steps]) for name in steps[0]})
        shown = "  ".join(f"{name} {loss:.4f}" for name, loss in losses[-1].items())
        print(f"epoch {epoch:3d}/{epochs}  {shown}", flush=True)
    return Result(
        losses,
        clean_accuracy=accuracy(model, x_test, y_test),
        attacked_accuracy=accuracy(model, attack(model, x_test, y_test), y_test),
    )


def draw(path: Path, result: Result) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = range(1, len(result.losses) + 1)
    for name, color in COLORS.items():
        losses = [losses[name] for losses in result.losses]
        axis.plot(epochs, losses, "o-", color=color, markersize=4, label=name)
    axis.set(
        xlabel="epoch",
        ylabel="mean loss",
        yscale="log",
        title=f"test accuracy {result.clean_accuracy:.1%},"
        f" after a gradient sign step {result.attacked_accuracy:.1%}",
    )
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--epochs", type=int, default=20, help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--quick", action="store_true", help="two epochs")
    add(
        "--output_dir",
        type=Path,
        default=Path("custom_loop"),
        help="folder for the plot (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, received {options.epochs}")
    result = train(2 if options.quick else options.epochs, options.seed)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    picture = options.output_dir / "custom_loop.png"
    draw(picture, result)
    print(
        f"500 test images: accuracy {result.clean_accuracy:.1%}, after a gradient sign"
        f" step of {INFINITY_BALL.adv_neighbor_config.adv_step_size} per pixel"
        f" {result.attacked_accuracy:.1%}\nplot: {picture}"
    )


if __name__ == "__main__":
    main()
