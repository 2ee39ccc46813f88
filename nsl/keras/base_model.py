"""Checks of a base model, and its inputs."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from nsl.lib import keras_internals


def check_base_model(base_model: Any) -> None:
    """Checks that a base model is a Keras 3 model.

    Args:
      base_model: The argument of a wrapper.

    Raises:
      TypeError: If it is not a Keras 3 model.
    """
    kind = type(base_model)
    if isinstance(base_model, keras.Model):
        return
    if any(base.__module__.startswith("tf_keras") for base in kind.__mro__):
        raise TypeError(
            "Expected a Keras 3 model, but the base model comes from the legacy "
            "package tf_keras (Keras 2). Build the model with `import keras`, and "
            "unset the environment variable TF_USE_LEGACY_KERAS if tf.keras is Keras 2."
        )
    raise TypeError(
        f"base_model must be a keras.Model, but received {base_model!r} "
        f"({kind.__module__}.{kind.__name__})."
    )


def warn_of_unused_overrides(base_model: keras.Model) -> None:
    """Warns if a base model overrides methods that wrappers do not call.

    Args:
      base_model: A Keras model.
    """
    kind = type(base_model)
    unused = [
        name
        for name in ("train_step", "test_step", "predict_step", "compute_metrics")
        if getattr(kind, name) is not getattr(keras.Model, name)
    ]
    if unused:
        warnings.warn(
            f"The {' and '.join(unused)} of {kind.__name__} will not be used: a "
            "wrapper has its own. Override compute_loss to change the labeled loss.",
            stacklevel=_caller_stacklevel(),
        )


def _caller_stacklevel() -> int:
    """Returns the `stacklevel` at which a warning names the line that called nsl."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("nsl."):
        frame, level = frame.f_back, level + 1
    return level


def input_names(base_model: keras.Model) -> list[str]:
    """Lists the names of a base model's inputs.

    Args:
      base_model: A Keras model.

    Returns:
      The keys if the input is a dict, else the names of the inputs. Empty for a
      subclassed model, whose inputs are unknown.
    """
    structure = keras_internals.input_structure(base_model)
    if structure is None:
        return []
    if isinstance(structure, Mapping):
        return list(structure)
    return [tensor.name for tensor in keras.tree.flatten(structure)]


def to_base_inputs(base_model: keras.Model, features: Any) -> Any:
    """Arranges features in the structure of a base model's inputs.

    A dict is matched with the inputs of a functional model by name. If there is one
    input and one feature, the names may differ. Anything else is returned unchanged.

    Args:
      base_model: A Keras model.
      features: The features of a batch.

    Returns:
      The inputs of the model.

    Raises:
      KeyError: If an input is missing from the dict.
    """
    if not isinstance(features, Mapping):
        return features
    values = list(features.values())
    structure = keras_internals.input_structure(base_model)
    if structure is None:
        # A sequential model takes one tensor. A subclassed model may take a dict.
        if isinstance(base_model, keras.Sequential) and len(values) == 1:
            return values[0]
        return features
    names = input_names(base_model)
    if set(names) <= set(features):
        values = [features[name] for name in names]
    elif (len(names), len(values)) != (1, 1):
        raise KeyError(
            f"The base model '{base_model.name}' takes the inputs {sorted(names)}, but "
            f"received the features {sorted(features)}. Name the inputs like the "
            "features, or pass x as a list in the order of the inputs."
        )
    if isinstance(structure, Mapping):
        return dict(zip(names, values, strict=True))
    return keras.tree.pack_sequence_as(structure, values)


def run_base(
    base_model: keras.Model, x: Any, training: bool | None, **keywords: Any
) -> Any:
    """Runs a base model on features in the structure of the batch.

    Args:
      base_model: The base model.
      x: The features of a batch.
      training: Whether layers such as Dropout run in training mode.
      **keywords: Further arguments of the base model's `call`.

    Returns:
      The outputs of the base model.
    """
    inputs = to_base_inputs(base_model, x)
    if keras_internals.takes_training(base_model):
        keywords["training"] = training
    return base_model(inputs, **keywords)


def checked_keywords(
    base_model: keras.Model, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Checks the keywords that a base model is called with.

    Args:
      base_model: A Keras model.
      keywords: Arguments of a wrapper's `call` other than the inputs and `training`.

    Returns:
      The keywords, without those that are None and that the base model does not take.
      A dict of masks is arranged like the inputs.

    Raises:
      TypeError: If the base model's `call` does not take a keyword that is not None.
    """
    known = keras_internals.keywords_of_call(base_model)
    taken = {
        name: value
        for name, value in keywords.items()
        if known is None or name in known or value is not None
    }
    unknown = [] if known is None else sorted(taken.keys() - known)
    if known is not None and unknown:
        raise TypeError(
            f"The base model '{base_model.name}' ({type(base_model).__name__}) was "
            f"called with the keywords {unknown}, but its call takes only "
            f"{sorted(known)}. Leave them out, or add them to its call."
        )
    if "mask" in taken:
        taken["mask"] = to_base_inputs(base_model, taken["mask"])
    return taken


def computes_loss(base_model: keras.Model) -> bool:
    """Returns whether a base model overrides `compute_loss`."""
    return type(base_model).compute_loss is not keras.Model.compute_loss
