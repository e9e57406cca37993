"""The hash is a file format: it is computed here a second time, in plain Python, from the module's docstring."""

import hashlib
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vector_assets.engine import sidecar
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import KIND, POSITION
from vector_assets.engine.errors import FatalError, PlanError

HOUR = "2026-11-21-11:00"
MASK = 2**64 - 1


def mix(word: int) -> int:
    x = (word + 0x9E3779B97F4A7C15) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def md5_word(data: bytes) -> int:
    return int.from_bytes(hashlib.md5(data).digest()[:8], "big")


def float_word(value: float) -> int:
    value = math.nan if math.isnan(value) else value + 0.0
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def key_hash(*words: int | None) -> int:
    found = 0
    for word in words:
        found = mix(found + (0xD6E8FEB86659FD93 if word is None else mix(word & MASK)) & MASK)
    return found


def hashes(*columns: pa.Array) -> list[int]:
    names = [f"c{i}" for i in range(len(columns))]
    return sidecar.key_hashes(pa.table(list(columns), names), tuple(names)).to_pylist()


D = Decimal
SECONDS = 1_790_000_000
NOT_A_NUMBER = [1.5, -0.0, math.nan, math.inf, None]
LONG = "日本語" * 50


def words(of: Callable[[Any], int], *values: Any) -> list[int | None]:
    return [None if value is None else of(value) for value in values]


CASES = {
    "int64": (pa.array([0, 1, -1, 2**63 - 1, -(2**63), None]), [0, 1, -1, 2**63 - 1, -(2**63), None]),
    "int8": (pa.array([1, -1, None], pa.int8()), [1, -1, None]),
    "uint64": (pa.array([1, 2**64 - 1, None], pa.uint64()), [1, 2**64 - 1, None]),
    "uint32": (pa.array([1, 2**32 - 1], pa.uint32()), [1, 2**32 - 1]),
    "boolean": (pa.array([True, False, None]), [1, 0, None]),
    "date32": (pa.array([1, -1, None], pa.date32()), [1, -1, None]),
    "date64": (pa.array([86_400_000, None], pa.date64()), [1, None]),
    "time32": (pa.array([5, None], pa.time32("s")), [5 * 10**9, None]),
    "time64": (pa.array([5, None], pa.time64("ns")), [5, None]),
    "timestamp s": (pa.array([SECONDS, -1], pa.timestamp("s")), [SECONDS * 10**6, -(10**6)]),
    "timestamp ms": (pa.array([SECONDS, None], pa.timestamp("ms", "UTC")), [SECONDS * 1000, None]),
    "timestamp ns": (pa.array([1500, -1, 7000], pa.timestamp("ns")), [1 ^ 500 << 54, -1 ^ 999 << 54, 7]),
    "double": (pa.array(NOT_A_NUMBER), words(float_word, *NOT_A_NUMBER)),
    "float": (pa.array([1.5, 0.1, None], pa.float32()), words(float_word, 1.5, float(np.float32(0.1)), None)),
    "string": (pa.array(["a", "", LONG, None]), words(md5_word, b"a", b"", LONG.encode(), None)),
    "large string": (pa.array(["a", None], pa.large_string()), words(md5_word, b"a", None)),
    "binary": (pa.array([b"\xff\x00", b"", None]), words(md5_word, b"\xff\x00", b"", None)),
    "fixed binary": (pa.array([b"ab", None], pa.binary(2)), words(md5_word, b"ab", None)),
    "dictionary": (pa.array(["x", "y", "x", None]).dictionary_encode(), words(md5_word, b"x", b"y", b"x", None)),
    "decimal": (
        pa.array([D("1.50"), D("-3.00"), D("0.05"), D("100.00"), D("0.00"), None], pa.decimal128(8, 2)),
        words(md5_word, b"1.5", b"-3", b"0.05", b"100", b"0", None),
    ),
    "decimal below one": (pa.array([D("-0.125"), D("0.000")], pa.decimal128(3, 3)), words(md5_word, b"-0.125", b"0")),
    "decimal integer": (
        pa.array([D(10**37), D(100)], pa.decimal128(38, 0)),
        words(md5_word, b"1" + b"0" * 37, b"100"),
    ),
}


@pytest.mark.parametrize(("column", "expected"), CASES.values(), ids=CASES)
def test_a_hash_is_what_the_format_says(column: pa.Array, expected: list[int | None]) -> None:
    assert hashes(column) == [key_hash(word) for word in expected]


def test_a_hash_never_changes() -> None:
    assert hashes(pa.array([1]), pa.array(["car-1"])) == [16866430704487795465]
    assert hashes(pa.array([1])) == [key_hash(1)] == [6791897765849424158]


