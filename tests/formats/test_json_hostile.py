"""Input that nobody meant well: sizes, depth, poison in many shapes."""

import json
import resource

import pytest

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_csv import outcome
from tests.formats.fix_json import ORDER_COLUMNS, json_decoder, order_record
from vector_assets.formats.json_exact import MOST_NESTED

MIB = 1024**2


@pytest.mark.parametrize("depth", [MOST_NESTED - 1, MOST_NESTED, 5000, 1_000_000])
@pytest.mark.parametrize("shape", [(b"[", b"]"), (b'{"x":', b"}")], ids=["arrays", "objects"])
def test_nesting_has_one_limit_whichever_way_a_record_is_read(depth: int, shape: tuple[bytes, bytes]) -> None:
    opened, closed = shape
    inner = opened * depth + (b"1" if opened != b"[" else b"") + closed * depth
    raw = raw_table([b'{"a": 1}', b'{"a": 2, "z": ' + inner + b"}", b'{"a": 3, "s": ' + inner + b"}"])
    found = outcome(json_decoder(("a", "INT"), ("s", "STRING")).decode(raw))
    assert found[0] == (1, None)
    if depth < MOST_NESTED:
        assert found[1] == (2, None)
        assert found[2] == (3, inner.decode())
    else:
        assert found[1] == found[2] == "json: nested more than 200 deep"


def test_depth_is_that_of_each_record_wherever_its_page_begins() -> None:
    deep = b'{"a": 2, "z": ' + b"[" * 300 + b"]" * 300 + b"}"
    plain = b'{"a": 1, "t": "' + b"x" * 500 + b'"}'
    raw = raw_table([deep, plain, plain, deep, plain]).slice(1)
    found = outcome(json_decoder(("a", "INT")).decode(raw))
    assert [found[place] for place in (1, 2, 4)] == [(1,)] * 3
    assert found[3] == "json: nested more than 200 deep"


def test_many_brackets_side_by_side_are_not_deep() -> None:
    record = json.dumps({"a": 1, "z": [[]] * 10_000, "t": "[" * 500}).encode()
    assert outcome(json_decoder(("a", "INT")).decode(raw_table([record])))[0] == (1,)


def test_a_value_of_10_megabytes_lands_whole() -> None:
    text = 'x\u00e9\n"' * (2 * MIB)
    raw = raw_table([order_record(1), json.dumps({"note": text, "order_id": 7}).encode(), order_record(2)])
    decoded = json_decoder(*ORDER_COLUMNS).decode(raw)
    assert decoded.rows["note"][1].as_py() == text
    assert decoded.rows["order_id"].to_pylist() == [1, 7, 2]


POISON = [
    b'{"order_id": 1, "user',
    b"",
    b'{"order_id": 1}{"order_id": 2}',
    b"\xff\xfe",
    b'{"order_id": 99999999999999999999}',
    b'{"user_id": 3000000000}',
    b'{"amount": 1e400}',
    b'{"at": "yesterday"}',
    b'{"note": {"a": NaN}}',
    b"\0\0\0",
]


def test_poison_here_and_there_costs_no_other_record() -> None:
    values = [order_record(number) for number in range(20_000)]
    for place in range(0, len(values), 97):
        values[place] = POISON[place // 97 % len(POISON)]
    raw = raw_table(values)
    decoded = json_decoder(*ORDER_COLUMNS).decode(raw)
    check_counts(decoded, raw)
    assert decoded.rejected.num_rows == len(range(0, len(values), 97))
    wanted = [number for number in range(20_000) if number % 97]
    assert decoded.rows["order_id"].to_pylist() == wanted


def test_an_empty_record_and_one_of_two_objects_do_not_cancel_out() -> None:
    raw = raw_table([b"", b'{"a": 1}{"a": 2}', b'{"a": 3}'])
    decoded = json_decoder(("a", "INT")).decode(raw)
    assert decoded.rows["a"].to_pylist() == [3]
    check_counts(decoded, raw)


def test_memory_beside_the_result_stays_small() -> None:
    decoder = json_decoder(("order_id", "BIGINT"))
    raw = raw_table([order_record(number) for number in range(300)] * 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoder.decode(raw)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 60, f"{grown} MiB for {raw.nbytes / MIB:.0f} MiB of records"
