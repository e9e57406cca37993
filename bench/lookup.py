"""`vector-assets bench lookup`: rows joined to a cached dimension table by one thread, in batches as a pipeline has.

The join alone (`--rows` probe rows, `--dim` cached rows, an INT key, one text taken from each side), beside DuckDB's
join of the same Arrow tables in the same batches, and beside what a new process pays before its first batch.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.kafka_adbpg import PeakMemory
from vector_assets.engine import env
from vector_assets.engine.core import POSITION
from vector_assets.engine.lookup import NEVER_MS, CachePolicy, Part, Snapshot
from vector_assets.transforms.lookup import LookupKey, LookupPlan, LookupTransform
from vector_assets.transforms.lookup_cache import LookupCache

_ROUNDS = 3


class _Generated:
    """A dimension table that is made up instead of asked for."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def snapshot(self) -> Snapshot:
        """It never changes."""
        return Snapshot((Part("ds=1", 0),))

    def count(self, snapshot: Snapshot) -> int:
        """Its rows."""
        return int(self._rows.num_rows)

    def load(self, snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
        """Its rows."""
        yield from self._rows.to_batches(max_chunksize=10_000)

    def close(self) -> None:
        """Nothing is open."""


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench lookup", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=50_000, help="rows of a batch; a pipeline has at most 50,000")
    parser.add_argument("--key", choices=("int", "text"), default="int")
    parser.add_argument("--left", action="store_true", help="a LEFT JOIN of which every tenth row finds nothing")
    parser.add_argument("--spill", action="store_true", help="join from disk instead of from memory")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    probe, dim = _tables(arguments)
    with tempfile.TemporaryDirectory() as home, env.overridden(VECTOR_ASSETS_HOME=home), PeakMemory() as peak:
        began = time.monotonic()
        _transform(arguments, dim).apply(probe.slice(0, 1))
        loaded = time.monotonic() - began
        began = time.monotonic()
        transform = _transform(arguments, dim)
        transform.apply(probe.slice(0, 1))
        opened = time.monotonic() - began
        runs = [_timed(transform, probe, arguments.batch) for _ in range(_ROUNDS)]
    seconds, cpu, found = min(runs)
    figures = {
        "rows": arguments.rows,
        "dim": arguments.dim,
        "batch": arguments.batch,
        "found": found,
        "rows_per_s": round(arguments.rows / seconds),
        "cpu_s": round(cpu, 3),
        "rows_per_cpu_s": round(arguments.rows / cpu),
        "rows_per_s_of_rounds": [round(arguments.rows / each) for each, _, _ in runs],
        "duckdb_rows_per_cpu_s": round(arguments.rows / _duckdb(arguments, probe, dim)),
        "load_s": round(loaded, 3),
        "open_s": round(opened, 3),
        "peak_rss_mb": peak.mb,
    }
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _tables(arguments: argparse.Namespace) -> tuple[pa.Table, pa.Table]:
    """Probe rows in no order, of which every tenth (with --left) has a key that is not there."""
    chance = np.random.default_rng(7)
    most = arguments.dim * 10 // 9 if arguments.left else arguments.dim
    numbers = [chance.integers(0, most, arguments.rows), chance.permutation(arguments.dim)]
    keys = [pa.array(each.astype(np.int32)) for each in numbers]
    if arguments.key == "text":
        keys = [pc.binary_join_element_wise("key-", pc.cast(key, pa.string()), "") for key in keys]
    texts = [
        pc.binary_join_element_wise(word, pc.cast(pa.array(np.arange(len(key))), pa.string()), "")
        for word, key in zip(("value-", "name-"), keys, strict=True)
    ]
    probe = pa.table({"k": keys[0], "v": texts[0], POSITION: pa.array(np.arange(arguments.rows))})
    return probe, pa.table({"k": keys[1], "v": texts[1]})


def _transform(arguments: argparse.Namespace, dim: pa.Table) -> LookupTransform:
    """The join in a process that has just begun."""
    policy = CachePolicy(
        max_rows=1 if arguments.spill else arguments.dim, ttl_ms=NEVER_MS, retries=0, spill=arguments.spill,
        blackouts=(), identity=("bench",),
    )  # fmt: skip
    plan = LookupPlan(
        keys=(LookupKey('"k"', '"k"', dim.schema.field("k").type),),
        carried=("k", "v"),
        added=(("v", "d.v"),),
        is_left=arguments.left,
    )
    return LookupTransform(plan, "dim", LookupCache("dim", lambda: _Generated(dim), dim.schema, ("k",), policy))


def _timed(transform: LookupTransform, probe: pa.Table, batch: int) -> tuple[float, float, int]:
    """Seconds, seconds of CPU, and rows of the result."""
    began, cpu, found = time.monotonic(), time.process_time(), 0
    for start in range(0, probe.num_rows, batch):
        found += transform.apply(probe.slice(start, batch)).rows.num_rows
    return time.monotonic() - began, time.process_time() - cpu, found


def _duckdb(arguments: argparse.Namespace, probe: pa.Table, dim: pa.Table) -> float:
    """Seconds of CPU."""
    kind = "LEFT" if arguments.left else "INNER"
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("dim", dim)
        began = time.process_time()
        for start in range(0, probe.num_rows, arguments.batch):
            connection.register("source", probe.slice(start, arguments.batch))
            connection.sql(f"SELECT s.*, d.v AS dv FROM source s {kind} JOIN dim d ON s.k = d.k").to_arrow_table()
        return time.process_time() - began
