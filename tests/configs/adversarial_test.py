"""Tests of the settings of adversarial learning."""

import attrs
import numpy as np
import pytest

from nsl import configs


def test_defaults():
    config = configs.AdvNeighborConfig()
    assert attrs.asdict(config) == {
        "feature_mask": None,
        "adv_step_size": 0.001,
        "adv_grad_norm": configs.NormType.L2,
        "clip_value_min": None,
        "clip_value_max": None,
        "pgd_iterations": 1,
        "pgd_epsilon": None,
        "random_init": False,
        "embedding_layer": None,
        "perturb_features": False,
        "norm_per_position": False,
        "standardize_layers": False,
        "clip_to_layer_range": False,
        "random_init_radius": None,
    }
    assert attrs.asdict(config) == configs.DEFAULT_ADVERSARIAL_PARAMS
    assert configs.AdvRegConfig() == configs.AdvRegConfig(0.2, config)
    assert configs.AdvTargetConfig() == configs.AdvTargetConfig("ground_truth", 0.0)
    assert configs.VirtualAdvConfig() == configs.VirtualAdvConfig(
        config, configs.DistanceConfig(), 1, 1e-6
    )


def test_nested_defaults_are_not_shared():
    one, other = configs.AdvRegConfig(), configs.AdvRegConfig()
    one.adv_neighbor_config.adv_step_size = 5.0
    assert other.adv_neighbor_config.adv_step_size == 0.001
    one, other = configs.VirtualAdvConfig(), configs.VirtualAdvConfig()
    assert one.adv_neighbor_config is not other.adv_neighbor_config
    assert one.distance_config is not other.distance_config  # type: ignore[attr-defined]


def test_flat_config():
    assert configs.make_adv_reg_config() == configs.AdvRegConfig()
    values = {
        "feature_mask": {"x": 0.5},
        "adv_step_size": 0.1,
        "adv_grad_norm": "infinity",
        "clip_value_min": 0.0,
        "clip_value_max": 1.0,
        "pgd_iterations": 3,
        "pgd_epsilon": 0.3,
        "random_init": True,
    }
    config = configs.make_adv_reg_config(0.5, **values)
    assert config == configs.AdvRegConfig(0.5, configs.AdvNeighborConfig(**values))
    assert config == configs.make_adv_reg_config(0.5, *values.values())


@pytest.mark.parametrize("norm", configs.NormType.all())
def test_enum_fields_accept_values(norm):
    config = configs.AdvNeighborConfig(adv_grad_norm=norm.value)
    assert config.adv_grad_norm is norm
    config.adv_grad_norm = "l1"
    assert config.adv_grad_norm is configs.NormType.L1
    assert configs.AdvTargetConfig("least").target_method is (
        configs.AdvTargetType.LEAST
    )


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("adv_step_size", -0.1, "adv_step_size must be at least 0, received -0.1"),
        ("adv_step_size", float("nan"), "must be a finite number, but received nan"),
        ("adv_step_size", {"x": [1, -1]}, r"size\['x'\]\[1\] must be at least 0"),
        ("pgd_epsilon", -1, "pgd_epsilon must be at least 0"),
        ("pgd_epsilon", np.float32(-1), "pgd_epsilon must be at least 0"),
        ("pgd_iterations", -1, "pgd_iterations must be at least 0, received -1"),
        ("feature_mask", 2, "feature_mask must be at most 1, received 2"),
        ("adv_step_size", float("inf"), "must be a finite number, but received inf"),
        ("clip_value_max", float("nan"), "clip_value_max must be a finite number"),
        ("pgd_epsilon", float("-inf"), "pgd_epsilon must be at least 0"),
        ("adv_grad_norm", "l3", "'l3' is not a valid NormType.*'l1', 'l2', 'infinity'"),
    ],
)
def test_value_errors(field, value, match):
    with pytest.raises(ValueError, match=match):
        configs.AdvNeighborConfig(**{field: value})
    with pytest.raises(ValueError, match=match):
        setattr(configs.AdvNeighborConfig(), field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pgd_iterations", 2.0),
        ("pgd_iterations", True),
        ("adv_step_size", "0.1"),
        ("feature_mask", {"x": "all"}),
    ],
)
def test_type_errors(field, value):
    with pytest.raises(TypeError, match=rf"AdvNeighborConfig\.{field}"):
        configs.AdvNeighborConfig(**{field: value})


