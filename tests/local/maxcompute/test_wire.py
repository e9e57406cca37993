"""The record stream beside pyodps's own codec, and damage to it: whatever goes in comes out, or is refused."""

import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odps.models import TableSchema
from odps.tunnel.io.reader import TunnelRecordReader

from vector_assets.clients.maxcompute_records import encode
from vector_assets.local.maxcompute.frames import CHUNK, compressed, decompressed, frame, unframe
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.types import parse
from vector_assets.local.maxcompute.wire_decode import decode

KINDS = {
    "bigint": st.integers(-(2**63) + 1, 2**63 - 1),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
    "string": st.text(st.characters(codec="utf-8"), max_size=300),
    "binary": st.binary(max_size=20),
    "array<string>": st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=3), max_size=4),
    "map<string,bigint>": st.dictionaries(st.text("abc", max_size=3), st.none() | st.integers(-5, 5), max_size=3),
}
NAMES = [f"c{number}" for number in range(len(KINDS))]
ROWS = st.lists(st.tuples(*(st.none() | values for values in KINDS.values())).map(list), max_size=8)


class Pieces(io.BytesIO):
    """What pyodps writes to and reads from."""

    network_wall_time_ms = 0

    def flush(self):
        pass


def client_schema():
    return TableSchema.from_lists(NAMES, list(KINDS))


def table_of(rows):
    arrays = []
    for place, kind in enumerate(KINDS):
        values = [list(row[place].items()) if isinstance(row[place], dict) else row[place] for row in rows]
        arrays.append(pa.array(values, parse(kind).arrow))
    return pa.table(arrays, NAMES)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_the_stream_comes_back_as_it_went(rows):
    kinds = [parse(kind) for kind in KINDS]
    table = table_of(rows)
    assert decode(b"".join(encode(table, kinds)), NAMES, kinds).equals(table)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_pyodps_reads_what_the_server_writes(rows):
    stream = b"".join(encode(table_of(rows), [parse(kind) for kind in KINDS]))
    reader = TunnelRecordReader(client_schema(), lambda *_, **__: Pieces(stream))
    found = [list(record.values) for record in reader]
    assert found == rows


@settings(max_examples=30, deadline=None)
@given(ROWS.filter(bool), st.data())
def test_a_stream_cut_short_or_changed_is_refused(rows, data):
    kinds = [parse(kind) for kind in KINDS]
    stream = b"".join(encode(table_of(rows), kinds))
    end = data.draw(st.integers(0, len(stream) - 1))
    with pytest.raises(Refusal):
        decode(stream[:end], NAMES, kinds)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.sampled_from(["", "deflate", "zstd", "x-lz4-frame", "x-snappy-framed"]))
def test_arrow_frames_come_back_whole(thousands, codec):
    table = pa.table({"id": pa.array(range(thousands * 1000), pa.int64())})
    stream = b"".join(compressed(frame(table), codec))
    assert unframe(decompressed(stream, codec), table.schema).equals(table)


@pytest.mark.parametrize("place", [5, CHUNK + 3, CHUNK + 6, -2])
def test_a_damaged_frame_is_refused(place):
    table = pa.table({"id": pa.array(range(20000), pa.int64())})
    stream = bytearray(b"".join(frame(table)))
    stream[place] ^= 1
    with pytest.raises(Refusal, match="checksum"):
        unframe(bytes(stream), table.schema)
    with pytest.raises(Refusal):
        unframe(bytes(stream[:100]), table.schema)
