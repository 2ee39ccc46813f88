"""Reads and writes Parquet and Arrow files with pyarrow."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from nsl.files.id_table import Ids, Strings

if TYPE_CHECKING:
    from nsl.files.output_files import OutputFile

# pyarrow is optional, so its types are not available to type checkers.
Column: TypeAlias = Any
# Writes sources, targets, weights, and whether reverses follow the edges.
AppendEdges: TypeAlias = Callable[
    [Sequence[bytes], Sequence[bytes], Sequence[float], bool], None
]

_CHUNK_ROWS = 1 << 16
# The first bytes of Parquet, of Arrow files, and of Arrow streams.
_PARQUET, _ARROW, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
SUFFIX = ".parquet"


def is_arrow_file(head: bytes) -> bool:
    """Returns whether a file's first bytes are those of a Parquet or Arrow file."""
    return head.startswith((_PARQUET, _ARROW, _STREAM))


def _pyarrow(what: str, module: str = "pyarrow") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what}: Parquet and Arrow files need pyarrow, which is not installed: "
            "pip install 'nsl[arrow]', or pip install pyarrow.",
            name="pyarrow",
        ) from error


def check_pyarrow(path: str) -> None:
    """Raises ImportError, which names a file, if pyarrow is not installed."""
    _pyarrow(path)


