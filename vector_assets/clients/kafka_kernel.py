"""Moves librdkafka's messages into columns without a Python object per message: three loops in LLVM's own language.

llvmlite compiles them when they are first asked for, in less than 0.1 s; they run without the interpreter's lock.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.int64]

WORDS = 12
"""Words kept per message: the eight of `rd_kafka_message_t` as rdkafka.h lays it out, then those below."""
ERROR, TOPIC, PARTITION, VALUE, VALUE_BYTES, KEY, KEY_BYTES, OFFSET, TIME, TIME_TYPE, EPOCH, NO_HEADERS = range(WORDS)
_STRUCT_WORDS = 8
_SHORT = frozenset({ERROR, PARTITION})
"""Words of the struct of which the lower half is a number of 32 bits, and the upper one padding."""

FUNCTIONS = (
    "rd_kafka_consume_batch_queue", "rd_kafka_message_timestamp", "rd_kafka_message_leader_epoch",
    "rd_kafka_message_headers", "rd_kafka_message_destroy",
)  # fmt: skip
"""What the loops call of librdkafka."""

_DECLARED = """
declare i64 @rd_kafka_consume_batch_queue(i64, i32, ptr, i64)
declare i64 @rd_kafka_message_timestamp(ptr, ptr)
declare i32 @rd_kafka_message_leader_epoch(ptr)
declare i32 @rd_kafka_message_headers(ptr, ptr)
declare void @rd_kafka_message_destroy(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""
_TAKE = """
define i64 @take(i64 %queue, i32 %timeout, ptr %pointers, i64 %most, ptr %table, i64 %stride, ptr %sums) {{
entry:
  %type = alloca i32
  %headers = alloca ptr
  %count = call i64 @rd_kafka_consume_batch_queue(i64 %queue, i32 %timeout, ptr %pointers, i64 %most)
  br label %head
head:
  %at = phi i64 [0, %entry], [%next, %latch]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
  %slot = getelementptr i64, ptr %pointers, i64 %at
  %message = load ptr, ptr %slot
{words}
  %is_error = icmp ne i64 %word{error}, 0
  br i1 %is_error, label %latch, label %record
record:
  %values = load i64, ptr %sums
  %more_values = add i64 %values, %word{value_bytes}
  store i64 %more_values, ptr %sums
  %key_sum = getelementptr i64, ptr %sums, i64 1
  %keys = load i64, ptr %key_sum
  %more_keys = add i64 %keys, %word{key_bytes}
  store i64 %more_keys, ptr %key_sum
  %time = call i64 @rd_kafka_message_timestamp(ptr %message, ptr %type)
  %type_short = load i32, ptr %type
  %type_long = sext i32 %type_short to i64
  %epoch_short = call i32 @rd_kafka_message_leader_epoch(ptr %message)
  %epoch = sext i32 %epoch_short to i64
  %no_headers_short = call i32 @rd_kafka_message_headers(ptr %message, ptr %headers)
  %no_headers = sext i32 %no_headers_short to i64
{more}
  br label %latch
latch:
  %next = add i64 %at, 1
  br label %head
done:
  ret i64 %count
}}
"""
_COPY = """
define void @copy(ptr %table, i64 %stride, i64 %count, ptr %values, ptr %value_ends, ptr %keys, ptr %key_ends) {{
entry:
  store i32 0, ptr %value_ends
  store i32 0, ptr %key_ends
  br label %head
head:
  %at = phi i64 [0, %entry], [%next, %latch]
  %record = phi i64 [0, %entry], [%record_now, %latch]
  %value_at = phi i64 [0, %entry], [%value_now, %latch]
  %key_at = phi i64 [0, %entry], [%key_now, %latch]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
{words}
  %is_error = icmp ne i64 %word{error}, 0
  br i1 %is_error, label %latch, label %copied
copied:
  %value = inttoptr i64 %word{value} to ptr
  %value_to = getelementptr i8, ptr %values, i64 %value_at
  call void @llvm.memcpy.p0.p0.i64(ptr %value_to, ptr %value, i64 %word{value_bytes}, i1 false)
  %value_next = add i64 %value_at, %word{value_bytes}
  %key = inttoptr i64 %word{key} to ptr
  %key_to = getelementptr i8, ptr %keys, i64 %key_at
  call void @llvm.memcpy.p0.p0.i64(ptr %key_to, ptr %key, i64 %word{key_bytes}, i1 false)
  %key_next = add i64 %key_at, %word{key_bytes}
  %record_next = add i64 %record, 1
  %value_short = trunc i64 %value_next to i32
  %value_end = getelementptr i32, ptr %value_ends, i64 %record_next
  store i32 %value_short, ptr %value_end
  %key_short = trunc i64 %key_next to i32
  %key_end = getelementptr i32, ptr %key_ends, i64 %record_next
  store i32 %key_short, ptr %key_end
  br label %latch
latch:
  %record_now = phi i64 [%record, %body], [%record_next, %copied]
  %value_now = phi i64 [%value_at, %body], [%value_next, %copied]
  %key_now = phi i64 [%key_at, %body], [%key_next, %copied]
  %next = add i64 %at, 1
  br label %head
done:
  ret void
}}
"""
_GIVE_BACK = """
define void @give_back(ptr %pointers, i64 %count) {
entry:
  br label %head
head:
  %at = phi i64 [0, %entry], [%next, %body]
  %more = icmp slt i64 %at, %count
  br i1 %more, label %body, label %done
body:
  %slot = getelementptr i64, ptr %pointers, i64 %at
  %message = load ptr, ptr %slot
  call void @rd_kafka_message_destroy(ptr %message)
  %next = add i64 %at, 1
  br label %head
done:
  ret void
}
"""


def _in_table(name: str, word: int) -> list[str]:
    """Where a word of message %at stands in the table."""
    return [
        f"%row_{name} = mul i64 %stride, {word}",
        f"%index_{name} = add i64 %row_{name}, %at",
        f"%place_{name} = getelementptr i64, ptr %table, i64 %index_{name}",
    ]


def _read_message() -> str:
    """The words of the struct behind %message, as %word0 and so on, and in the table."""
    lines: list[str] = []
    for word in range(_STRUCT_WORDS):
        found = f"%whole{word}" if word in _SHORT else f"%word{word}"
        lines += [
            f"%field{word} = getelementptr i64, ptr %message, i64 {word}", f"{found} = load i64, ptr %field{word}"
        ]  # fmt: skip
        if word in _SHORT:
            lines += [f"%short{word} = trunc i64 {found} to i32", f"%word{word} = sext i32 %short{word} to i64"]
        lines += [*_in_table(str(word), word), f"store i64 %word{word}, ptr %place_{word}"]
    return "\n".join(lines)


def _write_more() -> str:
    lines: list[str] = []
    for name, word in (("time", TIME), ("type_long", TIME_TYPE), ("epoch", EPOCH), ("no_headers", NO_HEADERS)):
        lines += [*_in_table(name, word), f"store i64 %{name}, ptr %place_{name}"]
    return "\n".join(lines)


def _read_table() -> str:
    lines: list[str] = []
    for word in (ERROR, VALUE, VALUE_BYTES, KEY, KEY_BYTES):
        lines += [*_in_table(str(word), word), f"%word{word} = load i64, ptr %place_{word}"]
    return "\n".join(lines)


def _text() -> str:
    words = {"error": ERROR, "value": VALUE, "value_bytes": VALUE_BYTES, "key": KEY, "key_bytes": KEY_BYTES}
    take = _TAKE.format(words=_read_message(), more=_write_more(), **words)
    return _DECLARED + take + _COPY.format(words=_read_table(), **words) + _GIVE_BACK


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled loops."""

    _take: Any = field(repr=False)
    _copy: Any = field(repr=False)
    _give_back: Any = field(repr=False)
    _engine: Any = field(repr=False)
    """Holds the machine code."""

    @classmethod
    def compiled(cls, addresses: Mapping[str, int]) -> "Kernel":
        """The loops over the `FUNCTIONS` at these addresses.

        Raises:
            ImportError: llvmlite is not there.
            RuntimeError, OSError: it does not work here.
        """
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        for name in FUNCTIONS:
            llvm.add_symbol(name, addresses[name])
        module = llvm.parse_assembly(_text())
        module.verify()
        engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=2))
        engine.finalize_object()
        word, pointer = ctypes.c_int64, ctypes.c_void_p
        take = ctypes.CFUNCTYPE(word, word, ctypes.c_int32, pointer, word, pointer, word, pointer)
        copy = ctypes.CFUNCTYPE(None, pointer, word, word, pointer, pointer, pointer, pointer)
        give_back = ctypes.CFUNCTYPE(None, pointer, word)
        return cls(
            take(engine.get_function_address("take")),
            copy(engine.get_function_address("copy")),
            give_back(engine.get_function_address("give_back")),
            engine,
        )

    def take(self, queue: int, timeout_ms: int, pointers: Words, table: Words) -> tuple[int, int, int]:
        """Wait for messages and read what they say of themselves; their number, bytes of values, bytes of keys.

        `pointers` has room for as many messages as are wanted; `table` has a row for each of the WORDS, with room for
        at least as many. A number below 0 is an error.
        """
        sums = np.zeros(2, np.int64)
        stride = table.shape[1]
        addresses = (pointers.ctypes.data, len(pointers), table.ctypes.data, stride, sums.ctypes.data)
        count = self._take(queue, timeout_ms, *addresses)
        return int(count), int(sums[0]), int(sums[1])

    def copy(
        self, table: Words, count: int, values: npt.NDArray[np.uint8], value_ends: npt.NDArray[np.int32],
        keys: npt.NDArray[np.uint8], key_ends: npt.NDArray[np.int32],
    ) -> None:  # fmt: skip
        """Copy values and keys of the messages that are none of errors, one after the other.

        `value_ends` and `key_ends` (one longer than there are records) become Arrow's offsets.
        """
        to = (array.ctypes.data for array in (values, value_ends, keys, key_ends))
        self._copy(table.ctypes.data, table.shape[1], count, *to)

    def give_back(self, pointers: Words, count: int) -> None:
        """Destroy the messages: what they point to is gone after this."""
        self._give_back(pointers.ctypes.data, count)
