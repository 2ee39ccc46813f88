"""Every public name of NSL 1.4 is there, with its arguments, order and defaults."""

import enum
import importlib
import inspect
from typing import Any

import attrs
import pytest
import tensorflow as tf

import nsl
from nsl import configs

REDUCTION = "weighted_sum_by_nonzero_weights"

# Written as Python writes them; enum defaults as their values.
SIGNATURES = {
    "configs.make_adv_reg_config": (
        "multiplier=0.2, feature_mask=None, adv_step_size=0.001, adv_grad_norm='l2',"
        "clip_value_min=None, clip_value_max=None, pgd_iterations=1, pgd_epsilon=None,"
        "random_init=False, mode='add', objective='labeled', from_logits=None,"
        "start_epoch=0"
    ),
    "configs.make_graph_reg_config": (
        "neighbor_prefix='NL_nbr_', neighbor_weight_suffix='_weight', max_neighbors=0,"
        f"multiplier=0.01, distance_type='l2', reduction='{REDUCTION}',"
        "sum_over_axis=None, transform_fn='none', output_name=None,"
        "embedding_layer=None, objective='distance', temperature=0.5,"
        "sharpening_temperature=0.5, start_epoch=0, distribution_alignment=0.0"
    ),
    "lib.gen_adv_neighbor": (
        "input_features, labeled_loss, config, raise_invalid_gradient=False,"
        "gradient_tape=None, pgd_model_fn=None, pgd_loss_fn=None, pgd_labels=None,"
        "use_while_loop=False, regularizer_fn=None"
    ),
    "lib.adv_regularizer": "adv_neighbors, target_scores, model_fn, loss_fn",
    "lib.virtual_adv_regularizer": (
        "input_layer, embedding_fn, virtual_adv_config, embedding=None"
    ),
    "lib.pairwise_distance_wrapper": (
        "sources, targets, weights=1.0, distance_config=None"
    ),
    "lib.kl_divergence": (
        "labels, predictions, axis=None, weights=1.0, scope=None,"
        f"loss_collection='losses', reduction='{REDUCTION}'"
    ),
    "lib.jensen_shannon_divergence": (
        "labels, predictions, axis=None, weights=1.0, scope=None,"
        f"loss_collection='losses', reduction='{REDUCTION}'"
    ),
    "lib.apply_feature_mask": "features, feature_mask=None",
    "lib.decay_over_time": "global_step, decay_config, init_value=1.0",
    "lib.get_target_indices": "logits, labels, adv_target_config",
    "lib.maximize_within_unit_norm": "weights, norm_type, epsilon=1e-6",
    "lib.normalize": "tensor, norm_type, epsilon=1e-6",
    "lib.project_to_ball": "tensors, radius, norm_type, epsilon=1e-6",
    "lib.random_in_norm_ball": "tensor_structure, radius, norm_type",
    "lib.replicate_embeddings": "embeddings, replicate_times",
    "lib.strip_neighbor_features": "features, neighbor_config",
    "lib.unpack_neighbor_features": "features, neighbor_config, keep_rank=True",
    "lib.neighbor_contrastive_loss": ("samples, neighbors, weights, temperature=0.5"),
    "lib.neighbor_consistency_loss": (
        "outputs, neighbor_outputs, weights, sharpening_temperature=0.5,"
        "from_logits=False, binary=False, distribution_alignment=0.0"
    ),
    "lib.neighbor_mean_prediction": (
        "neighbor_outputs, weights, from_logits=False, binary=False"
    ),
    "lib.GenNeighbor.gen_neighbor": "self, input_features",
    "keras.GraphRegularization": "base_model, graph_reg_config=None",
    "keras.AdversarialRegularization": (
        "base_model, label_keys=('label',), sample_weight_key=None, adv_config=None,"
        "base_with_labels_in_features=False"
    ),
    "keras.AdversarialRegularization.perturb_on_batch": "self, x",
    "keras.adversarial_loss": (
        "features, labels, model, loss_fn, sample_weights=None, adv_config=None,"
        "predictions=None, labeled_loss=None, gradient_tape=None, model_kwargs=None"
    ),
    "keras.layers.NeighborFeatures": (
        "neighbor_config=None, feature_names=None, weight_dtype=None"
    ),
    "keras.layers.PairwiseDistance": "distance_config=None",
    "keras.layers.make_missing_neighbor_inputs": (
        "neighbor_config, inputs, weight_dtype=tf.float32"
    ),
    "attacks.Attack": "",
    "attacks.FGSM": "",
    "attacks.PGD": "",
    "attacks.MIFGSM": "",
    "attacks.AutoPGD": "",
    "attacks.Substitution": "replacements, max_changes=1",
    "tools.pack_nbrs": (
        "labeled_examples_path, unlabeled_examples_path, graph_path,"
        "output_training_data_path, add_undirected_edges=False, max_nbrs=None,"
        "id_feature_name='id'"
    ),
    "tools.build_graph_from_config": (
        "embedding_files, output_graph_path, graph_builder_config"
    ),
    "tools.build_graph": (
        "embedding_files, output_graph_path, similarity_threshold=0.8,"
        "id_feature_name='id', embedding_feature_name='embedding', lsh_splits=0,"
        "lsh_rounds=2, random_seed=None"
    ),
    "tools.read_tsv_graph": "filename",
    "tools.write_tsv_graph": "filename, graph",
    "tools.add_edge": "graph, edge",
    "tools.add_undirected_edges": "graph",
}

