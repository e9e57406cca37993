"""The benchmark of formats reads what it makes: every case gives rows, with ours and row by row."""

import pytest

from bench import formats


@pytest.mark.parametrize("name", formats.CASES)
def test_every_case_is_read_by_ours_and_row_by_row_alike(name: str) -> None:
    case = formats.CASES[name](200)
    (batch,) = formats.raw_batches(case.records)
    decoded = case.decoder.decode(batch)
    assert decoded.rejected.num_rows == decoded.nulled == decoded.filtered == 0
    expected = case.baseline(case.records)
    assert decoded.rows.select(expected.column_names).to_pylist() == expected.to_pylist()
