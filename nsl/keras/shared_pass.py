"""Whether samples and neighbors may go through a model in one pass."""

import keras

from nsl.keras.recurrent_state import recurrent_states

# Layers of Keras whose outputs or state depend on which samples share a batch, or of
# which nothing is known. Preprocessing of this kind mixes the samples of a batch.
_MIXING = (
    keras.layers.BatchNormalization,
    keras.layers.CutMix,
    keras.layers.Lambda,
    keras.layers.MixUp,
    keras.layers.SpectralNormalization,
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
        _treats_samples_alone(layer) for layer in model._flatten_layers()
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
        known = layer.__module__ in (
            "keras.src.models.functional",
            "keras.src.models.sequential",
        )
        operations = getattr(layer, "operations", layer.layers)
        return known and all(isinstance(op, keras.layers.Layer) for op in operations)
    return (
        layer.__module__.startswith("keras.src.layers.")
        and not isinstance(layer, _MIXING)
        and getattr(layer, "activity_regularizer", None) is None
        and not isinstance(layer, keras.layers.Masking)
        and _treats_samples_alone_in(layer, "activation")
        and _treats_samples_alone_in(layer, "recurrent_activation")
        and not getattr(layer, "mask_zero", False)
    )


def _treats_samples_alone_in(layer: keras.layers.Layer, attribute: str) -> bool:
    activation = getattr(layer, attribute, None)
    return (
        activation is None
        or isinstance(activation, keras.layers.Layer)
        or getattr(activation, "__module__", "").startswith("keras.src.activations.")
    )
