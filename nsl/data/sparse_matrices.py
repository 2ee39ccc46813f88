"""SciPy sparse matrices and arrays, without importing SciPy."""

from typing import Any


def is_sparse_matrix(value: Any) -> bool:
    """Returns whether a value is a SciPy sparse matrix or array, of any format."""
    return hasattr(value, "tocoo")


def canonical(matrix: Any) -> Any:
    """Converts a sparse matrix to COO format, sorted, with duplicates summed.

    Args:
      matrix: A two-dimensional sparse matrix, which is not modified.
    """
    rows = matrix.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows.tocoo()
