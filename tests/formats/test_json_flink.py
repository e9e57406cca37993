"""Against what Flink made of the same records.

`flink_json.json` was written by running the json deserializer of Flink 1.20.1 (its JSON parser variant, the default)
over these bytes (here as Latin-1). Where we differ on purpose, `ours` says how and `why` says why.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_csv import logical
from tests.formats.fix_json import json_decoder
from tests.formats.test_csv_flink import shown as shown_simple
from vector_assets.engine.core import POSITION
from vector_assets.engine.schema import LogicalType

GROUPS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("flink_json.json").read_text())


def _name(group: dict[str, Any]) -> str:
    options = " ".join(f"{key}={value!r}" for key, value in group["options"].items())
    return f"{','.join(kind for _, kind in group['columns'])} {options}".strip()


def shown(value: pa.Scalar, kind: LogicalType) -> Any:
    """The value as Flink's internal data structures print it; numbers with a fraction as numbers."""
    if not value.is_valid:
        return None
    if kind.name == "ARRAY":
        return [shown(element, kind.children[0]) for element in value.values]
    if kind.name == "ROW":
        return [shown(value[place], child) for place, child in enumerate(kind.children)]
    if kind.name == "MAP":
        entries = value.values
        return {str(entry["key"]): shown(entry["value"], kind.children[1]) for entry in entries}
    if kind.name in {"FLOAT", "DOUBLE"}:
        return float(str(value.as_py()))
    return shown_simple(value, kind)


def as_shown(flink: Any, kind: LogicalType) -> Any:
    """Flink's text of a value with its floating point numbers as numbers."""
    if flink is None or flink in ("error", "skipped"):
        return flink
    if kind.name == "ARRAY":
        return [as_shown(element, kind.children[0]) for element in flink]
    if kind.name == "ROW":
        return [as_shown(element, child) for element, child in zip(flink, kind.children, strict=True)]
    if kind.name == "MAP":
        return {key: as_shown(element, kind.children[1]) for key, element in flink.items()}
    if kind.name == "FLOAT":
        return float(np.float32(flink))
    return float(flink) if kind.name == "DOUBLE" else flink


def equal(one: Any, other: Any) -> bool:
    return one == other or repr(one) == repr(other)


@pytest.mark.parametrize("group", GROUPS, ids=_name)
def test_records_become_what_flink_makes_of_them(group: dict[str, Any]) -> None:
    options = {name.split(".")[0].replace("-", "_"): value for name, value in group["options"].items()}
    raw = raw_table([case["record"].encode("latin-1") for case in group["cases"]])
    decoded = json_decoder(*group["columns"], **options).decode(raw)
    check_counts(decoded, raw)
    found: dict[int, Any] = dict.fromkeys(decoded.rejected[POSITION].to_pylist(), "error")
    kinds = [(name, logical(kind)) for name, kind in group["columns"]]
    for row, position in enumerate(decoded.rows[POSITION].to_pylist()):
        found[position] = [shown(decoded.rows[name][row], kind) for name, kind in kinds]
    for position, case in enumerate(group["cases"]):
        wanted = case.get("ours", case["flink"])
        if isinstance(wanted, list):
            wanted = [as_shown(value, kind) for value, (_, kind) in zip(wanted, kinds, strict=True)]
        # a record that Flink skips without a word is a reject here
        assert equal(found[position], "error" if wanted == "skipped" else wanted), (case, found[position])
