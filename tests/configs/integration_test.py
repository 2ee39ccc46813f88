"""Tests of the settings of fusion."""

import pytest
import tensorflow as tf

from nsl import configs


def test_defaults():
    config = configs.IntegrationConfig("additive", 4)
    assert config.integration_type is configs.IntegrationType.ADD
    assert config.hidden_dims == 4
    assert config.activation_fn is tf.nn.tanh
    assert configs.IntegrationConfig("additive", 4, tf.nn.relu) != config


def test_sizes():
    assert configs.IntegrationConfig("additive", [4, 2]).hidden_dims == [4, 2]
    with pytest.raises(ValueError, match="hidden_dims must be at least 1, received 0"):
        configs.IntegrationConfig("additive", [4, 0])
    with pytest.raises(TypeError, match="hidden_dims must be an integer"):
        configs.IntegrationConfig("additive", 1.5)


def test_type():
    with pytest.raises(ValueError, match="'sum' is not a valid IntegrationType"):
        configs.IntegrationConfig("sum", 4)
