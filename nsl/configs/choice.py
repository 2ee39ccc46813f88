"""Enumerations whose members can also be given by value."""

import enum
from typing import NoReturn, Self


class Choice(enum.Enum):
    """An enumeration whose errors list the allowed values."""

    @classmethod
    def all(cls) -> list[Self]:
        """Returns every member, in order."""
        return list(cls)

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        allowed = ", ".join(repr(member.value) for member in cls)
        raise ValueError(
            f"{value!r} is not a valid {cls.__name__}: use a member of "
            f"{cls.__name__} or one of its values, {allowed}."
        )
