"""Writes the input files of a test and reads its outputs, with TensorFlow itself."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf


def example(features: Mapping[str, Any]) -> tf.train.Example:
    """Makes an Example of lists of bytes, str, int or float."""
    message = tf.train.Example()
    for name, values in features.items():
        feature = message.features.feature[name]
        for value in values:
            if isinstance(value, str):
                value = value.encode()
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return message


def write_records(path: Path, records: Iterable[bytes], compression: str = "") -> str:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_examples(path: Path, examples: Iterable[Mapping[str, Any]]) -> str:
    return write_records(path, (example(e).SerializeToString() for e in examples))


def read_records(path: Path | str, compression: str = "") -> list[bytes]:
    return [
        record.numpy() for record in tf.data.TFRecordDataset(str(path), compression)
    ]


def read_examples(path: Path | str, compression: str = "") -> list[dict[str, Any]]:
    """Reads Examples as {feature: [kind, values]}, the form of the golden figures."""
    return [
        plain(tf.train.Example.FromString(record))
        for record in read_records(path, compression)
    ]


def plain(message: tf.train.Example) -> dict[str, Any]:
    result = {}
    for name, feature in message.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        result[name] = [kind, values]
    return result


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)
