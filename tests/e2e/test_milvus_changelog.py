"""The Milvus seed's scripts over real services, and what changelogs do together: dead letters, rewrites, bounds."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bench.changelog_samples import ENCODERS
from tests.declare.seeds import seed, statements
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import Counts
from vector_assets.engine.errors import PlanError
from vector_assets.engine.operate import replay_dead_letters
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
PEOPLE = {
    "id": ("INT64", {}),
    "name": ("VARCHAR", {"max_length": 200, "nullable": True}),
    "age": ("INT32", {"nullable": True}),
    "vec": ("FLOAT_VECTOR", {"dim": 3}),
}


class Project:
    """A topic, a collection, and the scripts between them; books of their own."""

    def __init__(self, home, kafka, milvus) -> None:
        self.home, self.kafka, self.milvus = str(home), kafka, milvus
        self.collection = milvus.name()
        self.topic = kafka.create_topic()

    def placed(self, script: str, options: str = "") -> str:
        """The seed's words with its server, broker, topic and collection replaced; `options` are added to the sink."""
        for old, new in {
            "milvus-dev.my.company": self.milvus.host,
            "'19530'": f"'{self.milvus.port}'",
            "'people'": f"'{self.collection}'{options}",
            "kafka-broker:9092": self.kafka.bootstrap_servers,
            "people-changelog": self.topic,
        }.items():
            script = script.replace(old, new)
        return script

    def one(self, options: str = "") -> str:
        """Script 1."""
        sink, gen, insert = statements(seed(1))[:3]
        return self.placed("\n".join((sink, gen, insert)), options)

    def two(self, options: str = "") -> str:
        """Script 2 behind a declaration of its table, which is script 1's under the name that script 2 uses."""
        sink, _, _, tombstones, insert = statements(seed(1))[:5]
        return self.placed("\n".join((sink.replace("milvus_sink", "MilvusPeople"), tombstones, insert)), options)

    def session(self, script: str) -> Session:
        """A session of the script's only pipeline; its books are where the test's home is."""
        (pipeline,) = flink_sql.compile_script(script, "people.sql")
        return Session(pipeline, Books.open())

    def run(self, script: str) -> Counts:
        """Drain once, and hold the target to what it should have."""
        total = Counts()
        with self.session(script) as session:
            for outcome in Runner(session).catch_up():
                assert outcome.batch.note is None
                total += outcome.batch.counts
            found = reconcile(session)
            assert found.is_right(), (found.counts, found.findings, found.equations)
        return total

    def send(self, *changes: tuple[object, object]) -> None:
        """Keys and values; what is no bytes and no None is written as JSON."""
        keys, values = zip(*[[_bytes(part) for part in change] for change in changes], strict=True)
        self.kafka.produce(self.topic, values, keys=keys)

    def rows(self) -> list[dict[str, Any]]:
        return self.milvus.rows(self.collection)


def _bytes(part: object) -> bytes | None:
    return part if part is None or isinstance(part, bytes) else json.dumps(part).encode()


def said(op: str, **row: object) -> dict[str, object]:
    """A value of changelog-json."""
    return {"data": row, "op": op}


@pytest.fixture
def project(tmp_path, kafka, milvus) -> Project:
    with env.overridden(VECTOR_ASSETS_HOME=str(tmp_path)):
        yield Project(tmp_path, kafka, milvus)


def create(project: Project, fields: Mapping[str, Any] = PEOPLE, **settings: Any) -> None:
    project.collection = project.milvus.create(dict(fields), **settings)


def test_script_one_lands_its_three_rows_and_a_second_run_nothing(project) -> None:
    create(project)
    counts = project.run(project.one())
    assert (counts.records, counts.rows, counts.written, counts.rejected) == (3, 3, 3, 0)
    rows = project.rows()
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [list(row["vec"]) for row in rows] == [pytest.approx([0.1, 0.2, 0.3])] * 3
    assert project.run(project.one()) == Counts()


def test_script_one_without_its_collection_is_an_error_that_names_it_and_the_command(project) -> None:
    with pytest.raises(PlanError, match=f"{project.collection} does not exist .*vector-assets target create"):
        project.run(project.one())


def test_script_one_writes_into_a_fixed_partition(project) -> None:
    create(project, partitions=("my_partition",))
    script = project.one(", 'partitionName' = 'my_partition'")
    assert project.run(script).written == 3
    assert len(project.milvus.rows(project.collection, "id > 0", partition_names=["my_partition"])) == 3
    assert project.milvus.rows(project.collection, "id > 0", partition_names=["_default"]) == []


def test_script_one_routes_by_the_partition_key(project) -> None:
    create(project, {**PEOPLE, "age": ("INT64", {"is_partition_key": True})})
    script = project.one(", 'partitionKey.enabled' = 'true'").replace("age INT", "age INT NOT NULL")
    assert project.run(script).written == 3


