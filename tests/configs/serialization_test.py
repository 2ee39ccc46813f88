"""Tests of configs as dicts."""

import json

import numpy as np
import pytest
import tensorflow as tf

from nsl import configs
from nsl.configs import serialization

CONFIGS = {
    "adversarial": configs.make_adv_reg_config(
        0.3,
        feature_mask={"x": np.array([[1.0, 0.5]], np.float32), "y": None},
        adv_step_size={"x": 0.1, "y": [0.1, 0.2]},
        adv_grad_norm="infinity",
        clip_value_min=(0, np.array([1, 2])),
        clip_value_max=[3.0, None],
        pgd_iterations=3,
        pgd_epsilon=0.1,
        random_init=True,
    ),
    "neighbor": configs.AdvNeighborConfig(pgd_epsilon=np.array(0.25)),
    "graph": configs.make_graph_reg_config(
        max_neighbors=2, distance_type="kl_divergence", sum_over_axis=-1
    ),
    "virtual": configs.VirtualAdvConfig(num_approx_steps=4),
    "builder": configs.GraphBuilderConfig(random_seed=7),
    "decay": configs.DecayConfig(10, decay_type="inverse_time_decay"),
    "target": configs.AdvTargetConfig("random", 3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_through_json(name):
    config = CONFIGS[name]
    text = json.dumps(serialization.to_dict(config))
    restored = serialization.from_dict(type(config), json.loads(text))
    assert restored == config
    assert serialization.to_dict(restored) == serialization.to_dict(config)


def test_enums_are_written_by_value():
    assert serialization.to_dict(configs.DistanceConfig()) == {
        "distance_type": "l2",
        "reduction": "weighted_sum_by_nonzero_weights",
        "sum_over_axis": None,
        "transform_fn": "none",
    }


def test_arrays_keep_dtype_and_shape():
    mask = np.array([[True], [False]])
    data = serialization.to_dict(configs.AdvNeighborConfig(feature_mask=mask))
    restored = serialization.from_dict(configs.AdvNeighborConfig, data)
    assert restored.feature_mask.dtype == bool
    np.testing.assert_array_equal(restored.feature_mask, mask)


def test_tensors_and_numpy_scalars():
    config = configs.AdvNeighborConfig(
        feature_mask=tf.constant([0.5, 1.0]), adv_step_size=np.float32(0.5)
    )
    data = json.loads(json.dumps(serialization.to_dict(config)))
    restored = serialization.from_dict(configs.AdvNeighborConfig, data)
    np.testing.assert_array_equal(restored.feature_mask, [0.5, 1.0])
    assert restored.feature_mask.dtype == np.float32
    assert restored.adv_step_size == 0.5


def test_missing_fields_take_their_default():
    restored = serialization.from_dict(configs.GraphRegConfig, {"multiplier": 2.0})
    assert restored == configs.GraphRegConfig(multiplier=2.0)


def test_unknown_fields():
    with pytest.raises(ValueError, match=r"has no field \['alpha'\].*'multiplier'"):
        serialization.from_dict(configs.AdvRegConfig, {"alpha": 1})


def test_functions_are_refused():
    config = configs.IntegrationConfig("additive", 2)
    with pytest.raises(
        TypeError, match=r"IntegrationConfig\.activation_fn cannot be saved"
    ):
        serialization.to_dict(config)


@pytest.mark.parametrize("value", [{}, configs.AdvRegConfig, None])
def test_only_configs_are_taken(value):
    with pytest.raises(TypeError, match="Expected an instance of a config class"):
        serialization.to_dict(value)


def test_feature_names_must_be_strings():
    config = configs.AdvNeighborConfig(feature_mask={1: 0.5})
    with pytest.raises(TypeError, match=r"feature_mask has keys that are not strings"):
        serialization.to_dict(config)


def test_callables_with_a_form_of_ones_own():
    config = configs.make_adv_reg_config(multiplier=abs, pgd_epsilon=round)
    known = {"abs": abs, "round": round}
    written = serialization.to_dict(config, lambda function: function.__name__)
    json.dumps(written)
    restored = serialization.from_dict(configs.AdvRegConfig, written, known.get)
    assert restored == config
    with pytest.raises(TypeError, match=r"AdvRegConfig\.multiplier cannot be saved"):
        serialization.to_dict(config)
