"""Objectives that a config chooses by name."""

from __future__ import annotations

import abc
import enum
from typing import Any, ClassVar, Self

from nsl.lib.registry import Registry


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
                f"Further ones are subclasses of nsl.keras.{cls.__name__}, defined "
                "before the wrapper is made."
            )
            cls._known = Registry(setting, title, further)
        elif objective:
            cls._known.add(objective, cls())
        else:
            raise TypeError(
                f"{cls.__name__} has no name for its config. Give it one: "
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
        return cls._known[objective]
