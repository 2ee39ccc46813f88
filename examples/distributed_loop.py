"""Trains with graph and adversarial regularization on several devices or machines.

A custom training loop under `tf.distribute`. Each replica runs the `train_step` of the
wrapper, so the losses are the same as in `fit`. The data is scikit-learn's digits; the
graph connects each image to the most similar ones. Without TF_CONFIG, the devices are
all GPUs of the machine or, if there are none, two logical CPU devices:

    python examples/distributed_loop.py --quick

On two machines, or in two terminals of one, each with its own index, and a directory
that all share. Started again with the same directory, it resumes.

    export TF_CONFIG='{"cluster": {"worker": ["localhost:2301", "localhost:2302"]},
                       "task": {"type": "worker", "index": 0}}'
    python examples/distributed_loop.py --backup=/shared/backup
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph

import nsl

TRAINING_IMAGES = 1280
BATCH_SIZE = 128  # Over all replicas.


def make_strategy() -> tf.distribute.Strategy:
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def make_model() -> nsl.keras.GraphRegularization:
    hidden = keras.layers.Dense(128, activation="relu")
    inputs = keras.Input((64,), name="pixels")
    model = keras.Sequential([inputs, hidden, keras.layers.Dense(10)])
    attack = nsl.keras.presets.trades(epsilon=0.1, steps=2, beta=1.0)
    graph = nsl.configs.make_graph_reg_config(max_neighbors=2, multiplier=0.1)
    model = nsl.keras.AdversarialRegularization(model, adv_config=attack)
    model = nsl.keras.GraphRegularization(model, graph)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.002), loss, metrics=["accuracy"])
    return model


def make_data(images, labels, seed, context, epoch) -> tf.data.Dataset:
    """Returns the worker's shard of the batches."""
    return nsl.data.neighbor_dataset(
        nsl.data.Graph(kneighbors_graph(images, 2, include_self=False)),
        {"pixels": images},
        labels[: len(images)],
        neighbor_config=nsl.configs.GraphNeighborConfig(max_neighbors=2),
        batch_size=BATCH_SIZE,
        seed=seed,
        input_context=context,
        epoch=epoch,
    )


def restore(model: keras.Model, backup: Path) -> int:
    """Loads the latest backup and returns the number of completed epochs."""
    paths = sorted(backup.glob("epoch-*.weights.h5"))
    if not paths:
        return 0
    model.load_weights(paths[-1])
    return int(paths[-1].name.removeprefix("epoch-").split(".")[0])


def back_up(model: keras.Model, backup: Path, epochs_done: int) -> None:
    """Saves weights, optimizer state and seeds; renames the complete file."""
    backup.mkdir(parents=True, exist_ok=True)
    unfinished = backup / "unfinished.weights.h5"
    model.save_weights(unfinished)
    os.replace(unfinished, backup / f"epoch-{epochs_done:05d}.weights.h5")


def train(
    strategy: tf.distribute.Strategy,
    epochs: int,
    seed: int,
    backup: Path | None = None,
    on_step: Callable[[int, int], None] = lambda epoch, step: None,
) -> nsl.keras.GraphRegularization:
    # The same seed on every worker gives the same weights, order and random starts.
    keras.utils.set_random_seed(seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train_images, test_images = np.split(images, [TRAINING_IMAGES])
    epoch = tf.Variable(0, dtype=tf.int64)
    data = strategy.distribute_datasets_from_function(
        lambda context: make_data(train_images, labels, seed, context, epoch)
    )
    with strategy.scope():
        model = make_model()
        # Replicas cannot create variables, so create them all here.
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(images[:1], labels[:1])
    resolver = strategy.cluster_resolver
    is_chief = resolver is None or not resolver.task_id

    @tf.function
    def train_step(batch: object) -> None:
        strategy.run(model.train_step, args=(batch,))

    for done in range(restore(model, backup) if backup else 0, epochs):
        epoch.assign(done)
        model.reset_metrics()
        for step, batch in enumerate(data):
            train_step(batch)
            on_step(done, step)
        logs = model.get_metrics_result()  # Sums over all replicas; call it on all.
        if is_chief:
            shown = "  ".join(f"{name} {float(v):.4f}" for name, v in logs.items())
            print(f"epoch {done + 1:3d}/{epochs}  {shown}", flush=True)
            if backup:
                back_up(model, backup, done + 1)
    correct = np.argmax(model(test_images), -1) == labels[len(train_images) :]
    print(f"{len(correct)} test images: accuracy {np.mean(correct):.1%}", flush=True)
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--quick", action="store_true", help="two epochs")
    parser.add_argument("--backup", type=Path, help="directory that all workers share")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1, received {options.epochs}")
    epochs = 2 if options.quick else options.epochs
    train(make_strategy(), epochs, options.seed, options.backup)


if __name__ == "__main__":
    main()
