"""Whether samples and neighbors can share one pass through a model."""

import keras
import tensorflow as tf

from nsl.lib import keras_internals

# Keras layers whose outputs or state depend on the other samples of a batch, or that
# may run any code. Not every supported release of Keras has all of them.
_MIXING = tuple(
    getattr(keras.layers, name)
    for name in (
        "BatchNormalization",
        "CutMix",
        "Lambda",
        "MixUp",
        "SpectralNormalization",
    )
    if hasattr(keras.layers, name)
)


def may_share_pass(model: keras.Model) -> bool:
    """Returns whether one pass over concatenated batches equals one pass per batch.

    One pass is cheaper. The results are equal if each layer treats every sample
    independently, as most layers of Keras do, and adds no losses, which would include
    the neighbors.

    Args:
      model: The base model.

    Returns:
      True if the results are known to be equal.
    """
    return not has_fixed_batch_size(model) and all(
        _treats_samples_independently(layer)
        for layer in keras_internals.all_layers(model)
    )


def has_fixed_batch_size(model: keras.Model) -> bool:
    """Returns whether a model takes batches of one size only.

    Args:
      model: The base model.

    Returns:
      True if an input has a fixed batch size, or a recurrent layer is stateful.
    """
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    return bool(recurrent_states(model)) or any(
        shape and shape[0] is not None for shape in shapes
    )


def _treats_samples_independently(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Model):
        operations = getattr(layer, "operations", layer.layers)
        return keras_internals.is_functional(layer) and all(
            isinstance(operation, keras.layers.Layer) for operation in operations
        )
    return (
        keras_internals.is_own_layer(layer)
        and not isinstance(layer, (*_MIXING, keras.layers.Masking))
        and getattr(layer, "activity_regularizer", None) is None
        and not getattr(layer, "mask_zero", False)
        and all(
            activation is None
            or isinstance(activation, keras.layers.Layer)
            or keras_internals.is_own_activation(activation)
            for activation in (
                getattr(layer, "activation", None),
                getattr(layer, "recurrent_activation", None),
            )
        )
    )


def recurrent_states(model: keras.Model) -> list[keras.Variable]:
    """Lists the state variables of all stateful recurrent layers of a model."""
    layers = [
        layer
        for layer in keras_internals.all_layers(model)
        if getattr(layer, "stateful", False) and getattr(layer, "states", None)
    ]
    return [state for layer in layers for state in tf.nest.flatten(layer.states)]
