"""Finds candidate pairs with blocked matrix products.

Only half of the similarity matrix is computed, and each thread holds one block of it
in memory. Products in float32 find candidates, with a margin for rounding errors;
callers decide with similarities in float64.
"""

import contextlib
import glob
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from nsl.progress import Progress
from nsl.tools.embeddings import Embeddings
from nsl.tools.workers import in_order

_MIN_COLUMNS = 64
_WORD = 8
_TILE, _TILE_COLUMNS = 768 * 192, 192
# Above this fraction of hits, a block is multiplied as a whole.
_MANY = 1 / 16
_PART = 8

_Floats: TypeAlias = npt.NDArray[np.float32]
_Ints: TypeAlias = npt.NDArray[np.integer]
Bound: TypeAlias = float | _Floats


class Pairs(NamedTuple):
    """Pairs of nodes with their similarities, as columns of equal length."""

    sources: npt.NDArray[np.integer]
    targets: npt.NDArray[np.integer]
    similarities: npt.NDArray[np.float64]

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Pairs":
        """Returns the pairs where `wanted` is True."""
        return Pairs(
            self.sources[wanted], self.targets[wanted], self.similarities[wanted]
        )

    @classmethod
    def joined(cls, parts: Iterable["Pairs"]) -> "Pairs":
        """Returns the pairs of all parts."""
        none = cls(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))
        return cls(*map(np.concatenate, zip(none, *parts, strict=True)))


class Order(NamedTuple):
    """An order of nodes, divided into runs; only nodes in the same run are compared.

    Attributes:
      nodes: The nodes, of shape [places]; None for 0, 1, 2, ...
      run_ends: The end of the run of each place, of shape [places].
      splits: The start of the second part of each place's run: nodes in the first part
        are compared only with those in the second. None compares all nodes of a run.
    """

    nodes: npt.NDArray[np.integer] | None
    run_ends: npt.NDArray[np.integer]
    splits: npt.NDArray[np.integer] | None = None

    def part(self, start: int, end: int) -> slice | _Ints:
        """Returns the nodes at places `start` to `end`, as an index into arrays."""
        return slice(start, end) if self.nodes is None else self.nodes[start:end]

    def nodes_at(self, start: int, end: int) -> _Ints:
        """Returns the nodes at places `start` to `end`, as an array."""
        return np.arange(start, end) if self.nodes is None else self.nodes[start:end]


class Candidates(NamedTuple):
    """Candidate pairs, found in one block of the similarity matrix.

    Attributes:
      row_nodes: The nodes of the block's rows.
      column_nodes: The nodes of the block's columns.
      rows: The row of each pair.
      columns: The column of each pair.
      values: The float32 similarity of each pair.
    """

    row_nodes: _Ints
    column_nodes: _Ints
    rows: _Ints
    columns: _Ints
    values: _Floats

    @property
    def sources(self) -> _Ints:
        """The column node of each pair."""
        return self.column_nodes[self.columns]

    @property
    def targets(self) -> _Ints:
        """The row node of each pair."""
        return self.row_nodes[self.rows]

    def only(self, wanted: npt.NDArray[np.bool_]) -> "Candidates":
        """Returns the pairs where `wanted` is True."""
        return self._replace(
            rows=self.rows[wanted],
            columns=self.columns[wanted],
            values=self.values[wanted],
        )


class Product(Protocol):
    """Finds the large entries of a matrix product.

    Attributes:
      rows: The preferred number of rows per call.
      columns: The preferred number of columns per call.
      workers: The number of threads that may call it at the same time.
    """

    rows: int
    columns: int
    workers: int

    def __call__(
        self,
        rows: _Floats,
        columns: _Floats,
        bound: float | tuple[_Floats, _Floats],
        best: int = 0,
        margin: float = 0.0,
    ) -> tuple[_Ints, _Ints, _Floats]:
        """Finds the entries of `rows @ columns.T` that reach a bound.

        Args:
          rows: float32 of shape [m, d].
          columns: float32 of shape [n, d].
          bound: The smallest product to find: a number; or one for each row, [m], and
            one for each column, [n], of which an entry must reach at least one.
          best: If not 0, and very many entries reach the bounds, entries that are not
            among the `best + 1` largest of their row or column may be omitted (one of
            these may be the node itself).
          margin: How far below the last of the largest an entry may be.

        Returns:
          The rows, the columns and the values of the entries.
        """


