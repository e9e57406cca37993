"""`vector-assets bench iceberg-commits`: what a commit of 1,000 rows costs as commits add up, by `snapshots.keep`."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import POSITION, Batch, BatchToken, Range, Span
from vector_assets.sinks.iceberg import IcebergSink
from vector_assets.sinks.iceberg_options import IcebergOptions

SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("name", pa.string()), ("price", pa.float64()), ("ts", pa.timestamp("ms")),
        ("a", pa.int32()), ("b", pa.int32()), ("c", pa.string()), ("d", pa.bool_()),
    ]
)  # fmt: skip
_LAST = 50


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench iceberg-commits", description=__doc__)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=1000, help="rows of a batch")
    parser.add_argument("--keep", type=int, nargs="+", default=[100], help="values of snapshots.keep; 0 keeps all")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    figures = {f"keep_{keep}": _commits(arguments.commits, arguments.rows, keep) for keep in arguments.keep}
    shown = {"commits": arguments.commits, "rows": arguments.rows, **figures}
    sys.stdout.write(json.dumps(shown, indent=None if arguments.json else 2) + "\n")
    return 0


def _commits(count: int, rows: int, keep: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        sink = _sink(Path(name), keep)
        batch = Batch(_rows(rows))
        seconds, cpu = [], []
        for number in range(count):
            span = Span((Range("bench@topic/0", {"offset": number * rows}, {"offset": (number + 1) * rows}),))
            first = frozenset({"bench@topic/0"}) if number == 0 else frozenset()
            staged = sink.stage(batch, BatchToken("bench", sink.options.target(), number + 1, span, 1, first))
            began, used = time.monotonic(), time.process_time()
            sink.commit(staged)
            seconds.append(time.monotonic() - began)
            cpu.append(time.process_time() - used)
        metadata = max(Path(name).rglob("*.metadata.json"), key=lambda path: path.stat().st_mtime)
        files = sum(1 for path in Path(name).rglob("*") if path.is_file() and path.parent.name == "metadata")
        sink.close()
        return {
            "first_50_ms": _ms(seconds[:_LAST]),
            "last_50_ms": _ms(seconds[-_LAST:]),
            "first_50_cpu_ms": _ms(cpu[:_LAST]),
            "last_50_cpu_ms": _ms(cpu[-_LAST:]),
            "last_50_p95_ms": round(statistics.quantiles(seconds[-_LAST:], n=20)[-1] * 1000, 1),
            "metadata_json_kb": round(metadata.stat().st_size / 1024),
            "metadata_files": files,
        }


def _ms(seconds: list[float]) -> float:
    return round(statistics.median(seconds) * 1000, 1)


def _sink(folder: Path, keep: int) -> IcebergSink:
    options = IcebergOptions.parse(
        {
            "connector": "iceberg", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/warehouse",
            "catalog-table": "commits", "snapshots.keep": str(keep),
        },
        "bench",
    )  # fmt: skip
    sink = IcebergSink(options, None, "bench")
    sink.prepare(SCHEMA, ())
    return sink


def _rows(count: int) -> pa.Table:
    numbers = np.arange(count)
    names = pc.cast(pa.array(numbers), pa.string())
    columns = [
        pa.array(numbers), names, pa.array(numbers * 0.5), pa.array(numbers).cast(pa.timestamp("ms")),
        pa.array(numbers.astype(np.int32)), pa.array(numbers.astype(np.int32)), names, pa.array(numbers % 2 == 0),
    ]  # fmt: skip
    return pa.table(columns, schema=SCHEMA).append_column(POSITION, pa.array(numbers))
