"""Blocks, the exact reader and an oracle that knows nothing of either agree on what records are."""

import json
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.fix_csv import logical
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.json_rows import JsonRows, JsonRules, ParsedRows

COLUMNS = {
    "i": "INT",
    "n": "BIGINT NOT NULL",
    "f": "DOUBLE",
    "p": "DECIMAL(6, 2)",
    "b": "BOOLEAN",
    "s": "STRING",
    "l": "ARRAY<SMALLINT>",
    "r": "ROW<x INT, y ROW<z STRING, d DECIMAL(38, 0)>>",
}
BITS = {"SMALLINT": 16, "INT": 32, "BIGINT": 64}
BAD = object()
WIDE = Context(prec=200)


class Spelled(str):
    """A number's text."""


def oracle(value: Any, kind: LogicalType) -> Any:
    """What Flink's rules make of a value, `BAD` for what they refuse; plain Python, one value at a time."""
    if value is None:
        return None if kind.nullable else BAD
    if kind.name in {"ARRAY", "ROW"}:
        if kind.name == "ARRAY":
            inner = [oracle(item, kind.children[0]) for item in value] if isinstance(value, list) else BAD
            found = inner if inner is BAD else list(inner)
            return BAD if found is BAD or any(item is BAD for item in inner) else found
        if not isinstance(value, dict):
            return BAD
        row = {
            name: oracle(value.get(name), child) for name, child in zip(kind.child_names, kind.children, strict=True)
        }
        return BAD if any(item is BAD for item in row.values()) else row
    if kind.name == "VARCHAR":
        return (
            str(value) if isinstance(value, str) else ("true" if value else "false") if isinstance(value, bool) else BAD
        )
    text = ("true" if value else "false") if isinstance(value, bool) else value
    if not isinstance(text, str):
        return BAD
    return _simple(text.strip(), kind)


def _simple(text: str, kind: LogicalType) -> Any:
    if kind.name == "BOOLEAN":
        return {"true": True, "false": False}.get(text.lower(), BAD)
    try:
        number = Decimal(text)
    except ArithmeticError:
        return BAD
    if kind.name == "DOUBLE":
        return BAD if abs(float(text)) == float("inf") else float(text)
    if kind.name == "DECIMAL":
        if abs(number) > 10**50:
            return BAD
        rounded = number.quantize(Decimal(1).scaleb(-(kind.scale or 0)), ROUND_HALF_UP, context=WIDE)
        return rounded if abs(rounded) < Decimal(10) ** ((kind.precision or 0) - (kind.scale or 0)) else BAD
    top = 2 ** (BITS[kind.name] - 1)
    return int(number) if number == int(number) and -top <= number < top else BAD


