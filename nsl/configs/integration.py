"""Settings of the fusion of modalities."""

from collections.abc import Sequence
from typing import Any

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice


class IntegrationType(Choice):
    """How modalities are fused."""

    ADD = "additive"
    MUL = "multiplicative"
    TUCKER_DECOMP = "tucker_decomp"


def _tanh() -> Any:
    import tensorflow as tf  # Late, to keep importing the configs fast.

    return tf.nn.tanh


def _validate_dims(
    instance: Any, attribute: "attrs.Attribute[Any]", value: Any
) -> None:
    check = fields.integer(1)
    for size in value if isinstance(value, list | tuple) else [value]:
        check(instance, attribute, size)


@attrs.define
class IntegrationConfig:
    """How to fuse several modalities into one representation.

    Attributes:
      integration_type: The method, an `IntegrationType` or its value.
      hidden_dims: The size, or sizes, of the fully connected layers before the output.
      activation_fn: The activation of those layers; `tf.nn.tanh` by default.
    """

    integration_type: IntegrationType = attrs.field(converter=IntegrationType)
    hidden_dims: int | Sequence[int] = attrs.field(validator=_validate_dims)
    activation_fn: Any = attrs.field(factory=_tanh)
