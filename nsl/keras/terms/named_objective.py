"""Objectives that a config selects by name."""

from __future__ import annotations

import abc
import enum
from typing import Any, ClassVar, Self

from nsl.lib.registry import Registry


class NamedObjective(abc.ABC):
    """A registry of objectives, by subclassing.

    A direct subclass is a family of objectives and has a registry. Its own subclasses
    are the objectives: defining one registers an instance under its name.

    ```python
    class Family(NamedObjective, setting="Config.objective", title="families"): ...
    class First(Family, objective="first"): ...
    Family.of("first")
    ```

    Args of a family:
      setting: The config field that selects an objective, for errors.
      title: What the objectives of the family are called, for errors.

    Args of an objective:
      objective: Its name, or an enum member with the name as its value.
    """

    _known: ClassVar[Registry[Any]]

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
            further = (
                f"To add one, subclass nsl.keras.{cls.__name__} before the wrapper is "
                "created."
            )
            cls._known = Registry(setting, title, further)
        elif objective:
            cls._known.add(objective, cls())
        else:
            raise TypeError(
                f"{cls.__name__} has no name that a config can select. Define it as "
                f"class {cls.__name__}({cls.__bases__[0].__name__}, objective=...)."
            )

    @classmethod
    def of(cls, objective: enum.Enum | str) -> Self:
        """Returns an objective of this family.

        Args:
          objective: Its name, or an enum member with the name as its value.

        Returns:
          The objective.

        Raises:
          ValueError: If the name is not registered; lists the registered names.
        """
        return cls._known[objective]
