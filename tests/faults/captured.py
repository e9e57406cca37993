"""Pipelines of captured MySQL tables made by hand: columns as first discovered, a target that follows them."""

import os
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults.apart import _CONTEXT
from tests.faults.place import placed
from vector_assets.clients.mysql_schema import discover
from vector_assets.engine.captured import CAPTURED_SCHEMA
from vector_assets.engine.core import Transform
from vector_assets.engine.errors import Place
from vector_assets.engine.pipeline import Pipeline, PipelineSettings
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.schema import Table
from vector_assets.engine.schema_history import SchemaVersion, history
from vector_assets.engine.session import Books, Session
from vector_assets.formats.captured import CapturedDecoder
from vector_assets.sources.mysql import MySqlCdcOptions, MySqlCdcSource

SINKS = {
    "adbpg": ("vector_assets.sinks.adbpg", "AdbPgSink"),
    "maxcompute": ("vector_assets.sinks.maxcompute", "MaxComputeSink"),
    "milvus": ("vector_assets.sinks.milvus", "MilvusSink"),
    "opensearch": ("vector_assets.sinks.opensearch", "OpenSearchSink"),
    "iceberg": ("vector_assets.sinks.iceberg", "IcebergSink"),
    "paimon": ("vector_assets.sinks.paimon", "PaimonSink"),
}


@dataclass(frozen=True)
class Spec:
    """What a pipeline is made of; may be sent to another process."""

    source: dict[str, str]
    connector: str
    sink: dict[str, str]
    table: Table
    behavior: str = "evolve"
    is_merged: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    transforms: tuple[Transform, ...] = ()

    def pipeline(self) -> Pipeline:
        import importlib

        module, name = SINKS[self.connector]
        sink_type = getattr(importlib.import_module(module), name)
        options = MySqlCdcOptions.parse(self.source, "source")
        sink_options = sink_type.Options.parse(self.sink, "sink")
        settings = {"vector-assets.batch.max-rows": "40", "vector-assets.lease.ttl": "2 s", **self.settings}
        table = self.table
        out = self.transforms[-1].columns if self.transforms else table.columns
        sink_table = replace(table, columns=out)
        decoder = CapturedDecoder(table.columns, self.behavior, is_merged=self.is_merged)
        return Pipeline(
            name="captured", place=Place("captured.py"), description="", source_table=table, sink_table=sink_table,
            source_connector="mysql-cdc", sink_connector=self.connector, format=None, source_options=options,
            format_options=None, sink_options=sink_options, settings=PipelineSettings.parse(settings, "settings"),
            schema=sink_table.schema, transform_text="", decoder=decoder, transforms=self.transforms,
            open_source=lambda: MySqlCdcSource(options, table, pipeline="captured", follows=True),
            open_sink=lambda: sink_type(sink_options, sink_table, "captured"), raw_schema=CAPTURED_SCHEMA,
        )  # fmt: skip


def declared(options: dict[str, str]) -> Table:
    """The table as a front end discovers it."""
    from vector_assets.clients.mysql import MySql

    parsed = MySqlCdcOptions.parse(options, "source")
    server = MySql(parsed.login)
    with closing(server):
        return discover(server, parsed.database_name, parsed.table_name)[0].table


class CapturedJob:
    """A spec and its books."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self.folder, self.spec = folder, spec
        (folder / "pipelines").mkdir(parents=True, exist_ok=True)
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        }

    @contextmanager
    def open(self) -> Iterator[Session]:
        with placed(self.environment):
            books = Books.open()
        with closing(books), Session(self.spec.pipeline(), books) as session:
            yield session

    def run(self, what: str = "catch_up") -> list[Outcome]:
        """Drain (or replay) in this process."""
        with self.open() as session:
            return list(getattr(Runner(session), what)())

    def run_apart(self, fail_at: str = "", what: str = "catch_up") -> int | None:
        """The same in a process of its own, killed at a failpoint; its exit code."""
        environment = {**self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}
        process = _CONTEXT.Process(target=_run, args=(self.folder, self.spec, environment, what))
        process.start()
        process.join(120)
        return process.exitcode

    def history(self) -> list[SchemaVersion]:
        with self.open() as session:
            return history(session.ledger, session.pipeline.name, session.pipeline.target)

    def changes(self) -> list[str]:
        """What was changed, or refused, so far."""
        return [
            change.what.partition(": ")[2] + (" REFUSED" if change.refused else "")
            for version in self.history() for change in version.changes
        ]  # fmt: skip


def _run(folder: Path, spec: Spec, environment: dict[str, str], what: str) -> None:
    os.environ.update({name: value for name, value in environment.items() if value})
    try:
        CapturedJob(folder, spec).run(what)
    except BaseException:
        (folder / "error.txt").write_text(traceback.format_exc())
        raise
