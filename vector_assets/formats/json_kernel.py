"""Reads flat JSON objects into columns: loops for LLVM, compiled by llvmlite when they are first asked for.

A document is taken when it is one object of scalars, spelled without a backslash, each member once, every value of its
column's kind. Whatever is not is left out and told, so that nothing is decided here that another reader would decide
otherwise. `document` is the grammar; what is built below is compiled once, for any columns, and runs without the
interpreter's lock.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from vector_assets.formats.json_code import LANES, Code, Value, compiled
from vector_assets.formats.json_scalars import SCALARS, SMALL, Written

INTEGER, DOUBLE, BOOLEAN, TEXT, MOMENT, JSON = range(6)
"""Kinds of columns; JSON is any value as it is written, without white space around its parts."""
(
    COUNT, KEYS, KEY_BYTES, KINDS, PARAMETERS, VALUES, ENDS, PLACES, HELD, LONG, LONG_COUNT, STRICT, HIGH, DATA, LIMIT,
    BLANKS,
) = range(16)  # fmt: skip
"""Words of a job's description: numbers, or addresses of arrays, with a word for each column.

VALUES has addresses of words, of bytes for BOOLEAN, of 32 bits for TEXT and JSON: where texts begin in the data. ENDS
has addresses of 32 bits, for TEXT and JSON: where texts end once they are gathered, after a 0. BLANKS counts the white
space inside values of JSON, which is left out.
"""
WORDS = 16
LONG_WORDS = 4
"""Of a number that is converted elsewhere: row, column, and where it begins and ends in the data."""
MOST_COLUMNS = 62
_ODD = -1
MOST_DEPTH = 32
"""Objects and arrays of a value of JSON inside each other; a deeper document is left."""
_QUOTE, _COMMA, _COLON, _CLOSE = b'",:}'
_OPEN, _OPEN_ARRAY = b"{["
_SPACE = ord(" ")


def _key(code: Code, at: Value, end: Value, job: Value, hint: Value) -> None:
    """`key(at, end, job, hint)`: the column whose quoted name is there, looked for from `hint` on; COUNT for none."""
    count = code.word(job, COUNT)
    tried, number = code.slot(code.of(0)), code.slot(hint)
    with code.loop() as loop:
        loop.leave_unless(tried.get().below(count))
        with code.when(number.get().least(count)):
            number.set(code.of(0))
        size = code.item(job, KEY_BYTES, number.get())
        with code.when(code.call("word", at, end, code.item(job, KEYS, number.get()), size).ne(0)):
            code.give(number.get())
        number.add(1)
        tried.add(1)
    code.give(count)


def _other(code: Code, at: Value, end: Value, job: Value) -> None:
    """`other(at, end, job)`: past the scalar of a member that no column is for; or 0."""
    first = code.byte(at)
    with code.when(first.eq(_QUOTE)):
        quote = code.call("text", at + 1, end, code.word(job, LIMIT), code.word(job, HIGH))
        code.give_if(quote.eq(0), 0)
        code.give(quote + 1)
    for text in (b"true", b"false", b"null"):
        with code.when(first.eq(text[0])):
            code.give(code.call("word", at, end, code.constant(text), code.of(len(text))))
    scratch = code.scratch(2)
    code.store(scratch + 8, code.of(0), 64)
    code.give(code.call("double", at, end, scratch, scratch + 8))


def _blank(code: Code, at: Value, end: Value, job: Value) -> None:
    """`blank(at, end, job)`: past white space, which is counted."""
    after = code.call("space", at, end)
    code.store(job + 8 * BLANKS, code.word(job, BLANKS) + (after - at), 64)
    code.give(after)


def _nested(code: Code, at: Value, end: Value, job: Value, depth: Value) -> None:
    """`nested(at, end, job, depth)`: past a value with at most so many objects and arrays inside each other; or 0."""
    first = code.byte(at)
    is_object = first.eq(_OPEN)
    with code.when((is_object | first.eq(_OPEN_ARRAY)).word().eq(0)):
        code.give(code.call("other", at, end, job))
    code.give_if(depth.eq(0), 0)
    # each closes with the second character behind that which opens it
    close, here = first + 2, code.slot(code.call("blank", at + 1, end, job))
    code.give_if(here.get().least(end), 0)
    with code.when(code.byte(here.get()).eq(close)):
        code.give(here.get() + 1)
    with code.loop():
        with code.when(is_object):
            code.give_unless(code.is_at(here.get(), end, _QUOTE), 0)
            quote = code.call("text", here.get() + 1, end, code.word(job, LIMIT), code.word(job, HIGH))
            code.give_if(quote.eq(0), 0)
            here.set(code.call("blank", quote + 1, end, job))
            code.give_unless(code.is_at(here.get(), end, _COLON), 0)
            here.set(code.call("blank", here.get() + 1, end, job))
        code.give_if(here.get().least(end), 0)
        here.set(code.call("nested", here.get(), end, job, depth - 1))
        code.give_if(here.get().eq(0), 0)
        here.set(code.call("blank", here.get(), end, job))
        code.give_if(here.get().least(end), 0)
        char = code.byte(here.get())
        here.add(1)
        with code.when(char.eq(close)):
            code.give(here.get())
        code.give_if(char.ne(_COMMA), 0)
        here.set(code.call("blank", here.get(), end, job))


def _value(code: Code, at: Value, end: Value, job: Value, column: Value, row: Value) -> None:
    """`value(at, end, job, column, row)`: past the column's value, which is put in its row; or 0."""
    kind, values = code.item(job, KINDS, column), code.item(job, VALUES, column)
    out = values + row * 8
    with code.when(kind.eq(TEXT)):
        code.give_if(code.byte(at).ne(_QUOTE), 0)
        ends = code.item(job, ENDS, column) + row * 4
        begin = code.load(ends, 32)
        quote = code.call("text", at + 1, end, code.word(job, LIMIT), code.word(job, HIGH))
        code.give_if(quote.eq(0), 0)
        code.store(values + row * 4, at + 1 - code.word(job, DATA), 32)
        code.store(ends + 4, begin + (quote - at - 1), 32)
        code.give(quote + 1)
    with code.when(kind.eq(JSON)):
        ends = code.item(job, ENDS, column) + row * 4
        before = code.word(job, BLANKS)
        after = code.call("nested", at, end, job, code.of(MOST_DEPTH))
        code.give_if(after.eq(0), 0)
        code.store(values + row * 4, at - code.word(job, DATA), 32)
        code.store(ends + 4, code.load(ends, 32) + (after - at) - (code.word(job, BLANKS) - before), 32)
        code.give(after)
    with code.when(kind.eq(INTEGER)):
        code.give(code.call("integer", at, end, out))
    with code.when(kind.eq(MOMENT)):
        code.give_if(code.byte(at).ne(_QUOTE), 0)
        code.give(code.call("moment", at + 1, end, code.item(job, PARAMETERS, column), out))
    with code.when(kind.eq(BOOLEAN)):
        is_true = code.byte(at).eq(ord("t"))
        code.store(values + row, is_true.word(), 8)
        with code.when(is_true):
            code.give(code.call("word", at, end, code.constant(b"true"), code.of(4)))
        code.give(code.call("word", at, end, code.constant(b"false"), code.of(5)))
    flag = code.word(job, LONG) + code.load(code.word(job, LONG_COUNT), 64) * (8 * LONG_WORDS)
    code.store(flag, code.of(0), 64)
    after = code.call("double", at, end, out, flag)
    with code.when(after.ne(0) & code.load(flag, 64).ne(0)):
        for number, word in enumerate((row, column, at - code.word(job, DATA), after - code.word(job, DATA))):
            code.store(flag + 8 * number, word, 64)
        code.store(code.word(job, LONG_COUNT), code.load(code.word(job, LONG_COUNT), 64) + 1, 64)
    code.give(after)


