"""Fingerprints of Python values, to detect changes of a model or a setting."""

import enum
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from nsl.lib import keras_internals

_DEEPEST = 8
_LONGEST = 1000
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# Attributes that Keras itself changes during training.
_VOLATILE = ("stop_training", "built", "history", "name", "_function")


def fingerprint(value: Any, other: Callable[[Any], Any] = id) -> Any:
    """Returns nested tuples that are equal for values with equal behavior.

    Numbers, strings, arrays and structures of them are compared by value; functions by
    their code, closure and the globals they use; objects by class and attributes. Keras
    layers, and the layers nested in them, are compared by identity and public
    attributes, without their weights.

    Args:
      value: Any Python value.
      other: Replaces anything else, such as tensors. With the default, the result is
        only valid in this process, and only while the value exists.

    Returns:
      Nested tuples.
    """
    return _of(value, other, frozenset())


def _of(value: Any, other: Callable[[Any], Any], above: frozenset[int]) -> Any:
    if type(value) in _PLAIN or isinstance(value, _PLAIN):
        return value
    if isinstance(value, enum.Enum):
        return (type(value).__qualname__, value.name)
    if isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        data = repr(array.tolist()).encode() if array.dtype.hasobject else array.data
        return (array.dtype.str, array.shape, hashlib.sha256(data).hexdigest())
    if id(value) in above or len(above) == _DEEPEST:
        return "..."
    inner = functools.partial(_of, other=other, above=above | {id(value)})
    if isinstance(value, Mapping):
        return tuple((inner(k), inner(v)) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return (len(value), *map(inner, list(value)[:_LONGEST]))
    if isinstance(value, functools.partial):
        return (inner(value.func), inner(value.args), inner(value.keywords))
    if isinstance(value, types.MethodType):
        return (inner(value.__self__), inner(value.__func__))
    if isinstance(value, types.FunctionType):
        if _is_foreign(value):
            return f"{value.__module__}.{value.__qualname__}"
        return _of_function(value, inner)
    if isinstance(value, types.CodeType):
        consts = tuple(map(inner, value.co_consts))
        return (value.co_code, value.co_names, consts)
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return getattr(value, "__qualname__", value.__name__)
    if tf.is_tensor(value) or isinstance(value, tf.Variable):
        return other(value)
    layers = keras_internals.all_layers(value)
    if layers:
        return tuple((other(one), _public(one, inner)) for one in layers)
    slots = getattr(type(value), "__attrs_attrs__", ())
    if slots or (hasattr(value, "__dict__") and not _is_foreign(value)):
        fields = {slot.name: getattr(value, slot.name) for slot in slots}
        return (
            _of_class(type(value), inner),
            inner(fields | getattr(value, "__dict__", {})),
        )
    return other(value)


def _of_class(kind: type, inner: Callable[[Any], Any]) -> Any:
    """Returns the name of a class and, for classes outside nsl, its methods' code."""
    if kind.__module__.split(".")[0] == "nsl":
        return kind.__qualname__
    methods = [m for m in vars(kind).values() if isinstance(m, types.FunctionType)]
    return (kind.__qualname__, *(inner(method.__code__) for method in methods))


def _of_function(function: Any, inner: Callable[[Any], Any]) -> Any:
    closed = inspect.getclosurevars(function)
    return (
        inner(function.__code__),
        inner(function.__defaults__),
        inner(function.__kwdefaults__),
        inner(dict(closed.nonlocals)),
        inner(dict(closed.globals)),
    )


def _public(layer: Any, inner: Callable[[Any], Any]) -> Any:
    plain = (*_PLAIN, np.ndarray, types.FunctionType, list, tuple, dict)
    return inner(
        {
            name: value
            for name, value in vars(layer).items()
            if not name.startswith("_")
            and not name.endswith(_VOLATILE)
            and isinstance(value, plain)
        }
    )


def _is_foreign(value: Any) -> bool:
    """Returns whether a function or object belongs to TensorFlow, Keras or NumPy."""
    kind = value if isinstance(value, types.FunctionType) else type(value)
    return str(kind.__module__).split(".")[0] in ("tensorflow", "keras", "numpy")
