"""What a base model may be, and what it is called with."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from nsl.lib import keras_internals


def check_base_model(base_model: Any) -> None:
    """Checks that a base model is a Keras 3 model.

    Args:
      base_model: What is to be wrapped.

    Raises:
      TypeError: If it is not.
    """
    kind = type(base_model)
    if isinstance(base_model, keras.Model):
        return
    if any(base.__module__.startswith("tf_keras") for base in kind.__mro__):
        raise TypeError(
            "The base model comes from the legacy package tf_keras (Keras 2), but nsl "
            "works with Keras 3. Build the model with `import keras`, and unset the "
            "environment variable TF_USE_LEGACY_KERAS if tf.keras is Keras 2."
        )
    raise TypeError(
        f"base_model must be a keras.Model, but received {base_model!r} "
        f"({kind.__module__}.{kind.__name__})."
    )


def warn_of_unused_overrides(base_model: keras.Model) -> None:
    """Warns of steps that a base model overrides and a wrapper does not run.

    Args:
      base_model: What is wrapped.
    """
    kind = type(base_model)
    unused = [
        name
        for name in ("train_step", "test_step", "predict_step", "compute_metrics")
        if getattr(kind, name) is not getattr(keras.Model, name)
    ]
    if unused:
        warnings.warn(
            f"The {' and '.join(unused)} of {kind.__name__} will not be used: the "
            "wrapper has its own. Override compute_loss to change the labeled loss.",
            stacklevel=_frames_of_nsl(),
        )


def _frames_of_nsl() -> int:
    """Returns the `stacklevel` of the line that called nsl, for a warning."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("nsl."):
        frame, level = frame.f_back, level + 1
    return level


def input_names(base_model: keras.Model) -> list[str]:
    """Lists the names under which a base model takes its inputs.

    Args:
      base_model: A Keras model.

    Returns:
      The keys of a dict input, or else the names of the inputs; an empty list for a
      model that does not know them, as a subclassed one.
    """
    structure = keras_internals.input_structure(base_model)
    if structure is None:
        return []
    if isinstance(structure, Mapping):
        return list(structure)
    return [tensor.name for tensor in keras.tree.flatten(structure)]


def to_base_inputs(base_model: keras.Model, features: Any) -> Any:
    """Arranges features the way a base model takes them.

    A dict is matched with the inputs of a functional model by name, or, where model
    and dict hold one feature only, without. All else is handed on as it is.

    Args:
      base_model: A Keras model.
      features: The features of a batch.

    Returns:
      The inputs of the model.

    Raises:
      KeyError: If the dict lacks an input; the message lists both sides.
    """
    if not isinstance(features, Mapping):
        return features
    values = list(features.values())
    structure = keras_internals.input_structure(base_model)
    if structure is None:
        # A sequential model takes one tensor; only a subclassed one may take a dict.
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


def checked_keywords(
    base_model: keras.Model, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Checks that a base model's `call` makes use of keywords.

    Args:
      base_model: A Keras model.
      keywords: What a wrapper is called with besides the inputs and `training`.

    Returns:
      The keywords. Masks by the names of features are arranged like the inputs.

    Raises:
      TypeError: If `call` does not take one of them; lists those it does.
    """
    known = keras_internals.keywords_of_call(base_model)
    unknown = [] if known is None else sorted(keywords.keys() - known)
    if known is not None and unknown:
        raise TypeError(
            f"The base model '{base_model.name}' ({type(base_model).__name__}) was "
            f"called with the keywords {unknown}, but its call takes only "
            f"{sorted(known)}. Leave them out, or add them to that call."
        )
    if "mask" not in keywords:
        return dict(keywords)
    return {**keywords, "mask": to_base_inputs(base_model, keywords["mask"])}


def computes_loss(base_model: keras.Model) -> bool:
    """Tells whether a base model overrides `compute_loss`."""
    return type(base_model).compute_loss is not keras.Model.compute_loss
