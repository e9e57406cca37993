"""MaxCompute dimension tables on a real server: the document's scripts, options, faults, versions in the ledger."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.declare.seeds import seed, statements, with_values
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError, FatalError, PlanError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    return tmp_path


def put(maxcompute: Any, table: Any, spec: str | None, rows: list[list[Any]]) -> None:
    """Replace a partition's rows; times have whole seconds, so a row's change may stand in the second of the last."""
    with (
        table.open_writer(partition=spec, create_partition=True, overwrite=True)
        if spec
        else table.open_writer(overwrite=True) as writer
    ):
        writer.write(rows)


@pytest.fixture
def dim(maxcompute: Any) -> Any:
    """A partitioned table with two rows for key 2."""
    table = maxcompute.table("k INT, v STRING", "PARTITIONED BY (ds STRING)")
    put(maxcompute, table, "ds=20180905", [[1, "one"], [2, "two"], [2, "deux"], [3, None]])
    return table


def script(maxcompute: Any, table: Any, *, join: str = "INNER", key: str = "", rows: int = 5, **options: Any) -> str:
    """Rows 0 to `rows` - 1 joined to a table into `blackhole`."""
    login = {
        "connector": "odps", "endpoint": maxcompute.service.endpoint, "project": maxcompute.odps.project,
        "tableName": table.name, "accessId": maxcompute.service.access_id, "accessKey": maxcompute.service.access_key,
        "partition": "ds=20180905", "cache": "ALL", "retryTimes": 0,
    } | {name.replace("__", "."): value for name, value in options.items()}  # fmt: skip
    given = ", ".join(f"'{name}' = '{value}'" for name, value in login.items() if value is not None)
    return f"""CREATE TABLE src (k INT, n BIGINT) WITH ('connector' = 'datagen', 'fields.k.kind' = 'sequence',
      'fields.k.start' = '0', 'fields.k.end' = '{rows - 1}', 'fields.n.min' = '0', 'fields.n.max' = '0');
    CREATE TABLE dim (k INT, v STRING{key}) WITH ({given});
    CREATE TABLE dst (k INT, v STRING) WITH ('connector' = 'blackhole');
    INSERT INTO dst SELECT s.k, d.v FROM src s {join} JOIN dim FOR SYSTEM_TIME AS OF PROCTIME() AS d ON s.k = d.k;"""


def pipeline(text: str) -> Pipeline:
    (made,) = flink_sql.compile_script(text, "lookup.sql")
    return made


def joined(made: Pipeline, count: int = 5) -> list[tuple[int, str | None]]:
    """What the pipeline's lookup join gives for the keys from 0 on."""
    rows = pa.table({"k": pa.array(range(count), pa.int32()), POSITION: pa.array(range(count), pa.int64())})
    found = made.transforms[0].apply(rows).rows
    return list(zip(found["k"].to_pylist(), found["d.v"].to_pylist(), strict=True))


@contextmanager
def session(made: Pipeline) -> Iterator[Session]:
    books = Books.open()
    try:
        with Session(made, books) as opened:
            yield opened
    finally:
        books.close()


SCRIPTS = ("Single-value key", "Multi-value key")


@pytest.mark.parametrize("case", SCRIPTS)
def test_the_document_s_scripts_run_as_written(maxcompute, home, monkeypatch, case) -> None:
    text = seed(3)
    text = text[text.index("\nDimension table\nSingle-value key") :]
    text = text[text.index(case) : text.index("DataStream API")]
    table = maxcompute.table("k INT, v STRING", "PARTITIONED BY (ds STRING)")
    put(maxcompute, table, "ds=20180905", [[n, f"v{n}"] for n in range(100)] + [[7, "again"]])
    values = {
        "yourEndpoint": maxcompute.service.endpoint, "yourProjectName": maxcompute.odps.project,
        "yourTableName": table.name,
    }  # fmt: skip
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_AK_ID", maxcompute.service.access_id)
    monkeypatch.setenv("VECTOR_ASSETS_SECRET_AK_SECRET", maxcompute.service.access_key)
    (made,) = flink_sql.compile_script(with_values("\n".join(statements(text)[:4]), values), "lookup.sql")
    assert [note.rpartition(": ")[2] for note in made.notes] == [
        "it is a key of the lookup join",
        "it is cast implicitly",
    ]
    with session(made) as opened:
        outcome = next(iter(Runner(opened).drain(opened.calendar.now())))
    counts = outcome.batch.counts
    assert counts.records > 0
    assert counts.filtered + counts.written == counts.rows
    assert outcome.batch.lookups["odps_dim"].startswith("ds=20180905@")
    rows = pa.table({"k": pa.array([7, 8], pa.int32()), "v": ["x", "y"], POSITION: pa.array([0, 1], pa.int64())})
    found = made.transforms[0].apply(rows).rows["d.v"].to_pylist()
    assert found == (["again", "v8"] if case.startswith("Single") else ["v7", "again", "v8"])
    for path in home.rglob("*"):
        assert not path.is_file() or maxcompute.service.access_key.encode() not in path.read_bytes()


