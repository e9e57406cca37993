"""`vector-assets bench mysql-cdc`: a MySQL table by our source, beside PyMySQL and a bare mysql-replication loop.

The snapshot stands beside a SELECT of the same columns through SSCursor, the stream beside a loop that touches every
row of the same binlog; one run, turn by turn, medians by wall time. Ours include the conversion to records.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
from pymysql.cursors import SSCursor
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from vector_assets.clients.mysql_binlog import _Connection
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.local.mysql import MySqlService
from vector_assets.sources.mysql import MySqlCdcOptions, MySqlCdcSource

COLUMNS = {
    "id": LogicalType("BIGINT"), "n": LogicalType("INT"), "x": LogicalType("DOUBLE"),
    "price": LogicalType("DECIMAL", 10, 2),
    "name": LogicalType("VARCHAR"), "seen": LogicalType("TIMESTAMP", 3),
}  # fmt: skip
DDL = "id BIGINT PRIMARY KEY, n INT, x DOUBLE, price DECIMAL(10, 2), name VARCHAR(50), seen DATETIME(3)"
FILL = (
    "INSERT INTO bench.t SELECT seq, seq % 1000, seq / 7, (seq % 10000) / 100, CONCAT('name number ', seq),"
    " '2024-01-01' + INTERVAL seq SECOND FROM seq_{first}_to_{last}"
)


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench mysql-cdc", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="Where the server keeps its files; default: with the other services."
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    service = MySqlService(arguments.folder)
    service.start()
    start = _fill(service, arguments.rows)
    readers: dict[str, Callable[[], int]] = {
        "sscursor": lambda: _sscursor(service),
        "snapshot": lambda: _ours(service, "snapshot", None),
        "replication_loop": lambda: _loop(service, start),
        "stream": lambda: _ours(service, "specific-offset", start),
    }
    runs: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(arguments.turns):
        for name, read in readers.items():
            began = time.monotonic()
            found = read()
            runs[name].append(time.monotonic() - began)
            if found != arguments.rows:
                raise SystemExit(f"bench: {name} read {found} rows instead of {arguments.rows}")
    figures: dict[str, Any] = {"rows": arguments.rows}
    for name, spent in runs.items():
        figures[f"{name}_rows_per_s"] = round(arguments.rows / statistics.median(spent))
    figures["snapshot_vs_sscursor"] = round(figures["snapshot_rows_per_s"] / figures["sscursor_rows_per_s"], 2)
    figures["stream_vs_loop"] = round(figures["stream_rows_per_s"] / figures["replication_loop_rows_per_s"], 2)
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _settings(service: MySqlService) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": service.port, "user": service.user, "password": service.password}


def _fill(service: MySqlService, rows: int) -> str:
    """A new table with the rows, a few thousand a transaction; the GTIDs before the first of them."""
    with pymysql.connect(**_settings(service), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS bench")
        cursor.execute("DROP TABLE IF EXISTS bench.t")
        cursor.execute("USE bench")
        cursor.execute(f"CREATE TABLE bench.t ({DDL})")
        cursor.execute("SELECT @@gtid_binlog_pos")
        (start,) = cursor.fetchone() or ("",)
        for first in range(1, rows + 1, 5000):
            cursor.execute(FILL.format(first=first, last=min(first + 4999, rows)))
    return str(start)


def _sscursor(service: MySqlService) -> int:
    with pymysql.connect(**_settings(service), cursorclass=SSCursor) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM bench.t")
        return sum(1 for _ in cursor)


def _loop(service: MySqlService, start: str) -> int:
    stream = BinLogStreamReader(
        connection_settings=_settings(service), server_id=9001, is_mariadb=True, auto_position=start, blocking=False,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent], only_schemas=["bench"], only_tables=["t"],
        # without it the loop loses its connection, see `mysql_binlog`
        pymysql_wrapper=lambda **given: _Connection(**{"database" if k == "db" else k: v for k, v in given.items()}),
    )  # fmt: skip
    count = sum(1 for event in stream for _ in event.rows)
    stream.close()
    return count


def _ours(service: MySqlService, mode: str, gtids: str | None) -> int:
    given = {
        "connector": "mysql-cdc", "hostname": "127.0.0.1", "port": str(service.port), "username": service.user,
        "password": service.password, "database-name": "bench", "table-name": "t", "scan.startup.mode": mode,
    }  # fmt: skip
    if gtids is not None:
        given["scan.startup.specific-offset.gtid-set"] = gtids
    options = MySqlCdcOptions.parse(given, "connector mysql-cdc")
    source = MySqlCdcSource(options, Table("t", tuple(Column(name, kind) for name, kind in COLUMNS.items())))
    here, rows, limit = dict(source.start()), 0, BatchLimit(50_000, 64 << 20)
    try:
        while (span := source.plan(here, limit)) is not None:
            reading = source.read(span, limit)
            while True:
                try:
                    rows += next(reading).num_rows
                except StopIteration as end:
                    here |= end.value.end
                    break
    finally:
        source.close()
    return rows
