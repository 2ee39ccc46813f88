"""Writes TFRecord files, runs the command-line tools, and reads batches."""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

TOOLS = Path(__file__).resolve().parents[1] / "tools"

Value = bytes | int | np.ndarray


def _feature(value: Value) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, np.ndarray):
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def write_examples(path: Path, examples: Iterable[Mapping[str, Value]]) -> None:
    """Writes each example as a tf.train.Example.

    Args:
      path: The TFRecord file.
      examples: Features by name: bytes, an integer, or an array of numbers.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            feature = {name: _feature(value) for name, value in example.items()}
            message = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(message.SerializeToString())


def run_tool(name: str, *arguments: str | Path) -> None:
    """Runs tools/build_graph.py or tools/pack_nbrs.py as a command."""
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def read_packed(
    path: Path, name: str, width: int, max_neighbors: int, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Reads batches `(features, label, sample_weight)` and repeats them forever.

    An unlabeled example has weight 0, so it contributes only to the graph loss. The
    weights of labeled examples are scaled so that the labeled loss is their mean.

    Args:
      path: The output of pack_nbrs.
      name: The name of the model's input feature.
      width: The length of the feature.
      max_neighbors: The number of neighbors to read.
      batch_size: The number of examples per batch.
      seed: The seed of the order, which is the same in each epoch.

    Returns:
      The dataset.
    """
    numbers = tf.io.FixedLenFeature([width], tf.float32, [0.0] * width)
    weight = tf.io.FixedLenFeature([1], tf.float32, [0.0])
    spec = {name: numbers, "label": tf.io.FixedLenFeature([], tf.int64, -1)}
    for i in range(max_neighbors):
        # The default weight of 0 masks missing neighbors.
        spec |= {f"NL_nbr_{i}_{name}": numbers, f"NL_nbr_{i}_weight": weight}

    def parse(records: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        parsed: dict[str, Any] = tf.io.parse_example(records, spec)
        label = parsed.pop("label")
        known = tf.cast(label >= 0, tf.float32)
        return parsed, tf.maximum(label, 0), known / tf.reduce_mean(known)

    everything = 1 << 20
    return (
        tf.data.TFRecordDataset(str(path))
        .batch(everything)
        .map(parse)
        .unbatch()
        .shuffle(everything, seed=seed)
        .batch(batch_size)
        .cache()
        .repeat()
    )
