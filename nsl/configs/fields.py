"""Validators of config fields."""

import enum
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import attrs

# Maps the number of optimizer updates to a value, like `keras.optimizers.schedules`.
Schedule = Callable[[Any], Any]

_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _where(instance: Any, attribute: "attrs.Attribute[Any]") -> str:
    return f"{type(instance).__name__}.{attribute.name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_bounds(
    value: Any,
    where: str,
    minimum: float | None,
    maximum: float | None,
    exclusive: bool,
    infinite: bool = False,
) -> None:
    if math.isnan(value) or not (infinite or math.isfinite(value)):
        raise ValueError(f"{where} must be a finite number, but received {value!r}.")
    if minimum is not None and (value < minimum or (exclusive and value == minimum)):
        relation = "greater than" if exclusive else "at least"
        raise ValueError(f"{where} must be {relation} {minimum}, received {value!r}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{where} must be at most {maximum}, received {value!r}.")


def number(
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    exclusive: bool = False,
    schedule: bool = False,
) -> _Validator:
    """Returns a validator of a finite number.

    Tensors and variables are not checked, because their value may not be known yet.

    Args:
      minimum: The smallest allowed value, if any.
      maximum: The largest allowed value, if any.
      exclusive: Whether `minimum` itself is not allowed.
      schedule: Whether a callable from step to number is allowed too.

    Returns:
      An attrs validator that raises TypeError for anything but a number, and ValueError
      for a number out of range.
    """

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        where = _where(instance, attribute)
        if _is_number(value):
            _check_bounds(value, where, minimum, maximum, exclusive)
        elif not hasattr(value, "dtype") and not (schedule and callable(value)):
            what = "a number or a schedule of the step" if schedule else "a number"
            raise TypeError(
                f"{where} must be {what}, but received {value!r} "
                f"({type(value).__name__})."
            )

    return validate


def integer(minimum: int | None = None) -> _Validator:
    """Returns a validator of an integer of at least `minimum`.

    Args:
      minimum: The smallest allowed value, if any.

    Returns:
      An attrs validator that raises TypeError for anything but an integer, and
      ValueError for one that is too small.
    """

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        where = _where(instance, attribute)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(
                f"{where} must be an integer, but received {value!r} "
                f"({type(value).__name__})."
            )
        _check_bounds(value, where, minimum, None, False)

    return validate


def per_feature(
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    infinite: bool = False,
) -> _Validator:
    """Returns a validator of a value given once or per feature.

    Numbers are checked at any depth. Arrays and tensors are not: their shapes depend on
    the features.

    Args:
      minimum: The smallest allowed number, if any.
      maximum: The largest allowed number, if any.
      infinite: Whether infinity is allowed.

    Returns:
      An attrs validator that raises TypeError for strings and ValueError for a number
      out of range.
    """

    def validate_at(value: Any, where: str) -> None:
        if _is_number(value):
            _check_bounds(value, where, minimum, maximum, False, infinite)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                validate_at(item, f"{where}[{key!r}]")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                validate_at(item, f"{where}[{index}]")
        elif isinstance(value, str | bytes):
            raise TypeError(
                f"{where} must be a number, an array, or a structure of them keyed "
                f"by feature, but received {value!r}."
            )

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        validate_at(value, _where(instance, attribute))

    return validate


def string(*, empty: bool = True) -> _Validator:
    """Returns a validator of a string.

    Args:
      empty: Whether the empty string is allowed.

    Returns:
      An attrs validator that raises TypeError for anything but a string, and ValueError
      for an empty string if that is not allowed.
    """

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        where = _where(instance, attribute)
        if not isinstance(value, str):
            raise TypeError(f"{where} must be a string, but received {value!r}.")
        if not value and not empty:
            raise ValueError(f"{where} must not be empty.")

    return validate


def names(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    """Validates None, a name, or a tuple of distinct names.

    Raises:
      TypeError: If the value is something else.
      ValueError: If the tuple is empty, or a name is empty or repeated.
    """
    if value is None:
        return
    several = value if isinstance(value, tuple) else (value,)
    for name in several:
        string(empty=False)(instance, attribute, name)
    if not several or len(set(several)) < len(several):
        raise ValueError(
            f"{_where(instance, attribute)} must be a name or several distinct ones, "
            f"but received {value!r}."
        )


def to_choice(kind: type[enum.Enum], value: Any) -> Any:
    """Converts a field that also takes names registered elsewhere.

    Args:
      kind: The built-in choices.
      value: The value of the field.

    Returns:
      The member with that value; anything else unchanged.
    """
    return kind(value) if value in [member.value for member in kind] else value


def choice_or_name(kind: type[enum.Enum]) -> _Validator:
    """Returns a validator of a choice that also takes names registered elsewhere.

    Args:
      kind: The built-in choices.

    Returns:
      An attrs validator that raises TypeError for anything but a member or a string,
      and ValueError for the empty string.
    """

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind):
            string(empty=False)(instance, attribute, value)

    return validate


def instance_of(kind: type) -> _Validator:
    """Returns a validator of an instance of a class.

    Args:
      kind: The class.

    Returns:
      An attrs validator that raises TypeError for anything else.
    """

    def validate(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(
                f"{_where(instance, attribute)} must be an instance of "
                f"{kind.__name__}, but received {value!r} ({type(value).__name__})."
            )

    return validate


def comparable(value: Any) -> Any:
    """Returns a form of a field's value that `==` compares to a single bool.

    Arrays and tensors compare elementwise, so configs that contain them could not be
    compared otherwise.

    Args:
      value: A number, an array, or a structure of them.

    Returns:
      The value, with arrays as tuples of dtype, shape and values.
    """
    if isinstance(value, Mapping):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [comparable(item) for item in value]
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return str(value.dtype), tuple(value.shape), value.tolist()
    return value
