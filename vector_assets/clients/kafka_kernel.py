"""Moves librdkafka's messages into columns without a Python object per message: loops compiled by numba.

C functions are called by their addresses, all with up to four words, so the compiled loops can be cached on disk. They
run without the interpreter's lock.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

Words = npt.NDArray[np.int64]

WORDS = 12
"""Words kept per message: the eight of `rd_kafka_message_t` as rdkafka.h lays it out, then those below."""
ERROR, TOPIC, PARTITION, VALUE, VALUE_BYTES, KEY, KEY_BYTES, OFFSET, TIME, TIME_TYPE, EPOCH, NO_HEADERS = range(WORDS)
_STRUCT_WORDS = 8
_STRUCT_BYTES = 8 * _STRUCT_WORDS
_LOW = 0xFFFFFFFF

CONSUME, COPY, TIMESTAMP, LEADER_EPOCH, HEADERS, DESTROY = range(6)
"""Places of the C functions in the array of addresses."""

_WORD, _WORDS, _TABLE, _BYTES, _ENDS = "int64", "int64[::1]", "int64[:, ::1]", "uint8[::1]", "int32[::1]"
_COMPILED: Any = {"cache": True, "nogil": True}
"""With the types spelled out the import compiles, or fails: not the first call, which has messages in its hands."""


@intrinsic
def _at_address(_context: Any, function: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The C function at an address, called with four words; what it returns as a word."""
    word = ir.IntType(64)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(word, [word] * 4)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 5), generate


_call: Any = _at_address


@njit(f"Tuple(({_WORD}, {_WORD}, {_WORD}))({_WORDS}, {_WORD}, {_WORD}, {_WORDS}, {_TABLE}, {_WORDS})", **_COMPILED)
def take(functions: Words, queue: int, timeout_ms: int, pointers: Words, table: Words, scratch: Words) -> Any:
    """Wait for messages and read what they say of themselves; their number, bytes of values, bytes of keys.

    `pointers` has room for as many messages as are wanted; `table` has a row for each of the WORDS, with room for as
    many; `scratch` has room for one message. A number below 0 is an error.
    """
    count = _call(functions[CONSUME], queue, timeout_ms, pointers.ctypes.data, len(pointers))
    value_bytes, key_bytes = 0, 0
    out = scratch.ctypes.data
    for at in range(count):
        message = pointers[at]
        _call(functions[COPY], out, message, _STRUCT_BYTES, 0)
        for word in range(_STRUCT_WORDS):
            table[word, at] = scratch[word]
        # 32-bit fields share their word with padding
        table[ERROR, at] = np.int64(np.int32(scratch[ERROR] & _LOW))
        table[PARTITION, at] = np.int64(np.int32(scratch[PARTITION] & _LOW))
        if table[ERROR, at] != 0:
            continue
        value_bytes += scratch[VALUE_BYTES]
        key_bytes += scratch[KEY_BYTES]
        table[TIME, at] = _call(functions[TIMESTAMP], message, out, 0, 0)
        table[TIME_TYPE, at] = scratch[0] & _LOW
        table[EPOCH, at] = np.int64(np.int32(_call(functions[LEADER_EPOCH], message, 0, 0, 0) & _LOW))
        table[NO_HEADERS, at] = _call(functions[HEADERS], message, out, 0, 0) & _LOW
    return count, value_bytes, key_bytes


@njit(f"void({_WORDS}, {_TABLE}, {_WORD}, {_BYTES}, {_ENDS}, {_BYTES}, {_ENDS})", **_COMPILED)
def copy(functions: Words, table: Words, count: int, values: Any, value_ends: Any, keys: Any, key_ends: Any) -> None:
    """Copy values and keys of the messages that are none of errors, one after the other.

    `value_ends` and `key_ends` (one longer than there are records) become Arrow's offsets.
    """
    record, value_at, key_at = 0, 0, 0
    value_ends[0] = 0
    key_ends[0] = 0
    for at in range(count):
        if table[ERROR, at] == 0:
            size = table[VALUE_BYTES, at]
            if size > 0:
                _call(functions[COPY], values.ctypes.data + value_at, table[VALUE, at], size, 0)
                value_at += size
            size = table[KEY_BYTES, at]
            if size > 0:
                _call(functions[COPY], keys.ctypes.data + key_at, table[KEY, at], size, 0)
                key_at += size
            record += 1
            value_ends[record] = value_at
            key_ends[record] = key_at


@njit(f"void({_WORDS}, {_WORDS}, {_WORD})", **_COMPILED)
def give_back(functions: Words, pointers: Words, count: int) -> None:
    """Destroy the messages: what they point to is gone after this."""
    for at in range(count):
        _call(functions[DESTROY], pointers[at], 0, 0, 0)