ENUMS = {
    "AdvMode": {"ADD": "add", "REPLACE": "replace", "FREE": "free"},
    "AdvObjective": {
        "LABELED": "labeled",
        "TRADES": "trades",
        "MART": "mart",
        "LOGIT_PAIRING": "logit_pairing",
        "VIRTUAL": "virtual",
        "INTERVAL_BOUNDS": "interval_bounds",
    },
    "NormType": {"L1": "l1", "L2": "l2", "INFINITY": "infinity"},
    "AdvTargetType": {
        "SECOND": "second",
        "LEAST": "least",
        "RANDOM": "random",
        "GROUND_TRUTH": "ground_truth",
    },
    "TransformType": {"SOFTMAX": "softmax", "NONE": "none"},
    "DistanceType": {
        "L1": "l1",
        "L2": "l2",
        "COSINE": "cosine",
        "JENSEN_SHANNON_DIVERGENCE": "jensen_shannon_divergence",
        "KL_DIVERGENCE": "kl_divergence",
    },
    "GraphObjective": {
        "DISTANCE": "distance",
        "CONTRASTIVE": "contrastive",
        "CONSISTENCY": "consistency",
        "PROPAGATION": "propagation",
    },
    "DecayType": {
        "EXPONENTIAL_DECAY": "exponential_decay",
        "INVERSE_TIME_DECAY": "inverse_time_decay",
        "NATURAL_EXP_DECAY": "natural_exp_decay",
    },
    "IntegrationType": {
        "ADD": "additive",
        "MUL": "multiplicative",
        "TUCKER_DECOMP": "tucker_decomp",
    },
}

# Class: (required arguments, {field: default}) in the order of the fields.
CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AdvNeighborConfig": (
        {},
        {
            "feature_mask": None,
            "adv_step_size": 0.001,
            "adv_grad_norm": configs.NormType.L2,
            "clip_value_min": None,
            "clip_value_max": None,
            "pgd_iterations": 1,
            "pgd_epsilon": None,
            "random_init": False,
        },
    ),
    "AdvRegConfig": (
        {},
        {
            "multiplier": 0.2,
            "adv_neighbor_config": configs.AdvNeighborConfig(),
            "mode": configs.AdvMode.ADD,
            "objective": configs.AdvObjective.LABELED,
            "from_logits": None,
            "start_epoch": 0,
        },
    ),
    "AdvTargetConfig": (
        {},
        {"target_method": configs.AdvTargetType.GROUND_TRUTH, "random_seed": 0.0},
    ),
    "DistanceConfig": (
        {},
        {
            "distance_type": configs.DistanceType.L2,
            "reduction": REDUCTION,
            "sum_over_axis": None,
            "transform_fn": configs.TransformType.NONE,
        },
    ),
    "DecayConfig": (
        {"decay_steps": 7},
        {
            "decay_rate": 0.96,
            "min_value": 0.0,
            "decay_type": configs.DecayType.EXPONENTIAL_DECAY,
        },
    ),
    "IntegrationConfig": (
        {"integration_type": configs.IntegrationType.ADD, "hidden_dims": [8]},
        {"activation_fn": tf.nn.tanh},
    ),
    "VirtualAdvConfig": (
        {},
        {
            "adv_neighbor_config": configs.AdvNeighborConfig(),
            "distance_config": configs.DistanceConfig(),
            "num_approx_steps": 1,
            "approx_difference": 1e-6,
        },
    ),
    "GraphBuilderConfig": (
        {},
        {
            "id_feature_name": "id",
            "embedding_feature_name": "embedding",
            "similarity_threshold": 0.8,
            "lsh_splits": 0,
            "lsh_rounds": 1,
            "random_seed": None,
        },
    ),
    "GraphNeighborConfig": (
        {},
        {"prefix": "NL_nbr_", "weight_suffix": "_weight", "max_neighbors": 0},
    ),
    "GraphRegConfig": (
        {},
        {
            "neighbor_config": configs.GraphNeighborConfig(),
            "multiplier": 0.01,
            "distance_config": configs.DistanceConfig(),
            "output_name": None,
            "embedding_layer": None,
            "objective": configs.GraphObjective.DISTANCE,
            "temperature": 0.5,
            "sharpening_temperature": 0.5,
            "start_epoch": 0,
            "distribution_alignment": 0.0,
        },
    ),
}


