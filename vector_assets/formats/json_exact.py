"""JSON documents one by one, as Jackson reads them for Flink: the arbiter for whatever is not plain.

Every number keeps its spelling, the last of equal names counts, control characters may stand in strings. Refused, like
in the JSON standard: NaN, a second value in the document, bad UTF-8. The speed is that of Python's json module.
"""

import json
import json.encoder
import json.scanner
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from vector_assets.engine.errors import RecordError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import Mask, as_mask
from vector_assets.formats.json_values import BYTES, TEXTS, read_texts
from vector_assets.formats.text_values import Parsed, either, owners_of

MOST_NESTED = 200
"""Levels of objects and arrays in a document; documents beyond are errors (real ones have a handful)."""
_JSON_SPACE = " \t\n\r"
_FOUND_CHARS = 60
_NOT_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[^"\[\]{}]+', re.DOTALL)


Number = bytes
"""A number as the document spells it: bytes, because nothing else in a document is, and nothing is quicker to make."""

_QUOTED: Callable[[str], str] = json.encoder.encode_basestring


def _refuse(name: str) -> NoReturn:
    raise RecordError(f"no JSON: found {name}, which JSON has no number for")


_DECODER = json.JSONDecoder(parse_int=str.encode, parse_float=str.encode, parse_constant=_refuse, strict=False)
_SCAN: Callable[[str, int], tuple[Any, int]] = json.scanner.make_scanner(_DECODER)  # type: ignore[arg-type]


def read_document(data: bytes | None) -> dict[str, Any]:
    """The one object that the document is, numbers as `Number`.

    Raises:
        RecordError: null, empty, not UTF-8, no JSON, no object, nested too deeply, or something follows the object.
    """
    if data is None:
        raise RecordError("null value (a tombstone); json has no deletes")
    text = _text_of(data)
    if data.count(b"[") + data.count(b"{") > MOST_NESTED:
        _check_depth(text)
    try:
        found, end = _SCAN(text, len(text) - len(text.lstrip(_JSON_SPACE)))
    except StopIteration as stop:
        raise RecordError(f"no JSON: no value at character {stop.value}{_cut(text, stop.value)}") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"no JSON: {error.msg} at character {error.pos}{_cut(text, error.pos)}") from None
    except RecursionError:
        raise RecordError(f"nested more than {MOST_NESTED} deep") from None
    if not isinstance(found, dict):
        raise RecordError(f"found {shown(found)}, wanted one object")
    if text[end:].strip(_JSON_SPACE):
        raise RecordError(f"something follows the object at character {end}; wanted one object in a record")
    return found


def loads_exact(text: str) -> Any:
    """A JSON text as Python values, numbers as int or Decimal."""
    return json.loads(text, parse_float=Decimal, strict=False)