def dumped(value: Any) -> str:
    if isinstance(value, Spelled):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {dumped(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


whole = (
    st.integers(-(2**70), 2**70) | st.integers(-40_000, 40_000) | st.sampled_from([2**31, 2**63, -(2**63), 2**63 - 1])
)
numbers = (
    whole.map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.tuples(st.integers(-(10**7), 10**7), st.integers(0, 4)).map(lambda p: format(Decimal(p[0]).scaleb(-p[1]), "f"))
    | st.sampled_from(["1e2", "-0", "-0.0", "1.0", "12E-1", "1e400", "99999.995", "9999.995", "9" * 38, "9" * 39])
)
texts = st.text(max_size=5) | st.sampled_from(["true", " FALSE ", '"', "\\", "}\n{", ": 1", "x\u2028"])
scalars = st.none() | st.booleans() | numbers.map(Spelled) | numbers | texts
usual = {
    "i": st.integers(-(2**31), 2**31 - 1).map(lambda n: Spelled(str(n))),
    "n": st.integers(-(2**63), 2**63 - 1).map(lambda n: Spelled(str(n))),
    "f": st.floats(allow_nan=False, allow_infinity=False).map(lambda f: Spelled(repr(f))),
    "p": st.integers(-999999, 999999).map(lambda n: Spelled(str(Decimal(n).scaleb(-2)))),
    "b": st.booleans(),
    "s": st.text(max_size=8),
    "l": st.lists(st.integers(-9, 9).map(lambda n: Spelled(str(n))), max_size=3),
    "r": st.none() | st.fixed_dictionaries({}, optional={"x": numbers.map(Spelled), "y": st.none() | st.just({})}),
}
odd = {
    **dict.fromkeys(COLUMNS, scalars),
    "l": st.lists(scalars, max_size=3) | scalars,
    "r": st.fixed_dictionaries({"x": scalars, "y": st.fixed_dictionaries({"z": texts, "d": scalars}) | scalars}),
}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly usual records, with an odd member here and there, members missing and unknown ones."""
    strange = draw(st.sets(st.sampled_from(sorted(COLUMNS)), max_size=2)) if draw(st.booleans()) else set()
    row = {name: draw(odd[name] if name in strange else usual[name]) for name in draw(st.permutations(sorted(COLUMNS)))}
    for name in draw(st.sets(st.sampled_from(sorted(COLUMNS)), max_size=1)):
        del row[name]
    if draw(st.booleans()):
        row["unknown"] = draw(scalars | st.lists(scalars, max_size=2))
    return row


def as_mapping(parsed: ParsedRows, count: int) -> Mapping[int, Any]:
    for column in parsed.columns:
        column.validate(full=True)
    rows = zip(*(column.to_pylist() for column in parsed.columns), strict=True)
    found: dict[int, Any] = dict(zip(parsed.places.tolist(), rows, strict=True))
    assert found.keys().isdisjoint(parsed.errors)
    assert len(found) + len(parsed.errors) == count
    assert list(parsed.places) == sorted(parsed.places)
    return found


@settings(max_examples=70, deadline=None)
@given(rows=st.lists(records(), max_size=12), missing=st.booleans())
def test_both_readers_and_the_oracle_agree(*, rows: list[dict[str, Any]], missing: bool) -> None:
    columns = [(name, logical(kind)) for name, kind in COLUMNS.items()]
    documents = pa.array([dumped(row).encode() for row in rows], pa.binary())
    reader = JsonRows(columns, JsonRules())
    blocks, exact = reader.parse(documents), reader.parse_exactly(documents)
    assert blocks.errors == exact.errors
    found = as_mapping(blocks, len(rows))
    assert repr(found) == repr(as_mapping(exact, len(rows)))
    for place, row in enumerate(rows):
        wanted = tuple(oracle(row.get(name), kind) for name, kind in columns)
        if any(value is BAD for value in wanted):
            assert place in blocks.errors, (row, found.get(place))
        else:
            assert found[place] == wanted, blocks.errors.get(place)
    strict = JsonRows(columns, JsonRules(fail_on_missing_field=missing, ignore_parse_errors=not missing))
    blocks, exact = strict.parse(documents), strict.parse_exactly(documents)
    assert repr(as_mapping(blocks, len(rows))) == repr(as_mapping(exact, len(rows)))
    assert (blocks.errors, blocks.nulled) == (exact.errors, exact.nulled)


CHUNKS = rb"""{ } " "a" : 1 , [ ] null {"a":1} \ NaN {} "b" {"a":[{}""".split()
CHUNKS += [b" ", b"\n", b"\0", b"\xff", "é\ufeff".encode()]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_records_cut_joined_or_spoilt_never_shift_their_neighbours(data: st.DataObject) -> None:
    columns = [("a", logical("INT")), ("b", logical("STRING"))]
    chunks = st.sampled_from(CHUNKS)
    spoilt = data.draw(st.lists(st.lists(chunks, max_size=8).map(b"".join), max_size=6))
    documents: list[bytes | None] = []
    for number, bad in enumerate(spoilt):
        documents += [b'{"a": %d}' % number, bad]
    reader = JsonRows(columns, JsonRules())
    array = pa.array([*documents, None], pa.binary())
    blocks, exact = reader.parse(array), reader.parse_exactly(array)
    found = as_mapping(blocks, len(array))
    assert found == as_mapping(exact, len(array))
    assert blocks.errors == exact.errors
    assert [found[2 * number][0] for number in range(len(spoilt))] == list(range(len(spoilt)))
    for place, document in enumerate(documents):
        assert (place in found) == _is_one_object(document), document


def _is_one_object(document: bytes | None) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        text = (document or b"").decode("utf-8-sig")
        value = json.loads(text, parse_constant=refuse, strict=False)
    except ValueError:
        return False
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("a"), int | None) and np.abs(value.get("a") or 0) < 2**31


@pytest.mark.parametrize("share", [2, 10, 100])
@pytest.mark.parametrize("odd_value", ['"7"', "7.0", "99999999999", '"x"', "true", "{}", "1e2", "["])
def test_any_share_of_odd_values_gives_the_same_rows_as_the_exact_reader(share: int, odd_value: str) -> None:
    columns = [("a", logical("INT")), ("s", logical("STRING"))]
    documents = [
        b'{"a": %s, "s": %s}' % (odd_value.encode() if n % share == 0 else b"%d" % n, b"%d" % n if n % 3 else b'"t"')
        for n in range(3000)
    ]
    reader = JsonRows(columns, JsonRules())
    array = pa.array(documents, pa.binary())
    blocks, exact = reader.parse(array), reader.parse_exactly(array)
    assert blocks.places.tolist() == exact.places.tolist()
    assert blocks.columns == exact.columns
    assert blocks.errors == exact.errors
