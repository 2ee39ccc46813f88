"""The tools on Apache Beam, for graphs that one machine cannot hold.

`pack_nbrs` and `build_graph` do what those of `nsl.tools` do, by the same functions, on
any runner of Beam; `PackNeighbors` and `BuildGraph` are the same as transforms to put
into your own pipeline.
"""

import importlib
import warnings

try:
    importlib.import_module("apache_beam")
except ImportError as error:
    raise ImportError(
        "nsl.beam needs Apache Beam, which is not installed: run "
        "pip install 'nsl[beam]', or pip install apache-beam.",
        name="apache_beam",
    ) from error

# As in nsl.tools: `python -m nsl.beam.pack_nbrs` runs a module imported already.
warnings.filterwarnings(
    "ignore",
    message=r".*\.beam\.(pack_nbrs|build_graph)' found in sys\.modules",
    category=RuntimeWarning,
)

from nsl.beam import direct_runner  # noqa: E402
from nsl.beam.build_graph import build_graph  # noqa: E402
from nsl.beam.build_transform import BuildGraph  # noqa: E402
from nsl.beam.pack_nbrs import pack_nbrs  # noqa: E402
from nsl.beam.pack_transform import PackNeighbors  # noqa: E402

# Here, so that it holds for the transforms in custom pipelines too.
direct_runner.send_whole_streams()

__all__ = ["BuildGraph", "PackNeighbors", "build_graph", "pack_nbrs"]
