"""Tests of the settings of distances."""

import attrs
import pytest

from nsl import configs


def test_defaults():
    config = configs.DistanceConfig()
    assert config == configs.DistanceConfig(
        "l2", "weighted_sum_by_nonzero_weights", None, "none"
    )
    assert attrs.asdict(config) == configs.DEFAULT_DISTANCE_PARAMS
    assert config.distance_type is configs.DistanceType.L2
    assert config.transform_fn is configs.TransformType.NONE
    assert configs.DistanceConfig(**configs.DEFAULT_DISTANCE_PARAMS) == config


def test_reductions_are_those_of_tensorflow():
    import tensorflow as tf

    for reduction in tf.compat.v1.losses.Reduction.all():
        assert configs.DistanceConfig(reduction=reduction).reduction == reduction
    for wrong in ("mean", None, "sum"):
        with pytest.raises(ValueError, match=r"not a valid DistanceConfig\.reduction"):
            configs.DistanceConfig(reduction=wrong)


@pytest.mark.parametrize("axis", [1.0, "last", True])
def test_axis_must_be_an_integer(axis):
    with pytest.raises(TypeError, match="sum_over_axis must be an integer"):
        configs.DistanceConfig(sum_over_axis=axis)


def test_transform_must_be_known():
    with pytest.raises(ValueError, match="'SOFTMAX' is not a valid TransformType"):
        configs.DistanceConfig(transform_fn="SOFTMAX")
