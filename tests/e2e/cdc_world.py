"""Flink CDC pipelines as a user has them: a YAML file in a folder, a MariaDB, and books of the test's own."""

import textwrap
from pathlib import Path

import pytest

from tests.fix_maxcompute import MaxCompute
from tests.fix_mysql import MySql
from vector_assets.declare import Capture, load_captures, load_file
from vector_assets.declare.cdc_look import Look, look
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.reconcile import Reconciliation, reconcile
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session


class World:
    """One file `shop.yaml` over a database of its own."""

    def __init__(self, folder: Path, mysql: MySql) -> None:
        self.mysql = mysql
        self.file = folder / "pipelines" / "shop.yaml"
        self.file.parent.mkdir()

    def source(self, tables: str | None = None, **more: str) -> str:
        """The `source:` of every table of the database, unless told otherwise."""
        login = self.mysql.options("t")
        options = {name: login[name] for name in ("hostname", "port", "username", "password")}
        tables = tables or rf"{self.mysql.database}.\.*"
        return block("source", {"type": "mysql", **options, "tables": tables, **more})

    def write(self, *blocks: str) -> None:
        """The file's text."""
        self.file.write_text("\n".join(blocks))

    def capture(self) -> Capture:
        """The file as it is now."""
        (found,) = load_captures(self.file)
        return found

    def look(self) -> Look:
        """Look for tables."""
        books = Books.open()
        try:
            return look(self.capture(), books.ledger)
        finally:
            books.close()

    def pipelines(self) -> dict[str, Pipeline]:
        """The pipelines of the known tables (of all, if none is known), by the names of their targets' tables."""
        return {each.sink_table.name: each for each in load_file(self.file)}

    def run(self, *names: str) -> int:
        """Land what is new in the tables, all of them unless named; the rows that were written or deleted."""
        books, moved = Books.open(), 0
        try:
            for name, pipeline in self.pipelines().items():
                if not names or name in names:
                    with Session(pipeline, books) as session:
                        for outcome in Runner(session).catch_up():
                            moved += outcome.batch.counts.written + outcome.batch.counts.deleted
        finally:
            books.close()
        return moved

    def fill(self, table: str) -> None:
        """Ten rows in a table of its own."""
        self.mysql.sql(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v INT, w VARCHAR(9))")
        self.mysql.sql(f"INSERT INTO {table} VALUES (%s, 1, 'a')", *[(n,) for n in range(10)])

    def check_that_it_lands_and_follows(self, table: str) -> None:
        """The target has the rows, and after updates and deletes still those of the table."""
        (pipeline,) = self.pipelines().values()
        assert pipeline.target.endswith(table)
        assert self.run() == 10
        self.mysql.sql(f"UPDATE {table} SET v = 5 WHERE id < 2")
        self.mysql.sql(f"DELETE FROM {table} WHERE id > 7")
        assert self.run() == 4
        found = reconciled(pipeline)
        assert (found.is_right(), found.target_rows) == (True, 8), found.findings


def reconciled(pipeline: Pipeline) -> Reconciliation:
    """The pipeline's target beside its archive."""
    books = Books.open()
    try:
        with Session(pipeline, books) as session:
            return reconcile(session)
    finally:
        books.close()


def block(key: str, options: dict[str, str]) -> str:
    """A part of the file."""
    return f"{key}:\n" + textwrap.indent("\n".join(f"{name}: {text}" for name, text in options.items()), "  ")


def maxcompute_sink(server: MaxCompute, **more: str) -> str:
    """The `sink:` of a local MaxCompute."""
    options = {
        "type": "maxcompute",
        "access-id": server.service.access_id,
        "access-key": server.service.access_key,
        "endpoint": server.service.endpoint,
        "project": server.odps.project,
        "buckets-num": "4",
    }
    return block("sink", {**options, **more})


@pytest.fixture
def cdc_world(tmp_path: Path, mysql: MySql, monkeypatch: pytest.MonkeyPatch) -> World:
    """A file to be written, in a folder that commands look into."""
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(tmp_path / "pipelines"))
    return World(tmp_path, mysql)
