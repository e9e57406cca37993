"""What every decoder must do, whatever its format."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from vector_assets.engine.core import POSITION, RAW_SCHEMA, REJECT_SCHEMA, Decoded, Decoder


def raw_table(
    values: Sequence[bytes | None], first: int = 0, step: int = 1, keys: Sequence[bytes | None] | None = None
) -> pa.Table:
    """Records with these values, as a source hands them to a decoder."""
    count = len(values)
    columns = [
        pa.nulls(count, pa.binary()) if keys is None else pa.array(keys, pa.binary()),
        pa.array(values, pa.binary()),
        pa.nulls(count, RAW_SCHEMA.field("headers").type),
        pa.array(np.arange(count), RAW_SCHEMA.field("timestamp").type),
        pa.array(np.zeros(count, np.int16)),
        pa.array(np.arange(count)),
        pa.nulls(count, pa.int32()),
        pa.nulls(count, pa.int8()),
    ]
    table = pa.Table.from_arrays(columns, schema=RAW_SCHEMA)
    return table.append_column(
        pa.field(POSITION, pa.int64(), nullable=False), pa.array(first + step * np.arange(count), pa.int64())
    )


def check_counts(decoded: Decoded, raw: pa.Table) -> None:
    """Every record is a row, a reject or left out on the options' orders; never two of them, never none."""
    decoded.rows.validate(full=True)
    assert decoded.rejected.schema == REJECT_SCHEMA
    rows = decoded.rows[POSITION].to_pylist()
    rejected = decoded.rejected[POSITION].to_pylist()
    assert rows == sorted(rows)
    assert rejected == sorted(set(rejected))
    assert set(rows).isdisjoint(rejected)
    assert set(rows) | set(rejected) <= set(raw[POSITION].to_pylist())
    assert len(set(rows)) + len(rejected) + decoded.filtered == raw.num_rows


def same(one: Decoded, other: Decoded) -> None:
    """Both hold the same rows, rejects and counts."""
    assert one.rows.combine_chunks() == other.rows.combine_chunks()
    assert one.rejected.combine_chunks() == other.rejected.combine_chunks()
    assert (one.nulled, one.filtered) == (other.nulled, other.filtered)


class DecoderContract:
    """Subclass it with fixtures `decoder`, `good` (a value that gives rows) and `bad` (a value that is rejected)."""

    @pytest.fixture
    def mixed(self, good: bytes, bad: bytes) -> pa.Table:
        return raw_table([good, good, bad, good, None, bad, *[good] * 40, bad], first=7, step=3)

    def test_no_records_give_no_rows_of_the_right_types(self, decoder: Decoder, good: bytes) -> None:
        empty = decoder.decode(raw_table([]))
        check_counts(empty, raw_table([]))
        assert empty.rows.schema == decoder.decode(raw_table([good])).rows.schema
        assert empty.rows.num_rows == empty.rejected.num_rows == 0

    def test_the_position_is_never_null(self, decoder: Decoder, good: bytes) -> None:
        field = decoder.decode(raw_table([good])).rows.schema.field(POSITION)
        assert field == pa.field(POSITION, pa.int64(), nullable=False)

    def test_every_record_is_a_row_or_a_reject_at_its_own_position(
        self, decoder: Decoder, mixed: pa.Table, bad: bytes
    ) -> None:
        decoded = decoder.decode(mixed)
        check_counts(decoded, mixed)
        values = dict(zip(mixed[POSITION].to_pylist(), mixed["value"].to_pylist(), strict=True))
        rejected = decoded.rejected[POSITION].to_pylist()
        assert {position for position, value in values.items() if value == bad} <= set(rejected)
        assert all(values[position] in {bad, None} for position in rejected)

    def test_rejects_say_the_stage_and_a_reason(self, decoder: Decoder, mixed: pa.Table) -> None:
        rejected = decoder.decode(mixed).rejected
        assert set(rejected["stage"].to_pylist()) == {"decode"}
        assert all(len(reason) > 10 for reason in rejected["error"].to_pylist())

    def test_only_bad_records_give_no_rows(self, decoder: Decoder, bad: bytes) -> None:
        raw = raw_table([bad] * 30)
        decoded = decoder.decode(raw)
        check_counts(decoded, raw)
        assert decoded.rejected.num_rows == 30

    def test_a_batch_gives_what_its_parts_give(self, decoder: Decoder, mixed: pa.Table) -> None:
        whole = decoder.decode(mixed)
        parts = [decoder.decode(mixed.slice(start, 5)) for start in range(0, mixed.num_rows, 5)]
        assert whole.rows.combine_chunks() == pa.concat_tables(part.rows for part in parts).combine_chunks()
        rejected = pa.concat_tables(part.rejected for part in parts).combine_chunks()
        assert whole.rejected.combine_chunks() == rejected

    def test_tables_chunks_and_record_batches_are_the_same(self, decoder: Decoder, mixed: pa.Table) -> None:
        whole = decoder.decode(mixed)
        same(decoder.decode(mixed.combine_chunks().to_batches()[0]), whole)
        same(decoder.decode(pa.concat_tables([mixed.slice(0, 3), mixed.slice(3, 0), mixed.slice(3)])), whole)

    def test_threads_share_a_decoder(self, decoder: Decoder, mixed: pa.Table) -> None:
        whole = decoder.decode(mixed)
        with ThreadPoolExecutor(4) as threads:
            for decoded in threads.map(decoder.decode, [mixed] * 16):
                same(decoded, whole)
