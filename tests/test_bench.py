"""Benchmarks make records that the engine takes: of formats every case gives rows, with ours and row by row."""

import numpy as np
import pytest

from bench import formats, landed
from vector_assets.engine.core import RAW_SCHEMA


@pytest.mark.parametrize("name", formats.CASES)
def test_every_case_is_read_by_ours_and_row_by_row_alike(name: str) -> None:
    case = formats.CASES[name](200)
    (batch,) = formats.raw_batches(case.records)
    decoded = case.decoder.decode(batch)
    assert decoded.rejected.num_rows == decoded.nulled == decoded.filtered == 0
    expected = case.baseline(case.records)
    assert decoded.rows.select(expected.column_names).to_pylist() == expected.to_pylist()


def test_the_landed_records_are_raw_records_of_today() -> None:
    made = landed._records(0, 10, np.random.default_rng(1))
    assert made.schema == RAW_SCHEMA
    assert made.num_rows == 10
