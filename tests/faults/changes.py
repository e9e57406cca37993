"""Random changes of keyed rows, their model, and a pipeline that lands them: in this process or killed in another.

A key belongs to one partition of the topic and every record about it is written there, for only one partition's records
have an order. So an update that moves a row to a key of another partition is two records: the old key's end in its
partition, the new key's row in the other. One record, or two neighbours, say a move between keys of one partition.
"""

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.changelog_samples import Change, changelog, debezium
from tests.faults.place import placed
from vector_assets.declare import flink_sql
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Outcome, Runner
from vector_assets.engine.session import Books, Session

PARTITIONS = 3
Row = dict[str, Any]
Record = tuple[bytes | None, bytes | None]
"""Key and value."""

FORMATS = {
    "changelog-json": "'connector' = 'kafka', 'format' = 'changelog-json', 'scan.startup.mode' = 'earliest-offset'",
    "debezium-json": "'connector' = 'kafka', 'format' = 'debezium-json', 'scan.startup.mode' = 'earliest-offset'",
    "upsert-kafka": "'connector' = 'upsert-kafka', 'key.format' = 'json', 'value.format' = 'json'",
}
SCRIPT = """
SET 'pipeline.name' = 'people';
SET 'vector-assets.batch.max-rows' = '{max_rows}';
SET 'vector-assets.lease.ttl' = '2 s';
{settings}
CREATE TABLE changes (id {id_type}{not_null}, name STRING, age INT, vec ARRAY<FLOAT>{source_key}) WITH ({source},
  'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}');
CREATE TABLE people (id {id_type} NOT NULL, name VARCHAR(20), age INT, vec ARRAY<FLOAT>{primary}) WITH ({sink});
INSERT INTO people SELECT * FROM changes;
"""
KEY = ", PRIMARY KEY (id) NOT ENFORCED"


def named(number: int) -> str:
    """A text key with everything that an expression or a statement has to escape."""
    return f"""k"{number}\\'%ü"""


@dataclass
class Changes:
    """Draws changes of `keys` rows a partition and keeps `rows`, what they come to."""

    chance: random.Random
    format: str
    is_text: bool = False
    keys: int = 120
    rows: dict[int, Row] = field(default_factory=dict)
    made: int = 0

    def records(self, operations: int) -> dict[int, list[Record]]:
        """Records of so many operations, by partition."""
        found: dict[int, list[Record]] = {number: [] for number in range(PARTITIONS)}
        for _ in range(operations):
            self.made += 1
            number = self.chance.randrange(self.keys * PARTITIONS)
            before = self.rows.get(number)
            if before is None:
                self._say(found, number, None, self._row(number))
                continue
            what = self.chance.choices(["update", "delete", "again", "move", "far move"], [4, 3, 2, 2, 1])[0]
            if what == "update":
                self._say(found, number, before, self._row(number))
                continue
            if "move" not in what or (other := self._free(number, is_near=what == "move")) is None:
                self._say(found, number, before, None)
                if what == "again":
                    self._say(found, number, None, self._row(number))
                continue
            after = self._row(other)
            if what == "move" and self.format != "upsert-kafka":
                found[number % PARTITIONS] += self.encode((before, after))
                del self.rows[number]
                self.rows[other] = after
            else:
                self._say(found, number, before, None)
                self._say(found, other, None, after)
        return found

    def _free(self, number: int, *, is_near: bool) -> int | None:
        """A key without a row, in the same partition or in another."""
        for _ in range(20):
            other = self.chance.randrange(self.keys) * PARTITIONS + number % PARTITIONS
            other = other if is_near else (other + 1) % (self.keys * PARTITIONS)
            if other not in self.rows:
                return other
        return None

    def _row(self, number: int) -> Row:
        """A row no other has: the change that made it stands in its vector."""
        return {
            "id": named(number) if self.is_text else number,
            "name": self.chance.choice([None, "", "a", "b"]),
            "age": self.chance.choice([None, 0, self.made]),
            "vec": [0.5, float(number), float(self.made)],
        }

    def _say(self, found: dict[int, list[Record]], number: int, before: Row | None, after: Row | None) -> None:
        found[number % PARTITIONS] += self.encode((before, after))
        if after is None:
            del self.rows[number]
        else:
            self.rows[number] = after

    def encode(self, change: Change) -> list[Record]:
        """The records that say a change in this format."""
        before, after = change
        if self.format == "debezium-json":
            tombstone = [(None, None)] if after is None else []
            return [(None, debezium(change)), *tombstone]
        if self.format == "upsert-kafka":
            key = json.dumps({"id": (after or before or {})["id"]}).encode()
            return [(key, json.dumps(after).encode() if after is not None else None)]
        kinds = [("-U", before), ("+U", after)] if before and after else [("+I", after), ("-D", before)]
        return [(None, changelog(kind, row)) for kind, row in kinds if row is not None]

    def wanted(self) -> dict[Any, tuple[Any, ...]]:
        """The rows as a target gives them, by key."""
        return {row["id"]: (row["name"], row["age"], row["vec"]) for row in self.rows.values()}


