"""Neural structured learning for Keras 3.

Trains ordinary Keras models with a structured signal: a graph over the samples
(`nsl.keras.GraphRegularization`) or the adversarial neighbor of each sample
(`nsl.keras.AdversarialRegularization`). The rooms are imported when they are first
asked for, so that `import nsl` and the command line tools start at once.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsl import attacks, beam, configs, data, keras, lib, robustness, tools
    from nsl.robustness import evaluate_robustness

__version__ = "2.0.0"

__all__ = [
    "__version__",
    "attacks",
    "beam",
    "configs",
    "data",
    "evaluate_robustness",
    "keras",
    "lib",
    "robustness",
    "tools",
]

_REMOVED = {
    "nsl.estimator": (
        "nsl.estimator no longer exists, because tf.estimator was removed from"
        " TensorFlow. Wrap a Keras model with nsl.keras.AdversarialRegularization or"
        " nsl.keras.GraphRegularization instead."
    ),
    "nsl.experimental": (
        "nsl.experimental no longer exists, because it was built on graph_nets, which"
        " does not run on today's TensorFlow. Use nsl.keras.GraphRegularization with"
        " a Keras model, or a graph neural network library such as TensorFlow GNN or"
        " PyTorch Geometric."
    ),
}


# What Keras finds in saved models, and where it is defined.
_SAVED = {
    "AdversarialRegularization": "nsl.keras",
    "GraphRegularization": "nsl.keras",
    "NeighborFeatures": "nsl.keras.layers",
    "PairwiseDistance": "nsl.keras.layers",
}


class _Deferred:
    """Stands for a class in Keras's registry until a model needs it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_config(self, config: dict[str, Any], **kwargs: Any) -> Any:
        """Makes an object of the class, which is imported now."""
        module = importlib.import_module(_SAVED[self._name])
        return getattr(module, self._name).from_config(config, **kwargs)


def _register(keras: Any) -> None:
    for name in _SAVED:
        keras.saving.get_custom_objects().setdefault(f"nsl>{name}", _Deferred(name))


class _Finder(MetaPathFinder):
    """Waits for two kinds of imports.

    Packages of NSL 1.4 that are gone say why. Keras is told of our classes as soon as
    it is imported, so that it can load them, without being imported for that.
    """

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> ModuleSpec | None:
        """Finds Keras, and nothing else; raises ImportError for a removed package."""
        if fullname in _REMOVED:
            raise ImportError(_REMOVED[fullname], name=fullname)
        if fullname != "keras":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
if "keras" in sys.modules:
    _register(sys.modules["keras"])


# Type checkers take a module with __getattr__ for one that has every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "evaluate_robustness":
            return importlib.import_module("nsl.robustness").evaluate_robustness
        if name in __all__:
            return importlib.import_module(f"nsl.{name}")
        removed = _REMOVED.get(f"nsl.{name}")
        # hasattr() and copy.copy() rely on AttributeError, hence no ImportError here.
        raise AttributeError(
            removed or f"module 'nsl' has no attribute {name!r}; it has {__all__}",
            name=name,
            obj=sys.modules[__name__],
        )


def __dir__() -> list[str]:
    return sorted(__all__)
