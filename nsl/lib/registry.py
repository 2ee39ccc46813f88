"""Registries of what settings can name: norms, objectives, graph losses, attacks."""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name; each name is unique.

    Args:
      setting: The setting that takes the names, such as 'AdvRegConfig.objective'.
      title: What the names stand for, in the plural.
      further: A sentence that says how to add one.
    """

    def __init__(self, setting: str, title: str, further: str = "") -> None:
        self._setting, self._title, self._further = setting, title, further
        self._values: dict[str, T] = {}

    def add(self, name: enum.Enum | str, value: T) -> None:
        """Registers a value under a name.

        Args:
          name: The name, or an enumeration member with this value.
          value: The value. A class, or an instance of one, may replace an earlier one
            of the same module and qualified name, as when a notebook cell runs again.

        Raises:
          ValueError: If the name is taken by another value.
        """
        key = _text(name)
        taken = self._values.get(key)
        if taken is not None and _origin(taken) != _origin(value):
            raise ValueError(
                f"{self._setting} {key!r} is already {_origin(taken)}, so it cannot "
                f"also be {_origin(value)}. Choose another name."
            )
        self._values[key] = value

    def __getitem__(self, name: enum.Enum | str) -> T:
        """Returns the value registered under a name.

        Args:
          name: The name, or an enumeration member with this value.

        Returns:
          The value.

        Raises:
          ValueError: If the name is unknown; the message lists the known names.
        """
        if _text(name) not in self._values:
            further = f" {self._further}" if self._further else ""
            raise ValueError(
                f"{self._setting} is {name!r}, but the {self._title} are "
                f"{sorted(self._values)}.{further}"
            )
        return self._values[_text(name)]

    def __contains__(self, name: Any) -> bool:
        """Returns whether a name is registered."""
        return _text(name) in self._values


def _text(name: Any) -> str:
    return str(getattr(name, "value", name))


def _origin(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
