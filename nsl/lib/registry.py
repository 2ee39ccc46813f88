"""What settings can name: norms, objectives, graph losses, attacks."""

from __future__ import annotations

import enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Values by name, each name given once.

    Args:
      setting: What takes the names, such as 'AdvRegConfig.objective'.
      title: What they name, in the plural.
      further: How to add one, a sentence.
    """

    def __init__(self, setting: str, title: str, further: str = "") -> None:
        self._setting, self._title, self._further = setting, title, further
        self._values: dict[str, T] = {}

    def add(self, name: enum.Enum | str, value: T) -> None:
        """Gives a value a name.

        Args:
          name: The name, or an enumeration member whose value that is.
          value: The value. A class, or an instance of one, may take the place of
            another that was defined by the same lines, as in a notebook.

        Raises:
          ValueError: If something else has the name.
        """
        key = _text(name)
        taken = self._values.get(key)
        if taken is not None and _origin(taken) != _origin(value):
            raise ValueError(
                f"{self._setting} {key!r} is {_origin(taken)} already, and cannot be "
                f"{_origin(value)} too. Choose another name."
            )
        self._values[key] = value

    def __getitem__(self, name: enum.Enum | str) -> T:
        """Returns the value of a name.

        Args:
          name: The name, or an enumeration member whose value that is.

        Returns:
          The value.

        Raises:
          ValueError: If there is none; lists the names there are.
        """
        if _text(name) not in self._values:
            further = f" {self._further}" if self._further else ""
            raise ValueError(
                f"{self._setting} is {name!r}, but the {self._title} are "
                f"{sorted(self._values)}.{further}"
            )
        return self._values[_text(name)]

    def __contains__(self, name: Any) -> bool:
        """Tells whether a name is given."""
        return _text(name) in self._values


def _text(name: Any) -> str:
    return str(getattr(name, "value", name))


def _origin(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
