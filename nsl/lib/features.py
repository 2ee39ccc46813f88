"""Structures of features: the names of their leaves, and settings given per feature."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


def is_perturbable(tensor: Any) -> bool:
    """Returns whether a feature is dense and floating, so that it can be perturbed.

    Args:
      tensor: A tensor or NumPy array.

    Returns:
      False for integers, strings, ragged and sparse tensors.
    """
    if isinstance(tensor, np.ndarray):
        return bool(tensor.dtype.kind == "f" or tensor.dtype.name == "bfloat16")
    return isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating


def cast_exactly(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Converts a value to a tensor of a dtype.

    `tf.cast` rounds Python numbers to float32 first; this does not.

    Args:
      value: A number, an array, or a tensor.
      dtype: A floating dtype.

    Returns:
      A tensor of `dtype`.
    """
    if tf.is_tensor(value):
        return tf.cast(value, dtype)
    return tf.cast(np.asarray(value, np.float64), dtype)


def names(features: Any) -> list[str]:
    """Returns the names of the leaves of a structure, for messages.

    Args:
      features: A structure of tensors.

    Returns:
      The path of keys and positions to each leaf, joined by "/", in the order of
      `tf.nest.flatten`. The name of a single tensor is empty.
    """
    return list(map(str, keys(features)))


def keys(features: Any) -> list[Any]:
    """Returns a key for each leaf of a structure.

    Args:
      features: A structure of tensors.

    Returns:
      The key or the position of each leaf, in the order of `tf.nest.flatten`; '' for a
      single tensor. For leaves of nested structures, the path as in `names`.
    """
    return [
        path[0] if len(path) == 1 else "/".join(map(str, path))
        for path in _paths(features)
    ]


def spread(value: Any, features: Any, what: str) -> list[Any]:
    """Returns the value given for each leaf of `features`.

    A number or an array applies to every leaf. A dict gives values by name (by position
    if the features are a list or tuple), a list or tuple by position. Missing entries
    are None. All of these may be nested like the features.

    Args:
      value: A number, an array, None, or a structure of them.
      features: A structure of tensors.
      what: The name of the value, for messages.

    Returns:
      One value for each leaf, in the order of `tf.nest.flatten`.

    Raises:
      ValueError: If `value` names an unknown feature.
    """
    return list(_spread(value, features, what, ()))


def spread_tensors(
    value: Any, features: Any, what: str, dtypes: list[tf.DType]
) -> list[tf.Tensor | None]:
    """Returns `spread` as tensors that broadcast to the leaves of `features`.

    Args:
      value: A number, an array, None, or a structure of them.
      features: A structure of tensors.
      what: The name of the value, for messages.
      dtypes: The dtype to give the value of each leaf.

    Returns:
      One tensor or None for each leaf, in the order of `tf.nest.flatten`. None also for
      leaves that cannot be perturbed.

    Raises:
      ValueError: If `value` names an unknown feature, or does not broadcast to its
        feature.
    """
    tensors: list[tf.Tensor | None] = []
    leaves = tf.nest.flatten(features)
    parts = spread(value, features, what)
    for part, leaf, name, dtype in zip(
        parts, leaves, names(features), dtypes, strict=True
    ):
        if part is None or not is_perturbable(leaf):
            tensors.append(None)
            continue
        tensor = cast_exactly(part, dtype)
        _check_broadcast(tensor.shape, tf.TensorShape(leaf.shape), what, name)
        tensors.append(tensor)
    return tensors


def described(features: Any) -> str:
    """Returns the names and dtypes of features, for messages."""
    named = zip(names(features), tf.nest.flatten(features), strict=True)
    return ", ".join(
        f"{name!r} ({_kind(leaf)})" if name else f"a tensor of {_kind(leaf)}"
        for name, leaf in named
    )


def nothing_to_perturb(features: Any) -> str:
    """Returns an error message for features that cannot be perturbed."""
    return (
        "None of the features can be perturbed: "
        f"{described(features)}. Only dense floating tensors that the loss depends on "
        "can. Cast integers to float32 before the model sees them (uint8 images: "
        "tf.cast(x, tf.float32) / 255). For token ids and categories, perturb their "
        "embeddings: name the embedding layer, in nsl.keras with "
        "AdvNeighborConfig(embedding_layer=...), in nsl.attacks and "
        "nsl.evaluate_robustness with layer=.... If a feature is floating, call "
        "tape.watch on it before the model runs."
    )


def _kind(leaf: Any) -> str:
    if isinstance(leaf, tf.RaggedTensor):
        return f"ragged, {leaf.dtype.name}"
    if isinstance(leaf, tf.SparseTensor):
        return f"sparse, {leaf.dtype.name}"
    dtype = getattr(leaf, "dtype", None)
    return type(leaf).__name__ if dtype is None else tf.as_dtype(dtype).name


def _children(features: Any) -> list[tuple[Any, Any]] | None:
    """Returns keys and children in the order of `tf.nest`, or None for a leaf."""
    if not tf.nest.is_nested(features):
        return None
    if isinstance(features, Mapping):
        return sorted(features.items())
    if isinstance(features, list | tuple):
        return list(enumerate(features))
    return list(enumerate(tf.nest.flatten(features)))


def _paths(features: Any) -> Iterator[tuple[Any, ...]]:
    children = _children(features)
    if children is None:
        yield ()
    else:
        for key, child in children:
            for path in _paths(child):
                yield (key, *path)


def _spread(
    value: Any, features: Any, what: str, path: tuple[Any, ...]
) -> Iterator[Any]:
    children = _children(features)
    by_name = isinstance(value, Mapping)
    by_position = isinstance(value, list | tuple) and isinstance(features, list | tuple)
    if children is None:
        if by_name:
            where = f"feature {'/'.join(map(str, path))!r}" if path else "the features"
            raise ValueError(
                f"{what} has entries for {sorted(map(str, value))}, but {where} "
                "is a single tensor: give a number or an array."
            )
        yield value
        return
    if by_name or by_position:
        parts = dict(value) if by_name else dict(enumerate(value))
        known = [key for key, _ in children]
        unknown = [key for key in parts if key not in known]
        if unknown:
            raise ValueError(
                f"{what} has entries for unknown features {unknown}: the features are "
                f"{known}."
            )
    else:
        parts = {key: value for key, _ in children}
    for key, child in children:
        yield from _spread(parts.get(key), child, what, (*path, key))


def _check_broadcast(
    shape: tf.TensorShape, target: tf.TensorShape, what: str, name: str
) -> None:
    try:
        fits = tf.broadcast_static_shape(shape, target).is_compatible_with(target)
    except ValueError:
        fits = False
    if not fits:
        feature = f" of feature {name!r}" if name else ""
        raise ValueError(
            f"{what}{feature} has shape {tuple(shape)}, which does not broadcast to "
            f"the feature's shape {tuple(target)}."
        )
