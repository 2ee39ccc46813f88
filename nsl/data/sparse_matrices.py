"""Sparse matrices and arrays of SciPy, which nsl itself does not import."""

from typing import Any


def is_sparse_matrix(value: Any) -> bool:
    """Tells whether a value is a sparse matrix or array, of any format."""
    return hasattr(value, "tocoo")


def canonical(matrix: Any) -> Any:
    """Returns a sparse matrix in coordinate format, each entry once and in order.

    Args:
      matrix: A sparse matrix of two dimensions. Entries that stand twice are added, as
        SciPy does, and it is not changed.
    """
    rows = matrix.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows.tocoo()
