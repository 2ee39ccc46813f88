"""Whether samples and neighbors may go through a model in one pass."""

import keras
import tensorflow as tf

from nsl.lib import keras_internals

# Layers of Keras whose outputs or state depend on which samples share a batch, or of
# which nothing is known. Preprocessing of this kind mixes the samples of a batch.
# Some are newer than the oldest Keras that nsl runs on.
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
    """Tells whether one pass over joined batches gives what a pass over each gives.

    One pass is cheaper. It changes nothing where every layer treats each sample by
    itself, which is known of Keras's own layers but for some, and where no loss is
    added on the way, which would then be that of the neighbors too.

    Args:
      model: The base model.

    Returns:
      True if it is known that nothing changes.
    """
    return not has_fixed_batch_size(model) and all(
        _treats_samples_alone(layer) for layer in keras_internals.all_layers(model)
    )


def has_fixed_batch_size(model: keras.Model) -> bool:
    """Tells whether a model takes batches of one size only.

    Args:
      model: The base model.

    Returns:
      True if an input says so or a recurrent layer keeps the states of its samples.
    """
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    return bool(recurrent_states(model)) or any(
        shape and shape[0] is not None for shape in shapes
    )


def _treats_samples_alone(layer: keras.layers.Layer) -> bool:
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
