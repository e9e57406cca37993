"""Where the members of many JSON documents stand: numpy over their bytes, one pass for all documents.

The documents must be valid (one object each): then quotes alternate, a colon outside a text follows a key, and the
k-th opening bracket of a depth belongs to the k-th closing one. White space between tokens is taken out first, so that
every span of bytes is compact JSON as it was written.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.formats.grammar import byte_view

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_QUOTE, _COLON, _BACKSLASH = ord('"'), ord(":"), ord("\\")
_SPACES = np.frombuffer(b" \t\r\n", np.uint8)
_IS_TOKEN = np.zeros(256, bool)
_IS_TOKEN[np.frombuffer(b'"{}[]:,\\ \t\r\n', np.uint8)] = True
_TOKENS = _IS_TOKEN.tobytes()
_IS_SPACE = np.zeros(256, bool)
_IS_SPACE[_SPACES] = True
_STEP = np.zeros(256, np.int8)
_STEP[np.frombuffer(b"{[", np.uint8)] = 1
_STEP[np.frombuffer(b"}]", np.uint8)] = -1


@dataclass(frozen=True, slots=True)
class Spans:
    """Stretches `start` to `end` of the scanned bytes, in order and apart."""

    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.start)

    def at(self, chosen: "Ints | npt.NDArray[np.bool_]") -> "Spans":
        """Some of them."""
        return Spans(self.start[chosen], self.end[chosen])

    def inside(self) -> "Spans":
        """Without their first and last byte: the content of texts."""
        return Spans(self.start + 1, self.end - 1)


@dataclass(frozen=True, slots=True)
class Members:
    """Members of objects of one depth, in the order of the bytes.

    `holder` is the number of the object among the brackets of its depth, `opens` that of the member's own value among
    those of the next depth (only of objects and arrays). `key` is without its quotes, `value` with them; `head` is the
    value's first byte.
    """

    holder: Ints
    opens: Ints
    doc: Ints
    key: Spans
    value: Spans
    head: Bytes

    def at(self, chosen: "Ints | npt.NDArray[np.bool_]") -> "Members":
        """Some of them."""
        return Members(
            self.holder[chosen], self.opens[chosen], self.doc[chosen], self.key.at(chosen), self.value.at(chosen),
            self.head[chosen],
        )  # fmt: skip


class Scan:
    """The tokens of documents: `data` are their bytes without white space between tokens."""

    def __init__(self, documents: pa.Array) -> None:
        """Find the tokens of valid documents, together less than 2 GiB."""
        data, bounds = byte_view(documents)
        self.count = len(documents)
        data = data[int(bounds[0]) : int(bounds[-1])] if len(bounds) else data[:0]
        # bytes.translate is a third quicker than a look-up by numpy
        places = np.flatnonzero(np.frombuffer(data.tobytes().translate(_TOKENS), bool))
        chars = data[places]
        places, chars = _unescaped(data, places, chars)
        is_quote = chars == _QUOTE
        outside = is_quote | (np.cumsum(is_quote, dtype=np.int32) & 1 == 0)
        places, chars = places[outside], chars[outside]
        is_space = _IS_SPACE[chars]
        if is_space.any():
            kept = np.ones(len(data), bool)
            kept[places[is_space]] = False
            data, places = data[kept], (places - np.cumsum(is_space))[~is_space]
            chars = chars[~is_space]
        self.data = data
        self._places, self._chars = places, chars
        self._step = _STEP[chars]
        self._depth = np.cumsum(self._step, dtype=np.int32)
        self._colons = np.flatnonzero(chars == _COLON)
        self._colon_depths = self._depth[self._colons]
        self._opens: dict[int, Ints] = {}

    @cached_property
    def has_escapes(self) -> bool:
        """A backslash stands somewhere."""
        return bool((self.data == _BACKSLASH).any())

    @cached_property
    def roots(self) -> Ints:
        """Tokens that open the documents."""
        return self.opens(1)

    def opens(self, depth: int) -> Ints:
        """Tokens that open an object or array of this depth (that of documents is 1)."""
        if depth not in self._opens:
            self._opens[depth] = np.flatnonzero((self._step == 1) & (self._depth == depth))
        return self._opens[depth]

    def _closes(self, depth: int) -> Ints:
        return np.flatnonzero((self._step == -1) & (self._depth == depth - 1))

    def documents(self) -> Spans:
        """The documents themselves."""
        return Spans(self._places[self.roots], self._places[self._closes(1)] + 1)

    def members(self, depth: int) -> Members:
        """Members of all objects of this depth."""
        colons = self._colons[self._colon_depths == depth]
        places, chars = self._places, self._chars
        holder = np.searchsorted(self.opens(depth), colons) - 1
        key = Spans(places[colons - 2] + 1, places[colons - 1])
        start = places[colons] + 1
        following = chars[colons + 1]
        is_text, is_open = following == _QUOTE, _STEP[following] == 1
        end = places[colons + 1].copy()
        end[is_text] = places[colons[is_text] + 2] + 1
        opens = np.full(len(colons), -1, np.int64)
        if is_open.any():
            opens[is_open] = np.searchsorted(self.opens(depth + 1), colons[is_open] + 1)
            end[is_open] = places[self._closes(depth + 1)[opens[is_open]]] + 1
        doc = np.searchsorted(self.roots, colons) - 1
        return Members(holder, opens, doc, key, Spans(start, end), self.data[start])

    def texts(self, spans: Spans) -> pa.Array:
        """The bytes of spans as texts."""
        count = len(spans)
        if not count:
            return pa.array([], pa.string())
        # every other value of an array that also holds what lies between: copied by Arrow, at its speed
        bounds = np.empty(2 * count, np.int32)
        bounds[0::2], bounds[1::2] = spans.start, spans.end
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self.data)]
        apart = pa.StringArray.from_buffers(2 * count - 1, buffers[1], buffers[2])
        return apart.take(pa.array(np.arange(0, 2 * count - 1, 2)))


def _unescaped(data: Bytes, places: Ints, chars: Bytes) -> tuple[Ints, Bytes]:
    """The tokens without backslashes, and without quotes behind an odd number of them."""
    is_slash = chars == _BACKSLASH
    if not is_slash.any():
        return places, chars
    slashes = places[is_slash]
    first = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    last = np.append(first[1:], len(slashes)) - 1
    escaped = slashes[last[(last - first) % 2 == 0]] + 1
    escaped = escaped[data[escaped] == _QUOTE]
    kept = ~is_slash
    kept[np.searchsorted(places, escaped)] = False
    return places[kept], chars[kept]