def _are_many(count: float, shape: tuple[int, int], best: int) -> bool:
    return 0 < best < min(shape) - 1 and count > 2 * best * sum(shape)


class _Tile(NamedTuple):
    """Buffers for the product of a tile, padded to whole words of 8 products.

    Attributes:
      product: The product, of shape [rows, columns].
      values: The same memory, of shape [words, 8].
      mask: Which products are hits, of shape [words, 8].
      words: The same memory, of shape [words].
      is_hit: Which words have hits, of shape [words].
    """

    product: _Floats
    values: _Floats
    mask: npt.NDArray[np.bool_]
    words: npt.NDArray[np.uint64]
    is_hit: npt.NDArray[np.bool_]


class NumpyProduct:
    """Multiplies on the CPU, in tiles that stay in the cache.

    A tile is multiplied and compared before it leaves the cache, which together takes
    less time than a product that is written to memory. Comparing with a scalar takes
    half the time of comparing with a bound for each row, so a tile is compared with its
    smallest bound. This is fastest if rows and columns are sorted by their bounds. Only
    the few products that reach it are compared with their own bounds.
    """

    rows = 768
    columns = 2304

    def __init__(self, workers: int = 1) -> None:
        """Initializes the product.

        Args:
          workers: The number of threads, each of which gets buffers.
        """
        self.workers = workers
        self._buffers = threading.local()

    def __call__(
        self,
        rows: _Floats,
        columns: _Floats,
        bound: float | tuple[_Floats, _Floats],
        best: int = 0,
        margin: float = 0.0,
    ) -> tuple[_Ints, _Ints, _Floats]:
        """See `Product`."""
        if not isinstance(bound, tuple):
            bounds = np.full(max(len(rows), len(columns)), bound, np.float32)
            found = self._few_reaching(
                rows, columns, bounds[: len(rows)], bounds[: len(columns)], best
            )
            return found or self._many_reaching(rows, columns, bound)
        found = self._few_reaching(rows, columns, *bound, best)
        if found is None:
            return self._many_reaching(rows, columns, bound, best, margin)
        row, column, values = found
        wanted = values >= np.minimum(bound[0][row], bound[1][column])
        return row[wanted], column[wanted], values[wanted]

    def _buffer(self, name: str, dtype: Any, size: int) -> npt.NDArray[Any]:
        """Returns this thread's buffer of a name."""
        buffer = getattr(self._buffers, name, None)
        if buffer is None or len(buffer) < size:
            buffer = np.empty(size, dtype)
            setattr(self._buffers, name, buffer)
        return buffer[:size]

    def _tile(self, rows: int, columns: int) -> "_Tile":
        """Returns this thread's buffers for the product of a tile."""
        size = rows * columns
        words = -(-size // _WORD)
        values = self._buffer("tile", np.float32, words * _WORD)
        values[size:] = -np.inf
        mask = self._buffer("mask", np.bool_, words * _WORD)
        return _Tile(
            values[:size].reshape(rows, columns),
            values.reshape(words, _WORD),
            mask.reshape(words, _WORD),
            mask.view(np.uint64),
            self._buffer("is_hit", np.bool_, words),
        )

    def _few_reaching(
        self,
        rows: _Floats,
        columns: _Floats,
        row_bound: _Floats,
        column_bound: _Floats,
        best: int,
    ) -> tuple[_Ints, _Ints, _Floats] | None:
        """Finds the products that reach the smallest bound of their tile.

        Returns:
          Their rows, columns and values; None if there are very many.
        """
        parts = -(-len(columns) // _TILE_COLUMNS)
        width = -(-len(columns) // parts)
        height = min(_TILE // width, len(rows))
        tops = range(0, len(rows), height)
        # All tiles have the same width; the last one may overlap the one before.
        lefts = np.minimum(np.arange(parts) * width, len(columns) - width)
        row_least = np.minimum.reduceat(row_bound, tops)
        column_least = np.minimum.reduceat(column_bound, np.arange(parts) * width)
        words_per_tile = -(-height * width // _WORD)
        words: list[_Ints] = []
        values: list[_Floats] = []
        bounds: list[np.float32] = []
        tile: _Tile | None = None
        for left, least in zip(lefts.tolist(), column_least, strict=True):
            part = columns[left : left + width].T
            for top, bound in zip(tops, np.minimum(row_least, least), strict=True):
                strip = rows[top : top + height]
                if tile is None or len(tile.product) != len(strip):
                    tile = self._tile(len(strip), width)
                np.matmul(strip, part, out=tile.product)
                np.greater_equal(tile.values, bound, out=tile.mask)
                # Hits are rare, so finding nonzero words of 8 bytes first is faster.
                found = np.not_equal(tile.words, 0, out=tile.is_hit).nonzero()[0]
                if len(found) > len(tile.words) // _WORD:
                    share = np.count_nonzero(tile.mask) / tile.product.size
                    shape = len(rows), len(columns)
                    count = share * shape[0] * shape[1]
                    if share > _MANY or _are_many(count, shape, best):
                        return None
                values.append(tile.values.take(found, axis=0))
                found += len(words) * words_per_tile
                words.append(found)
                bounds.append(bound)
        near = np.concatenate(values)
        word_bounds = np.repeat(bounds, list(map(len, words)))
        reached = np.flatnonzero(near >= word_bounds[:, np.newaxis])
        place = np.concatenate(words)[reached // _WORD] * _WORD + reached % _WORD
        number = place // (words_per_tile * _WORD)
        place -= number * (words_per_tile * _WORD)
        row = place // width
        column = place - row * width
        part_number = number // len(tops)
        row += (number - part_number * len(tops)) * height
        column += lefts[part_number]
        reached_values = near.reshape(-1)[reached]
        if parts * width > len(columns):
            first = column >= part_number * width
            return row[first], column[first], reached_values[first]
        return row, column, reached_values

    def _many_reaching(
        self,
        rows: _Floats,
        columns: _Floats,
        bound: float | tuple[_Floats, _Floats],
        best: int = 0,
        margin: float = 0.0,
    ) -> tuple[_Ints, _Ints, _Floats]:
        """Finds the products that reach a bound, in the whole product at once."""
        shape = len(rows), len(columns)
        product = self._buffer("product", np.float32, shape[0] * shape[1])
        product = product.reshape(shape)
        np.matmul(rows, columns.T, out=product)
        if not isinstance(bound, tuple):
            wanted = product >= np.float32(bound)
        else:
            row_bound, column_bound = bound
            if 0 < best < min(shape) - 1:
                kth = at_most_kth(product, best + 1, 1) - np.float32(margin)
                column_kth = at_most_kth(product, best + 1, 0) - np.float32(margin)
                row_bound = np.maximum(row_bound, kth)
                column_bound = np.maximum(column_bound, column_kth)
            wanted = product >= row_bound[:, np.newaxis]
            wanted |= product >= column_bound
        found = np.flatnonzero(wanted)
        return *np.divmod(found, shape[1]), product.reshape(-1)[found]


def at_most_kth(values: _Floats, k: int, axis: int) -> _Floats:
    """Returns lower bounds of the k-th largest values along an axis.

    A bound is the k-th largest of the maxima of many parts. It is close to the k-th
    largest value and takes a tenth of the time.
    """
    parts = values.shape[axis] // _PART
    if parts >= 4 * k:
        if axis:
            values = values[:, : parts * _PART].reshape(-1, _PART, parts).max(axis=1)
        else:
            values = values[: parts * _PART].reshape(_PART, parts, -1).max(axis=0)
    values = values if axis else np.ascontiguousarray(values.T)
    return np.partition(values, -k, axis=1)[:, -k]


class TensorFlowProduct:
    """Multiplies on a TensorFlow device; only the hits are copied to the host."""

    rows = 8192
    columns = 8192
    workers = 1

    def __init__(self, device: str) -> None:
        """Initializes the product.

        Args:
          device: A device name such as '/GPU:0'.
        """
        self._device = device

    def __call__(
        self,
        rows: _Floats,
        columns: _Floats,
        bound: float | tuple[_Floats, _Floats],
        best: int = 0,
        margin: float = 0.0,
    ) -> tuple[_Ints, _Ints, _Floats]:
        """See `Product`."""
        import tensorflow as tf

        with tf.device(self._device):
            product = tf.matmul(rows, columns, transpose_b=True)
            if isinstance(bound, tuple):
                row_bound, column_bound = bound[0][:, np.newaxis], bound[1]
                mask = (product >= row_bound) | (product >= column_bound)
                count = int(tf.math.count_nonzero(mask))
                if _are_many(count, (len(rows), len(columns)), best):
                    kth = tf.math.top_k(product, best + 1).values[:, -1:]
                    row_bound = tf.maximum(row_bound, kth - margin)
                    kth = tf.math.top_k(tf.transpose(product), best + 1).values[:, -1]
                    column_bound = tf.maximum(column_bound, kth - margin)
                    mask = (product >= row_bound) | (product >= column_bound)
            else:
                mask = product >= bound
            found = tf.where(mask)
            values = tf.gather_nd(product, found).numpy()
            pairs = found.numpy()
        return pairs[:, 0], pairs[:, 1], values


@contextlib.contextmanager
def fastest_product(workers: int = 1) -> Iterator[Product]:
    """Returns a product on the GPU if TensorFlow has one, else on the CPU.

    Args:
      workers: The number of threads that may call the product on the CPU.
    """
    if not _sees_gpu():
        yield NumpyProduct(workers)
        return
    import tensorflow as tf

    # TensorFloat-32 errors exceed `Embeddings.error`.
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield TensorFlowProduct("/GPU:0")
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _sees_gpu() -> bool:
    """Returns whether TensorFlow has a GPU; imports it only if there may be one."""
    devices = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg")
    if sys.platform != "darwin" and not any(map(glob.glob, devices)):
        return False
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        return False
    return bool(tf.config.list_physical_devices("GPU"))


def one_run(num_nodes: int) -> Order:
    """Returns the order in which every node is compared with every other."""
    return Order(None, np.full(num_nodes, num_nodes))


def one_block(rows: int, columns: int) -> Order:
    """Returns the order in which the first nodes are compared only with the rest.

    Args:
      rows: The number of first nodes, at least 1.
      columns: The number of other nodes, at least 1.
    """
    nodes = rows + columns
    return Order(None, np.full(nodes, nodes), np.full(nodes, rows))


def candidate_pairs(
    embeddings: Embeddings,
    order: Order,
    product: Product,
    bound: Bound,
    progress: Progress,
    best: int = 0,
) -> Iterator[Candidates]:
    """Finds the pairs within runs whose float32 similarity reaches a bound.

    Args:
      embeddings: The vectors.
      order: The runs of nodes to compare.
      product: Multiplies two blocks.
      bound: The smallest float32 similarity to find: a number; or one for each node,
        of which a pair must reach at least one. The caller may increase the values of
        the array during iteration.
      progress: Counts compared pairs.
      best: If not 0, only the `best` most similar nodes of each node are needed.

    Yields:
      The candidates of each block; each pair occurs once.
    """

    def compare(block: _Block) -> tuple[Candidates, float]:
        rows, columns, values = product(
            embeddings.unit_rows(block.rows),
            block.column_vectors,
            # Copies, because the caller may increase bounds in the meantime.
            (np.array(bound[block.rows]), np.array(bound[block.columns]))
            if isinstance(bound, np.ndarray)
            else bound,
            # In a block of several runs, the largest entries may not be in one run.
            best if block.in_one_run else 0,
            2 * embeddings.error,
        )
        found = Candidates(
            _as_array(block.rows), _as_array(block.columns), rows, columns, values
        )
        if block.row_start < block.end or not block.in_one_run:
            row_places, places = rows + block.row_start, columns + block.start
            found = found.only(
                (row_places > places) & (row_places < order.run_ends[places])
            )
        return found, block.compared

    blocks = _blocks(embeddings, order, product, bound)
    for found, compared in in_order(compare, blocks, product.workers):
        if len(found.rows):
            yield found
        progress.advance(compared)


class _Block(NamedTuple):
    """A block of the similarity matrix.

    Attributes:
      start: The first place of the columns.
      end: The end of their places.
      row_start: The first place of the rows.
      rows: The nodes of the rows, an index into arrays.
      columns: The nodes of the columns.
      column_vectors: The unit vectors of the columns.
      in_one_run: Whether rows and columns are in one run.
      compared: The number of pairs.
    """

    start: int
    end: int
    row_start: int
    rows: slice | _Ints
    columns: slice | _Ints
    column_vectors: _Floats
    in_one_run: bool
    compared: float


def _as_array(nodes: slice | _Ints) -> _Ints:
    return np.arange(nodes.start, nodes.stop) if isinstance(nodes, slice) else nodes


def _from(nodes: slice | _Ints, start: int, end: int) -> slice | _Ints:
    if isinstance(nodes, slice):
        return slice(nodes.start + start, min(nodes.start + end, nodes.stop))
    return nodes[start:end]


def _blocks(
    embeddings: Embeddings, order: Order, product: Product, bound: Bound
) -> Iterator[_Block]:
    """Yields the blocks that cover all pairs within runs.

    Nodes of a run are sorted by their bounds, if they have any, so that neighboring
    rows and columns of a block have similar bounds.
    """
    run_ends, splits = order.run_ends, order.splits

    def nodes_of(start: int, end: int, in_one_run: bool) -> slice | _Ints:
        nodes = order.part(start, end)
        if not in_one_run or not isinstance(bound, np.ndarray):
            return nodes
        return _as_array(nodes)[np.argsort(-bound[nodes])]

    start = 0
    while start < len(run_ends):
        if splits is None:
            # Long runs are split into large blocks. For short runs, small blocks waste
            # less, because the rows of a block extend to the end of its last run.
            width = int(run_ends[start]) - start
            columns = int(np.clip(width, _MIN_COLUMNS, product.columns))
            end = min(start + columns, len(run_ends))
            first, last = start, int(run_ends[end - 1])
        else:
            first, last = int(splits[start]), int(run_ends[start])
            if start >= first:
                start = last
                continue
            end = min(start + product.columns, first)
        in_one_run = bool(run_ends[start] == last)
        column_nodes = nodes_of(start, end, in_one_run)
        column_vectors = embeddings.unit_rows(column_nodes)
        compared = _compared(order, start, end)
        # Keep the block size with fewer columns by taking more rows.
        height = product.rows * max(1, product.columns // (2 * (end - start)))
        parts = [(first, last, nodes_of(first, last, in_one_run))]
        is_diagonal = in_one_run and first == start
        if is_diagonal:
            # First the columns with each other; rows need only those before them.
            parts = [
                (first, end, column_nodes),
                (end, last, nodes_of(end, last, in_one_run)),
            ]
        for part_start, part_end, row_nodes in parts:
            for row_start in range(part_start, part_end, height):
                row_end = min(row_start + height, part_end)
                count = (row_end if is_diagonal and row_start < end else end) - start
                yield _Block(
                    start,
                    end,
                    row_start,
                    _from(row_nodes, row_start - part_start, row_end - part_start),
                    _from(column_nodes, 0, count),
                    column_vectors[:count],
                    in_one_run,
                    compared * (row_end - row_start) / (last - first),
                )
        start = end


def _compared(order: Order, start: int, end: int) -> int:
    """Returns the number of comparisons of places `start` to `end` with later ones."""
    if order.splits is None:
        places = np.arange(start, end)
        return int((order.run_ends[start:end] - places).sum())
    second = order.splits[start:end]
    in_first = np.arange(start, end) < second
    return int((order.run_ends[start:end] - second)[in_first].sum())


def num_comparisons(order: Order) -> int:
    """Returns the number of pairs that `candidate_pairs` compares."""
    return _compared(order, 0, len(order.run_ends))
