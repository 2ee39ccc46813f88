"""What an evaluation warns of."""

import attrs


class RobustnessWarning(UserWarning):
    """A sign that measured robustness is not what it seems."""


@attrs.frozen
class Finding:
    """One warning of a robustness report.

    Attributes:
      name: The name of the check, as 'zero_gradients'.
      message: What was found, against which threshold, and what to do about it.
    """

    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"
