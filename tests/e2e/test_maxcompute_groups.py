"""The seed's GROUP BY scripts as written over a real local MaxCompute server, only their placeholders replaced."""

from collections import Counter
from contextlib import closing, contextmanager

import pytest

from tests.declare.seeds import seed, statements, with_values
from tests.sources.maxcompute_table import fill
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.past_groups import kept_groups, last_done
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
ROWS = [["a", 1.5], ["b", None], ["a", 2.5], [None, 1.0]]


@pytest.fixture
def books(tmp_path, maxcompute):
    secrets = {"ak_id": maxcompute.service.access_id, "ak_secret": maxcompute.service.access_key}
    variables = {env.secret_variable(name): value for name, value in secrets.items()}
    with env.overridden(VECTOR_ASSETS_HOME=str(tmp_path / "home"), **variables), closing(Books.open()) as found:
        yield found


def script_of(server, table: str, which: str) -> str:
    """The three statements of the seed's example, with the sink's connector as it is."""
    found = statements(seed(3))
    at = next(
        n for n, text in enumerate(found) if text.startswith("CREATE") and f"'{which}'" in text and "rt DOUBLE" in text
    )
    values = {"yourEndpointName": server.service.endpoint, "yourProjectName": "local", "yourTableName": table}
    return "\n".join([with_values(found[at], values), *found[at + 1 : at + 3]])


@contextmanager
def opened(text: str, folder, books):
    path = folder / "counts.sql"
    path.write_text(text)
    try:
        (pipeline,) = flink_sql.load_file(path)
    except ConfigError as error:
        if "startPartition" in str(error):
            pytest.skip(f"the source has no incremental mode: {error}")
        raise
    with Session(pipeline, books) as session:
        yield session


def groups_of(session) -> dict[str | None, int]:
    with session.leased() as stages, closing(kept_groups(stages, last_done(stages))) as groups:
        return {row["cid"]: row["invoke_count"] for piece in groups.rows() for row in piece.to_pylist()}


def counted(times: int) -> dict[str | None, int]:
    return {key: count * times for key, count in Counter(cid for cid, _ in ROWS).items()}


def test_the_bounded_count_of_partitions(tmp_path, maxcompute, books):
    table = str(maxcompute.table("cid string, rt double", "PARTITIONED BY (ds string)").name)
    for spec in ("ds=20180901", "ds=20180930", "ds=20181001"):
        fill(maxcompute, table, spec, ROWS)
    with opened(script_of(maxcompute, table, "partition"), tmp_path, books) as session:
        outcomes = list(Runner(session).catch_up())
        assert sum(outcome.batch.counts.records for outcome in outcomes) == 2 * len(ROWS)
        assert groups_of(session) == counted(2)
        assert list(Runner(session).catch_up()) == []
        assert session.is_finished()


def test_the_bounded_count_on_a_screen(tmp_path, maxcompute, books, capsys):
    table = str(maxcompute.table("cid string, rt double", "PARTITIONED BY (ds string)").name)
    fill(maxcompute, table, "ds=20180901", ROWS)
    text = script_of(maxcompute, table, "partition").replace("'blackhole'", "'print'")
    with opened(text, tmp_path, books) as session:
        list(Runner(session).catch_up())
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "+I[a, 2]", "+I[b, 1]", "+I[null, 1]"]


def test_the_unbounded_count_goes_on_with_every_new_partition(tmp_path, maxcompute, books, capsys):
    levels = "PARTITIONED BY (yyyy string, MM string, dd string)"
    table = str(maxcompute.table("cid string, rt double", levels).name)
    fill(maxcompute, table, "yyyy=2018,MM=09,dd=04", ROWS)
    fill(maxcompute, table, "yyyy=2018,MM=09,dd=05", ROWS)
    text = script_of(maxcompute, table, "startPartition").replace("'blackhole'", "'print'")
    # as written it waits a minute for each partition to be complete
    text = text.replace("'startPartition'", "'vector-assets.partition.quiet' = '0 s', 'startPartition'")
    with opened(text, tmp_path, books) as session:
        for runs in (1, 2):
            if runs == 2:
                fill(maxcompute, table, "yyyy=2018,MM=09,dd=06", ROWS)
            for _ in range(200):
                list(Runner(session).catch_up())
                if groups_of(session) == counted(runs):
                    break
            assert groups_of(session) == counted(runs)
    shown = capsys.readouterr().out.split("\n")
    assert {"+I[a, 2]", "-U[a, 2]", "+U[a, 4]", "-U[null, 1]", "+U[null, 2]"} <= set(shown)
