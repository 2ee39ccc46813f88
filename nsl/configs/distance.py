"""Settings of the distance between two tensors."""

from typing import Any

import attrs

from nsl.configs import fields
from nsl.configs.choice import Choice

# The values of tf.compat.v1.losses.Reduction, written out so that configs can be
# imported without TensorFlow.
_REDUCTIONS = (
    "none",
    "weighted_sum",
    "weighted_mean",
    "weighted_sum_over_batch_size",
    "weighted_sum_by_nonzero_weights",
)


class TransformType(Choice):
    """The transform of both tensors before their distance is computed."""

    SOFTMAX = "softmax"
    NONE = "none"


class DistanceType(Choice):
    """The distance between two tensors."""

    L1 = "l1"
    L2 = "l2"
    COSINE = "cosine"
    JENSEN_SHANNON_DIVERGENCE = "jensen_shannon_divergence"
    KL_DIVERGENCE = "kl_divergence"


def _validate_reduction(
    instance: Any, attribute: "attrs.Attribute[Any]", value: Any
) -> None:
    if value not in _REDUCTIONS:
        allowed = ", ".join(repr(name) for name in _REDUCTIONS)
        raise ValueError(
            f"{value!r} is not a valid DistanceConfig.{attribute.name}: use one of "
            f"{allowed} (the values of tf.compat.v1.losses.Reduction)."
        )


@attrs.define
class DistanceConfig:
    """How to compute the distance between pairs of tensors.

    Attributes:
      distance_type: The distance, a `DistanceType` or its value. L2 is the squared
        difference.
      reduction: How distances are reduced to a scalar, a value of
        `tf.compat.v1.losses.Reduction`.
      sum_over_axis: The axis along which differences are summed, so that each vector
        along it gives one distance. Required for cosine and the divergences. With None,
        each element gives one.
      transform_fn: The transform of both tensors, a `TransformType` or its value.
    """

    distance_type: DistanceType = attrs.field(
        default=DistanceType.L2, converter=DistanceType
    )
    reduction: str = attrs.field(
        default="weighted_sum_by_nonzero_weights", validator=_validate_reduction
    )
    sum_over_axis: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(fields.integer())
    )
    transform_fn: TransformType = attrs.field(
        default=TransformType.NONE, converter=TransformType
    )


DEFAULT_DISTANCE_PARAMS: dict[str, Any] = attrs.asdict(DistanceConfig())