class MilvusPeople:
    """The collection `people` on a Milvus."""

    def __init__(self, server: Any, *, is_text: bool = False) -> None:
        self.server = server
        self.key = ("VARCHAR", {"max_length": 40}) if is_text else ("INT64", {})
        self.collection = server.create(self.fields())
        self.port = server.port

    def fields(self) -> dict[str, tuple[str, dict[str, Any]]]:
        # servers before 2.5 know no nulls
        nullable = {"nullable": True} if self.server.is_lite else {}
        return {
            "id": self.key,
            "name": ("VARCHAR", {"max_length": 20, **nullable}),
            "age": ("INT32", nullable),
            "vec": ("FLOAT_VECTOR", {"dim": 3}),
        }

    def sink(self) -> str:
        login = "".join(f", '{option}' = '{value}'" for option, value in self.login().items())
        return (
            f"'connector' = 'milvus', 'endpoint' = '{self.server.host}', 'port' = '{self.port}',"
            f" 'collectionName' = '{self.collection}', 'sink.buffer-flush.max-rows' = '40'{login}"
        )

    def login(self) -> dict[str, str]:
        login = self.server.login
        return {"userName": login["user"], "password": login["password"]} if login else {}

    def drop(self) -> None:
        self.server.client.drop_collection(self.collection)

    def make_again(self) -> None:
        """A new collection under the old name."""
        fresh = self.server.create(self.fields())
        self.server.client.rename_collection(fresh, self.collection)

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        found = self.server.rows(self.collection)
        assert self.server.count(self.collection) == len(found)
        return {row["id"]: (row["name"], row["age"], list(row["vec"])) for row in found}

    def versions(self) -> list[Any]:
        """What changes with every write: a collection has nothing like it but its rows."""
        return sorted(self.rows().items())


