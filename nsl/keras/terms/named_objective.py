"""Objectives that a config chooses by name."""

from __future__ import annotations

import abc
import enum
from typing import Any, ClassVar, Self


class NamedObjective(abc.ABC):
    """What a term can minimize: a family of classes, each with a name.

    A direct subclass is a family, and says what names it in the config; the classes
    below it are its objectives, of which one instance each is kept.

    ```python
    class Family(NamedObjective, setting="Config.objective", title="families"): ...
    class First(Family, objective="first"): ...
    Family.of("first")
    ```
    """

    _setting: ClassVar[str]
    _title: ClassVar[str]
    _known: ClassVar[dict[str, Any]]

    def __init_subclass__(
        cls,
        *,
        objective: enum.Enum | str = "",
        setting: str = "",
        title: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        if NamedObjective in cls.__bases__:
            cls._setting, cls._title, cls._known = setting, title, {}
        elif objective:
            cls._known[_name(objective)] = cls()
        else:
            raise TypeError(
                f"{cls.__name__} has no name for {cls._setting}. Give it one: "
                f"class {cls.__name__}({cls.__bases__[0].__name__}, objective=...)."
            )

    @classmethod
    def of(cls, objective: enum.Enum | str) -> Self:
        """Returns an objective of this family.

        Args:
          objective: Its name, or an enumeration member whose value that is.

        Returns:
          The objective.

        Raises:
          ValueError: If there is none of that name; lists those there are.
        """
        name = _name(objective)
        if name not in cls._known:
            raise ValueError(
                f"{cls._setting} is {objective!r}, but the {cls._title} are "
                f"{sorted(cls._known)}. Further ones are subclasses of "
                f"nsl.keras.{cls.__name__}, defined before the wrapper is made."
            )
        return cls._known[name]


def _name(objective: enum.Enum | str) -> str:
    return str(getattr(objective, "value", objective))
