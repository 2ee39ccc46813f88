"""The import name of NSL 1.4, for the same modules and objects as `nsl`.

A program written for NSL 1.4 goes on saying `import neural_structured_learning as
nsl`. Each module it imports under the old name is the module of `nsl` itself; where
the old file has no successor of its name (`lib.utils`, say), a module is made that
holds the public names of the package around it.
"""

import importlib
import importlib.util
import sys
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

import nsl
from neural_structured_learning import version as version
from nsl import __all__ as __all__
from nsl import __version__ as __version__

# What NSL 1.4 had in each package, whether or not nsl has a file of that name.
_OLD_MODULES = {
    "configs": ("configs",),
    "keras": ("adversarial_regularization", "graph_regularization", "layers"),
    "keras.layers": ("neighbor_features", "pairwise_distance"),
    "lib": (
        "abstract_gen_neighbor",
        "adversarial_neighbor",
        "distances",
        "regularizer",
        "utils",
    ),
    "tools": ("build_graph", "graph_utils", "pack_nbrs"),
}
# Names that stood in one of these files, and stand in another one of its package now.
_MOVED_NAMES = {"keras": {"adversarial_regularization": ("adversarial_loss",)}}
_OLD_PATHS = {
    f"{__name__}.{package}.{module}"
    for package, modules in _OLD_MODULES.items()
    for module in modules
}


def _new_name(old_name: str) -> str:
    return "nsl" + old_name.removeprefix(__name__)


class _AliasLoader(InspectLoader):
    """Lets importlib hand out a module of `nsl` under its old name."""

    def exec_module(self, module: ModuleType) -> None:
        """Puts the real module in place of `module`, or fills it with its names."""
        old_name = module.__name__
        new_name = _new_name(old_name)
        if importlib.util.find_spec(new_name) is None:
            package = importlib.import_module(new_name.rpartition(".")[0])
            vars(module).update(
                {name: getattr(package, name) for name in package.__all__},
                __all__=list(package.__all__),
                __doc__=f"The public names of `{package.__name__}`.",
            )
            return
        # importlib returns what stands in sys.modules after this call.
        real = sys.modules[old_name] = importlib.import_module(new_name)
        path = old_name.removeprefix(f"{__name__}.")
        for child, names in _MOVED_NAMES.get(path, {}).items():
            module = importlib.import_module(f"{new_name}.{child}")
            vars(module).update({name: getattr(real, name) for name in names})
        # Importing them one by one would set each as an attribute of its package,
        # and hide a function of the same name there. While `python -m` looks for what
        # it is to run, though, it asks our loader for the code.
        if sys.argv[:1] != ["-m"]:
            for name, loaded in list(sys.modules.items()):
                if name.startswith(f"{new_name}."):
                    alias = old_name + name.removeprefix(new_name)
                    sys.modules.setdefault(alias, loaded)
        # Old programs reach `nsl.lib.utils` as an attribute, without importing it.
        for child in _OLD_MODULES.get(path, ()):
            if importlib.util.find_spec(f"{new_name}.{child}") is None:
                importlib.import_module(f"{old_name}.{child}")

    def get_code(self, fullname: str) -> CodeType | None:
        """Returns the code of the real module, for `python -m`."""
        spec = importlib.util.find_spec(_new_name(fullname))
        if spec is None or not isinstance(spec.loader, InspectLoader):
            return None
        return spec.loader.get_code(spec.name)

    def get_source(self, fullname: str) -> str | None:
        """Returns the source of the real module, for tracebacks and `inspect`."""
        spec = importlib.util.find_spec(_new_name(fullname))
        if spec is None or not isinstance(spec.loader, InspectLoader):
            return None
        return spec.loader.get_source(spec.name)


class _AliasFinder(MetaPathFinder):
    """Answers for every module below the old package name."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns a spec if `nsl` has this module or NSL 1.4 had it."""
        if not fullname.startswith(f"{__name__}."):
            return None
        real = importlib.util.find_spec(_new_name(fullname))
        if real is None:
            known = fullname in _OLD_PATHS
            return ModuleSpec(fullname, _AliasLoader()) if known else None
        is_package = real.submodule_search_locations is not None
        return ModuleSpec(
            fullname, _AliasLoader(), origin=real.origin, is_package=is_package
        )


sys.meta_path.insert(0, _AliasFinder())


def __getattr__(name: str) -> Any:
    if name in _OLD_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(nsl, name)


def __dir__() -> list[str]:
    return dir(nsl)