def test_script_two_lands_inserts_updates_deletes_tombstones_and_keys_that_never_were(project) -> None:
    create(project)
    project.send(
        *(({"id": n}, said("+I", id=n, name=f"n{n}", age=n, vec=[n, 0.1, 0.2])) for n in range(1, 5)),
        ({"id": 1}, said("-U", id=1, name="n1", age=1, vec=[1, 0.1, 0.2])),
        ({"id": 1}, said("+U", id=1, name="again", age=10, vec=[9, 9, 9])),
        ({"id": 2}, said("-D", id=2)),
        ({"id": 3}, None),
        ({"id": 77}, None),
    )
    counts = project.run(project.two())
    assert (counts.records, counts.written, counts.deleted, counts.rejected) == (9, 2, 3, 0)
    assert [(row["id"], row["name"], row["age"]) for row in project.rows()] == [(1, "again", 10), (4, "n4", 4)]
    project.send(({"id": 4}, None), ({"id": 78}, said("-D", id=78)), ({"id": 2}, said("+I", id=2, vec=[1, 1, 1])))
    assert project.run(project.two()).deleted == 2
    assert [(row["id"], row["name"]) for row in project.rows()] == [(1, "again"), (2, None)]


def test_records_without_a_key_are_dead_letters_and_stop_nobody(project) -> None:
    create(project)
    project.send((None, said("+I", id=1, vec=[1, 2, 3])), ({"id": None}, None), ({"id": 2}, said("+I", vec=[1, 2, 3])))
    counts = project.run(project.two())
    assert (counts.rejected, counts.written) == (2, 1)
    assert [row["id"] for row in project.rows()] == [2]


def test_late_dead_letters_do_not_bring_back_what_later_changes_took_away(project) -> None:
    """Refused by the sink (two dimensions), then mended by a collection of two: later changes of the keys stand."""
    create(project)
    bad = [1, 2]
    project.send(*(({"id": n}, said("+I", id=n, name="old", vec=bad)) for n in range(1, 5)))
    assert project.run(project.two()).refused == 4
    project.send(
        ({"id": 1}, said("+U", id=1, name="new", vec=[1, 2, 3])), ({"id": 2}, None), ({"id": 3}, said("-D", id=3))
    )
    project.run(project.two())
    mended = project.two().replace("SELECT *", "SELECT id, name, age, CASE WHEN id > 0 THEN ARRAY[CAST(7 AS FLOAT),"
                                   " CAST(7 AS FLOAT), CAST(7 AS FLOAT)] END AS vec")  # fmt: skip
    with project.session(mended) as session:
        letters = session.ledger.dead_letters.listed("people", state="open")
        outcome = replay_dead_letters(session, letters)
        assert outcome is not None
        assert (outcome.batch.counts.written, outcome.batch.counts.superseded) == (1, 3)
    assert [(row["id"], row["name"]) for row in project.rows()] == [(1, "new"), (4, "old")]


def test_a_rewrite_of_a_changelog_leaves_deleted_rows_deleted(project) -> None:
    create(project)
    script = "SET 'vector-assets.batch.max-rows' = '3';\n" + project.two()
    project.send(
        *(({"id": n}, said("+I", id=n, name="first", vec=[n, n, n])) for n in range(1, 6)),
        ({"id": 1}, None),
        ({"id": 2}, said("+U", id=2, name="second", vec=[2, 2, 2])),
        ({"id": 3}, said("-D", id=3)),
        ({"id": 1}, said("+I", id=1, name="third", vec=[1, 1, 1])),
        ({"id": 4}, None),
    )
    project.run(script)
    before = project.rows()
    assert [(row["id"], row["name"]) for row in before] == [(1, "third"), (2, "second"), (5, "first")]
    changed = script.replace("SELECT *", "SELECT id, UPPER(name) AS name, age, vec")
    with project.session(changed) as session:
        list(rewrite(Runner(session), Selection()))
        assert reconcile(session).is_right()
    assert [(row["id"], row["name"]) for row in project.rows()] == [(1, "THIRD"), (2, "SECOND"), (5, "FIRST")]


def test_moves_of_keys_across_batches_leave_no_orphan(project) -> None:
    create(project)
    columns = "(id BIGINT NOT NULL, name STRING, age INT, vec ARRAY<FLOAT>)"
    sink = statements(seed(1))[0]
    script = project.placed(
        f"SET 'vector-assets.batch.max-rows' = '2';\nCREATE TABLE changes {columns} WITH ('connector' = 'kafka',"
        " 'topic' = 'people-changelog', 'properties.bootstrap.servers' = 'kafka-broker:9092',"
        f" 'format' = 'debezium-json', 'scan.startup.mode' = 'earliest-offset');\n{sink}\n"
        "INSERT INTO milvus_sink SELECT * FROM changes;"
    )
    rows = {n: {"id": n, "name": f"n{n}", "age": n, "vec": [0.5, 1.0, n]} for n in range(1, 4)}
    changes = [
        *((None, row) for row in rows.values()),
        (rows[1], rows[1] | {"id": 10}),
        (rows[2], rows[2] | {"id": 1}),
        (rows[1] | {"id": 10}, rows[1] | {"id": 2}),
        (rows[3], None),
    ]
    project.kafka.produce(project.topic, [value for change in changes for value in ENCODERS["debezium-json"](change)])
    project.run(script)
    assert [(row["id"], row["name"]) for row in project.rows()] == [(1, "n2"), (2, "n1")]


