"""Writes the results of a nearest-neighbor library as a graph."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging

from nsl.files import edge_lines
from nsl.files.edge_files import check_edge_output, edge_output
from nsl.files.ids import distinct_ids


def write_neighbors(
    ids: Any, indices: Any, similarities: Any, path: str | os.PathLike[str]
) -> int:
    """Writes the results of a nearest-neighbor library as a file of edges.

    Example:
      similarities, indices = faiss_index.search(embeddings, 10)
      write_neighbors(ids, indices, similarities, "graph.tsv")

    Args:
      ids: The distinct ids of all nodes, integers or strings of shape [nodes], in the
        order of the indices.
      indices: The neighbors of each node, integers of shape [nodes, k]; -1 means no
        neighbor. Self-loops are dropped. If the number of neighbors varies, as in a
        radius search, a sequence with one row for each node.
      similarities: The weight of each edge, finite numbers of the shape of `indices`.
      path: The file to write, atomically; Parquet if it ends in `.parquet`, else TSV.

    Returns:
      The number of edges written.

    Raises:
      ImportError: If the file is Parquet and pyarrow is not installed.
      OSError: If the file cannot be written.
      TypeError: If ids are neither all integers nor all strings.
      ValueError: If shapes do not match, an index is out of range, a similarity is not
        finite, or an id is empty, not UTF-8, duplicated, or contains a tab or a line
        break. The error names the row. No file is left behind.
    """
    path = os.fspath(path)
    check_edge_output(path)
    nodes = distinct_ids(ids, "ids")
    for node in nodes:
        edge_lines.check_node_id(node)
    neighbors, degrees = _joined_rows(indices, "indices", "iu", len(nodes))
    weights, weight_counts = _joined_rows(
        similarities, "similarities", "biuf", len(nodes)
    )
    wrong = np.flatnonzero(degrees != weight_counts)
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            "similarities must have the shape of indices, but row "
            f"{row} has {weight_counts[row]} similarities for {degrees[row]} indices."
        )
    rows = np.repeat(np.arange(len(nodes)), degrees)
    wrong = np.flatnonzero((neighbors < -1) | (neighbors >= len(nodes)))
    if len(wrong):
        raise ValueError(
            f"indices must be from 0 to {len(nodes) - 1}, or -1 for no neighbor, but "
            f"row {rows[wrong[0]]} has {neighbors[wrong[0]]}."
        )
    is_loop = neighbors == rows
    present = (neighbors >= 0) & ~is_loop
    weights = weights.astype(np.float64, copy=False)
    wrong = np.flatnonzero(present & ~np.isfinite(weights))
    if len(wrong):
        raise ValueError(
            "similarities of neighbors must be finite, but row "
            f"{rows[wrong[0]]} has {weights[wrong[0]]}."
        )
    rows, neighbors, weights = rows[present], neighbors[present], weights[present]
    with edge_output(path) as file:
        file.write(nodes, rows, neighbors, weights)
    logging.info(
        "Wrote %d edges to %s; dropped %d self-loops.",
        len(rows),
        path,
        is_loop.sum(),
    )
    return len(rows)


def _joined_rows(
    values: Any, name: str, kinds: str, nodes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Concatenates rows of any lengths, and returns their lengths as well."""
    try:
        values = np.asarray(values) if hasattr(values, "__array__") else list(values)
        count = len(values)
    except TypeError:
        raise ValueError(
            f"{name} must have one row for each id, but are {values!r}."
        ) from None
    if count != nodes:
        raise ValueError(
            f"{name} must have one row for each id, {nodes}, but have {count}."
        )
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype != object:
        _check_kind(values, name, kinds)
        return values.reshape(-1), np.full(nodes, values.shape[1])
    rows = []
    for number, row in enumerate(values):
        where = f"row {number} of {name}"
        try:
            array = np.asarray(row.tolist() if isinstance(row, np.ndarray) else row)
        except ValueError:  # raised by NumPy for nested lists of different lengths
            raise ValueError(
                f"{where} must be one-dimensional, but is {row!r}."
            ) from None
        if array.ndim != 1:
            raise ValueError(
                f"{where} must be one-dimensional, but has shape {array.shape}."
            )
        if len(array):
            _check_kind(array, where, kinds)
            rows.append(array)
    lengths = np.fromiter(map(len, values), np.int64, nodes)
    joined = np.concatenate(rows) if rows else np.empty(0, np.int64)
    return joined, lengths


def _check_kind(values: npt.NDArray[Any], name: str, kinds: str) -> None:
    if values.dtype.kind not in kinds:
        expected = "numbers" if "f" in kinds else "integers"
        raise ValueError(f"{name} must be {expected}, but are {values.dtype}.")
