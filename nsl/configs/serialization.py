"""Conversion of configs to and from dicts that JSON can represent."""

import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import numpy as np

_ConfigT = TypeVar("_ConfigT")
_ARRAY = "__array__"
_TUPLE = "__tuple__"
_OBJECT = "__object__"


def to_dict(config: Any, encode: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """Converts a config to a dict that JSON can represent.

    Enums become their values, nested configs become dicts, and arrays and tensors
    become nested lists with their dtype, so that `from_dict` restores an equal config.

    Args:
      config: An instance of a class in `nsl.configs`.
      encode: Converts a callable, such as a schedule, to a form that JSON can
        represent. If None, callables cannot be saved.

    Returns:
      A dict from field name to value.

    Raises:
      TypeError: If a field holds a value that cannot be saved.
    """
    if not attrs.has(type(config)) or isinstance(config, type):
        raise TypeError(
            f"Expected an instance of a config class, but received {config!r}."
        )
    kind = type(config).__name__
    return {
        field.name: _encode(getattr(config, field.name), f"{kind}.{field.name}", encode)
        for field in attrs.fields(type(config))
    }


def from_dict(
    cls: type[_ConfigT],
    data: Mapping[str, Any],
    decode: Callable[[Any], Any] | None = None,
) -> _ConfigT:
    """Restores a config from the result of `to_dict`.

    Args:
      cls: The class of the config.
      data: Field values by name. Missing fields take their defaults.
      decode: Inverts `encode`.

    Returns:
      An instance of `cls`.

    Raises:
      ValueError: If `data` has a name that is not a field of `cls`.
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
            values[name] = from_dict(kind, value, decode)
        else:
            values[name] = _decode(value, decode)
    return cls(**values)


def _encode(value: Any, where: str, encode: Callable[[Any], Any] | None) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if attrs.has(type(value)):
        return to_dict(value, encode)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{where} has keys that are not strings: {list(value)}.")
        return {
            key: _encode(item, f"{where}[{key!r}]", encode)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{where}[{i}]", encode) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {_TUPLE: items}
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        return {_ARRAY: value.tolist(), "dtype": value.dtype.name}
    if encode is not None and callable(value):
        return {_OBJECT: encode(value)}
    raise TypeError(
        f"{where} cannot be saved: numbers, strings, enums, arrays and structures of "
        f"them can, but it is {value!r} ({type(value).__name__})."
    )


def _decode(value: Any, decode: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {_ARRAY, "dtype"}:
            return np.array(value[_ARRAY], dtype=value["dtype"])
        if set(value) == {_OBJECT} and decode is not None:
            return decode(value[_OBJECT])
        if set(value) == {_TUPLE}:
            return tuple(_decode(item, decode) for item in value[_TUPLE])
        return {key: _decode(item, decode) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item, decode) for item in value]
    return value
