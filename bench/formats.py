"""`vector-assets bench formats`: decoding of each format on one core, beside a row-by-row reader of the same records.

One entry of `CASES` a format: a function that makes (records, our decoder, the baseline). A baseline is what a short
script would do: one Python object a row, then one Arrow table. Cases of the same name with a suffix are the same format
with other records: some that cannot be read, or values of another kind than the columns.
"""

import argparse
import csv
import io
import json
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import numpy as np
import orjson
import pyarrow as pa
import urllib3

from bench import changelog_samples
from vector_assets.engine.core import POSITION, RAW_SCHEMA, Decoder
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.avro import AvroDecoder, AvroOptions
from vector_assets.formats.avro_confluent import ConfluentDecoder, ConfluentOptions
from vector_assets.formats.canal_json import CanalJsonDecoder, CanalJsonOptions
from vector_assets.formats.changelog_json import ChangelogJsonDecoder, ChangelogJsonOptions
from vector_assets.formats.csv import CsvDecoder, CsvOptions
from vector_assets.formats.debezium_json import DebeziumJsonDecoder, DebeziumJsonOptions
from vector_assets.formats.json import JsonDecoder, JsonOptions
from vector_assets.formats.lake_infer import infer
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions
from vector_assets.formats.maxwell_json import MaxwellJsonDecoder, MaxwellJsonOptions
from vector_assets.formats.raw import RawDecoder, RawOptions
from vector_assets.local.schema_registry import SchemaRegistryService

_BATCH = 50_000
"""Records decoded at once, as in a pipeline's batch."""


class Case(NamedTuple):
    """Records, who decodes them here, and a row-by-row reader of them that gives an Arrow table."""

    records: list[bytes]
    decoder: Decoder
    baseline: Callable[[Sequence[bytes]], pa.Table]


def table(**columns: LogicalType) -> Table:
    """A declared table of physical columns."""
    return Table("bench", tuple(Column(name, kind) for name, kind in columns.items()))


ORDERS = table(
    order_id=LogicalType("BIGINT"),
    user_id=LogicalType("INT"),
    amount=LogicalType("DOUBLE"),
    status=LogicalType("VARCHAR"),
    note=LogicalType("VARCHAR"),
    at=LogicalType("TIMESTAMP", 3),
    active=LogicalType("BOOLEAN"),
    score=LogicalType("DOUBLE"),
)


def order(number: int, chance: random.Random) -> dict[str, Any]:
    """A row of 8 fields; about 230 bytes of JSON."""
    return {
        "order_id": number,
        "user_id": chance.randrange(10**6),
        "amount": round(chance.random() * 1000, 2),
        "status": chance.choice(["created", "paid", "shipped"]),
        "note": f"{'x' * 60}{number}",
        "at": f"2026-03-01 12:00:{number % 60:02d}.123",
        "active": number % 2 == 0,
        "score": chance.random(),
    }


def orders(count: int) -> list[dict[str, Any]]:
    """The same rows every time."""
    chance = random.Random(7)
    return [order(number, chance) for number in range(count)]


def _orjson_rows(records: Sequence[bytes]) -> pa.Table:
    rows = []
    for record in records:
        try:
            row = orjson.loads(record)
        except orjson.JSONDecodeError:
            continue
        row["at"] = datetime.fromisoformat(row["at"])
        row["user_id"] = int(row["user_id"])
        if not isinstance(row["note"], str):
            row["note"] = orjson.dumps(row["note"]).decode()
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=ORDERS.schema)


def _json_case(records: list[bytes]) -> Case:
    return Case(records, JsonDecoder(JsonOptions.parse({}, "format json"), ORDERS), _orjson_rows)


def json_clean(count: int) -> Case:
    """Orders."""
    return _json_case([json.dumps(row).encode() for row in orders(count)])


def json_poison(count: int) -> Case:
    """One record in 10,000 is cut."""
    records = [json.dumps(row).encode() for row in orders(count)]
    for place in range(5000, count, 10_000):
        records[place] = records[place][:-20]
    return _json_case(records)


def json_quoted(count: int) -> Case:
    """The user's number is a text in every record."""
    return _json_case([json.dumps({**row, "user_id": str(row["user_id"])}).encode() for row in orders(count)])


def json_mixed(count: int) -> Case:
    """The user's number is a text in every other record."""
    rows = orders(count)
    for row in rows[::2]:
        row["user_id"] = str(row["user_id"])
    return _json_case([json.dumps(row).encode() for row in rows])


def json_exact(count: int) -> Case:
    """A member that is an object goes into a text column: no record is plain."""
    return _json_case([json.dumps({**row, "note": {"text": row["note"]}}).encode() for row in orders(count)])


