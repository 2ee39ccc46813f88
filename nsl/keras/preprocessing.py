"""Preprocessing by the base model, as in tasks of keras-hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

Preprocess: TypeAlias = Callable[..., Any]

_BATCH_SIZE = 32


def has_preprocessor(base_model: keras.Model) -> bool:
    """Returns whether a base model has a preprocessor, which its `fit` applies."""
    return hasattr(base_model, "preprocess_samples")


def preprocessed(
    preprocess: Preprocess, method: str, given: dict[str, Any]
) -> dict[str, Any]:
    """Preprocesses the data among the arguments of a method of `keras.Model`.

    Args:
      preprocess: A function that takes and returns `x`, `(x, y)` or
        `(x, y, sample_weight)`.
      method: The name of the method.
      given: Its arguments by name.

    Returns:
      The arguments by name. For `fit`, `evaluate` and `predict`, data becomes batches
      that are preprocessed on the fly. Arrays are shuffled if `fit` would do so.
    """
    if method.endswith("_on_batch"):
        parts = _packed(given["x"], given.get("y"), given.get("sample_weight"))
        unpacked = keras.utils.unpack_x_y_sample_weight(preprocess(*parts))
        made = zip(("x", "y", "sample_weight"), unpacked, strict=True)
        return {**given, **{name: part for name, part in made if part is not None}}
    if given.get("_use_cached_eval_dataset"):
        # `fit` calls `evaluate` with validation data that is preprocessed already.
        return given
    given = dict(given)
    data = _packed(
        given.pop("x"), given.pop("y", None), given.pop("sample_weight", None)
    )
    batch_size = given.pop("batch_size", None) or _BATCH_SIZE
    share = given.pop("validation_split", 0.0)
    if share:
        at = int(len(tf.nest.flatten(data)[0]) * (1 - share))
        given["validation_data"] = tf.nest.map_structure(lambda a: a[at:], data)
        data = tf.nest.map_structure(lambda a: a[:at], data)
    validation = given.get("validation_data")
    if validation is not None:
        parts = validation if isinstance(validation, tuple) else (validation,)
        size = given.get("validation_batch_size") or batch_size
        given["validation_data"] = _mapped(preprocess, parts, size, False)
    shuffle = method == "fit" and bool(given.pop("shuffle", True))
    return {**given, "x": _mapped(preprocess, data, batch_size, shuffle)}


def _packed(x: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    parts = [x, y, sample_weight]
    while parts[-1] is None:
        parts.pop()
    return tuple(np.asarray(p) if isinstance(p, list) else p for p in parts)


def _mapped(
    preprocess: Preprocess, parts: tuple[Any, ...], batch_size: int, shuffle: bool
) -> Any:
    """Returns preprocessed batches of arrays, or of batches."""
    x = parts[0]
    if isinstance(x, tf.data.Dataset):
        return x.map(preprocess, tf.data.AUTOTUNE)
    arrays = isinstance(x, np.ndarray | dict | tuple) or tf.is_tensor(x)
    if not arrays and isinstance(x, Iterable):
        return (
            preprocess(*batch) if isinstance(batch, tuple) else preprocess(batch)
            for batch in x
        )
    data = tf.data.Dataset.from_tensor_slices(parts)
    if shuffle:
        data = data.shuffle(len(data))
    return data.batch(batch_size).map(preprocess, tf.data.AUTOTUNE)
