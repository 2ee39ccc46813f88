"""The features of a batch, whatever their structure."""

from typing import Any

import keras
import tensorflow as tf

from nsl.lib.features import is_perturbable


def to_tensor(value: Any) -> Any:
    """Makes a tensor of a value, unless it is one, of any kind, or None."""
    if value is None or tf.is_tensor(value):
        return value
    return tf.convert_to_tensor(value)


def perturbable(x: Any) -> list[tf.Tensor]:
    """Lists the features that can be perturbed, in the order of `tf.nest.flatten`."""
    return [feature for feature in tf.nest.flatten(x) if is_perturbable(feature)]


def are_dense(x: Any) -> bool:
    """Tells whether all features are dense tensors."""
    return all(isinstance(feature, tf.Tensor) for feature in tf.nest.flatten(x))


def batch_size(x: Any) -> tf.Tensor:
    """Returns the number of samples, a scalar tensor."""
    first = next(feature for feature in tf.nest.flatten(x) if feature is not None)
    if isinstance(first, tf.RaggedTensor):
        return first.nrows()
    if isinstance(first, tf.SparseTensor):
        return first.dense_shape[0]
    return tf.shape(first)[0]


def describe(x: Any) -> Any:
    """Puts the dtype and shape of each feature in its place, for messages."""

    def described(value: Any) -> str:
        if not hasattr(value, "shape"):
            return repr(value)
        dtype = getattr(value, "dtype", "")
        return f"{getattr(dtype, 'name', dtype)}{tuple(value.shape)}"

    return keras.tree.map_structure(described, x)
