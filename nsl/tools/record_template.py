"""Parses records that differ from an earlier one only in id and embedding."""

from nsl.tools import example_wire


class RecordTemplate:
    """The bytes around the id and the embedding of a serialized Example.

    A record of the same length with the same bytes around them is an Example with the
    same features except for the id and the embedding, so it need not be parsed.
    """

    def __init__(self, data: bytes, first: slice, second: slice, id_first: bool):
        """Initializes the template.

        Args:
          data: A serialized Example.
          first: The position of the id or the embedding, whichever comes first.
          second: The position of the other.
          id_first: Whether the id comes first.
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
        """Makes a template from an Example.

        Args:
          data: The serialized Example.
          id_name: The feature that holds the id.
          node: The id.
          embedding_name: The feature that holds the embedding.
          row: The embedding, as little-endian floats.

        Returns:
          The template, or None if the Example is not serialized in the usual form.
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
        """Returns the id and the embedding of a record of the template's length.

        Args:
          data: A serialized Example.

        Returns:
          The id, which may not be valid UTF-8, and the embedding; or None if anything
          else differs.
        """
        if (
            data[self._between] != self._middle
            or not data.startswith(self._head)
            or not data.endswith(self._tail)
        ):
            return None
        first, second = data[self._first], data[self._second]
        return (first, second) if self._id_first else (second, first)
