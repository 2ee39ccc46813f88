"""Examples that a report shows: before and after an attack."""

import base64
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


def encoded(structure: Any) -> Any:
    """Returns JSON values: an array as its dtype, shape and bytes in base64."""
    if isinstance(structure, dict):
        return {"dict": {key: encoded(part) for key, part in structure.items()}}
    if isinstance(structure, list):
        return [encoded(part) for part in structure]
    if structure is None:
        return None
    return {
        "dtype": structure.dtype.str,
        "shape": list(structure.shape),
        "base64": base64.b64encode(structure.tobytes()).decode(),
    }


def decoded(data: Any) -> Any:
    """Returns what `encoded` was given."""
    if isinstance(data, list):
        return [decoded(part) for part in data]
    if data is None:
        return None
    if "dict" in data:
        return {key: decoded(part) for key, part in data["dict"].items()}
    return np.ndarray(data["shape"], data["dtype"], base64.b64decode(data["base64"]))


@attrs.frozen
class GalleryExample:
    """An example as it was, and as the attack that brought it down left it.

    Attributes:
      index: The position of the example in `x`.
      label: What is right, a class number as text.
      predicted: What the model says of the clean example.
      attacked_as: What the model says of the attacked example, or None if it withstood
        everything.
      epsilon: The smallest radius at which it fell, as in the report's `epsilons`, or
        None if it never did.
      attack: The name of the attack that brought it down, or None.
      clean: The features without the batch axis: a NumPy array, or dicts and lists of
        them. Tuples become lists, and what is not a number becomes text.
      attacked: The same of the attacked example, or None if it withstood everything.
    """

    index: int
    label: str
    predicted: str
    attacked_as: str | None
    epsilon: Any | None
    attack: str | None
    clean: Any = attrs.field(converter=plain, eq=encoded)
    attacked: Any | None = attrs.field(converter=plain, eq=encoded)

    def to_data(self) -> dict[str, Any]:
        """Returns the example as values that JSON can hold."""
        data = attrs.asdict(self, recurse=False)
        return data | {name: encoded(data[name]) for name in ("clean", "attacked")}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "GalleryExample":
        """Returns the example that `to_data` described."""
        parts = {name: decoded(data[name]) for name in ("clean", "attacked")}
        return cls(**{**data, **parts})
