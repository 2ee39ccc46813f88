"""Builds graphs from embeddings and packs examples with their neighbors.

TensorFlow is imported only for remote files and GPUs.
"""

import warnings

# `python -m nsl.tools.pack_nbrs` runs a module that this package has already imported.
# Python warns about that, but it is intended.
warnings.filterwarnings(
    "ignore",
    message=r".*\.tools\.(pack_nbrs|build_graph)' found in sys\.modules",
    category=RuntimeWarning,
)

from nsl.tools.build_graph import build_graph, build_graph_from_config  # noqa: E402
from nsl.tools.neighbor_lists import write_neighbors  # noqa: E402
from nsl.tools.pack_nbrs import pack_nbrs  # noqa: E402
from nsl.tools.tsv_graph import (  # noqa: E402
    add_edge,
    add_undirected_edges,
    read_tsv_graph,
    write_tsv_graph,
)

__all__ = [
    "add_edge",
    "add_undirected_edges",
    "build_graph",
    "build_graph_from_config",
    "pack_nbrs",
    "read_tsv_graph",
    "write_neighbors",
    "write_tsv_graph",
]
