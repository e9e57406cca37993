"""Short ways to decoders of changelog formats and to what they make of records."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.formats.contract import check_counts, raw_table
from tests.formats.fix_csv import logical
from vector_assets.declare.flink_options import options_class
from vector_assets.engine import registry
from vector_assets.engine.core import KIND, POSITION, Decoded, Decoder, RowKind
from vector_assets.engine.schema import Column, Table
from vector_assets.formats import FORMATS

SYMBOLS = {RowKind.INSERT: "+I", RowKind.UPDATE_BEFORE: "-U", RowKind.UPDATE_AFTER: "+U", RowKind.DELETE: "-D"}
PRODUCTS = (("id", "INT NOT NULL"), ("name", "STRING"), ("weight", "DECIMAL(5, 2)"))


def changelog_table(
    columns: Sequence[tuple[str, str]] = PRODUCTS,
    metadata: Mapping[str, str] | None = None,
    key: Sequence[str] = ("id",),
) -> Table:
    """A table of physical columns, then of METADATA columns (key to type) named after their keys."""
    extra = [Column(name, logical(kind), "metadata", metadata_key=name) for name, kind in (metadata or {}).items()]
    return Table("t", (*(Column(name, logical(kind)) for name, kind in columns), *extra), primary_key=tuple(key))


def changelog_decoder(name: str, table: Table | None = None, **options: str) -> Decoder:
    """The decoder of a format; options by their last part, dots as two underscores."""
    make = registry.load(FORMATS, "format", name)
    raw = {f"{name}.{key.replace('__', '.').replace('_', '-')}": value for key, value in options.items()}
    decoder: Decoder = make(options_class(make).parse(raw, f"format {name}"), table or changelog_table())
    return decoder


def decoded_of(decoder: Decoder, *records: Any) -> Decoded:
    """What becomes of records: bytes and None as they are, anything else as JSON."""
    raw = raw_table([one if one is None or isinstance(one, bytes) else json.dumps(one).encode() for one in records])
    decoded = decoder.decode(raw)
    check_counts(decoded, raw)
    return decoded


def rows_of(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Every row: its position, its kind as Flink shows it, its values."""
    names = [name for name in decoded.rows.column_names if name not in {KIND, POSITION}]
    return [
        (row[POSITION], SYMBOLS[RowKind(row[KIND])], *(row[name] for name in names)) for row in decoded.rows.to_pylist()
    ]


def reasons_of(decoded: Decoded) -> dict[int, str]:
    """Why records are rejected, by position."""
    return dict(zip(decoded.rejected[POSITION].to_pylist(), decoded.rejected["error"].to_pylist(), strict=True))
