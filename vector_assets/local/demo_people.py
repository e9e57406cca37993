"""The demo's people: a topic of changes (new, updated, deleted, some bad), and who should be left in the end."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import pyarrow as pa

from vector_assets.local.demo_topic import Filled, Pair, fill
from vector_assets.local.kafka import KafkaService
from vector_assets.local.milvus import MilvusService
from vector_assets.local.service import Progress

SERVICES = (KafkaService.name, MilvusService.name)
PIPELINE = "people"
TOPIC = "people_changes"
RECORDS = 5_000
DIMENSION = 8

_SEED = 20260302
_FIRST = ("Ada", "Alan", "Barbara", "Claude", "Edsger", "Frances", "Grace", "John", "Karen", "Leslie", "Mary", "Tony")
_LAST = ("Allen", "Dijkstra", "Hoare", "Hopper", "Lamport", "Liskov", "Lovelace", "Shannon", "Sparck", "Turing")
_HAPPENS = {"insert": 55, "update": 25, "delete": 9, "tombstone": 6, "return": 5}
_STRANGER = 1_000_000
"""Ids of poison that would be somebody new begin here."""


@dataclass(frozen=True, slots=True)
class Person:
    """One row."""

    id: int
    name: str
    age: int
    vec: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """The records in order, and the rows that they leave."""

    records: tuple[Pair, ...]
    left: Mapping[int, Person]
    happened: Mapping[str, int]


Spoil = Callable[[Person], Pair]


@cache
def changes() -> Changes:
    """The same at every call: people come, change, go (by a delete or a tombstone) and come back; ten are poison."""
    # a fixed seed: nothing here is secret
    source = random.Random(_SEED)
    records: list[Pair] = []
    left: dict[int, Person] = {}
    gone: list[Person] = []
    happened = dict.fromkeys(_HAPPENS, 0)
    poison = dict(zip(range(250, RECORDS, RECORDS // len(_POISON)), _POISON.values(), strict=True))
    due = sorted(poison)
    while len(records) < RECORDS:
        if due and len(records) >= due[0]:
            # one who is there keeps the row that was there
            records.append(poison[due.pop(0)](left[source.choice(sorted(left))]))
            continue
        what = source.choices(list(_HAPPENS), list(_HAPPENS.values()))[0]
        # an update is two records, which stay together
        if (what == "return" and not gone) or (what != "insert" and not left) or RECORDS - len(records) < 2:
            what = "insert"
        records += _happen(what, source, left, gone)
        happened[what] += 1
    return Changes(tuple(records), left, happened)


def _happen(what: str, source: random.Random, left: dict[int, Person], gone: list[Person]) -> list[Pair]:
    """Let something happen to somebody; the records that tell of it."""
    if what in {"insert", "return"}:
        new = gone.pop() if what == "return" else _person(source, 1 + len(left) + len(gone))
        left[new.id] = new
        return [_record(new, "+I")]
    old = left.pop(source.choice(sorted(left)))
    if what == "update":
        left[old.id] = replace(_person(source, old.id), age=old.age + 1)
        return [_record(old, "-U"), _record(left[old.id], "+U")]
    gone.append(old)
    return [(_key(old.id), None)] if what == "tombstone" else [_record(old, "-D")]


def _person(source: random.Random, number: int) -> Person:
    group = source.randrange(20)
    # people of one group are alike
    vec = tuple(round(((group * 31 + axis * 57) % 83) / 83 + source.gauss(0, 0.02), 4) for axis in range(DIMENSION))
    return Person(number, f"{source.choice(_FIRST)} {source.choice(_LAST)}", source.randrange(18, 90), vec)


def _key(number: int) -> bytes:
    return json.dumps({"id": number}).encode()


def _record(person: Person, op: str, **other: object) -> Pair:
    data = {"id": person.id, "name": person.name, "age": person.age, "vec": person.vec} | other
    return _key(person.id), json.dumps({"data": data, "op": op}).encode()


def _stranger(**other: object) -> Spoil:
    return lambda person: _record(replace(person, id=_STRANGER + person.id), "+I", **other)


def _misread(**other: object) -> Spoil:
    return lambda person: _record(person, "+U", **other)


_POISON: Mapping[str, Spoil] = {
    "cut record": lambda person: (_key(person.id), (_record(person, "+U")[1] or b"")[:30]),
    "no such operation": lambda person: _record(person, "+X"),
    "age in letters": _misread(age="forty"),
    "age beyond INT": _misread(age=3_000_000_000),
    "no key": lambda person: (None, _record(person, "+U")[1]),
    "key that is no JSON": lambda person: (b"id=7", _record(person, "+U")[1]),
    "number in letters": _misread(vec=["a", *range(1, DIMENSION)]),
    "one number too few": _stranger(vec=[0.5] * (DIMENSION - 1)),
    "no vector": _stranger(vec=None),
    "name too long": _stranger(name="x" * 41),
}
POISON = len(_POISON)


def fill_topic(progress: Progress) -> Filled:
    """Create the topic and produce the records it lacks.

    Raises:
        TransientError: the broker does not answer.
    """
    return fill(TOPIC, changes().records, progress)


def expected(schema: pa.Schema) -> pa.Table:
    """Who should be in the collection, by id, in the collection's own types."""
    people = [changes().left[number] for number in sorted(changes().left)]
    columns = {name: [getattr(person, name) for person in people] for name in ("id", "name", "age", "vec")}
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)