@pytest.mark.parametrize("join", ["INNER", "LEFT"])
def test_multi_value_keys(maxcompute, dim, join) -> None:
    found = joined(pipeline(script(maxcompute, dim, join=join)))
    inner = [(1, "one"), (2, "two"), (2, "deux"), (3, None)]
    assert found == ([(0, None), *inner, (4, None)] if join == "LEFT" else inner)


def test_single_value_key_counts_duplicates_and_takes_the_last(maxcompute, dim, caplog) -> None:
    found = joined(pipeline(script(maxcompute, dim, key=", PRIMARY KEY (k) NOT ENFORCED")))
    assert found == [(1, "one"), (2, "deux"), (3, None)]
    assert "1 rows share their PRIMARY KEY (k)" in caplog.text


def test_max_pt_and_max_two_pt_are_asked_again_at_each_reload(maxcompute, dim) -> None:
    now = [time.time()]
    newest = pipeline(script(maxcompute, dim, partition="max_pt()", cacheTTLMs=60_000))
    both = pipeline(
        script(maxcompute, dim, partition="max_two_pt()", cacheTTLMs=60_000, key=", PRIMARY KEY (k) NOT ENFORCED")
    )
    for made in (newest, both):
        made.transforms[0]._cache._clock = lambda: now[0]
        assert joined(made)[-1] == (3, None)
    put(maxcompute, dim, "ds=20180906", [[3, "trois"]])
    assert joined(newest)[-1] == (3, None)
    now[0] += 60
    assert joined(newest) == [(3, "trois")]
    assert joined(both) == [(1, "one"), (2, "deux"), (3, "trois")]
    assert newest.transforms[0]._cache.current().version.startswith("ds=20180906@")
    assert both.transforms[0]._cache.current().version.startswith("ds=20180905@")
    put(maxcompute, dim, "ds=20180907", [[1, "un"]])
    now[0] += 60
    assert joined(both) == [(1, "un"), (3, "trois")]


def test_no_reload_in_a_period_of_the_black_list(maxcompute, dim) -> None:
    made = pipeline(
        script(maxcompute, dim, cacheTTLMs=1000, cacheReloadTimeBlackList="00:00 -> 23:59:59, 23:59:59 -> 00:00")
    )
    now = [time.time()]
    made.transforms[0]._cache._clock = lambda: now[0]
    before = joined(made)
    put(maxcompute, dim, "ds=20180905", [[1, "new"]])
    now[0] += 3600
    assert joined(made) == before


def test_cache_size_is_the_document_s_error_and_spill_joins_from_disk(maxcompute, dim) -> None:
    wanted = (
        rf"Row count of table {maxcompute.odps.project}\.{dim.name} partition ds=20180905 exceeds maxRowCount limit"
    )
    with pytest.raises(PlanError, match=wanted):
        joined(pipeline(script(maxcompute, dim, cacheSize=3)))
    assert len(joined(pipeline(script(maxcompute, dim, cacheSize=4)))) == 4
    spilled = pipeline(script(maxcompute, dim, cacheSize=3, cache__spill="true"))
    assert joined(spilled) == joined(pipeline(script(maxcompute, dim)))
    assert spilled.transforms[0]._cache.current().stored.form == "duckdb"


def test_table_without_partitions(maxcompute) -> None:
    table = maxcompute.table("K BIGINT, V STRING")
    put(maxcompute, table, None, [[1, "one"]])
    with pytest.raises(PlanError, match="column k is BIGINT, dimension table dim declares INT"):
        joined(pipeline(script(maxcompute, table, partition=None)))
    table = maxcompute.table("K INT, V STRING")
    put(maxcompute, table, None, [[1, "one"]])
    assert joined(pipeline(script(maxcompute, table, partition=None))) == [(1, "one")]
    with pytest.raises(PlanError, match="has no partitions, option 'partition' is 'ds=20180905'"):
        joined(pipeline(script(maxcompute, table)))


