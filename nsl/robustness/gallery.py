"""Examples for the report: clean and adversarial."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np


def plain(structure: Any) -> Any:
    """Converts a structure to dicts and lists of arrays of numbers or text."""
    if isinstance(structure, Mapping):
        return {str(key): plain(part) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        return [plain(part) for part in structure]
    if structure is None:
        return None
    array = np.asarray(structure)
    if array.dtype.kind in "biufU":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    texts = [
        v.decode(errors="replace") if isinstance(v, bytes) else str(v)
        for v in array.ravel().tolist()
    ]
    return np.array(texts, np.str_).reshape(array.shape)


def to_json(array: np.ndarray) -> dict[str, Any]:
    """Encodes an array as dtype, shape and base64 bytes, for `json.dumps`."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": data}


def from_json(data: dict[str, Any]) -> Any:
    """Decodes the result of `to_json`, keeping other dicts, for `json.loads`."""
    if data.keys() != {"dtype", "shape", "base64"}:
        return data
    return np.ndarray(data["shape"], data["dtype"], base64.b64decode(data["base64"]))


def _text(structure: Any) -> str:
    return json.dumps(structure, default=to_json)


@attrs.frozen
class GalleryExample:
    """An example before and after an attack.

    Attributes:
      index: The position of the example in `x`.
      label: The label, a class number as text.
      predicted: The prediction for the clean example.
      clean: The features without the batch axis: a NumPy array, or dicts and lists of
        them. Tuples are converted to lists, and anything but numbers to text.
      attacked_as: The prediction for the adversarial example; None if the example is
        robust.
      epsilon: The smallest radius with an adversarial example, as in the report's
        `epsilons`; None if the example is robust.
      attack: The name of the attack that found it; None if the example is robust.
      attacked: The features of the adversarial example; None if the example is robust.
    """

    index: int
    label: str
    predicted: str
    clean: Any = attrs.field(converter=plain, eq=_text)
    attacked_as: str | None = None
    epsilon: Any | None = None
    attack: str | None = None
    attacked: Any | None = attrs.field(default=None, converter=plain, eq=_text)
