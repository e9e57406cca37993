"""Which columns the rows in envelopes have, found for many records at once (`lake_scan`)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.formats.enveloped_types import TEXT, Columns, canal_columns, connect_columns, of_values
from vector_assets.formats.lake_scan import Ints, Members, Scan

_NULL = ord("n")
_MOST_VALUES = 1000
"""Values of a new member that its type is made of, when records do not say types."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Columns that a record names: the index of the first one that names just these."""

    first: int
    columns: Columns


def canal_seen(documents: pa.Array, known: frozenset[str]) -> list[Seen]:
    """What `mysqlType` says, and of records without it the members of their rows that are not `known`: texts."""
    scan = Scan(documents)
    kinds = _named(scan, scan.members(1), "mysqlType")
    kinds = kinds.at(kinds.head == ord("{"))
    found = _texts_seen(scan, kinds, canal_columns)
    said = np.isin(np.arange(scan.count), kinds.doc)
    if said.all():
        return found
    rows = scan.members(3)
    rows = rows.at(~said[rows.doc] & (rows.head != _NULL))
    return found + [Seen(at, {name: TEXT}) for name, at, _ in _distinct(scan, rows) if name not in known]


def debezium_seen(documents: pa.Array, known: frozenset[str], *, has_schema: bool) -> list[Seen]:
    """What `schema` says; without it, the members of the rows before and after that are not `known`, by their values.

    A member that is null in all records has no type yet, and is not among them.
    """
    scan = Scan(documents)
    if has_schema:
        schemas = _named(scan, scan.members(1), "schema")
        return _texts_seen(scan, schemas.at(schemas.head == ord("{")), connect_columns)
    images = _named(scan, scan.members(1), "before", "after")
    members = scan.members(2)
    rows = members.at(np.isin(members.holder, images.opens[images.opens >= 0]))
    rows = rows.at(rows.head != _NULL)
    found = []
    for name, at, places in _distinct(scan, rows):
        if name not in known:
            texts = scan.texts(rows.value.at(places[:_MOST_VALUES])).to_pylist()
            found.append(Seen(at, {name: of_values(text.encode() for text in texts)}))
    return found


def _named(scan: Scan, members: Members, *names: str) -> Members:
    """The members of these names."""
    is_one = pc.is_in(scan.texts(members.key), pa.array(names))
    return members.at(np.asarray(is_one, bool))


def _texts_seen(scan: Scan, members: Members, read: Callable[[str], Columns]) -> list[Seen]:
    texts = scan.texts(members.value).dictionary_encode()
    numbers = np.asarray(texts.indices)
    _, firsts = np.unique(numbers, return_index=True)
    return [Seen(int(members.doc[at]), read(texts.dictionary[int(numbers[at])].as_py())) for at in np.sort(firsts)]


def _distinct(scan: Scan, members: Members) -> list[tuple[str, int, Ints]]:
    """Names, the first document with each, and the places of its members, in the order of the documents."""
    names = scan.texts(members.key).dictionary_encode()
    numbers = np.asarray(names.indices)
    found = []
    for number, name in enumerate(names.dictionary.to_pylist()):
        places = np.flatnonzero(numbers == number)
        found.append((orjson.loads(f'"{name}"'), int(members.doc[places[0]]), places))
    return found
