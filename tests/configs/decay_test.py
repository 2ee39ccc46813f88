"""Tests of the settings of decay."""

import pytest

from nsl import configs


def test_defaults():
    assert configs.DecayConfig(10) == configs.DecayConfig(
        10, 0.96, 0.0, configs.DecayType.EXPONENTIAL_DECAY
    )
    with pytest.raises(TypeError, match="decay_steps"):
        configs.DecayConfig()


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_must_be_positive(steps):
    with pytest.raises(ValueError, match=f"greater than 0, received {steps}"):
        configs.DecayConfig(steps)


def test_type_by_value():
    config = configs.DecayConfig(1, decay_type="natural_exp_decay")
    assert config.decay_type is configs.DecayType.NATURAL_EXP_DECAY