def test_bounds_in_wrong_order():
    with pytest.raises(ValueError, match=r"clip_value_min must not exceed.*1.*0"):
        configs.AdvNeighborConfig(clip_value_min=1, clip_value_max=0)


@pytest.mark.parametrize(
    "value", [np.zeros([2]), {"x": np.ones([2]), "y": None}, [0.5, None], (0, 1), 0]
)
def test_values_per_feature(value):
    for field in ("feature_mask", "clip_value_min", "pgd_epsilon", "adv_step_size"):
        config = configs.AdvNeighborConfig(**{field: value})
        assert getattr(config, field) is value


def test_layers_by_name():
    both = configs.AdvNeighborConfig(embedding_layer=["a", "b"])
    assert both == configs.AdvNeighborConfig(embedding_layer=("a", "b"))
    assert hash(both.embedding_layer)
    flat = configs.make_adv_reg_config(
        embedding_layer="a",
        perturb_features=True,
        norm_per_position=True,
        standardize_layers=True,
        clip_to_layer_range=True,
    )
    assert flat.adv_neighbor_config == configs.AdvNeighborConfig(
        embedding_layer="a",
        perturb_features=True,
        norm_per_position=True,
        standardize_layers=True,
        clip_to_layer_range=True,
    )
    for wrong in ("", (), ["a", "a"], ["a", ""]):
        with pytest.raises(ValueError, match="embedding_layer"):
            configs.AdvNeighborConfig(embedding_layer=wrong)
    for wrong in (3, [None], {"a": 1}):
        with pytest.raises(TypeError, match="embedding_layer"):
            configs.AdvNeighborConfig(embedding_layer=wrong)
    for setting in ("perturb_features", "standardize_layers", "clip_to_layer_range"):
        with pytest.raises(ValueError, match=rf"{setting}=True.*Name a layer"):
            configs.AdvNeighborConfig(**{setting: True})


def test_configs_with_arrays_compare():
    def make(last, dtype=np.float32):
        return configs.AdvNeighborConfig(feature_mask={"x": np.array([1, last], dtype)})

    assert make(0) == make(0)
    assert make(0) != make(1)
    assert make(0) != make(0, np.float64)
    assert make(0) != configs.AdvNeighborConfig()


def test_other_configs_refuse_wrong_values():
    with pytest.raises(ValueError, match=r"AdvRegConfig\.multiplier must be at least"):
        configs.AdvRegConfig(-0.1)
    with pytest.raises(TypeError, match=r"AdvRegConfig\.multiplier must be a number"):
        configs.AdvRegConfig("0.1")
    with pytest.raises(TypeError, match=r"instance of AdvNeighborConfig.*dict"):
        configs.AdvRegConfig(0.1, {})
    with pytest.raises(ValueError, match="num_approx_steps must be at least 0"):
        configs.VirtualAdvConfig(num_approx_steps=-1)
    with pytest.raises(ValueError, match="approx_difference must be greater than 0"):
        configs.VirtualAdvConfig(approx_difference=0)
    with pytest.raises(ValueError, match="'first' is not a valid AdvTargetType"):
        configs.AdvTargetConfig("first")


@pytest.mark.parametrize("objective", configs.AdvObjective)
def test_objectives_by_value_or_name(objective):
    config = configs.make_adv_reg_config(
        objective=objective.value, adv_grad_norm="infinity", pgd_epsilon=0.1
    )
    assert config.objective is objective
    assert configs.AdvRegConfig(objective="my_own").objective == "my_own"


def test_wrong_objectives():
    with pytest.raises(TypeError, match=r"AdvRegConfig\.objective must be a string"):
        configs.AdvRegConfig(objective=3)
    with pytest.raises(ValueError, match="must not be empty"):
        configs.AdvRegConfig(objective="")


@pytest.mark.parametrize("objective", ["trades", "mart", "virtual", "my_own"])
def test_only_the_labeled_loss_is_replaced(objective):
    with pytest.raises(ValueError, match=rf"(?i)mode='replace'.*{objective}"):
        configs.AdvRegConfig(mode="replace", objective=objective)
    assert configs.AdvRegConfig(mode="replace").mode is configs.AdvMode.REPLACE