class PostgresPeople:
    """The table `people` in a PostgreSQL."""

    def __init__(self, server: Any, *, is_text: bool = False) -> None:
        self.server = server
        self.database = server.create_database()
        key = "text" if is_text else "bigint"
        with server.connect(self.database, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE people (id {key} PRIMARY KEY, name text, age int, vec float4[])")

    def sink(self) -> str:
        server = self.server
        return (
            f"'connector' = 'adbpg', 'url' = '{server.jdbc_url(self.database)}', 'tablename' = 'people',"
            f" 'username' = '{server.user}', 'password' = '{server.password}', 'conflictmode' = 'update',"
            " 'vector.dimensions' = 'vec:3', 'batchsize' = '40'"
        )

    def _read(self, columns: str) -> list[tuple[Any, ...]]:
        with self.server.connect(self.database) as connection:
            return connection.execute(f"SELECT {columns} FROM people ORDER BY id").fetchall()

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        return {key: (name, age, vector) for key, name, age, vector in self._read("id, name, age, vec")}

    def versions(self) -> list[Any]:
        return self._read("id, ctid, xmin")


class OpenSearchPeople:
    """The index `people` on an OpenSearch."""

    def __init__(self, server: Any, *, is_text: bool = False) -> None:
        self.server = server
        vector = {"type": "knn_vector", "dimension": 3, "method": {"engine": "faiss", "name": "hnsw"}}
        fields = {
            "id": {"type": "keyword" if is_text else "long"}, "name": {"type": "keyword"}, "age": {"type": "integer"},
            "vec": vector,
        }  # fmt: skip
        self.index = server.create(fields, knn=True)

    def sink(self) -> str:
        return (
            f"'connector' = 'opensearch-2', 'hosts' = '{self.server.url}', 'index' = '{self.index}',"
            " 'sink.bulk-flush.max-actions' = '40'"
        )

    def _hits(self) -> list[dict[str, Any]]:
        self.server.ask("POST", f"{self.index}/_refresh", status=200)
        body = {"size": 10_000, "version": True, "seq_no_primary_term": True}
        found: list[dict[str, Any]] = self.server.ask("POST", f"{self.index}/_search", body, status=200)["hits"]["hits"]
        return found

    def rows(self) -> dict[Any, tuple[Any, ...]]:
        found = {}
        for hit in self._hits():
            row = hit["_source"]
            assert hit["_id"] == str(row["id"])
            found[row["id"]] = (row.get("name"), row.get("age"), row["vec"])
        return found

    def versions(self) -> list[Any]:
        return sorted((hit["_id"], hit["_version"], hit["_seq_no"]) for hit in self._hits())


class ChangeJob:
    """A topic, a target and a script between them."""

    def __init__(
        self, folder: Path, kafka: Any, people: Any, name: str, *, is_text: bool = False, **script: Any
    ) -> None:
        self.folder, self.kafka, self.people = folder, kafka, people
        self.topic = kafka.create_topic(partitions=PARTITIONS)
        self.values = {
            "max_rows": 100, "settings": "", "id_type": "STRING" if is_text else "BIGINT", "source": FORMATS[name],
            "topic": self.topic, "brokers": kafka.bootstrap_servers,
            "source_key": KEY if name == "upsert-kafka" else "",
            "not_null": "" if name == "upsert-kafka" else " NOT NULL",
            "primary": KEY,
        } | script  # fmt: skip
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        }
        (folder / "pipelines").mkdir(parents=True)
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the script, with some values changed."""
        self.values |= changes
        text = SCRIPT.format(**{"sink": self.people.sink(), **self.values})
        (self.folder / "pipelines" / "people.sql").write_text(text)

    def produce(self, records: dict[int, list[Record]]) -> None:
        for partition, pairs in records.items():
            if pairs:
                keys, values = zip(*pairs, strict=True)
                is_keyed = any(key is not None for key in keys)
                self.kafka.produce(self.topic, values, keys=keys if is_keyed else None, partition=partition)

    @contextmanager
    def open(self) -> Iterator[Session]:
        """A session on the job's own books."""
        with placed(self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / "people.sql")
            books = Books.open()
        with closing(books), Session(pipeline, books) as session:
            yield session

    def run(self) -> list[Outcome]:
        """Drain in this process."""
        with self.open() as session:
            return list(Runner(session).catch_up())

    def run_apart(self, fail_at: str = "", what: str = "run") -> int:
        """`run`, `replay` or `rewrite` in a process of its own to its end; its exit code, negative for a signal.

        The process is forked off one that has everything imported, and so starts at once.
        """
        process = _APART.Process(target=work, args=(str(self.folder), self.environment, fail_at, what))
        process.start()
        process.join(120)
        assert not process.is_alive()
        assert process.exitcode is not None
        return process.exitcode

    def assert_settled(self, wanted: dict[Any, tuple[Any, ...]]) -> None:
        """The content is the model's, the books are closed and agree with it, and one more run is a no-op."""
        assert self.people.rows() == wanted
        before = self.people.versions()
        assert self.run() == []
        assert self.people.versions() == before
        with self.open() as session:
            name, target = session.pipeline.name, session.pipeline.target
            assert session.ledger.unfinished(name, target) == []
            assert not session.ledger.leases.is_held(name, target)
            assert session.ledger.dead_letters.count(name) == 0
            found = reconcile(session)
        assert found.is_right(), (found.counts, found.findings, found.equations)
        assert found.target_rows == len(wanted)


_APART = multiprocessing.get_context("forkserver")
_APART.set_forkserver_preload(["tests.faults.changes_apart"])


def work(folder: str, environment: dict[str, str], fail_at: str, what: str) -> None:
    """What a process of its own does. `wire:n` kills it when the n-th request with rows has been answered."""
    from vector_assets.engine.rewrite import Selection, rewrite

    os.environ |= environment
    if fail_at.startswith("wire:"):
        _die_after(int(fail_at.removeprefix("wire:")))
    elif fail_at:
        os.environ["VECTOR_ASSETS_FAIL_AT"] = fail_at
    (pipeline,) = flink_sql.load_file(Path(folder) / "pipelines" / "people.sql")
    with closing(Books.open()) as books, Session(pipeline, books) as session:
        runner = Runner(session)
        work = {
            "run": runner.catch_up,
            "replay": runner.replay,
            "rewrite": lambda: rewrite(runner, Selection(again=True)),
        }
        for _ in work[what]():
            pass


def _die_after(count: int) -> None:
    from vector_assets.clients.milvus_api import Api
    from vector_assets.sinks.opensearch_write import Landing

    settle, bulk, seen = Api._settle, Landing._bulk, 0

    def answered() -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(self: Any, write: Any, future: Any) -> Iterator[Any]:
        yield from settle(self, write, future)
        answered()

    def dying_bulk(self: Any, *request: Any) -> Any:
        found = bulk(self, *request)
        answered()
        return found

    Api._settle = dying  # type: ignore[method-assign]
    Landing._bulk = dying_bulk  # type: ignore[method-assign]