EQUAL = [
    pytest.param(pa.array([7], pa.int8()), pa.array([7], pa.int64()), id="widths of integers"),
    pytest.param(pa.array([7], pa.uint16()), pa.array([7], pa.int32()), id="signs of integers"),
    pytest.param(pa.array(["é"]), pa.array(["é"], pa.large_string()), id="layouts of text"),
    pytest.param(pa.array(["é"]), pa.array(["é".encode()]), id="text and its bytes"),
    pytest.param(pa.array([1.5], pa.float32()), pa.array([1.5]), id="widths of floats"),
    pytest.param(pa.array([0.0]), pa.array([-0.0]), id="signs of zero"),
    pytest.param(pa.array([D("0.500")], pa.decimal128(3, 3)), pa.array([D("0.5")], pa.decimal128(9, 1)), id="scales"),
    pytest.param(pa.array([1], pa.timestamp("s")), pa.array([10**9], pa.timestamp("ns")), id="units of time"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_one_value_hashes_the_same_in_every_width(one: pa.Array, other: pa.Array) -> None:
    assert hashes(one) == hashes(other)


TEXT, NUMBER = pa.string(), pa.int64()
DIFFERENT = {
    "where one column ends": ([pa.array(["a"]), pa.array(["bc"])], [pa.array(["ab"]), pa.array(["c"])]),
    "order of columns": ([pa.array(["a"]), pa.array(["b"])], [pa.array(["b"]), pa.array(["a"])]),
    "place of a null": ([pa.array([None], TEXT), pa.array(["a"])], [pa.array(["a"]), pa.array([None], TEXT)]),
    "number and text": ([pa.array([1])], [pa.array(["1"])]),
    "zero and null": ([pa.array([0])], [pa.array([None], NUMBER)]),
    "empty and null": ([pa.array([""])], [pa.array([None], TEXT)]),
    "number of columns": ([pa.array(["a"])], [pa.array(["a"]), pa.array([None], TEXT)]),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_keys_hash_differently(one: list[pa.Array], other: list[pa.Array]) -> None:
    assert hashes(*one) != hashes(*other)


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.text(max_size=3)), st.one_of(st.none(), st.integers(-3, 3))), max_size=50
    )
)
def test_keys_hash_equally_exactly_when_they_are_equal(keys: list[tuple[str | None, int | None]]) -> None:
    found = hashes(pa.array([k for k, _ in keys], pa.string()), pa.array([n for _, n in keys], pa.int16()))
    assert len(set(found)) == len(set(keys))
    assert found == [key_hash(None if k is None else md5_word(k.encode()), n) for k, n in keys]


def test_chunks_and_slices_hash_as_one_column() -> None:
    text = pa.chunked_array([["a", "b", None, "c"], [], ["d"]]).slice(1)
    whole = sidecar.key_hashes(pa.table({"k": ["b", None, "c", "d"]}), ("k",))
    assert sidecar.key_hashes(pa.table({"k": text}), ("k",)).equals(whole)
    assert len(sidecar.key_hashes(pa.table({"k": text.slice(0, 0)}), ("k",))) == 0
    many = pa.array([f"user-{i}" for i in range(300_000)])
    assert hashes(many)[-1] == key_hash(md5_word(b"user-299999"))


def test_another_process_finds_the_same_hash() -> None:
    code = (
        "import pyarrow as pa; from vector_assets.engine.sidecar import key_hashes;"
        "print(key_hashes(pa.table({'k': ['car-1']}), ('k',))[0])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert int(run.stdout) == hashes(pa.array(["car-1"]))[0]


def test_a_column_that_cannot_identify_a_row_is_refused() -> None:
    rows = pa.table({"feature": pa.array([[1.0]], pa.list_(pa.float32()))})
    with pytest.raises(PlanError, match=r"key column feature: found type list<.*wanted one of integer, boolean"):
        sidecar.key_hashes(rows, ("feature",))


def rows_of(ids: list[int], first: int = 0, **extra: Any) -> pa.Table:
    return pa.table(
        {"id": ids, "name": [f"n{i}" for i in ids], POSITION: [first + i for i in range(len(ids))], **extra}
    )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_a_sidecar_names_every_key_that_was_staged(archive: Archive) -> None:
    deletes = rows_of([9], first=5).select(["id", POSITION])
    file = sidecar.write(archive, "cars", HOUR, 3, rows_of([4, 2]), deletes, ("id",))
    assert file is not None
    assert file.path == f"cars/{HOUR}/0000000003.keys.parquet"
    assert sidecar.read(archive, file).equals(
        pa.table([hashes(pa.array([4, 2, 9])), [0, 0, 3], [0, 1, 5]], schema=sidecar.SCHEMA)
    )
    notes = archive.manifest(file)
    assert notes == {"pipeline": "cars", "hour": HOUR, "seq": "3", "hash": "1", "key": '[["id","integer"]]'}


def test_a_sidecar_keeps_the_kinds_of_a_sink_that_sees_every_change(archive: Archive) -> None:
    rows = rows_of([1, 1, 2], **{KIND: pa.array([1, 2, 0], pa.int8())})
    file = sidecar.write(archive, "cars", HOUR, 1, rows, None, ("id",))
    assert file is not None
    assert sidecar.read(archive, file).column("kind").to_pylist() == [1, 2, 0]


def test_a_batch_without_rows_has_an_empty_sidecar(archive: Archive) -> None:
    file = sidecar.write(archive, "cars", HOUR, 1, rows_of([]).cast(rows_of([1]).schema), None, ("id",))
    assert file is not None
    assert sidecar.read(archive, file).num_rows == 0


def test_a_target_without_a_key_has_no_sidecar(archive: Archive) -> None:
    assert sidecar.write(archive, "cars", HOUR, 1, rows_of([1]), None, ()) is None
    assert list(archive.root.iterdir()) == []


@pytest.mark.parametrize("today", [("name",), ("id", "name")])
def test_hashes_of_another_key_are_not_compared(archive: Archive, today: tuple[str, ...]) -> None:
    rows = rows_of([1])
    file = sidecar.write(archive, "cars", HOUR, 1, rows, None, ("id",))
    assert file is not None
    with pytest.raises(FatalError, match=r"found hashes of the key .*id.*, wanted .*name"):
        sidecar.read(archive, file, sidecar.shape(rows, today))
    same = sidecar.shape(rows, ("id",))
    assert (
        sidecar.read(archive, file, same)
        .column("key_hash")
        .equals(pa.chunked_array([sidecar.key_hashes(rows, ("id",))]))
    )


def test_a_damaged_sidecar_is_refused(archive: Archive) -> None:
    file = sidecar.write(archive, "cars", HOUR, 1, rows_of([1]), None, ("id",))
    assert file is not None
    path = archive.root / file.path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(FatalError, match="refused"):
        sidecar.read(archive, file)
