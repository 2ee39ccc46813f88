"""Configs as plain dicts that JSON can hold, and back."""

import enum
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs
import numpy as np

_ConfigT = TypeVar("_ConfigT")
_ARRAY = "__array__"
_TUPLE = "__tuple__"


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a config as a dict of values that JSON can hold.

    Enums become their value, nested configs dicts, arrays and tensors nested lists
    with their dtype, so that `from_dict` restores an equal config.

    Args:
      config: An instance of one of the classes in `nsl.configs`.

    Returns:
      A dict from field name to value.

    Raises:
      TypeError: If a field holds what cannot be written, as a function.
    """
    if not attrs.has(type(config)) or isinstance(config, type):
        raise TypeError(
            f"Expected an instance of a config class, but received {config!r}."
        )
    kind = type(config).__name__
    return {
        field.name: _encode(getattr(config, field.name), f"{kind}.{field.name}")
        for field in attrs.fields(type(config))
    }


def from_dict(cls: type[_ConfigT], data: Mapping[str, Any]) -> _ConfigT:
    """Makes a config from what `to_dict` returned.

    Args:
      cls: The class of the config.
      data: Field values by name. A field that is missing takes its default.

    Returns:
      An instance of `cls`.

    Raises:
      ValueError: If `data` holds a name that is no field of `cls`.
    """
    known = attrs.fields_dict(typing.cast(Any, cls))
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {unknown}: it has {sorted(known)}."
        )
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in data.items():
        kind = hints[name]
        if attrs.has(kind) and isinstance(value, Mapping):
            values[name] = from_dict(kind, value)
        else:
            values[name] = _decode(value)
    return cls(**values)


def _encode(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if attrs.has(type(value)):
        return to_dict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where} has keys that are not strings: {list(value)}.")
        return {key: _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return {_ARRAY: value.tolist(), "dtype": value.dtype.name}
    raise TypeError(
        f"{where} cannot be saved: numbers, strings, enums, arrays and structures of "
        f"them can, but it is {value!r} ({type(value).__name__})."
    )


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {_ARRAY, "dtype"}:
            return np.array(value[_ARRAY], dtype=value["dtype"])
        if set(value) == {_TUPLE}:
            return tuple(_decode(item) for item in value[_TUPLE])
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
