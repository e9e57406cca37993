"""MaxCompute partitions into PostgreSQL: landed once, reconciled, explained."""

import pytest

from tests.sources.maxcompute_table import fill, named, options_of, partitioned
from vector_assets.declare import compile_script
from vector_assets.engine.archive import Archive
from vector_assets.engine.explain import explain_key, explain_offset, split_named
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service

SCRIPT = """
CREATE TABLE src (id BIGINT, name STRING, ds STRING) WITH ({source});
CREATE TABLE dst (id BIGINT, name STRING, ds STRING, PRIMARY KEY (id) NOT ENFORCED) WITH (
  'connector' = 'adbpg', 'url' = 'jdbc:postgresql://{host}:{port}/{database}', 'tablename' = 'people',
  'targetschema' = 'public', 'username' = '{user}', 'password' = '{password}', 'conflictmode' = 'update');
INSERT INTO dst SELECT * FROM src WHERE id <> 3;
"""


@pytest.mark.parametrize("way", [{}, {"useArrow": "true", "splitSize": "1 kb"}], ids=["tunnel", "storage"])
def test_partitions_land_once_and_every_row_can_be_accounted_for(maxcompute, postgres, tmp_path, way) -> None:
    table = partitioned(maxcompute, {"ds=a,hh=1": 60}, levels="ds string, hh string")
    fill(maxcompute, table, "ds=b,hh=1", named(40, first=50))
    database = postgres.create_database()
    with postgres.connect(database, autocommit=True) as admin:
        admin.execute("CREATE TABLE public.people (id bigint PRIMARY KEY, name text, ds text)")
        source = ", ".join(f"'{k}' = '{v}'" for k, v in options_of(maxcompute, table, partition="ds=*", **way).items())
        text = SCRIPT.format(
            source=source, host=postgres.host, port=postgres.port, database=database, user=postgres.user,
            password=postgres.password,
        )  # fmt: skip
        (pipeline,) = compile_script(text, "people.sql")
        books = Books(Ledger(tmp_path / "ledger.db"), Archive(tmp_path / "archive"))
        with Session(pipeline, books) as session:
            assert sum(outcome.batch.counts.records for outcome in Runner(session).catch_up()) == 100
            rows = admin.execute("SELECT id, name, ds FROM public.people ORDER BY id").fetchall()
            assert rows == [(at, f"n{at}", "b" if at >= 50 else "a") for at in range(90) if at != 3]
            assert reconcile(session).is_right()
            story = explain_key(session, {"id": 50})
            assert story.changes[0].origin.split.endswith("/ds=b/hh=1")
            (record,) = explain_offset(session, split_named(session, "ds=a/hh=1"), 3)
            assert record.status == "filtered"
            assert list(Runner(session).catch_up()) == []
        books.close()
