"""The forms of batches, and the structure of their features."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from nsl.lib.features import is_perturbable

Unpack: TypeAlias = Callable[[Any], tuple[Any, Any, Any]]


def to_tensor(value: Any) -> Any:
    """Converts a value to a tensor, unless it is None or a tensor of any kind."""
    if value is None or tf.is_tensor(value):
        return value
    return tf.convert_to_tensor(value)


def perturbable(x: Any) -> list[tf.Tensor]:
    """Lists the features that can be perturbed, in the order of `tf.nest.flatten`."""
    return [feature for feature in tf.nest.flatten(x) if is_perturbable(feature)]


def are_dense(x: Any) -> bool:
    """Returns whether all features are dense tensors."""
    return all(isinstance(feature, tf.Tensor) for feature in tf.nest.flatten(x))


def batch_size(x: Any) -> tf.Tensor:
    """Returns the number of samples in a batch, an integer scalar."""
    first = next(feature for feature in tf.nest.flatten(x) if feature is not None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows()
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    return tf.shape(first)[0]


def describe(x: Any) -> Any:
    """Replaces each tensor of a structure by its dtype and shape, for messages."""

    def described(value: Any) -> str:
        if not hasattr(value, "shape"):
            return repr(value)
        dtype = getattr(value, "dtype", "")
        return f"{getattr(dtype, 'name', dtype)}{tuple(value.shape)}"

    return keras.tree.map_structure(described, x)


def named_arguments(
    method: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Any]:
    """Returns the arguments of a call by name.

    Args:
      method: The function or method that is called.
      args: The positional arguments.
      kwargs: The keyword arguments.

    Returns:
      All arguments by name, without defaults.

    Raises:
      TypeError: If `method` does not take the arguments.
    """
    bound = inspect.signature(method).bind(*args, **kwargs).arguments
    rest = bound.pop("kwargs", {})
    return {**bound, **rest}


def unpacked_arguments(
    method: Callable[..., Any], args: Any, kwargs: Any, unpack: Unpack
) -> dict[str, Any]:
    """Moves labels and sample weights from `x` to `y` and `sample_weight`.

    Keras needs them there to split off validation data and to apply class weights.

    Args:
      method: `fit`, `evaluate`, `train_on_batch` or `test_on_batch` of `keras.Model`.
      args: Its positional arguments.
      kwargs: Its keyword arguments.
      unpack: Splits a batch into features, labels and sample weights.

    Returns:
      The arguments by name.

    Raises:
      ValueError: If `class_weight` is given, and `x` is a `PyDataset` of dicts.
    """
    given = named_arguments(method, args, kwargs)
    x, y, weight = given.get("x"), given.get("y"), given.get("sample_weight")
    weighted = given.get("class_weight") is not None

    def labeled(*data: Any) -> tuple[Any, ...]:
        x, y, sample_weight = unpack(data)
        return (x, y) if sample_weight is None else (x, y, sample_weight)

    if isinstance(x, Mapping) and y is None:
        x, y, weight = unpack((x, None, weight))
        given |= {"x": x, "y": y, "sample_weight": weight}
    elif weighted and isinstance(x, tf.data.Dataset):
        given["x"] = x.map(labeled)
    elif weighted and isinstance(x, keras.utils.PyDataset):
        _refuse_dict_batches(x)
    else:
        given["x"] = dicts_to_tuples(x)
    if "validation_data" in given:
        data = given["validation_data"]
        first = data[0] if isinstance(data, list | tuple) and data else data
        if isinstance(first, Mapping):
            data = labeled(data) if first is data else labeled(*data)
        given["validation_data"] = dicts_to_tuples(data)
    return given


def dicts_to_tuples(x: Any) -> Any:
    """Wraps the dicts that a generator yields in tuples, as Keras expects."""
    if not isinstance(x, types.GeneratorType):
        return x
    return ((batch,) if isinstance(batch, Mapping) else batch for batch in x)


def _refuse_dict_batches(batches: keras.utils.PyDataset) -> None:
    first = batches[0]
    if isinstance(first, Mapping):
        raise ValueError(
            "class_weight needs a PyDataset that returns (x, y), but this one returns "
            f"a dict with the keys {sorted(first)}. Return the labels as y, or the "
            "class weights as sample_weight."
        )