def _document(code: Code, at: Value, end: Value, job: Value, row: Value) -> None:
    """`document(at, end, job, row)`: the columns that it holds, as bits; -1 when it is not taken."""
    code.give_unless(code.is_at(at, end, _OPEN), _ODD)
    here, seen, held, hint = code.slot(at + 1), code.slot(code.of(0)), code.slot(code.of(0)), code.slot(code.of(0))
    count, strict = code.word(job, COUNT), code.word(job, STRICT)
    with code.loop() as loop:
        here.set(code.call("space", here.get(), end))
        code.give_unless(code.is_at(here.get(), end, _QUOTE), _ODD)
        column = code.call("key", here.get(), end, job, hint.get())
        is_known = column.below(count)
        with code.either(is_known) as (known, unknown):
            with known:
                here.set(here.get() + code.item(job, KEY_BYTES, column))
            with unknown:
                code.give_if(strict.ne(0), _ODD)
                quote = code.call("text", here.get() + 1, end, code.word(job, LIMIT), code.word(job, HIGH))
                code.give_if(quote.eq(0), _ODD)
                here.set(quote + 1)
        here.set(code.call("space", here.get(), end))
        code.give_unless(code.is_at(here.get(), end, _COLON), _ODD)
        here.set(code.call("space", here.get() + 1, end))
        code.give_if(here.get().least(end), _ODD)
        with code.either(is_known) as (known, unknown):
            with known:
                bit = code.of(1) << column
                code.give_if((seen.get() & bit).ne(0), _ODD)
                seen.set(seen.get() | bit)
                hint.set(column + 1)
                with code.either(code.byte(here.get()).eq(ord("n"))) as (null, given):
                    with null:
                        code.give_if(strict.ne(0), _ODD)
                        here.set(code.call("word", here.get(), end, code.constant(b"null"), code.of(4)))
                    with given:
                        here.set(code.call("value", here.get(), end, job, column, row))
                        held.set(held.get() | bit)
            with unknown:
                here.set(code.call("other", here.get(), end, job))
        code.give_if(here.get().eq(0), _ODD)
        here.set(code.call("space", here.get(), end))
        code.give_if(here.get().least(end), _ODD)
        char = code.byte(here.get())
        here.add(1)
        loop.leave_if(char.eq(_CLOSE))
        code.give_if(char.ne(_COMMA), _ODD)
    code.give_if(here.get().ne(end), _ODD)
    code.give(held.get())