def _lake_case(records: list[bytes]) -> Case:
    fields = infer(records[:1000], 1, times=True).fields
    return Case(records, LakeJsonDecoder(fields, LakeJsonOptions()), _orjson_rows)


def lake_clean(count: int) -> Case:
    """Orders into the columns that are inferred from them."""
    return _lake_case([json.dumps(row).encode() for row in orders(count)])


def lake_nested(count: int) -> Case:
    """A member is an object, which is kept as JSON text."""
    return _lake_case([json.dumps({**row, "note": {"text": row["note"]}}).encode() for row in orders(count)])


def lake_drift(count: int) -> Case:
    """One record in 100 has a member that no column is for."""
    rows = orders(count)
    for row in rows[1099::100]:
        row["colour"] = "red"
    return _lake_case([json.dumps(row).encode() for row in rows])


def csv_clean(count: int) -> Case:
    """Orders, with tabs."""
    records = ["\t".join(str(value) for value in row.values()).lower().encode() for row in orders(count)]
    readers = {"order_id": int, "user_id": int, "amount": float, "at": datetime.fromisoformat, "score": float}
    readers["active"] = "true".__eq__

    def rows(lines: Sequence[bytes]) -> pa.Table:
        names = ORDERS.schema.names
        texts = csv.reader((line.decode() for line in lines), delimiter="\t")
        found = [{name: readers.get(name, str)(text) for name, text in zip(names, row, strict=True)} for row in texts]
        return pa.Table.from_pylist(found, schema=ORDERS.schema)

    return Case(records, CsvDecoder(CsvOptions.parse({"csv.field-delimiter": r"\t"}, "format csv"), ORDERS), rows)


def raw_bigint(count: int) -> Case:
    """Eight bytes each."""
    numbers = table(v=LogicalType("BIGINT"))

    def rows(records: Sequence[bytes]) -> pa.Table:
        return pa.Table.from_pylist([{"v": struct.unpack(">q", record)[0]} for record in records], numbers.schema)

    records = [struct.pack(">q", number) for number in range(count)]
    return Case(records, RawDecoder(RawOptions.parse({}, "format raw"), numbers), rows)


def raw_text(count: int) -> Case:
    """A text of some 70 characters each."""
    texts = table(v=LogicalType("VARCHAR"))

    def rows(records: Sequence[bytes]) -> pa.Table:
        return pa.Table.from_pylist([{"v": record.decode()} for record in records], texts.schema)

    records = [row["note"].encode() for row in orders(count)]
    return Case(records, RawDecoder(RawOptions.parse({}, "format raw"), texts), rows)


_AVRO_TYPES = {
    "order_id": "long", "user_id": "int", "amount": "double", "status": "string", "note": "string",
    "at": {"type": "long", "logicalType": "timestamp-millis"}, "active": "boolean", "score": "double",
}  # fmt: skip
AVRO_ORDER = {
    "type": "record",
    "name": "record",
    "fields": [{"name": name, "type": ["null", kind]} for name, kind in _AVRO_TYPES.items()],
}
"""What Flink derives from `ORDERS`."""


def _avro_orders(count: int) -> list[bytes]:
    schema = fastavro.parse_schema(AVRO_ORDER)
    records = []
    for row in orders(count):
        out = io.BytesIO()
        at = int(datetime.fromisoformat(row["at"] + "+00:00").timestamp() * 1000)
        fastavro.schemaless_writer(out, schema, row | {"at": at})
        records.append(out.getvalue())
    return records


def _fastavro_rows(skipped: int) -> Callable[[Sequence[bytes]], pa.Table]:
    schema = fastavro.parse_schema(AVRO_ORDER)

    def rows(records: Sequence[bytes]) -> pa.Table:
        found = [fastavro.schemaless_reader(io.BytesIO(record[skipped:]), schema, None) for record in records]
        return pa.Table.from_pylist(
            [row | {"at": row["at"].replace(tzinfo=None)} for row in found], schema=ORDERS.schema
        )

    return rows


def avro(count: int) -> Case:
    """Orders; the baseline is fastavro."""
    return Case(_avro_orders(count), AvroDecoder(AvroOptions.parse({}, "format avro"), ORDERS), _fastavro_rows(0))


def avro_confluent(count: int) -> Case:
    """The same with a schema's id, which is asked for once, before the clock runs; the baseline knows the schema."""
    with tempfile.TemporaryDirectory() as folder:
        service = SchemaRegistryService(Path(folder) / "registry")
        service.start()
        try:
            body = {"schema": json.dumps(AVRO_ORDER)}
            answer = urllib3.request("POST", f"{service.url}/subjects/orders-value/versions", json=body).json()
            head = b"\0" + struct.pack(">i", answer["id"])
            records = [head + record for record in _avro_orders(count)]
            decoder = ConfluentDecoder(
                ConfluentOptions.parse({"avro-confluent.url": service.url}, "format avro-confluent"), ORDERS
            )
            decoder.decode(raw_batches(records[:1])[0])
        finally:
            service.erase()
    return Case(records, decoder, _fastavro_rows(len(head)))