def _text_of(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise RecordError("bad UTF-8") from None
    if "\0" in text[:2]:
        raise RecordError("a NUL byte in front: looks like UTF-16 or UTF-32, wanted UTF-8")
    text = text.removeprefix("\ufeff")
    if not text.strip(_JSON_SPACE):
        raise RecordError("empty value")
    return text


def _cut(text: str, place: int) -> str:
    return ", the end (a cut record?)" if place >= len(text) else ""


def _check_depth(text: str) -> None:
    brackets = _NOT_BRACKETS.sub("", text)
    if max(accumulate((1 if bracket in "[{" else -1 for bracket in brackets), initial=0)) > MOST_NESTED:
        raise RecordError(f"nested more than {MOST_NESTED} deep")


def compact(value: Any) -> str:
    """The value as JSON text without white space, numbers as they were spelled."""
    if isinstance(value, Number):
        return value.decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ",".join([f"{_QUOTED(name)}:{compact(inner)}" for name, inner in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([compact(inner) for inner in value]) + "]"
    return "null" if value is None else _QUOTED(value)


def shown(value: Any) -> str:
    """The value for an error's text: cut, and containers by their kind only."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return ascii(value[:_FOUND_CHARS]) if not value.isprintable() else repr(value[:_FOUND_CHARS])
    return compact(value)[:_FOUND_CHARS]


class ExactReader:
    """Python values to typed columns.

    `lenient`: values that do not fit are null and counted instead of bad. `missing_is_bad`: absent members are, too.
    """

    def __init__(self, *, iso: bool, lenient: bool, missing_is_bad: bool) -> None:
        self._iso = iso
        self._lenient = lenient
        self._missing_is_bad = missing_is_bad

    def member(self, objects: Sequence[Any], name: str, kind: LogicalType) -> Parsed:
        """The member `name` of every object as a column; what is no object has none and is not bad for that."""
        parsed = self.column([item.get(name) if type(item) is dict else None for item in objects], kind)
        if not self._missing_is_bad:
            return parsed
        missing = np.fromiter((type(item) is dict and name not in item for item in objects), bool, len(objects))
        return Parsed(parsed.values, either(parsed.bad, missing), parsed.nulled)

    def column(self, values: Sequence[Any], kind: LogicalType) -> Parsed:
        """The column that the values are."""
        reader = {"ROW": self._row, "ARRAY": self._array, "MAP": self._map}.get(kind.name, self._simple)
        parsed = reader(values, kind)
        if kind.nullable or not parsed.values.null_count:
            return parsed
        return Parsed(parsed.values, either(parsed.bad, as_mask(parsed.values.is_null())), parsed.nulled)

    def problem(self, parent: dict[str, Any], name: str, kind: LogicalType) -> str:
        """Path, what was found and what was wanted, of the first thing that is bad in a member that is bad."""
        return self._missing(parent, name, name, kind) or self._found(parent.get(name), kind, name)

    def _missing(self, parent: dict[str, Any], name: str, path: str, kind: LogicalType) -> str | None:
        if self._missing_is_bad and name not in parent:
            return f"column {path} is missing, wanted {kind} (fail-on-missing-field is true)"
        return None

    def _found(self, value: Any, kind: LogicalType, path: str) -> str:
        """The first bad thing inside of the value, else the value itself."""
        if kind.name == "ROW" and isinstance(value, dict):
            for name, child in zip(kind.child_names, kind.children, strict=True):
                if _is_bad(self.member([value], name, child)):
                    deeper = f"{path}.{name}"
                    return self._missing(value, name, deeper, child) or self._found(value.get(name), child, deeper)
        inner: Sequence[Any] = ()
        if kind.name == "MAP" and isinstance(value, dict):
            inner = list(value.values())
        elif kind.name == "ARRAY" and isinstance(value, list):
            inner = value
        bad = self.column(inner, kind.children[-1]).bad if inner else None
        if bad is not None and bad.any():
            place = int(np.argmax(bad))
            key = shown(list(value)[place]) if isinstance(value, dict) else place
            return self._found(inner[place], kind.children[-1], f"{path}[{key}]")
        return f"column {path}: found {shown(value)}, wanted {kind}"

    def _without(self, parsed: Parsed, wrong: Mask | None) -> Parsed:
        """The column with values of the wrong kind, which are null in it, counted as bad or as set to null."""
        if wrong is None or not wrong.any():
            return parsed
        if self._lenient:
            return Parsed(parsed.values, parsed.bad, parsed.nulled + int(wrong.sum()))
        return Parsed(parsed.values, either(parsed.bad, wrong), parsed.nulled)

    def _simple(self, values: Sequence[Any], kind: LogicalType) -> Parsed:
        kinds = set(map(type, values))
        wrong: Mask | None = None
        texts: Sequence[str | bytes | None] = values
        if kind.name == "BOOLEAN" and kinds <= {bool, type(None)}:
            return Parsed(pa.array(values, pa.bool_()))
        if not kinds <= ({str, type(None)} if kind.name in BYTES else {str, Number, type(None)}):
            texts = [_spelled(value, kind) for value in values]
            wrong = _lost(values, texts)
        try:
            column = pa.array(texts, pa.string())
        except UnicodeEncodeError:
            texts = [text if text is None or _is_encodable(text) else None for text in texts]
            column, wrong = pa.array(texts, pa.string()), _lost(values, texts)
        return self._without(read_texts(column, kind, iso=self._iso, lenient=self._lenient), wrong)

    def _row(self, values: Sequence[Any], kind: LogicalType) -> Parsed:
        null = np.fromiter((type(value) is not dict for value in values), bool, len(values))
        fields, bad, nulled = [], None, 0
        for name, child in zip(kind.child_names, kind.children, strict=True):
            inner = self.member(values, name, child)
            fields.append(inner.values)
            nulled += inner.nulled
            bad = either(bad, None if inner.bad is None else inner.bad & ~null)
        array = pa.StructArray.from_arrays(fields, fields=list(kind.arrow), mask=pa.array(null))
        return self._without(Parsed(array, bad, nulled), _of_another_kind(values, null))

    def _array(self, values: Sequence[Any], kind: LogicalType) -> Parsed:
        lists = [value if type(value) is list else None for value in values]
        null = np.fromiter((value is None for value in lists), bool, len(lists))
        bounds = _bounds(lists)
        inner = self.column(list(chain.from_iterable(value for value in lists if value)), kind.children[0])
        array = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), inner.values, kind.arrow, mask=pa.array(null))
        parsed = Parsed(array, owners_of(inner.bad, bounds), inner.nulled)
        return self._without(parsed, _of_another_kind(values, null))

    def _map(self, values: Sequence[Any], kind: LogicalType) -> Parsed:
        maps = [value if type(value) is dict else None for value in values]
        null = np.fromiter((value is None for value in maps), bool, len(maps))
        bounds = _bounds(maps)
        keys = self.column(list(chain.from_iterable(value for value in maps if value)), kind.children[0])
        inner = self.column(list(chain.from_iterable(value.values() for value in maps if value)), kind.children[1])
        offsets = pa.array(bounds, pa.int32(), mask=np.append(null, [False]))
        array = pa.MapArray.from_arrays(offsets, keys.values, inner.values, kind.arrow)
        bad = owners_of(either(keys.bad, inner.bad), bounds)
        return self._without(Parsed(array, bad, keys.nulled + inner.nulled), _of_another_kind(values, null))


def _is_bad(parsed: Parsed) -> bool:
    return parsed.bad is not None and bool(parsed.bad.any())


def _bounds(containers: Sequence[Any]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    lengths = np.fromiter((len(value) if value else 0 for value in containers), np.int64, len(containers))
    return np.concatenate([[0], np.cumsum(lengths)])


def _of_another_kind(values: Sequence[Any], null: Mask) -> Mask:
    """Where a container was wanted and something else, not null, was found."""
    found = np.fromiter((value is not None for value in values), bool, len(values))
    wrong: Mask = null & found
    return wrong


def _lost(values: Sequence[Any], texts: Sequence[str | bytes | None]) -> Mask:
    lost: Mask = np.zeros(len(values), bool)
    lost[[at for at, value in enumerate(values) if value is not None and texts[at] is None]] = True
    return lost


def _spelled(value: Any, kind: LogicalType) -> str | None:
    """The text that a simple type reads; None for what it never takes."""
    if type(value) is str:
        return value
    if value is None or kind.name in BYTES:
        return None
    if isinstance(value, dict | list):
        return compact(value) if kind.name in TEXTS else None
    return compact(value)


def _is_encodable(text: str | bytes) -> bool:
    """False for half a surrogate pair, which is no character."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True
