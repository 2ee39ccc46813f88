"""Examples that a report shows: before and after an attack."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np


def plain(structure: Any) -> Any:
    """Returns dicts and lists of arrays of numbers or text, without their extras."""
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
    """Returns an array as its dtype, shape and bytes in base64: for `json.dumps`."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": array.shape, "base64": data}


def from_json(data: dict[str, Any]) -> Any:
    """Returns the array that `to_json` was given, or any other dict: for `loads`."""
    if data.keys() != {"dtype", "shape", "base64"}:
        return data
    return np.ndarray(data["shape"], data["dtype"], base64.b64decode(data["base64"]))


def _text(structure: Any) -> str:
    return json.dumps(structure, default=to_json)


@attrs.frozen
class GalleryExample:
    """An example as it was, and as the attack that brought it down left it.

    Attributes:
      index: The position of the example in `x`.
      label: What is right, a class number as text.
      predicted: What the model says of the clean example.
      clean: The features without the batch axis: a NumPy array, or dicts and lists of
        them. Tuples become lists, and what is not a number becomes text.
      attacked_as: What the model says of the attacked example, or None if it withstood
        everything.
      epsilon: The smallest radius at which it fell, as in the report's `epsilons`, or
        None if it never did.
      attack: The name of the attack that brought it down, or None.
      attacked: The same of the attacked example, or None if it withstood everything.
    """

    index: int
    label: str
    predicted: str
    clean: Any = attrs.field(converter=plain, eq=_text)
    attacked_as: str | None = None
    epsilon: Any | None = None
    attack: str | None = None
    attacked: Any | None = attrs.field(default=None, converter=plain, eq=_text)
