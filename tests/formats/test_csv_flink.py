"""Against what Flink made of the same records.

`flink_csv.json` was written by running the csv deserializer of Flink 1.20.1 over these bytes (here as Latin-1). Where
we differ on purpose, `ours` says how and `why` says why: each time Flink lands something the record does not say.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_csv import csv_decoder, logical
from vector_assets.engine.core import POSITION
from vector_assets.engine.schema import LogicalType

GROUPS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("flink_csv.json").read_text())
_PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def _name(group: dict[str, Any]) -> str:
    options = " ".join(f"{key}={value!r}" for key, value in group["options"].items())
    return f"{','.join(kind for _, kind in group['columns'])} {options}".strip()


def shown(value: pa.Scalar, kind: LogicalType) -> Any:
    """The value as Flink's internal data structures print it."""
    if not value.is_valid:
        return None
    if kind.name == "ARRAY":
        return [shown(element, kind.children[0]) for element in value.values]
    if kind.name == "ROW":
        return [shown(value[place], child) for place, child in enumerate(kind.children)]
    if kind.name in {"BINARY", "VARBINARY"}:
        return base64.b64encode(value.as_py()).decode()
    if kind.name == "BOOLEAN":
        return str(value.as_py()).lower()
    if kind.name == "DATE":
        return str(value.value)
    if kind.name == "TIME":
        return str(value.value // 1000)
    if kind.name.startswith("TIMESTAMP"):
        return _shown_timestamp(value)
    return str(value.as_py())


def _shown_timestamp(value: pa.Scalar) -> str:
    per_second = _PER_SECOND[value.type.unit]
    seconds, rest = divmod(value.value, per_second)
    text = str(np.datetime64(seconds, "s"))
    nanos = f"{rest * (10**9 // per_second):09d}"
    while nanos.endswith("000"):
        nanos = nanos[:-3]
    return f"{text}.{nanos}" if nanos else text.removesuffix(":00")


@pytest.mark.parametrize("group", GROUPS, ids=_name)
def test_records_become_what_flink_makes_of_them(group: dict[str, Any]) -> None:
    options = {name.replace("-", "_"): value for name, value in group["options"].items()}
    raw = raw_table([case["record"].encode("latin-1") for case in group["cases"]])
    decoded = csv_decoder(*group["columns"], **options).decode(raw)
    check_counts(decoded, raw)
    found: dict[int, Any] = dict.fromkeys(range(raw.num_rows), "skipped")
    found |= dict.fromkeys(decoded.rejected[POSITION].to_pylist(), "error")
    kinds = [(name, logical(kind)) for name, kind in group["columns"]]
    for row, position in enumerate(decoded.rows[POSITION].to_pylist()):
        found[position] = [shown(decoded.rows[name][row], kind) for name, kind in kinds]
    for position, case in enumerate(group["cases"]):
        wanted = case.get("ours", case["flink"])
        # a record that Flink skips without a word is a reject here, but for comments
        allowed = (wanted, "error") if wanted == "skipped" else (wanted,)
        assert found[position] in allowed, case
    comments = sum(found[place] == "skipped" for place in found)
    assert comments == decoded.filtered
