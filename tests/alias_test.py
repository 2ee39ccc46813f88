"""The old import name gives the same modules and objects as `nsl`."""

import importlib
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nsl

ROOT = Path(nsl.__file__).parents[1]
OLD = "neural_structured_learning"
OLD_PATHS = [
    "configs",
    "configs.configs",
    "keras",
    "keras.adversarial_regularization",
    "keras.graph_regularization",
    "keras.layers",
    "keras.layers.neighbor_features",
    "keras.layers.pairwise_distance",
    "lib",
    "lib.abstract_gen_neighbor",
    "lib.adversarial_neighbor",
    "lib.distances",
    "lib.regularizer",
    "lib.utils",
    "tools",
    "tools.graph_utils",
    "tools.pack_nbrs",
    "tools.build_graph",
]
ROOMS = ["configs", "keras", "keras.layers", "lib", "tools"]
# Where NSL 1.4 defined what its programs import from a file.
OLD_HOMES = {
    "configs.configs": ["NormType", "AdvRegConfig", "make_graph_reg_config"],
    "keras.adversarial_regularization": [
        "AdversarialRegularization",
        "adversarial_loss",
    ],
    "keras.graph_regularization": ["GraphRegularization"],
    "keras.layers.neighbor_features": [
        "NeighborFeatures",
        "make_missing_neighbor_inputs",
    ],
    "keras.layers.pairwise_distance": ["PairwiseDistance"],
    "lib.abstract_gen_neighbor": ["GenNeighbor"],
    "lib.adversarial_neighbor": ["gen_adv_neighbor"],
    "lib.distances": [
        "kl_divergence",
        "jensen_shannon_divergence",
        "pairwise_distance_wrapper",
    ],
    "lib.regularizer": ["adv_regularizer", "virtual_adv_regularizer"],
    "lib.utils": [
        "apply_feature_mask",
        "decay_over_time",
        "get_target_indices",
        "maximize_within_unit_norm",
        "normalize",
        "project_to_ball",
        "random_in_norm_ball",
        "replicate_embeddings",
        "strip_neighbor_features",
        "unpack_neighbor_features",
    ],
    "tools.graph_utils": [
        "add_edge",
        "add_undirected_edges",
        "read_tsv_graph",
        "write_tsv_graph",
    ],
    "tools.pack_nbrs": ["pack_nbrs"],
    "tools.build_graph": [
        "GraphBuilder",
        "build_graph",
        "build_graph_from_config",
    ],
}
# Names of an old file that its package never had.
OLD_FILE_ONLY = {"GraphBuilder"}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", OLD_PATHS)
def test_old_paths_are_the_modules_of_nsl(path: str) -> None:
    module = importlib.import_module(f"{OLD}.{path}")
    if importlib.util.find_spec(f"nsl.{path}") is not None:
        assert module is importlib.import_module(f"nsl.{path}")
        assert module.__spec__ is not None
        assert module.__spec__.name == module.__name__ == f"nsl.{path}"
    else:
        package = importlib.import_module(f"nsl.{path.rpartition('.')[0]}")
        assert set(package.__all__) == set(module.__all__)


@pytest.mark.parametrize("path", OLD_HOMES)
def test_old_paths_hold_the_names_of_the_old_file(path: str) -> None:
    module = importlib.import_module(f"{OLD}.{path}")
    package = importlib.import_module(f"nsl.{path.rpartition('.')[0]}")
    for name in OLD_HOMES[path]:
        if name in OLD_FILE_ONLY:
            assert not hasattr(package, name)
            package = importlib.import_module(f"nsl.{path}")
        assert getattr(module, name) is getattr(package, name)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_identical(room: str) -> None:
    old = importlib.import_module(f"{OLD}.{room}")
    new = importlib.import_module(f"nsl.{room}")
    for name in new.__all__:
        assert getattr(old, name) is getattr(new, name)