def _fill(code: Code, job: Value, held: Value, row: Value) -> None:
    """`fill(job, held, row)`: no text in the row of the columns that a document does not hold."""
    slot = code.slot(code.of(0))
    with code.loop() as loop:
        column = slot.get()
        loop.leave_unless(column.below(code.word(job, COUNT)))
        kind = code.item(job, KINDS, column)
        with code.when(((held >> column) & 1).eq(0) & (kind.eq(TEXT) | kind.eq(JSON))):
            ends = code.item(job, ENDS, column) + row * 4
            code.store(code.item(job, VALUES, column) + row * 4, code.of(0), 32)
            code.store(ends + 4, code.load(ends, 32), 32)
        slot.add(1)
    code.give(code.of(0))


def _read(code: Code, bounds: Value, count: Value, job: Value) -> None:
    """`read(bounds, count, job)`: how many of the documents between these bounds were taken."""
    number, row = code.slot(code.of(0)), code.slot(code.of(0))
    data, longs = code.word(job, DATA), code.word(job, LONG_COUNT)
    everything = (code.of(1) << code.word(job, COUNT)) - 1
    with code.loop() as loop:
        loop.leave_unless(number.get().below(count))
        before = code.load(longs, 64)
        bound = bounds + number.get() * 4
        held = code.call("document", data + code.load(bound, 32), data + code.load(bound + 4, 32), job, row.get())
        with code.either(held.eq(_ODD)) as (odd, taken):
            with odd:
                code.store(longs, before, 64)
            with taken:
                with code.when(held.ne(everything)):
                    code.call("fill", job, held, row.get())
                code.store(code.word(job, HELD) + row.get() * 8, held, 64)
                code.store(code.word(job, PLACES) + row.get() * 8, number.get(), 64)
                row.add(1)
        number.add(1)
    code.give(row.get())


