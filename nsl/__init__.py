"""Neural structured learning for Keras 3.

Trains ordinary Keras models with a structured signal: a graph over the samples
(`nsl.keras.GraphRegularization`) or the adversarial neighbor of each sample
(`nsl.keras.AdversarialRegularization`). The rooms are imported when they are first
asked for, so that `import nsl` and the command line tools start at once.
"""

import importlib
import sys
from importlib.abc import MetaPathFinder
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


class _RemovedFinder(MetaPathFinder):
    """Says why a package of NSL 1.4 cannot be imported any more."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Raises ImportError for a removed package, and finds nothing else."""
        if fullname in _REMOVED:
            raise ImportError(_REMOVED[fullname], name=fullname)


sys.meta_path.insert(0, _RemovedFinder())


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
