"""Binary JSON of MySQL, as the binlog has it, written the way the server itself writes it. Pure.

The form is that of the server's `json_binary.h`: objects and arrays hold a count, a size and offsets of 2 or 4 bytes;
numbers of up to 4 bytes and literals lie in the place of their offsets.
"""

import base64
import decimal
import json
import struct
from collections.abc import Callable, Iterator

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_DOUBLE, _STRING, _OPAQUE = 0x0B, 0x0C, 0x0F
_LITERALS = {0: "null", 1: "true", 2: "false"}
_NUMBERS = {0x05: "<h", 0x06: "<H", 0x07: "<i", 0x08: "<I", 0x09: "<q", 0x0A: "<Q"}
_INLINE = {False: frozenset({_LITERAL, 0x05, 0x06}), True: frozenset({_LITERAL, 0x05, 0x06, 0x07, 0x08})}
_TIMESTAMP, _DATE, _TIME, _DATETIME, _DECIMAL = 7, 10, 11, 12, 246
_MOST_DIGITS = 15
"""From here on (and from so many zeros after the point on) the server writes an exponent."""
_BYTES_OF_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def text_of(document: bytes) -> str:
    """The document as text; an empty one, which a NOT NULL column may hold, is `null`.

    Raises:
        ValueError: it is no binary JSON.
    """
    try:
        return _value(document[0], document, 1) if document else "null"
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not the binary JSON of MySQL ({type(error).__name__})") from error


def _value(kind: int, data: bytes, at: int) -> str:
    if kind <= _LARGE_ARRAY:
        return _container(kind, data, at)
    if kind == _LITERAL:
        return _LITERALS[data[at]]
    if kind in _NUMBERS:
        return str(struct.unpack_from(_NUMBERS[kind], data, at)[0])
    if kind == _DOUBLE:
        return double(struct.unpack_from("<d", data, at)[0])
    if kind == _STRING:
        return json.dumps(_sized(data, at).decode(), ensure_ascii=False)
    if kind == _OPAQUE:
        return _opaque(data[at], _sized(data, at + 1))
    raise KeyError(kind)


def _container(kind: int, data: bytes, at: int) -> str:
    is_large, is_object = kind in (_LARGE_OBJECT, _LARGE_ARRAY), kind <= _LARGE_OBJECT
    number, size = ("<I", 4) if is_large else ("<H", 2)
    (count,) = struct.unpack_from(number, data, at)
    values = at + 2 * size + (count * (size + 2) if is_object else 0)
    parts = []
    for index in range(count):
        entry = values + index * (1 + size)
        if data[entry] in _INLINE[is_large]:
            text = _value(data[entry], data, entry + 1)
        else:
            text = _value(data[entry], data, at + struct.unpack_from(number, data, entry + 1)[0])
        if is_object:
            key = at + 2 * size + index * (size + 2)
            start = at + struct.unpack_from(number, data, key)[0]
            name = data[start : start + struct.unpack_from("<H", data, key + size)[0]].decode()
            text = f"{json.dumps(name, ensure_ascii=False)}: {text}"
        parts.append(text)
    return ("{%s}" if is_object else "[%s]") % ", ".join(parts)


def _sized(data: bytes, at: int) -> bytes:
    """Bytes after their length, which has 7 bits in each of its bytes."""
    length = shift = 0
    while True:
        length |= (data[at] & 0x7F) << shift
        at, shift, is_last = at + 1, shift + 7, data[at] < 0x80
        if is_last:
            return data[at : at + length]


def double(value: float) -> str:
    """A double the way the server writes it: the fewest digits that give it back, `1.0`, `0.00001`, `1e15`."""
    sign, digits, exponent = decimal.Decimal(repr(value)).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    bare = text.rstrip("0") or "0"
    point = len(text) + exponent
    minus = "-" if sign else ""
    if bare == "0":
        return f"{minus}0.0"
    if not -_MOST_DIGITS < point <= _MOST_DIGITS:
        rest = f".{bare[1:]}" if len(bare) > 1 else ""
        return f"{minus}{bare[0]}{rest}e{point - 1}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{bare}"
    whole, part = bare[:point].ljust(point, "0"), bare[point:]
    return f"{minus}{whole}.{part or '0'}"


def _opaque(kind: int, data: bytes) -> str:
    if kind == _DECIMAL:
        return _decimal(data[0], data[1], data[2:])
    if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
        (packed,) = struct.unpack("<q", data)
        return f'"{_TEMPORAL[kind](packed)}"'
    return f'"base64:type{kind}:{base64.b64encode(data).decode()}"'


def _date(packed: int) -> str:
    days = packed >> 41
    year, month = divmod(days >> 5, 13)
    return f"{year:04}-{month:02}-{days & 31:02}"


def _time(packed: int) -> str:
    size = abs(packed)
    clock = size >> 24
    hours = (clock >> 12) & 0x3FF
    return f"{'-' if packed < 0 else ''}{hours:02}:{_minutes(clock)}.{size & 0xFFFFFF:06}"


def _datetime(packed: int) -> str:
    clock = packed >> 24
    return f"{_date(packed)} {(clock >> 12) & 31:02}:{_minutes(clock)}.{packed & 0xFFFFFF:06}"


def _minutes(clock: int) -> str:
    return f"{(clock >> 6) & 63:02}:{clock & 63:02}"


_TEMPORAL: dict[int, Callable[[int], str]] = {
    _DATE: _date, _TIME: _time, _DATETIME: _datetime, _TIMESTAMP: _datetime,
}  # fmt: skip


def _decimal(precision: int, scale: int, data: bytes) -> str:
    """Groups of nine digits in four bytes; the first bit is turned, and all are of a number below zero."""
    is_negative = not data[0] & 0x80
    turned = bytes([data[0] ^ 0x80, *data[1:]])
    if is_negative:
        turned = bytes(byte ^ 0xFF for byte in turned)
    whole, part = _groups(precision - scale, is_whole=True), _groups(scale, is_whole=False)
    at, texts = 0, []
    for groups in (whole, part):
        text = ""
        for digits in groups:
            size = _BYTES_OF_DIGITS[digits]
            text += f"{int.from_bytes(turned[at : at + size], 'big'):0{digits}}"
            at += size
        texts.append(text)
    return f"{'-' if is_negative else ''}{texts[0].lstrip('0') or '0'}{'.' if scale else ''}{texts[1]}"


def _groups(digits: int, *, is_whole: bool) -> Iterator[int]:
    """Digits of each group; the one that is not full is the outermost."""
    rest = [digits % 9] if digits % 9 else []
    yield from [*rest, *[9] * (digits // 9)] if is_whole else [*[9] * (digits // 9), *rest]