def test_enum_members_are_identical() -> None:
    from neural_structured_learning.configs.configs import DistanceType

    import neural_structured_learning as old

    for name in nsl.configs.__all__:
        members = getattr(nsl.configs, name)
        if isinstance(members, type) and hasattr(members, "all"):
            for member in members:  # type: ignore[attr-defined]
                assert getattr(old.configs, name)[member.name] is member
    assert DistanceType.COSINE is nsl.configs.DistanceType("cosine")


def test_forms_of_import() -> None:
    import neural_structured_learning.lib.utils as u
    from neural_structured_learning.lib import utils

    assert u is utils
    assert u.normalize is nsl.lib.normalize
    assert isinstance(u, ModuleType)
    namespace: dict[str, object] = {}
    exec(f"from {OLD}.lib.utils import *", namespace)
    assert namespace["project_to_ball"] is nsl.lib.project_to_ball


def test_old_files_are_attributes_of_their_package() -> None:
    """In a fresh process, because an earlier import would set the attributes."""
    expressions = [
        "nsl.lib.utils.unpack_neighbor_features",
        "nsl.lib.distances.kl_divergence",
        "nsl.configs.configs.AdvRegConfig",
        "nsl.keras.adversarial_regularization.adversarial_loss",
        "nsl.keras.layers.neighbor_features.NeighborFeatures",
        "nsl.tools.graph_utils.read_tsv_graph",
    ]
    names = ", ".join(f"{expression}.__name__" for expression in expressions)
    done = _run("-c", f"import {OLD} as nsl; print({names})")
    expected = [expression.rpartition(".")[2] for expression in expressions]
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("name", ["pack_nbrs", "build_graph"])
@pytest.mark.parametrize("package", [OLD, "nsl"])
def test_a_tool_stays_a_function_beside_its_module(name: str, package: str) -> None:
    """`tools.pack_nbrs` names a file and a function; both must be reachable."""
    program = (
        f"import {package} as nsl\n"
        f"from {package}.tools.{name} import {name} as function\n"
        f"import {package}.tools.{name}\n"
        f"assert nsl.tools.{name} is function or callable(nsl.tools.{name})\n"
        f"import sys; module = sys.modules['{package}.tools.{name}']\n"
        f"assert module.main and module.{name} is function\n"
    )
    done = _run("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["pack_nbrs", "build_graph"])
@pytest.mark.parametrize("package", [OLD, "nsl"])
def test_tools_run_as_modules(name: str, package: str) -> None:
    done = _run("-m", f"{package}.tools.{name}", "--help")
    assert name in done.stdout
    assert "Warning" not in done.stderr
    assert done.returncode in (0, 1), done.stderr  # absl leaves with 1 after --help


def test_a_config_can_be_pickled_under_either_name() -> None:
    config = nsl.configs.make_adv_reg_config(multiplier=0.3, adv_grad_norm="l1")
    data = pickle.dumps(config)
    assert pickle.loads(data) == config
    old_module = f"{OLD}.configs.configs"
    # What a pickle of NSL 1.4 says about the class: its old home.
    stored = f"c{old_module}\nNormType\n.".encode()
    assert pickle.loads(stored) is nsl.configs.NormType


def test_an_unknown_module_is_named_as_it_was_asked_for() -> None:
    with pytest.raises(ModuleNotFoundError, match=f"{OLD}.lib.nothing"):
        importlib.import_module(f"{OLD}.lib.nothing")


def test_the_old_name_stays_quick() -> None:
    done = _run("-c", f"import {OLD}, sys; print('tensorflow' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_version_and_names_agree() -> None:
    import neural_structured_learning as old

    assert old.__version__ == nsl.__version__
    assert set(nsl.__all__) <= set(dir(old))


def test_the_file_of_the_version() -> None:
    """In a fresh process, because an earlier import would set the attribute."""
    program = f"import {OLD} as nsl; print(nsl.version.__version__)"
    done = _run("-c", program)
    assert done.stdout.strip() == nsl.__version__, done.stderr
    module = importlib.import_module(f"{OLD}.version")
    assert module.__version__ == nsl.__version__