def test_upsert_kafka_with_a_bound_ends_there(project) -> None:
    create(project)
    bounded = project.two().replace("'key.format'", "'scan.bounded.mode' = 'latest-offset', 'key.format'")
    project.send(({"id": 1}, said("+I", id=1, vec=[1, 2, 3])), ({"id": 2}, said("+I", id=2, vec=[1, 2, 3])))
    assert project.run(bounded).written == 2
    project.send(({"id": 1}, None))
    assert project.run(bounded).records == 0
    assert [row["id"] for row in project.rows()] == [1, 2]


def test_a_changelog_is_printed_with_its_kinds(project, capsys) -> None:
    _, _, _, tombstones, insert = statements(seed(1))[:5]
    columns = tombstones[tombstones.index("(") : tombstones.index(") WITH") + 1]
    script = project.placed(
        f"CREATE TABLE MilvusPeople {columns} WITH ('connector' = 'print');\n{tombstones}\n{insert}"
    )
    project.send(
        ({"id": 1}, said("+I", id=1, name="a", age=1, vec=[1, 2])),
        ({"id": 1}, said("-U", id=1, name="a", age=1, vec=[1, 2])),
        ({"id": 1}, said("+U", id=1, name="b", age=2, vec=[1, 2])),
        ({"id": 1}, None),
    )
    with project.session(script) as session:
        list(Runner(session).catch_up())
    assert capsys.readouterr().out.splitlines() == [
        "+I[1, a, 1, [1.0, 2.0]]",
        "-U[1, a, 1, [1.0, 2.0]]",
        "+U[1, b, 2, [1.0, 2.0]]",
        "-D[1, null, null, null]",
    ]


TABLE = """
CREATE TABLE changes ({columns}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-kafka',
  'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}', 'key.format' = 'json', 'value.format' = 'json');
CREATE TABLE things ({columns}, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'milvus', 'endpoint' = '{host}',
  'port' = '{port}', 'collectionName' = '{collection}'{options});
INSERT INTO things SELECT * FROM changes;
"""


@pytest.fixture
def things(project) -> Callable[..., str]:
    """A script of upserts into a collection of these columns."""

    def script(columns: str, options: str = "") -> str:
        p = project
        return TABLE.format(
            columns=columns, topic=p.topic, brokers=p.kafka.bootstrap_servers, host=p.milvus.host, port=p.milvus.port,
            collection=p.collection, options=options,
        )  # fmt: skip

    return script


def test_text_keys_two_vectors_and_json_are_kept_by_replays_and_reconciled(project, things) -> None:
    fields = {
        "id": ("VARCHAR", {"max_length": 40}),
        "about": ("JSON", {"nullable": True}),
        "a": ("FLOAT_VECTOR", {"dim": 2}),
        "b": ("FLOAT_VECTOR", {"dim": 3}),
    }
    create(project, fields)
    script = things("id STRING NOT NULL, about STRING, a ARRAY<DOUBLE>, b STRING")
    keys = ["plain", 'quo"te', "back\\slash", "ünï", "'single'", ""]
    project.send(
        *(({"id": key}, {"id": key, "about": '{"z": 1.50, "a": [1e3, null]}', "a": [0.1, 1 / 3], "b": "[0.1,0.2,0.7]"})
          for key in keys)
    )  # fmt: skip
    assert project.run(script).written == len(keys)
    project.send(({"id": 'quo"te'}, None), ({"id": "back\\slash"}, None), ({"id": "ünï"}, None))
    assert project.run(script).deleted == 3
    assert sorted(row["id"] for row in project.rows()) == ["", "'single'", "plain"]


def test_a_row_whose_partition_key_changes_moves_and_is_deleted_in_its_new_partition(project, things) -> None:
    create(
        project,
        {"id": ("INT64", {}), "town": ("VARCHAR", {"max_length": 20, "is_partition_key": True}),
         "v": ("FLOAT_VECTOR", {"dim": 2})},
    )  # fmt: skip
    script = things("id BIGINT NOT NULL, town STRING NOT NULL, v ARRAY<FLOAT>", ", 'partitionKey.enabled' = 'true'")
    project.send(*(({"id": n}, {"id": n, "town": "Bern", "v": [n, 1]}) for n in range(20)))
    project.run(script)
    project.send(*(({"id": n}, {"id": n, "town": f"town {n}", "v": [n, 2]}) for n in range(10)), ({"id": 15}, None))
    project.run(script)
    project.send(*(({"id": n}, None) for n in range(5)))
    project.run(script)
    assert [row["id"] for row in project.rows()] == [n for n in range(5, 20) if n != 15]
    assert [row["id"] for row in project.milvus.rows(project.collection, "town == 'town 7'")] == [7]
    assert project.milvus.count(project.collection) == 14
