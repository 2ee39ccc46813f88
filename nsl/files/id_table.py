"""Maps ids to numbers: a hash table of byte strings without Python objects."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_WORD = 8
_HEAD = 2 * _WORD
# Masks for a word of 8 bytes of which the first n belong to the string.
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_WORD + 1)], np.uint64)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_NONE = -1
_MAX_RECENT_LOOKUPS = 1 << 14
_CHUNK_ROWS = 1 << 16
_CHUNK_STRINGS = 1 << 13


class Strings:
    """Byte strings in one buffer, compared and hashed eight bytes at a time.

    Attributes:
      lengths: The length of each string in bytes, int64 of shape [strings].
      heads: What is compared first: the first two words of 8 bytes of each string,
        padded with zeros, and its length; uint64 of shape [strings, 3].
    """

    def __init__(
        self,
        text: bytes | bytearray,
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> None:
        """Initializes strings that are slices of a buffer.

        Args:
          text: The buffer.
          starts: The start of each string in the buffer.
          ends: The end of each string in the buffer.
        """
        padded = b"".join((text, bytes(_HEAD + _WORD)))
        # Overlapping words, one for each start position.
        self._words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, 0, (1,))
        self._text = text
        self._starts = starts
        self.heads = np.empty((len(starts), 3), np.uint64)
        self.lengths = self.heads[:, 2].view(np.int64)
        self.lengths[:] = ends - starts
        for column, place in enumerate(range(0, _HEAD, _WORD)):
            left = np.clip(self.lengths - place, 0, _WORD)
            self.heads[:, column] = self._words[starts + place] & _MASKS[left]

    @classmethod
    def of(cls, values: Sequence[bytes] | npt.NDArray[np.bytes_]) -> "Strings":
        """Makes strings from a sequence or an array."""
        if isinstance(values, np.ndarray):
            lengths = np.strings.str_len(values)
            starts = np.arange(len(values)) * values.dtype.itemsize
            return cls(values.tobytes(), starts, starts + lengths)
        ends = np.cumsum([len(value) for value in values], dtype=np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), ends))[: len(ends)]
        return cls(b"".join(values), starts, ends)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> bytes:
        start = self._starts[number]
        return bytes(self._text[start : start + self.lengths[number]])

    def __iter__(self) -> Iterator[bytes]:
        starts = self._starts.tolist()
        ends = (self._starts + self.lengths).tolist()
        for start, end in zip(starts, ends, strict=True):
            yield bytes(self._text[start:end])

    def _word(
        self, numbers: npt.NDArray[np.integer], place: int
    ) -> npt.NDArray[np.uint64]:
        """Returns the words at offset `place` of strings that are longer than that."""
        left = np.minimum(self.lengths[numbers] - place, _WORD)
        return self._words[self._starts[numbers] + place] & _MASKS[left]

    def hashes(self) -> npt.NDArray[np.uint64]:
        """Returns a hash of each string."""
        result = np.empty(len(self), np.uint64)
        # In chunks, so that intermediate results stay in the cache.
        for start in range(0, len(self), _CHUNK_STRINGS):
            some = slice(start, start + _CHUNK_STRINGS)
            hashes = self.lengths[some].astype(np.uint64)
            for column in range(2):
                hashes = _mix(hashes, self.heads[some, column])
            place = _HEAD
            numbers = np.flatnonzero(self.lengths[some] > place)
            while len(numbers):
                words = self._word(start + numbers, place)
                hashes[numbers] = _mix(hashes[numbers], words)
                place += _WORD
                numbers = numbers[self.lengths[start + numbers] > place]
            result[some] = hashes * _MULTIPLIER
        return result

    def equal(
        self,
        numbers: npt.NDArray[np.integer],
        others: "Strings",
        other_numbers: npt.NDArray[np.integer],
    ) -> npt.NDArray[np.bool_]:
        """Compares pairs of strings.

        Args:
          numbers: The indices of strings of this object.
          others: Other strings.
          other_numbers: The indices of the strings of `others` to compare them with.

        Returns:
          Whether the strings of each pair are equal.
        """
        heads = self.heads.take(numbers, axis=0)
        other_heads = others.heads.take(other_numbers, axis=0)
        result = heads[:, 0] == other_heads[:, 0]
        for column in (1, 2):
            result &= heads[:, column] == other_heads[:, column]
        place = _HEAD
        pending = np.flatnonzero(result & (heads[:, 2] > place))
        lengths = self.lengths[numbers[pending]]
        while len(pending):
            same = self._word(numbers[pending], place) == others._word(
                other_numbers[pending], place
            )
            result[pending[~same]] = False
            place += _WORD
            longer = same & (lengths > place)
            pending, lengths = pending[longer], lengths[longer]
        return result


# Columns of ids: integers or UTF-8.
Ids: TypeAlias = npt.NDArray[np.int64] | Strings


def as_strings(ids: Ids) -> Strings:
    """Returns ids as UTF-8; integers become decimal digits."""
    return Strings.of(ids.astype(np.bytes_)) if isinstance(ids, np.ndarray) else ids


def _mix(
    hashes: npt.NDArray[np.uint64], words: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    mixed = (hashes ^ words) * _MULTIPLIER
    return mixed ^ (mixed >> _SHIFT)


class IdTable:
    """Numbers distinct ids in the order of their first occurrence.

    An id takes about 50 bytes in addition to its own. Either append ids and then call
    `settle`, or call `number`.
    """

    def __init__(self) -> None:
        self._empty()

    def _empty(self) -> None:
        self._text = bytearray()
        self._ends = array("q")
        self._settled = 0
        # Ids that are not in the hash table yet, and the number of their lookups.
        self._recent: dict[bytes, int] = {}
        self._recent_lookups = 0
        self._strings = Strings(b"", np.empty(0, np.int64), np.empty(0, np.int64))
        self._slots = np.full(2, _NONE, np.int32)
        self._bits = 0

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> bytes:
        start = self._ends[number - 1] if number else 0
        return bytes(self._text[start : self._ends[number]])

    def append(self, node: bytes) -> None:
        """Adds a nonempty id; `settle` returns whether it is new."""
        self._text += node
        self._ends.append(len(self._text))

    def settle(self) -> npt.NDArray[np.int32]:
        """Adds the appended ids to the hash table.

        Returns:
          The number of the first occurrence of each id appended since the last call:
          its own number, unless the id is a duplicate.
        """
        settled = self._settled
        if self._make_slots():
            return np.arange(settled, len(self), dtype=np.int32)
        return self.find(self._strings)[settled:]

    def _make_slots(self) -> bool:
        """Builds the hash table; lookups find the first of duplicate ids.

        Returns:
          Whether all hashes differ, so that there are no duplicates.
        """
        ends = np.array(self._ends, np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), ends))[:-1]
        self._strings = Strings(self._text, starts, ends)
        count = len(ends)
        self._bits = max(count, 1).bit_length() + 2
        hashes = self._strings.hashes()
        # Linear probing: in order of their hashes, each id is at its home slot, or
        # just after the previous one.
        order = np.argsort(hashes)
        ordered = hashes[order]
        are_distinct = bool((ordered[1:] != ordered[:-1]).all())
        if not are_distinct:
            order = np.argsort(hashes, kind="stable")
        ranks = np.arange(count)
        home = (ordered >> np.uint64(64 - self._bits)).astype(np.int64)
        places = np.maximum.accumulate(home - ranks) + ranks
        size = (1 << self._bits) + 1
        if count:
            size = max(size, int(places[-1]) + 2)
        self._slots = np.full(size, _NONE, np.int32)
        self._slots[places] = order
        self._settled = count
        self._recent.clear()
        self._recent_lookups = 0
        return are_distinct

    def _home(self, strings: Strings) -> npt.NDArray[np.int64]:
        return (strings.hashes() >> np.uint64(64 - self._bits)).astype(np.int64)

    def find(self, strings: Strings) -> npt.NDArray[np.int32]:
        """Returns the number of each id, or -1 if it is unknown."""
        result = np.full(len(strings), _NONE, np.int32)
        if not len(self):
            return result
        places = self._home(strings)
        pending = np.arange(len(strings))
        while len(pending):
            candidates = self._slots[places]
            taken = candidates >= 0
            pending, places = pending[taken], places[taken]
            candidates = candidates[taken]
            equal = strings.equal(pending, self._strings, candidates)
            result[pending[equal]] = candidates[equal]
            pending, places = pending[~equal], places[~equal] + 1
        return result

    def number(self, strings: Strings) -> npt.NDArray[np.int32]:
        """Returns the number of each id; unknown ids get new numbers."""
        result = self.find(strings)
        unknown = np.flatnonzero(result < 0).tolist()
        for place in unknown:
            node = strings[place]
            number = self._recent.get(node)
            if number is None:
                number = self._recent[node] = len(self)
                self.append(node)
            result[place] = number
        # The dict is slow, but so is rebuilding the hash table.
        self._recent_lookups += len(unknown)
        if self._recent_lookups > max(_MAX_RECENT_LOOKUPS, self._settled // 4):
            self._make_slots()
        return result

    def take(self) -> npt.NDArray[np.bytes_]:
        """Returns the ids by number, and empties the table.

        Trailing NULs of ids are lost.
        """
        all_text, ends = self._text, np.array(self._ends, np.int64)
        # The hash table takes more memory than the ids.
        self._empty()
        lengths = np.diff(ends, prepend=0)
        width = max(int(lengths.max(initial=1)), 1)
        rows = np.zeros((len(ends), width), np.uint8)
        for start in range(0, len(ends), _CHUNK_ROWS):
            some = slice(start, start + _CHUNK_ROWS)
            first = int(ends[start] - lengths[start])
            text = all_text[first : int(ends[some][-1])]
            inside = np.arange(width) < lengths[some, np.newaxis]
            rows[some][inside] = np.frombuffer(text, np.uint8)
        array: npt.NDArray[np.bytes_] = rows.reshape(-1).view(f"S{width}")
        return array

    def remove(self, unwanted: npt.NDArray[np.bool_]) -> None:
        """Removes the ids marked in `unwanted`, and renumbers the others."""
        kept = np.flatnonzero(~unwanted).tolist()
        nodes = [self[number] for number in kept]
        self._text = bytearray()
        self._ends = array("q")
        for node in nodes:
            self.append(node)
        self._settled = 0
        self.settle()