CHANGES = table(
    id=LogicalType("BIGINT"),
    name=LogicalType("VARCHAR"),
    age=LogicalType("INT"),
    price=LogicalType("DECIMAL", 10, 2),
    at=LogicalType("TIMESTAMP", 3),
    score=LogicalType("DOUBLE"),
)


def changelog(name: str, make: Callable[[Any, Table], Decoder], options: type[Options]) -> Callable[[int], Case]:
    """Changes of rows of 6 columns, a fifth of them updates."""

    def rows(records: Sequence[bytes]) -> pa.Table:
        found = changelog_samples.read_row_by_row(name, records)
        typed = [row | {"price": Decimal(row["price"]), "at": datetime.fromisoformat(row["at"])} for row in found]
        return pa.Table.from_pylist(typed, schema=CHANGES.schema)

    def case(count: int) -> Case:
        decoder = make(options.parse({}, f"format {name}"), CHANGES)
        return Case(changelog_samples.samples(name, count), decoder, rows)

    return case


CASES: dict[str, Callable[[int], Case]] = {
    "csv": csv_clean,
    "json": json_clean,
    "json poison 1:10000": json_poison,
    "json quoted numbers": json_quoted,
    "json half quoted": json_mixed,
    "json object as text": json_exact,
    "lake-json": lake_clean,
    "lake-json object as text": lake_nested,
    "lake-json drift 1:100": lake_drift,
    "raw BIGINT": raw_bigint,
    "raw STRING": raw_text,
    "avro": avro,
    "avro-confluent": avro_confluent,
    "debezium-json": changelog("debezium-json", DebeziumJsonDecoder, DebeziumJsonOptions),
    "canal-json": changelog("canal-json", CanalJsonDecoder, CanalJsonOptions),
    "maxwell-json": changelog("maxwell-json", MaxwellJsonDecoder, MaxwellJsonOptions),
    "changelog-json": changelog("changelog-json", ChangelogJsonDecoder, ChangelogJsonOptions),
}


def raw_batches(records: Sequence[bytes]) -> list[pa.Table]:
    """The records as a source hands them to a decoder."""
    batches = []
    for start in range(0, len(records), _BATCH):
        values = pa.array(records[start : start + _BATCH], pa.binary())
        count = len(values)
        ordinals = pa.array(np.arange(count))
        known = {"value": values, "split": pa.array(np.zeros(count, np.int16)), "offset": ordinals}
        columns = [known.get(field.name, pa.nulls(count, field.type)) for field in RAW_SCHEMA]
        batch = pa.Table.from_arrays(columns, schema=RAW_SCHEMA)
        batches.append(batch.append_column(pa.field(POSITION, pa.int64(), nullable=False), ordinals))
    return batches


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Best rows/s of each, by this process's CPU time, and what became of the records."""
    batches = raw_batches(case.records)
    ours = theirs = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        decoded = [case.decoder.decode(batch) for batch in batches]
        ours = min(ours, time.process_time() - began)
    for _ in range(max(1, repeats - 1)):
        began = time.process_time()
        for start in range(0, len(case.records), _BATCH):
            case.baseline(case.records[start : start + _BATCH])
        theirs = min(theirs, time.process_time() - began)
    count = len(case.records)
    return {
        "bytes_per_record": round(sum(map(len, case.records)) / count, 1),
        "rows": sum(done.rows.num_rows for done in decoded),
        "rejected": sum(done.rejected.num_rows for done in decoded),
        "rows_per_s": round(count / ours),
        "baseline_rows_per_s": round(count / theirs),
        "ratio": round(theirs / ours, 2),
    }


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench formats", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), help="these cases")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    arguments = parser.parse_args(argv)
    figures = {name: measure(CASES[name](arguments.rows), arguments.repeats) for name in arguments.only}
    if arguments.json:
        sys.stdout.write(json.dumps({"rows": arguments.rows, "formats": figures}) + "\n")
        return 0
    sys.stdout.write("| format | bytes | rows/s | row by row | ratio | rejected |\n|---|---|---|---|---|---|\n")
    for name, found in figures.items():
        sys.stdout.write(
            f"| {name} | {found['bytes_per_record']:.0f} | {found['rows_per_s'] / 1000:.0f} k "
            f"| {found['baseline_rows_per_s'] / 1000:.0f} k | {found['ratio']} | {found['rejected']} |\n"
        )
    return 0
