"""A pipeline whose records are archived and in a PostgreSQL table, made without a broker, for other benchmarks."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc

from bench.kafka_adbpg import SCRIPT, TABLE
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import RAW_SCHEMA, BatchKind, Range, Span
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

BATCH = 50_000


@dataclass(frozen=True)
class Landed:
    """A pipeline's session, its table, and how to open another session for a changed script."""

    session: Session
    admin: psycopg.Connection
    script: str
    books: Books

    def changed(self, before: str, after: str) -> Session:
        """A session for the script with a text changed."""
        (pipeline,) = flink_sql.compile_script(self.script.replace(before, after), "bench.sql")
        return Session(pipeline, self.books)


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    made = argparse.ArgumentParser(prog=f"vector-assets bench {name}", description=text)
    made.add_argument("--rows", type=int, default=1_000_000)
    made.add_argument("--json", action="store_true", help="one line of JSON")
    return made


@contextmanager
def landed(rows: int, conflict: str = "update") -> Iterator[Landed]:
    """A database of its own with `rows` records landed in batches of 50,000, all through the engine but the reading."""
    services.up(["postgres"])
    address, user, password = (env.secret(f"postgres_{name}") for name in ("address", "user", "password"))
    database = f"bench_{os.getpid()}"
    server = f"postgresql://{user}:{password}@{address}"
    script = SCRIPT.format(
        address=address, user=user, password=password, database=database, brokers="127.0.0.1:1", topic="none",
        conflict=conflict, settings="",
    )  # fmt: skip
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin, tempfile.TemporaryDirectory() as folder:
        admin.execute(f"CREATE DATABASE {database}")
        try:
            with psycopg.connect(f"{server}/{database}", autocommit=True) as target:
                target.execute(TABLE)
                (pipeline,) = flink_sql.compile_script(script, "bench.sql")
                books = Books(Ledger(Path(folder) / "ledger.db"), Archive(Path(folder) / "archive"))
                with Session(pipeline, books) as session:
                    _land(session, rows)
                    target.execute("ANALYZE vector_test.car_info")
                    yield Landed(session, target, script, books)
                books.close()
        finally:
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)")


def _land(session: Session, rows: int) -> None:
    runner = Runner(session)
    chance = np.random.default_rng(7)
    split = "none@bench/0"
    with session.leased() as stages:
        session.ledger.freeze_start(stages.lease, {split: {"offset": 0}})
        for start in range(0, rows, BATCH):
            raw = _records(start, min(start + BATCH, rows), chance)
            span = Span((Range(split, {"offset": start}, {"offset": start + raw.num_rows}),))
            batch = runner.plan(stages, BatchKind.RECORDS, span, session.calendar.now())
            runner._settle(stages, stages.stage(stages.seal(batch, raw, span), raw), None)


def _records(start: int, end: int, chance: np.random.Generator) -> pa.Table:
    """Records of the main benchmark's form, about 129 bytes each."""
    ids = np.arange(start, end)
    numbers = pc.cast(pa.array(np.round(chance.random(10 * len(ids)), 6)), pa.string())
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 10 * len(ids) + 1, 10), pa.int32()), numbers)
    day = pc.utf8_lpad(pc.cast(pa.array(ids % 28 + 1), pa.string()), 2, "0")
    parts = [
        pc.cast(pa.array(ids), pa.string()),
        pc.binary_join_element_wise("2026-03-", day, " 12:00:00", ""),
        pc.binary_join_element_wise("color", pc.cast(pa.array(ids % 7), pa.string()), ""),
        pc.cast(pa.array(ids % 90000), pa.string()),
        pc.binary_join_element_wise("{", pc.binary_join(lists, ","), "}", ""),
    ]
    count = len(ids)
    return pa.table(
        [
            pa.nulls(count, pa.binary()),
            pc.cast(pc.binary_join_element_wise(*parts, "\t"), pa.binary()),
            pa.nulls(count, RAW_SCHEMA.field("headers").type),
            pa.repeat(pa.scalar(1_772_366_400_000, pa.timestamp("ms", "UTC")), count),
            pa.array(np.zeros(count, np.int16)),
            pa.array(ids, pa.int64()),
            *(pa.nulls(count, RAW_SCHEMA.field(name).type) for name in ("leader_epoch", "timestamp_type")),
        ],
        schema=RAW_SCHEMA,
    )