WRONG = {
    "no partition": ({"partition": None}, PlanError, "is partitioned by ds: a dimension table over it wants"),
    "no such partition": ({"partition": "ds=1"}, PlanError, "ds=1"),
    "no match": (
        {"partition": "ds=3*"}, PlanError,
        "no partition is meant by option 'partition' = 'ds=3*'; its newest: ds=20180905",
    ),
    "no such level": ({"partition": "hh=1"}, PlanError, "there is no level hh"),
    "no such table": ({"tableName": "nothing_here"}, PlanError, "nothing_here"),
    "wrong key": ({"accessKey": "hunter2"}, ConfigError, "check accessId and accessKey"),
    "wrong project": ({"project": "nobody"}, ConfigError, "nobody"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_loaded_says_so_at_once(maxcompute, dim, case) -> None:
    changes, error, message = WRONG[case]
    with pytest.raises(error) as caught:
        joined(pipeline(script(maxcompute, dim, **changes)))
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


FAULTS = {
    "busy": {"target": "/", "status": 429},
    "broken": {"target": "/", "status": 500},
    "cut before": {"target": "/", "cut": "before"},
    "cut in the rows": {"target": "rowrange", "cut": "body"},
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_a_load_are_bounded_by_max_load_retries(maxcompute, dim, case) -> None:
    made = pipeline(script(maxcompute, dim, maxLoadRetries=2))
    made.transforms[0]._cache._sleep = lambda _: None
    maxcompute.fault(**FAULTS[case], times=2)
    assert len(joined(made)) == 4
    assert maxcompute.hits() == [2]
    # another table's cache, which has to be loaded as well
    again = pipeline(script(maxcompute, dim, maxLoadRetries=2, cacheSize=50, cache__spill="true"))
    again.transforms[0]._cache._sleep = lambda _: None
    maxcompute.service.ask("DELETE", "faults")
    maxcompute.fault(**FAULTS[case], times=100)
    with pytest.raises(FatalError, match=r"could not be loaded in 3 attempts \(maxLoadRetries = 2\)"):
        joined(again)
    assert maxcompute.hits()[0] <= 12


def test_partition_that_changes_while_it_is_loaded_is_loaded_again(maxcompute, dim) -> None:
    made = pipeline(script(maxcompute, dim))
    made.transforms[0]._cache._sleep = lambda _: None
    opened = made.transforms[0]._cache._open_table
    changed: list[int] = []

    def moving() -> Any:
        table = opened()
        load = table.load

        def loading(snapshot: Any) -> Any:
            table.count(snapshot)
            if not changed:
                changed.append(1)
                put(maxcompute, dim, "ds=20180905", [[1, "after"]])
            yield from load(snapshot)

        table.load = loading
        return table

    made.transforms[0]._cache._open_table = moving
    assert joined(made) == [(1, "after")]


def test_a_batch_that_was_staged_is_joined_as_it_was_and_a_rewrite_as_today(maxcompute, dim, postgres, home) -> None:
    database = postgres.create_database(vector=False)
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE looked (k int PRIMARY KEY, v text)")
    text = script(maxcompute, dim, cacheTTLMs=1).replace(
        "(k INT, v STRING) WITH ('connector' = 'blackhole')",
        "(k INT, v STRING, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'adbpg',"
        f" 'url' = '{postgres.jdbc_url(database)}', 'tablename' = 'looked',"
        f" 'username' = '{postgres.user}', 'password' = '{postgres.password}', 'conflictmode' = 'update')",
    )

    def rows() -> list[tuple[int, str | None]]:
        with postgres.connect(database, autocommit=True) as connection:
            return connection.execute("SELECT k, v FROM looked ORDER BY k").fetchall()

    with session(pipeline(text)) as opened, env.overridden(VECTOR_ASSETS_FAIL_AT="staged:1:raise"):
        with pytest.raises(FatalError, match="failpoint"):
            list(Runner(opened).drain(opened.calendar.now()))
        (batch,) = opened.ledger.unfinished(opened.pipeline.name, opened.pipeline.target)
        assert batch.lookups is not None
        staged = batch.lookups["dim"]
    put(maxcompute, dim, "ds=20180905", [[1, "new"], [4, "four"]])
    with session(pipeline(text)) as opened:
        outcome = next(iter(Runner(opened).catch_up()))
        assert outcome.batch.lookups == {"dim": staged}
        assert rows() == [(1, "one"), (2, "deux"), (3, None)]
        (again,) = list(rewrite(Runner(opened), Selection()))
        assert again.batch.lookups != {"dim": staged}
        assert rows() == [(1, "new"), (2, "deux"), (3, None), (4, "four")]


def test_plan_status_and_json_say_what_is_looked_up(maxcompute, dim, home, monkeypatch) -> None:
    from typer.testing import CliRunner

    from vector_assets.cli import app

    monkeypatch.chdir(home)
    monkeypatch.setenv("VECTOR_ASSETS_PIPELINES", str(home / "pipelines"))
    (home / "pipelines").mkdir()
    (home / "pipelines" / "looked.sql").write_text(script(maxcompute, dim))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    plan = json.loads(run("plan", "looked", "--offline", "--json"))["pipelines"][0]
    (lookup,) = plan["lookups"]
    assert (lookup["table"], lookup["alias"], lookup["kind"], lookup["options"]["cacheSize"]) == (
        "dim",
        "d",
        "INNER",
        "100000",
    )
    assert lookup["options"]["accessKey"].strip("*") == ""
    assert {column["name"]: column["source_type"] for column in plan["columns"]} == {"k": "INT", "v": "STRING"}
    assert "dimension table dim (odps)" in run("plan", "looked", "--offline")
    run("run", "looked")
    assert "ds=20180905@" in run("status", "looked")
    status = json.loads(run("status", "looked", "--json"))["pipelines"][0]
    assert status["last_batch"]["lookups"]["dim"].startswith("ds=20180905@")
