"""Short ways to csv tables, decoders and their outcome."""

import re
from collections.abc import Mapping, Sequence

from tests.formats.contract import raw_table
from vector_assets.engine.core import POSITION, Decoded
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.csv import CsvDecoder, CsvOptions

_SIMPLE = re.compile(r"(\w+)(?:\((\d+)(?:, *(\d+))?\))?")
_SYNONYMS = {"STRING": "VARCHAR", "BYTES": "VARBINARY"}


def logical(text: str) -> LogicalType:
    """The type that `ARRAY<INT>`, `ROW<a INT, b STRING>`, `DECIMAL(5, 2) NOT NULL` and so on spell."""
    bare = text.removesuffix(" NOT NULL")
    nullable = bare == text
    if bare.startswith(("ARRAY<", "MAP<", "ROW<")):
        name, inner = bare[:-1].split("<", 1)
        parts = _parts(inner)
        if name == "ROW":
            pairs = [part.split(" ", 1) for part in parts]
            children = tuple(logical(kind) for _, kind in pairs)
            return LogicalType(name, children=children, child_names=tuple(n for n, _ in pairs), nullable=nullable)
        return LogicalType(name, children=tuple(map(logical, parts)), nullable=nullable)
    match = _SIMPLE.fullmatch(bare)
    assert match, text
    name, precision, scale = match.groups()
    return LogicalType(_SYNONYMS.get(name, name), precision and int(precision), scale and int(scale), nullable=nullable)


def _parts(text: str) -> list[str]:
    """What commas outside of brackets part."""
    depth, parts = 0, [""]
    for char in text:
        depth += (char in "<(") - (char in ">)")
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def csv_table(*columns: Sequence[str]) -> Table:
    return Table("t", tuple(Column(name, logical(kind)) for name, kind in columns))


def csv_decoder(*columns: Sequence[str], **options: str) -> CsvDecoder:
    raw = {f"csv.{name.replace('_', '-')}": value for name, value in options.items()}
    return CsvDecoder(CsvOptions.parse(raw, "format csv"), csv_table(*columns))


def outcome(decoded: Decoded) -> Mapping[int, object]:
    """What stands at each position: the row as a tuple, or the reject's reason."""
    rows = decoded.rows.select([name for name in decoded.rows.column_names if name != POSITION])
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    found: dict[int, object] = dict(zip(decoded.rows[POSITION].to_pylist(), values, strict=True))
    rejected = decoded.rejected
    return found | dict(zip(rejected[POSITION].to_pylist(), rejected["error"].to_pylist(), strict=True))


def value_of(kind: str, text: str, **options: str) -> object:
    """The value that a field spells, or the reason why it does not; the field stands before a delimiter."""
    found = outcome(csv_decoder(("c", kind), ("z", "STRING"), **options).decode(raw_table([f"{text},z".encode()])))
    return found[0][0] if isinstance(found[0], tuple) else found[0]


def seed_columns() -> list[tuple[str, str]]:
    return [
        ("id", "INT"),
        ("market_time", "TIMESTAMP"),
        ("color", "VARCHAR(10)"),
        ("price", "INT"),
        ("feature", "STRING"),
    ]


def seed_line(number: int) -> bytes:
    feature = ",".join(f"{number * 10 + i}.5" for i in range(10))
    return f"{number}\t2024-05-{number % 28 + 1:02d} 10:{number % 60:02d}:30\tred\t{number * 7}\t{{{feature}}}".encode()
