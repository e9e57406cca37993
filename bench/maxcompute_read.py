"""`vector-assets bench maxcompute-read`: a MaxCompute partition by our source, beside pyodps's own readers.

All of them read the same partition from the same local server in one run, turn by turn; of `--turns` the median by wall
time counts. CPU is that of the reading process; the server's is in the wall time. pyodps reads as its documentation
shows: `open_arrow_reader` over the whole session, and `open_reader` with a loop over the records.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from bench.kafka_adbpg import PeakMemory
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.pipeline import PipelineSettings
from vector_assets.local import services

COLUMNS = "id bigint, n int, x double, color string, name string, seen datetime"
SCRIPT = """
CREATE TABLE src (id BIGINT, n INT, x DOUBLE, color STRING, name STRING, seen TIMESTAMP(3)) WITH (
  'connector' = 'odps', 'endpoint' = '{endpoint}', 'project' = '{project}', 'tableName' = '{table}',
  'accessId' = '{access_id}', 'accessKey' = '{access_key}', 'partition' = 'ds=20180905', {options});
CREATE TABLE dst (id BIGINT, n INT, x DOUBLE, color STRING, name STRING, seen TIMESTAMP(3))
  WITH ('connector' = 'blackhole');
INSERT INTO dst SELECT * FROM src;
"""
OURS = {
    "ours": "'compressAlgorithm' = 'RAW'",
    "ours_snappy": "'compressAlgorithm' = 'SNAPPY'",
    "ours_storage_api": "'useArrow' = 'true', 'splitSize' = '16 mb'",
}


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = _arguments(argv)
    services.up(["maxcompute"])
    odps = _odps()
    table = _filled(odps, arguments.rows)
    readers: dict[str, Callable[[], int]] = {
        "pyodps_arrow": lambda: _pyodps_arrow(odps, table, None),
        "pyodps_arrow_snappy": lambda: _pyodps_arrow(odps, table, "snappy"),
        **{name: lambda options=options: _ours(table, options) for name, options in OURS.items()},
        "pyodps_records": lambda: _pyodps_records(odps, table),
    }
    readers["pyodps_arrow"]()  # the server makes its snapshot of the partition once
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    with PeakMemory() as peak:
        for turn in range(arguments.turns):
            for name, read in readers.items():
                if name != "pyodps_records" or turn == 0:
                    runs[name].append(_timed(read, arguments.rows))
    figures: dict[str, Any] = {
        "rows": arguments.rows,
        **{name: _figures(arguments.rows, found) for name, found in runs.items()},
    }
    figures["wall_vs_pyodps_arrow"] = _ratio(figures, "pyodps_arrow", "ours", "wall_s")
    figures["wall_vs_pyodps_arrow_snappy"] = _ratio(figures, "pyodps_arrow_snappy", "ours_snappy", "wall_s")
    figures["cpu_vs_pyodps_arrow"] = _ratio(figures, "pyodps_arrow", "ours", "cpu_s")
    figures["cpu_vs_pyodps_records"] = _ratio(figures, "pyodps_records", "ours", "cpu_s")
    figures["peak_rss_mb"] = peak.mb
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vector-assets bench maxcompute-read", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def _secrets() -> dict[str, str]:
    names = {"endpoint", "project", "access_id", "access_key"}
    return {name: env.secret(f"maxcompute_{name}") for name in names}


def _odps() -> Any:
    from odps import ODPS

    given = _secrets()
    return ODPS(
        given["access_id"], given["access_key"], given["project"], endpoint=given["endpoint"], overwrite_global=False
    )


def _filled(odps: Any, rows: int) -> str:
    """A table with the rows, made once per size and kept."""
    from odps.tunnel import TableTunnel

    name = f"bench_read_{rows}"
    if odps.exist_table(name):
        return name
    odps.create_table(name + "_draft", (COLUMNS, "ds string"), if_not_exists=True)
    odps.get_table(name + "_draft").create_partition("ds=20180905", if_not_exists=True)
    session = TableTunnel(odps).create_upload_session(name + "_draft", partition_spec="ds=20180905", overwrite=True)
    rng = np.random.default_rng(7)
    numbers = np.arange(rows)
    table = pa.table(
        {
            "id": numbers,
            "n": rng.integers(0, 1000, rows, np.int32),
            "x": rng.random(rows),
            "color": np.array(["red", "green", "blue", "black"])[numbers % 4],
            "name": pa.array(np.char.add("name number ", numbers.astype(str))),
            "seen": pa.array(1_700_000_000_000 + numbers).cast(pa.timestamp("ms")),
        }
    )
    with session.open_arrow_writer(0) as writer:
        for batch in table.to_batches(max_chunksize=65_536):
            writer.write(batch)
    session.commit([0])
    odps.execute_sql(f"ALTER TABLE {name}_draft RENAME TO {name}").wait_for_success()
    return name


def _timed(read: Callable[[], int], rows: int) -> tuple[float, float]:
    began, cpu = time.monotonic(), time.process_time()
    found = read()
    spent = time.monotonic() - began, time.process_time() - cpu
    if found != rows:
        raise SystemExit(f"bench: {found} rows were read instead of {rows}")
    return spent


def _figures(rows: int, runs: list[tuple[float, float]]) -> dict[str, float]:
    wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
    return {"rows_per_s": round(rows / wall), "wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "turns": len(runs)}


def _ratio(figures: dict[str, Any], other: str, ours: str, what: str) -> float:
    """How many times as fast (or as little CPU) as the other we are."""
    return round(figures[other][what] / max(figures[ours][what], 0.01), 2)


def _ours(table: str, options: str) -> int:
    """Rows by the source, in batches as large as a pipeline's largest."""
    (pipeline,) = flink_sql.compile_script(SCRIPT.format(**_secrets(), table=table, options=options), "bench.sql")
    source = pipeline.open_source()
    limit = BatchLimit(PipelineSettings().max_rows, 64 << 20)
    position, rows = dict(source.start()), 0
    try:
        while (span := source.plan(position, limit)) is not None:
            reading = source.read(span, limit)
            while True:
                try:
                    rows += next(reading).num_rows
                except StopIteration as end:
                    position |= end.value.end
                    break
    finally:
        source.close()
    return rows


def _pyodps_arrow(odps: Any, table: str, codec: str | None) -> int:
    from odps.tunnel import TableTunnel

    more = {"compress_algo": codec} if codec else {}
    session = TableTunnel(odps).create_download_session(table, partition_spec="ds=20180905", **more)
    with session.open_arrow_reader(0, session.count, compress=bool(codec)) as reader:
        return sum(batch.num_rows for batch in reader)


def _pyodps_records(odps: Any, table: str) -> int:
    with odps.get_table(table).open_reader(partition="ds=20180905", reopen=True) as reader:
        return sum(1 for _ in reader)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
