"""`vector-assets bench maxcompute-write`: rows into MaxCompute by our sink, beside pyodps's own writers.

All of them write the same rows to the same local server in one run, turn by turn, each into a new table; of `--turns`
the median by wall time counts (records and upserts are written once). CPU is that of the writing process; the server's
is in the wall time. pyodps writes as its documentation shows: `open_arrow_writer`, `open_record_writer` with one record
after the other, and `open_upsert_stream` with one `upsert` per record (`--upsert-rows` of them).
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from bench.kafka_adbpg import PeakMemory
from vector_assets.engine import env
from vector_assets.engine.core import POSITION, Batch, BatchToken, Range, Span
from vector_assets.local import services
from vector_assets.sinks.maxcompute import MaxComputeSink
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions

COLUMNS = "id bigint NOT NULL, n int, x double, color string, name string, seen datetime"
BUCKETS = 16
ARROW_ROWS = 65_536
UPSERT = {"enableUpsert": "true", "upsert.write.bucket.num": str(BUCKETS)}
_numbers = itertools.count()


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["maxcompute"])
    odps = _odps()
    rows, changes = _rows(arguments.rows), _rows(arguments.upsert_rows)
    step = arguments.batch_rows
    writers: dict[str, tuple[Callable[[str], None], pa.Table, bool]] = {
        "pyodps_arrow": (lambda name: _pyodps_arrow(odps, name, rows), rows, False),
        "ours_arrow": (lambda name: _ours(name, rows, step, {"insert.arrow-writer.enable": "true"}), rows, False),
        "pyodps_records": (lambda name: _pyodps_records(odps, name, rows), rows, False),
        "ours_records": (lambda name: _ours(name, rows, step, {"insert.arrow-writer.enable": "false"}), rows, False),
        "pyodps_upsert": (lambda name: _pyodps_upsert(odps, name, changes), changes, True),
        "ours_upsert": (lambda name: _ours(name, changes, step, UPSERT), changes, True),
    }
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    with PeakMemory() as peak:
        for turn in range(arguments.turns):
            for name, (write, table, is_delta) in writers.items():
                if turn == 0 or name.endswith("_arrow"):
                    runs[name].append(_timed(odps, write, table.num_rows, is_delta=is_delta))
    figures: dict[str, Any] = {"rows": arguments.rows, "upsert_rows": arguments.upsert_rows}
    for name, (_, table, _) in writers.items():
        wall, cpu = (statistics.median(values) for values in zip(*runs[name], strict=True))
        figures[name] = {"rows_per_s": round(table.num_rows / wall), "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}
    for other, ours in (
        ("pyodps_arrow", "ours_arrow"), ("pyodps_records", "ours_arrow"), ("pyodps_records", "ours_records"),
        ("pyodps_upsert", "ours_upsert"),
    ):  # fmt: skip
        for what in ("wall_s", "cpu_s"):
            ratio = figures[other][what] / max(figures[ours][what], 0.01)
            figures[f"{ours}_vs_{other}_{what[:-2]}"] = round(ratio, 2)
    figures["peak_rss_mb"] = peak.mb
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench maxcompute-write", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--upsert-rows", type=int, default=200_000)
    parser.add_argument("--batch-rows", type=int, default=250_000, help="rows of one of our batches")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def _secrets() -> dict[str, str]:
    names = {"endpoint", "project", "access_id", "access_key"}
    return {name: env.secret(f"maxcompute_{name}") for name in names}


def _odps() -> Any:
    from odps import ODPS, options

    options.local_timezone = False
    given = _secrets()
    return ODPS(
        given["access_id"], given["access_key"], given["project"], endpoint=given["endpoint"], overwrite_global=False
    )


def _rows(count: int) -> pa.Table:
    rng = np.random.default_rng(7)
    numbers = np.arange(count)
    return pa.table(
        {
            "id": numbers,
            "n": rng.integers(0, 1000, count, np.int32),
            "x": rng.random(count),
            "color": np.array(["red", "green", "blue", "black"])[numbers % 4],
            "name": pa.array(np.char.add("name number ", numbers.astype(str))),
            "seen": pa.array(1_700_000_000_000 + numbers).cast(pa.timestamp("ms")),
        }
    )


def _timed(odps: Any, write: Callable[[str], None], rows: int, *, is_delta: bool) -> tuple[float, float]:
    """Wall and CPU seconds of a write into a new table, which must hold the rows afterwards."""
    name = f"bench_write_{time.time_ns()}_{next(_numbers)}"
    if is_delta:
        more = f"TBLPROPERTIES ('transactional'='true', 'write.bucket.num'='{BUCKETS}')"
        odps.execute_sql(f"CREATE TABLE {name} ({COLUMNS}, PRIMARY KEY (id)) {more}")
    else:
        odps.execute_sql(f"CREATE TABLE {name} ({COLUMNS})")
    began, cpu = time.monotonic(), time.process_time()
    write(name)
    spent = time.monotonic() - began, time.process_time() - cpu
    with odps.execute_sql(f"SELECT count(*) FROM {name}").open_reader(tunnel=False) as reader:
        found = int(next(iter(reader))[0])
    odps.delete_table(name)
    if found != rows:
        raise SystemExit(f"bench: {found} rows were written instead of {rows}")
    return spent


def _ours(name: str, rows: pa.Table, step: int, options: dict[str, str]) -> None:
    """By the sink, in batches: staged and committed one after the other."""
    secrets = _secrets()
    given = {
        "connector": "odps", "endpoint": secrets["endpoint"], "project": secrets["project"], "tableName": name,
        "accessId": secrets["access_id"], "accessKey": secrets["access_key"], "compressAlgorithm": "RAW",
        "insert.arrow-writer.batch-size": str(ARROW_ROWS),
    }  # fmt: skip
    sink = MaxComputeSink(MaxComputeSinkOptions.parse({**given, **options}, "connector odps"), None, "bench")
    sink.prepare(rows.schema, ())
    numbered = rows.append_column(POSITION, pa.array(np.arange(rows.num_rows)))
    for seq, start in enumerate(range(0, rows.num_rows, step), start=1):
        token = BatchToken("bench", name, seq, Span((Range("rows", start, start + step),)), 1)
        sink.commit(sink.stage(Batch(numbered.slice(start, step)), token))
    sink.close()


def _pyodps_arrow(odps: Any, name: str, rows: pa.Table) -> None:
    from odps.tunnel import TableTunnel

    session = TableTunnel(odps).create_upload_session(name)
    with session.open_arrow_writer(0) as writer:
        for batch in rows.to_batches(max_chunksize=ARROW_ROWS):
            writer.write(batch)
    session.commit([0])


def _pyodps_records(odps: Any, name: str, rows: pa.Table) -> None:
    from odps.tunnel import TableTunnel

    session = TableTunnel(odps).create_upload_session(name)
    with session.open_record_writer(0) as writer:
        for values in _values(rows):
            writer.write(session.new_record(values))
    session.commit([0])


def _pyodps_upsert(odps: Any, name: str, rows: pa.Table) -> None:
    from odps.tunnel import TableTunnel

    session = TableTunnel(odps).create_upsert_session(name)
    stream = session.open_upsert_stream()
    for values in _values(rows):
        stream.upsert(session.new_record(values))
    stream.close()
    session.commit()


def _values(rows: pa.Table) -> Any:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
