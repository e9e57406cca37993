"""Short ways to avro tables, decoders and documents; fastavro, which the format does not decode with, writes these."""

import io
from collections.abc import Sequence

import fastavro

from tests.formats.fix_csv import csv_table, outcome
from vector_assets.formats.avro import AvroDecoder, AvroOptions

__all__ = ["avro_decoder", "csv_table", "encode", "outcome", "record", "sample", "sample_columns", "sample_schema"]


def avro_decoder(*columns: Sequence[str], **options: str) -> AvroDecoder:
    raw = {f"avro.{name}": value for name, value in options.items()}
    return AvroDecoder(AvroOptions.parse(raw, "format avro"), csv_table(*columns))


def record(*fields: tuple, name: str = "t") -> dict:
    """A record's schema; a field is (name, type) or (name, type, default)."""
    made = [{"name": n, "type": kind, **({"default": rest[0]} if rest else {})} for n, kind, *rest in fields]
    return {"type": "record", "name": name, "fields": made}


def encode(schema: object, *values: object) -> list[bytes]:
    """Each value in Avro's binary encoding."""
    parsed = fastavro.parse_schema(schema)
    found = []
    for value in values:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, value)
        found.append(out.getvalue())
    return found


def sample_columns() -> list[tuple[str, str]]:
    return [
        ("id", "BIGINT"),
        ("market_time", "TIMESTAMP(3)"),
        ("color", "VARCHAR(10)"),
        ("price", "INT"),
        ("feature", "ARRAY<FLOAT>"),
    ]


def sample_schema() -> dict:
    """What Flink derives from `sample_columns`."""
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    vector = {"type": "array", "items": ["null", "float"]}
    kinds = ["long", moment, "string", "int", vector]
    names = [name for name, _ in sample_columns()]
    return record(*((name, ["null", kind], None) for name, kind in zip(names, kinds, strict=True)))


def sample(count: int, dim: int = 10) -> list[bytes]:
    """Documents of `sample_schema`, for the bench of formats; every seventh price is null."""
    start = 1_700_000_000_000
    return encode(
        sample_schema(),
        *(
            {
                "id": number,
                "market_time": start + number,
                "color": ("red", "green", "blue")[number % 3],
                "price": None if number % 7 == 0 else number * 3 % 100_000,
                "feature": [(number + step) % 1000 / 8 for step in range(dim)],
            }
            for number in range(count)
        ),
    )