class TableFile:
    """A table in a Parquet or Arrow file (Feather or stream), read in chunks.

    Attributes:
      path: The path of the file.
      names: The names of the columns.
      rows: The number of rows.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        """Reads the schema.

        Args:
          file: The open file.
          path: The path of the file, for errors.

        Raises:
          ImportError: If pyarrow is not installed.
          ValueError: If the file is corrupt, or two columns have the same name.
        """
        self.path = path
        self._file = file
        self._pa = _pyarrow(path)
        file.seek(0)
        head = file.read(len(_PARQUET))
        file.seek(0)
        self._parquet: Any = None
        try:
            if head == _PARQUET:
                self._parquet = _pyarrow(path, "pyarrow.parquet").ParquetFile(file)
                self.names = list(self._parquet.schema_arrow.names)
                self.rows = int(self._parquet.metadata.num_rows)
            else:
                self._open = self._pa.ipc.open_file
                if head == _STREAM:
                    self._open = self._pa.ipc.open_stream
                self.names = list(self._open(file).schema.names)
                self.rows = sum(batch.num_rows for batch in self._arrow_batches())
        except (self._pa.ArrowException, OSError) as error:
            raise self._corrupt(error) from error
        if len(set(self.names)) < len(self.names):
            raise ValueError(
                f"{path} has columns of the same name: {self.names}. Rename them."
            )

    def _corrupt(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} is a corrupt Parquet or Arrow file: {str(error).rstrip('.')}."
        )

    def _arrow_batches(self) -> Iterator[Any]:
        self._file.seek(0)
        reader = self._open(self._file)
        if self._open is self._pa.ipc.open_stream:
            yield from reader
        else:
            yield from map(reader.get_batch, range(reader.num_record_batches))

    def check_column(self, name: str) -> None:
        """Raises ValueError if there is no column named `name`."""
        if name not in self.names:
            raise ValueError(
                f"{self.path} has no column {name!r}; its columns are "
                f"{', '.join(map(repr, self.names))}."
            )

    def batches(self, names: Sequence[str]) -> Iterator[tuple[int, list[Column]]]:
        """Reads columns, in chunks of rows.

        Args:
          names: The names of the columns.

        Yields:
          The number of the first row of the chunk, and its columns.

        Raises:
          ValueError: If the file is corrupt.
        """
        if not self.rows:
            return  # pyarrow 18 fails on files without row groups
        start = 0
        try:
            if self._parquet is not None:
                found = self._parquet.iter_batches(_CHUNK_ROWS, columns=list(names))
            else:
                found = self._arrow_batches()
            for batch in found:
                for first in range(0, batch.num_rows, _CHUNK_ROWS):
                    part = batch.slice(first, _CHUNK_ROWS)
                    yield start, [_stored(part.column(name)) for name in names]
                    start += part.num_rows
        except (self._pa.ArrowException, OSError) as error:
            raise self._corrupt(error) from error

    def place(self, column: str, row: int) -> str:
        """Describes a cell of the table in error messages."""
        return f"{self.path}, row {row}, column {column!r}"

    def ids(self, values: Column, name: str, first: int) -> Ids:
        """Converts a column of ids.

        Args:
          values: The column: strings, UTF-8 bytes, integers or whole numbers as
            floats, or a dictionary-encoded column of these.
          name: The name of the column.
          first: The number of its first row in the file.

        Returns:
          int64 for integers, UTF-8 for strings.

        Raises:
          ValueError: If an id is missing, empty or not UTF-8, or the column has another
            type.
        """
        pa = self._pa
        types = pa.types
        if types.is_dictionary(values.type):
            values = values.dictionary_decode()
        # pandas stores integers with missing values as floats.
        is_integer = types.is_integer(values.type) or types.is_floating(values.type)
        if not is_integer and not any(
            check(values.type)
            for check in (
                types.is_string,
                types.is_large_string,
                types.is_string_view,
                types.is_binary,
                types.is_large_binary,
            )
        ):
            raise ValueError(
                f"{self.path}: the ids in column {name!r} must be strings or integers, "
                f"but are of type {values.type}."
            )
        self._check_present(values, name, first)
        if is_integer:
            try:
                numbers: npt.NDArray[np.int64] = values.cast(pa.int64()).to_numpy()
            except pa.ArrowInvalid as error:
                raise ValueError(f"{self.path}, column {name!r}: {error}.") from None
            return numbers
        try:
            texts = values.cast(pa.large_string())
            texts.validate(full=True)
        except pa.ArrowInvalid:
            for row, value in enumerate(values.to_pylist()):
                try:
                    value.decode()
                except UnicodeDecodeError:
                    raise ValueError(
                        f"{self.place(name, first + row)}: the id {value!r} is not "
                        "UTF-8."
                    ) from None
            raise
        _, offsets_buffer, data = texts.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64)
        offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
        start, end = (int(offsets[0]), int(offsets[-1])) if len(texts) else (0, 0)
        text = bytes(memoryview(data)[start:end]) if end > start else b""
        ids = Strings(text, offsets[:-1] - start, offsets[1:] - start)
        if not ids.lengths.all():
            row = int(np.argmin(ids.lengths))
            raise ValueError(f"{self.place(name, first + row)}: the id is empty.")
        return ids

    def numbers(self, values: Column, name: str, first: int) -> npt.NDArray[np.float64]:
        """Converts a column of numbers.

        Args:
          values: The column.
          name: The name of the column.
          first: The number of its first row in the file.

        Raises:
          ValueError: If a value is missing, or the column does not hold numbers.
        """
        types = self._pa.types
        kind = values.type
        checks = types.is_floating, types.is_integer, types.is_decimal
        if not any(check(kind) for check in checks):
            raise ValueError(
                f"{self.path}: column {name!r} must hold numbers, but is of type "
                f"{kind}."
            )
        self._check_present(values, name, first)
        cast = values.cast(self._pa.float64(), safe=False)
        result: npt.NDArray[np.float64] = cast.to_numpy(zero_copy_only=False)
        return result

    def vectors(self, values: Column, name: str, first: int) -> npt.NDArray[np.float32]:
        """Converts a column of lists of numbers, all of the same length.

        Args:
          values: The column.
          name: The name of the column.
          first: The number of its first row in the file.

        Returns:
          float32 of shape [rows, dimensions].

        Raises:
          ValueError: If a list or a number is missing, or lengths differ.
        """
        pa = self._pa
        types = pa.types
        if not any(
            check(values.type)
            for check in (
                types.is_list,
                types.is_large_list,
                types.is_fixed_size_list,
                types.is_list_view,
                types.is_large_list_view,
            )
        ) or not (
            types.is_floating(values.type.value_type)
            or types.is_integer(values.type.value_type)
        ):
            raise ValueError(
                f"{self.path}: column {name!r} must hold lists of numbers, but is of "
                f"type {values.type}."
            )
        self._check_present(values, name, first)
        lengths = np.asarray(
            _pyarrow(self.path, "pyarrow.compute").list_value_length(values)
        )
        unequal = np.flatnonzero(lengths != lengths[:1])
        if len(unequal):
            row = int(unequal[0])
            raise ValueError(
                f"{self.place(name, first + row)}: its embedding has {lengths[row]} "
                f"values, but earlier embeddings have {lengths[0]}."
            )
        flat = values.flatten()
        if flat.null_count:
            row = int(np.flatnonzero(~np.asarray(flat.is_valid()))[0] // lengths[0])
            raise ValueError(f"{self.place(name, first + row)}: a number is missing.")
        cast = flat.cast(pa.float32(), safe=False)
        floats: npt.NDArray[np.float32] = cast.to_numpy(zero_copy_only=False)
        return floats.reshape(len(lengths), -1)

    def _check_present(self, values: Column, name: str, first: int) -> None:
        if values.null_count:
            row = int(np.flatnonzero(np.asarray(values.is_null()))[0])
            raise ValueError(f"{self.place(name, first + row)}: the value is missing.")


def _stored(column: Column) -> Column:
    """Returns the storage of an extension type, such as a tensor of fixed shape."""
    return getattr(column, "storage", column)


class _Stream(io.RawIOBase):
    """Adapts an output file to pyarrow."""

    def __init__(self, file: OutputFile) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(bytes(view))
        return view.nbytes


@contextlib.contextmanager
def edge_table(file: OutputFile, path: str) -> Iterator[AppendEdges]:
    """Writes a Parquet file with the columns source, target and weight.

    Args:
      file: The file to write to.
      path: The final path, for errors.

    Yields:
      A function that appends edges.

    Raises:
      ImportError: If pyarrow is not installed.
    """
    pa = _pyarrow(path)
    columns = {"source": pa.string(), "target": pa.string(), "weight": pa.float64()}
    schema = pa.schema(list(columns.items()))

    def append(
        sources: Sequence[bytes],
        targets: Sequence[bytes],
        weights: Sequence[float],
        both_ways: bool,
    ) -> None:
        ends = pa.array([*sources, *targets], pa.binary()).cast(pa.string())
        rows = np.arange(len(ends)).reshape(2, -1)
        if both_ways:
            rows = np.stack([pairs.T.reshape(-1) for pairs in (rows, rows[::-1])])
            weights = np.repeat(weights, 2).tolist()
        table = [*map(ends.take, rows), pa.array(weights, pa.float64())]
        writer.write_table(pa.Table.from_arrays(table, schema=schema))

    parquet = _pyarrow(path, "pyarrow.parquet")
    with parquet.ParquetWriter(_Stream(file), schema) as writer:
        yield append
