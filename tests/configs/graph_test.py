"""Tests of the settings of graph regularization."""

import pytest

from nsl import configs
from nsl.configs import serialization


def test_defaults():
    assert configs.GraphNeighborConfig() == configs.GraphNeighborConfig(
        "NL_nbr_", "_weight", 0
    )
    assert configs.GraphRegConfig() == configs.GraphRegConfig(
        configs.GraphNeighborConfig(), 0.01, configs.DistanceConfig()
    )
    assert configs.make_graph_reg_config() == configs.GraphRegConfig()


def test_flat_config():
    config = configs.make_graph_reg_config(
        "n_", "_w", 3, 0.5, "cosine", "weighted_mean", -1, "softmax", "logits"
    )
    assert config == configs.GraphRegConfig(
        configs.GraphNeighborConfig("n_", "_w", 3),
        0.5,
        configs.DistanceConfig("cosine", "weighted_mean", -1, "softmax"),
        "logits",
    )


def test_nested_defaults_are_not_shared():
    one, other = configs.GraphRegConfig(), configs.GraphRegConfig()
    one.neighbor_config.max_neighbors = 5
    one.distance_config.sum_over_axis = -1
    assert other == configs.GraphRegConfig()


def test_wrong_values():
    with pytest.raises(ValueError, match=r"max_neighbors must be at least 0.*-1"):
        configs.GraphNeighborConfig(max_neighbors=-1)
    with pytest.raises(TypeError, match=r"max_neighbors must be an integer.*'1'"):
        configs.GraphNeighborConfig(max_neighbors="1")
    with pytest.raises(ValueError, match="prefix must not be empty"):
        configs.GraphNeighborConfig(prefix="")
    with pytest.raises(TypeError, match=r"weight_suffix must be a string.*None"):
        configs.GraphNeighborConfig(weight_suffix=None)
    with pytest.raises(ValueError, match=r"multiplier must be at least 0.*-1"):
        configs.GraphRegConfig(multiplier=-1)
    with pytest.raises(TypeError, match="must be an instance of GraphNeighborConfig"):
        configs.GraphRegConfig(configs.GraphRegConfig())


def test_objectives():
    for member in configs.GraphObjective:
        config = configs.make_graph_reg_config(objective=member.value)
        assert config.objective is member
        saved = serialization.to_dict(config)
        assert serialization.from_dict(configs.GraphRegConfig, saved) == config
    # The name of a loss that the wrapper may know.
    assert configs.GraphRegConfig(objective="mine").objective == "mine"
    with pytest.raises(TypeError, match=r"objective must be a string.*3"):
        configs.GraphRegConfig(objective=3)
    with pytest.raises(ValueError, match=r"temperature must be greater than 0.*0"):
        configs.GraphRegConfig(temperature=0)
    with pytest.raises(ValueError, match=r"sharpening_temperature must be greater"):
        configs.GraphRegConfig(sharpening_temperature=0)
    with pytest.raises(
        ValueError, match=r"distribution_alignment must be at most 1.*2"
    ):
        configs.GraphRegConfig(distribution_alignment=2)


def test_an_output_or_a_layer():
    config = configs.make_graph_reg_config(embedding_layer="hidden")
    assert config == configs.GraphRegConfig(embedding_layer="hidden")
    with pytest.raises(ValueError, match="output_name='a' and embedding_layer='b'"):
        configs.make_graph_reg_config(output_name="a", embedding_layer="b")
