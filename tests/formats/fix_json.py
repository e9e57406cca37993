"""Short ways to json tables, decoders and their outcome."""

import json
import random
from collections.abc import Sequence

from tests.formats.contract import raw_table
from tests.formats.fix_csv import csv_table, outcome
from vector_assets.formats.json import JsonDecoder, JsonOptions


def json_decoder(*columns: Sequence[str], **options: str) -> JsonDecoder:
    """A decoder; `fail_on_missing_field="true"` and so on are the options."""
    spelled = {"timestamp_format": "timestamp-format.standard"}
    raw = {f"json.{spelled.get(name, name.replace('_', '-'))}": value for name, value in options.items()}
    return JsonDecoder(JsonOptions.parse(raw, "format json"), csv_table(*columns))


def value_of(kind: str, text: str, **options: str) -> object:
    """The value that a member's text is, or the reason why it is none."""
    found = outcome(json_decoder(("c", kind), **options).decode(raw_table([b'{"c": %s}' % text.encode()])))
    return found[0][0] if isinstance(found[0], tuple) else found[0]


ORDER_COLUMNS = [
    ("order_id", "BIGINT"),
    ("user_id", "INT"),
    ("amount", "DOUBLE"),
    ("status", "STRING"),
    ("note", "STRING"),
    ("at", "TIMESTAMP(3)"),
    ("active", "BOOLEAN"),
    ("score", "DOUBLE"),
]
"""A table of 8 columns whose records have about 230 bytes."""


def order(number: int) -> dict[str, object]:
    """One row of that table."""
    chance = random.Random(number)
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


def order_record(number: int) -> bytes:
    """That row as a record."""
    return json.dumps(order(number)).encode()