def _gather(code: Code, starts: Value, ends: Value, count: Value, data: Value, limit: Value, to: Value) -> None:
    """`gather(starts, ends, count, data, limit, to)`: copies texts, one behind the other, and up to 15 bytes more.

    `starts` are their places in the data, `ends` those in what is copied, 32 bits each and the first of them 0.
    """
    row = code.slot(code.of(0))
    with code.loop() as loop:
        loop.leave_unless(row.get().below(count))
        begin = code.load(ends + row.get() * 4, 32)
        size = code.load(ends + row.get() * 4 + 4, 32) - begin
        source, target = data + code.load(starts + row.get() * 4, 32), to + begin
        place = code.slot(code.of(0))
        with code.loop() as copying:
            copying.leave_unless(place.get().below(size))
            with code.either((source + place.get() + LANES).at_most(limit)) as (wide, narrow):
                with wide:
                    code.copy(source + place.get(), target + place.get())
                    place.add(LANES)
                with narrow:
                    code.store(target + place.get(), code.byte(source + place.get()), 8)
                    place.add(1)
        row.add(1)
    code.give(row.get())


def _squeeze(code: Code, starts: Value, ends: Value, count: Value, data: Value, to: Value) -> None:
    """`squeeze(starts, ends, count, data, to)`: as `gather`, but for white space outside of texts."""
    row = code.slot(code.of(0))
    with code.loop() as loop:
        loop.leave_unless(row.get().below(count))
        target = code.slot(to + code.load(ends + row.get() * 4, 32))
        stop = to + code.load(ends + row.get() * 4 + 4, 32)
        source, inside = code.slot(data + code.load(starts + row.get() * 4, 32)), code.slot(code.of(0))
        with code.loop() as copying:
            copying.leave_unless(target.get().below(stop))
            char = code.byte(source.get())
            with code.when(char.eq(_QUOTE)):
                inside.set(code.of(1) - inside.get())
            with code.when(inside.get().ne(0) | char.above(_SPACE)):
                code.store(target.get(), char, 8)
                target.add(1)
            source.add(1)
        row.add(1)
    code.give(row.get())


_FUNCTIONS: tuple[Written, ...] = (
    *SCALARS, ("key", 4, _key), ("other", 3, _other), ("blank", 3, _blank), ("nested", 4, _nested),
    ("value", 5, _value), ("document", 4, _document), ("fill", 3, _fill), ("read", 3, _read), ("gather", 6, _gather),
    ("squeeze", 5, _squeeze),
)  # fmt: skip
"""Each calls those before it, and itself, only."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled loops."""

    read: Callable[[int, int, int], int] = field(repr=False)
    """Address of the bounds (32 bits each), number of documents, address of the description's words."""
    gather: Callable[[int, int, int, int, int, int], int] = field(repr=False)
    """See `_gather`."""
    squeeze: Callable[[int, int, int, int, int], int] = field(repr=False)
    """See `_squeeze`."""
    _engine: Any = field(repr=False)
    """Holds the machine code."""


_LOCK = threading.Lock()


def load() -> Kernel:
    """The compiled loops: at the first call 0.3 s.

    Raises:
        ImportError: llvmlite is not there.
        RuntimeError, OSError: it does not work here.
    """
    with _LOCK:
        return _compiled()


@cache
def _compiled() -> Kernel:
    engine, addresses = compiled(_FUNCTIONS, ("read", "gather", "squeeze"), SMALL)
    word = ctypes.c_int64
    made = [
        ctypes.CFUNCTYPE(word, *[word] * arguments)(addresses[name])
        for name, arguments, _ in _FUNCTIONS
        if name in addresses
    ]
    return Kernel(made[0], made[1], made[2], engine)
