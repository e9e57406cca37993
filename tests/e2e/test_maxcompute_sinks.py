"""A MaxCompute partition into every other sink: landed once, read back, reconciled."""

from collections.abc import Mapping

import pytest

from tests.sources.maxcompute_table import fill, options_of, partitioned
from vector_assets.declare import compile_script
from vector_assets.engine.archive import Archive
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
SOURCE = "id BIGINT, name STRING, vec STRING"
SINK = "id BIGINT NOT NULL, name VARCHAR(20), vec STRING, PRIMARY KEY (id) NOT ENFORCED"
ROWS = [[at, f"n{at}", f"[{at}.0,1.5]"] for at in range(60)]


def milvus(request, tmp_path) -> dict[str, object]:
    server = request.getfixturevalue("milvus")
    return {
        "connector": "milvus", "endpoint": server.host, "port": server.port, "collectionName": server.name(),
        "vector.dimensions": "vec:2",
    }  # fmt: skip


def opensearch(request, tmp_path) -> dict[str, object]:
    server = request.getfixturevalue("opensearch")
    return {"connector": "opensearch-2", "hosts": server.url, "index": server.name()}


def iceberg(request, tmp_path) -> dict[str, object]:
    return {
        "connector": "iceberg", "catalog-name": "lake", "uri": f"sqlite:///{tmp_path}/catalog.db",
        "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog", "warehouse": f"file://{tmp_path}/lake",
        "catalog-database": "shop", "catalog-table": "people", "write.upsert.enabled": "true",
    }  # fmt: skip


def paimon(request, tmp_path) -> dict[str, object]:
    (tmp_path / "lake" / "shop.db").mkdir(parents=True)
    return {
        "connector": "paimon", "warehouse": f"{tmp_path}/lake", "catalog-database": "shop", "catalog-table": "people",
        "bucket": "1",
    }  # fmt: skip


@pytest.mark.parametrize("sink", [milvus, opensearch, iceberg, paimon])
def test_a_partition_lands_once_in_every_sink(maxcompute, tmp_path, request, sink):
    table = partitioned(maxcompute, {}, columns="id bigint, name string, vec string")
    fill(maxcompute, table, "ds=a", ROWS)
    (pipeline,) = compile_script(
        f"CREATE TABLE src ({SOURCE}) WITH ({written(options_of(maxcompute, table, partition='ds=a'))});\n"
        f"CREATE TABLE dst ({SINK}) WITH ({written(sink(request, tmp_path))});\n"
        "INSERT INTO dst SELECT * FROM src;",
        "people.sql",
    )
    books = Books(Ledger(tmp_path / "ledger.db"), Archive(tmp_path / "archive"))
    with Session(pipeline, books) as session:
        session.sink.create_target(pipeline.schema, ("id",))
        assert sum(outcome.batch.counts.written for outcome in Runner(session).catch_up()) == len(ROWS)
        assert list(Runner(session).catch_up()) == []
        found = reconcile(session)
        assert (found.is_right(), found.target_rows) == (True, len(ROWS)), found.findings
    books.close()


def written(options: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
