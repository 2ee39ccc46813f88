"""Writing the neighbors that another library found as a graph."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nsl.files import edge_lines, output_files

_ROWS_AT_ONCE = 4096


def write_neighbors(
    ids: Sequence[str],
    indices: npt.ArrayLike,
    similarities: npt.ArrayLike,
    path: str | os.PathLike[str],
) -> int:
    """Writes what a nearest-neighbor library returned as a TSV file of edges.

    Example:
      similarities, indices = faiss_index.search(embeddings, 10)
      write_neighbors(ids, indices, similarities, "graph.tsv")

    Args:
      ids: The id of each node, in the order of the indices.
      indices: Integers [nodes, k]: the neighbors of each node. -1 stands for no
        neighbor. A node among its own neighbors is left out.
      similarities: Numbers [nodes, k]: the weight of each edge.
      path: The file, which appears under its name when all is written.

    Returns:
      The number of edges written.

    Raises:
      OSError: If the file cannot be written.
      ValueError: If the shapes do not fit, an index is out of range, a similarity is
        not finite, or an id is empty, stands twice or holds a tab or a line break.
    """
    path = os.fspath(path)
    output_files.check_output(path)
    neighbors = np.asarray(indices)
    weights = np.asarray(similarities, np.float64)
    if neighbors.ndim != 2 or neighbors.shape[0] != len(ids):
        raise ValueError(
            f"indices must have shape ({len(ids)}, k), one row for each id, but have "
            f"shape {neighbors.shape}."
        )
    if not np.issubdtype(neighbors.dtype, np.integer):
        raise ValueError(f"indices must be integers, but are {neighbors.dtype}.")
    if weights.shape != neighbors.shape:
        raise ValueError(
            f"similarities must have the shape of indices, {neighbors.shape}, but "
            f"have shape {weights.shape}."
        )
    if neighbors.size and not -1 <= neighbors.min() <= neighbors.max() < len(ids):
        raise ValueError(
            f"indices must be from 0 to {len(ids) - 1}, or -1 for none, but reach from "
            f"{neighbors.min()} to {neighbors.max()}."
        )
    nodes = [node.encode() for node in ids]
    if len(set(nodes)) != len(nodes):
        raise ValueError("ids must differ, but one stands twice.")
    if b"" in nodes:
        raise ValueError("An id is empty.")
    for node in nodes:
        edge_lines.check_node_id(node)
    present = (neighbors >= 0) & (neighbors != np.arange(len(ids))[:, np.newaxis])
    if not np.isfinite(weights[present]).all():
        raise ValueError("similarities must be finite where there is a neighbor.")
    with output_files.whole_files([path]) as (file,):
        for start in range(0, len(nodes), _ROWS_AT_ONCE):
            rows, places = np.nonzero(present[start : start + _ROWS_AT_ONCE])
            rows += start
            file.write(
                edge_lines.format_edges(
                    [nodes[row] for row in rows.tolist()],
                    [nodes[target] for target in neighbors[rows, places].tolist()],
                    weights[rows, places].tolist(),
                )
            )
    return int(present.sum())
