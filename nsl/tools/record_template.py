"""Reading records that differ from a record read before only in id and embedding."""

from nsl.tools import example_wire


class RecordTemplate:
    """The bytes around the id and the embedding of a serialized Example.

    A record with the same bytes around them is the same Example with another id and
    other floats, so it need not be parsed.
    """

    def __init__(self, data: bytes, first: slice, second: slice, id_first: bool):
        """Cuts an example.

        Args:
          data: A serialized Example.
          first: Where the first of id and embedding lies.
          second: Where the other lies.
          id_first: Whether the first is the id.
        """
        self._first, self._second = first, second
        self._between = slice(first.stop, second.start)
        self._head = data[: first.start]
        self._middle = data[self._between]
        self._tail = data[second.stop :]
        self._id_first = id_first

    @classmethod
    def of(
        cls, data: bytes, id_name: str, node: bytes, embedding_name: str, row: bytes
    ) -> "RecordTemplate | None":
        """Makes a template of an Example.

        Args:
          data: The serialized Example.
          id_name: The feature that holds its id.
          node: The id.
          embedding_name: The feature that holds its embedding.
          row: The embedding, as little-endian floats.

        Returns:
          The template, or None if the example is not serialized in the usual way.
        """
        wanted = {
            id_name.encode(): (example_wire.bytes_value(node), len(node)),
            embedding_name.encode(): (example_wire.packed_floats(row), len(row)),
        }
        features = example_wire.split_features(data)
        entries = [example_wire.entry(name, rest) for name, rest in features]
        if example_wire.add_entries(b"", entries) != data:
            return None
        spans = []
        end = len(data)
        for (name, rest), entry in zip(features[::-1], entries[::-1], strict=True):
            if name in wanted and rest == wanted[name][0]:
                spans.append((slice(end - wanted[name][1], end), name))
            end -= len(entry)
        if sorted(name for _, name in spans) != sorted(wanted) or len(spans) != 2:
            return None
        (second, _), (first, first_name) = spans
        return cls(data, first, second, first_name == id_name.encode())

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Returns the id and the floats of a record of the template's length.

        Args:
          data: A serialized Example.

        Returns:
          The id, which is not checked to be UTF-8, and the embedding; or None if
          something else differs too.
        """
        if (
            data[self._between] != self._middle
            or not data.startswith(self._head)
            or not data.endswith(self._tail)
        ):
            return None
        first, second = data[self._first], data[self._second]
        return (first, second) if self._id_first else (second, first)
