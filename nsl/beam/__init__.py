"""The tools on Apache Beam, for graphs that do not fit on one machine.

`pack_nbrs` and `build_graph` are the tools of `nsl.tools`, on any Beam runner.
`PackNeighbors` and `BuildGraph` are transforms for custom pipelines.
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

# See nsl.tools: `python -m nsl.beam.pack_nbrs` runs a module that is already imported.
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

# On import, so that it also applies to custom pipelines.
direct_runner.send_whole_streams()

__all__ = ["BuildGraph", "PackNeighbors", "build_graph", "pack_nbrs"]