def _public(path: str) -> Any:
    value: Any = nsl
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _plain(default: Any) -> Any:
    return default.value if isinstance(default, enum.Enum) else default


@pytest.mark.parametrize("path", SIGNATURES)
def test_signature_of(path: str) -> None:
    namespace: dict[str, Any] = {"tf": tf}
    exec(f"def expected({SIGNATURES[path]}): ...", namespace)
    expected = inspect.signature(namespace["expected"]).parameters
    actual = inspect.signature(_public(path)).parameters

    positional = [
        name
        for name, parameter in actual.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional[: len(expected)] == list(expected)
    for name, parameter in expected.items():
        assert _plain(actual[name].default) == _plain(parameter.default), name
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name in actual.keys() - expected.keys():
        parameter = actual[name]
        optional = parameter.default is not inspect.Parameter.empty
        assert optional or parameter.kind in variadic, f"{name} must be optional"


@pytest.mark.parametrize("name", ENUMS)
def test_enum(name: str) -> None:
    members = getattr(configs, name)
    assert {member.name: member.value for member in members} == ENUMS[name]
    for value in ENUMS[name].values():
        assert members(value).value == value


@pytest.mark.parametrize(
    "name",
    ["NormType", "AdvTargetType", "DistanceType", "DecayType", "IntegrationType"],
)
def test_enums_list_their_members(name: str) -> None:
    members = getattr(configs, name)
    assert members.all() == list(members)


@pytest.mark.parametrize("name", CONFIGS)
def test_config_fields(name: str) -> None:
    required, optional = CONFIGS[name]
    config_class = getattr(configs, name)
    expected = {**required, **optional}
    config = config_class(*required.values())
    assert [field.name for field in attrs.fields(config_class)][: len(expected)] == [
        *expected
    ]
    assert {field: getattr(config, field) for field in expected} == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_nested_default_configs_are_not_shared(name: str) -> None:
    required, _ = CONFIGS[name]
    config_class = getattr(configs, name)
    first, second = (config_class(*required.values()) for _ in range(2))
    for field in attrs.fields(config_class):
        nested = getattr(first, field.name)
        if attrs.has(type(nested)):
            assert nested is not getattr(second, field.name)


def test_default_parameters_are_those_of_the_configs() -> None:
    assert attrs.asdict(configs.DistanceConfig()) == configs.DEFAULT_DISTANCE_PARAMS
    assert (
        attrs.asdict(configs.AdvNeighborConfig()) == configs.DEFAULT_ADVERSARIAL_PARAMS
    )


@pytest.mark.parametrize(
    "room", ["attacks", "beam", "configs", "keras", "keras.layers", "lib", "tools"]
)
def test_each_room_lists_its_public_names(room: str) -> None:
    module = importlib.import_module(f"nsl.{room}")
    paths = [*SIGNATURES, *(f"configs.{name}" for name in (*ENUMS, *CONFIGS))]
    prefix = f"{room}."
    expected = {
        path.removeprefix(prefix).split(".")[0]
        for path in paths
        if path.startswith(prefix)
    }
    assert expected <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
