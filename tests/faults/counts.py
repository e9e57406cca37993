"""Records that are added up by key, their model, and a pipeline with GROUP BY: in this process or killed in another."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.changes import PARTITIONS, ChangeJob
from vector_assets.engine.past_groups import PastGroups, kept_groups, last_done

SCRIPT = """
SET 'pipeline.name' = 'people';
SET 'vector-assets.batch.max-rows' = '{max_rows}';
SET 'vector-assets.lease.ttl' = '2 s';
{settings}
CREATE TABLE src (cid STRING, v INT) WITH ('connector' = 'kafka', 'format' = 'json',
  'scan.startup.mode' = 'earliest-offset', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}');
CREATE TABLE counts (cid STRING NOT NULL, n BIGINT, total BIGINT, hi INT, mean DOUBLE, kinds BIGINT, vec ARRAY<FLOAT>,
  PRIMARY KEY (cid) NOT ENFORCED) WITH ({sink});
INSERT INTO counts SELECT cid, COUNT(*), SUM(CAST(v AS BIGINT)){more}, MAX(v), AVG(CAST(v AS DOUBLE)),
  COUNT(DISTINCT v), ARRAY[CAST(COUNT(v) AS FLOAT), CAST(0 AS FLOAT), CAST(1 AS FLOAT)]
  FROM src WHERE cid IS NOT NULL AND v <> 13 GROUP BY cid HAVING SUM(v) > {least};
"""
Row = tuple[Any, ...]


@dataclass
class Counts:
    """Draws records and keeps what they come to."""

    chance: random.Random
    keys: int = 60
    values: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    made: int = 0

    def records(self, count: int) -> dict[int, list[tuple[None, bytes]]]:
        """So many records, by partition."""
        found: dict[int, list[tuple[None, bytes]]] = {number: [] for number in range(PARTITIONS)}
        for _ in range(count):
            self.made += 1
            key = self.chance.choice([None, *(f"k{n}" for n in range(self.keys))])
            value = self.chance.choice([13, *range(-30, 30)])
            if key is not None and value != 13:
                self.values[key].append(value)
            partition = self.chance.randrange(PARTITIONS)
            found[partition].append((None, json.dumps({"cid": key, "v": value}).encode()))
        return found

    def wanted(self, least: int = 0) -> dict[str, Row]:
        """The rows of the groups that HAVING lets through."""
        return {key: self.row(values) for key, values in self.values.items() if sum(values) > least}

    def row(self, values: list[int]) -> Row:
        """The row of one group."""
        mean = round(sum(values) / len(values), 9)
        return (len(values), sum(values), max(values), mean, len(set(values)), [float(len(values)), 0.0, 1.0])


class PostgresCounts:
    """The table `counts` in a PostgreSQL."""

    def __init__(self, server: Any) -> None:
        self.server, self.database = server, server.create_database()
        self.make_again()

    def make_again(self) -> None:
        """A new table under the old name."""
        with self.server.connect(self.database, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS counts")
            connection.execute(
                "CREATE TABLE counts (cid text PRIMARY KEY, n bigint, total bigint, hi int, mean float8, kinds bigint,"
                " vec float4[])"
            )

    def sink(self) -> str:
        server = self.server
        return (
            f"'connector' = 'adbpg', 'url' = '{server.jdbc_url(self.database)}', 'tablename' = 'counts',"
            f" 'username' = '{server.user}', 'password' = '{server.password}', 'conflictmode' = 'upsert',"
            " 'vector.dimensions' = 'vec:3', 'batchsize' = '40'"
        )

    def _read(self, columns: str) -> list[Row]:
        with self.server.connect(self.database) as connection:
            return connection.execute(f"SELECT {columns} FROM counts ORDER BY cid").fetchall()

    def rows(self) -> dict[str, Row]:
        found = self._read("cid, n, total, hi, mean, kinds, vec")
        return {key: (n, total, hi, round(mean, 9), kinds, vec) for key, n, total, hi, mean, kinds, vec in found}

    def versions(self) -> list[Any]:
        return self._read("cid, ctid, xmin")


class MilvusCounts:
    """The collection `counts` on a Milvus."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.collection = server.create(self.fields(), key="cid")

    def fields(self) -> dict[str, tuple[str, dict[str, Any]]]:
        null = {"nullable": True}
        return {
            "cid": ("VARCHAR", {"max_length": 40}),
            "n": ("INT64", null), "total": ("INT64", null), "hi": ("INT32", null), "mean": ("DOUBLE", null),
            "kinds": ("INT64", null), "vec": ("FLOAT_VECTOR", {"dim": 3}),
        }  # fmt: skip

    def sink(self) -> str:
        return (
            f"'connector' = 'milvus', 'endpoint' = '{self.server.host}', 'port' = '{self.server.port}',"
            f" 'collectionName' = '{self.collection}', 'sink.buffer-flush.max-rows' = '40'"
        )

    def rows(self) -> dict[str, Row]:
        found = self.server.client.query(
            self.collection, "", output_fields=["*"], consistency_level="Strong", limit=10_000
        )
        assert self.server.count(self.collection) == len(found)
        return {r["cid"]: (r["n"], r["total"], r["hi"], round(r["mean"], 9), r["kinds"], list(r["vec"])) for r in found}

    def versions(self) -> list[Any]:
        return sorted(self.rows().items())


class CountJob(ChangeJob):
    """A topic, a target and a script with GROUP BY between them."""

    def __init__(self, folder: Path, kafka: Any, target: Any, **script: Any) -> None:
        super().__init__(folder, kafka, target, "changelog-json", **{"least": 0, "more": "", **script})

    def write(self, **changes: Any) -> None:
        """Write the script, with some values changed."""
        self.values |= changes
        text = SCRIPT.format(**{"sink": self.people.sink(), **self.values})
        (self.folder / "pipelines" / "people.sql").write_text(text)

    def assert_settled(self, wanted: dict[Any, Row]) -> None:
        """Also, the groups that are kept are those that the archive comes to."""
        super().assert_settled(wanted)
        with self.open() as session, session.leased() as stages:
            last = last_done(stages)
            past, kept = PastGroups(stages, is_anew=True), kept_groups(stages, last)
            past.go_to(last.seq if last else 0)
            assert _listed(past.groups.whole()) == _listed(kept.whole())
            past.close()
            kept.close()


def _listed(table: Any) -> list[str]:
    return sorted(map(str, table.to_pylist()))
