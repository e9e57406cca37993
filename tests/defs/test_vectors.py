"""The check `vectors` over a real MySQL and OpenSearch: what it passes, and each thing that it finds."""

from typing import Any

import dagster as dg
import orjson
import pytest

from tests.faults.place import placed
from tests.faults.test_opensearch import ROWS, Job
from vector_assets.declare import flink_sql
from vector_assets.defs import vectors
from vector_assets.engine.reconcile import reconcile

pytestmark = pytest.mark.service


class TableJob(Job):
    """The texts' numbers are a table of MySQL."""

    def __init__(self, folder, server, embeddings, mode, mysql) -> None:
        self.mysql = mysql
        mysql.sql("CREATE TABLE numbers (n BIGINT PRIMARY KEY)")
        mysql.sql("INSERT INTO numbers VALUES (%s)", *[(n,) for n in range(ROWS)])
        super().__init__(folder, server, embeddings, mode)

    def write(self, **options: str) -> None:
        super().write(**options)
        text = (self.folder / "docs.sql").read_text()
        begin, end = text.index("CREATE TABLE numbers"), text.index("CREATE TABLE docs")
        source = ", ".join(f"'{name}' = '{value}'" for name, value in self.mysql.options("numbers").items())
        table = f"CREATE TABLE numbers (n BIGINT NOT NULL, PRIMARY KEY (n) NOT ENFORCED) WITH ({source});\n"
        (self.folder / "docs.sql").write_text(text[:begin] + table + text[end:])

    def put(self, documents: list[dict[str, Any]]) -> None:
        """Documents as somebody else might write them, past the pipeline."""
        lines = [orjson.dumps(part) for row in documents for part in ({"index": {"_id": str(row["id"])}}, row)]
        body = b"\n".join(lines) + b"\n"
        answer = self.server.ask("POST", f"{self.index}/_bulk?pipeline=_none&refresh=true", body, status=200)
        assert not answer["errors"], answer

    def look(self) -> dg.AssetCheckEvaluation:
        """What the check says."""
        with placed(self.environment), dg.DagsterInstance.ephemeral() as instance:
            (pipeline,) = flink_sql.load_file(self.folder / "docs.sql")
            selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("docs"), vectors.NAME))
            result = dg.materialize(vectors.of(pipeline), selection=selection, instance=instance)
        assert result.success
        (found,) = result.get_asset_check_evaluations()
        return found


@pytest.fixture(params=["server", "client"])
def job(request, tmp_path, opensearch, embeddings, mysql, monkeypatch):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    return TableJob(tmp_path, opensearch, embeddings, request.param, mysql)


def test_vectors_and_rows_are_verified_and_each_fault_is_found(job):
    job.run()
    texts = job.embeddings.counters()["texts"]
    found = job.look()
    assert found.passed, found.description
    assert f"rows of the source = rows of the target ({'counted now'})" in found.description
    # the cache holds what EMBED made; the cluster's model keeps nothing
    assert job.embeddings.counters()["texts"] - texts == (20 if job.mode == "server" else 0)
    vector = job.hits()[0]["_source"]["my_vector"]
    job.put([{**hit["_source"], "my_vector": vector[::-1]} for hit in job.hits()])
    found = job.look()
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert "sampled" in found.description
    job.mysql.sql("DELETE FROM numbers WHERE n < 5")
    assert "records are not read yet" in job.look().description
    job.run()
    job.server.ask("DELETE", f"{job.index}/_doc/7", status=200)
    assert f"rows of the source = rows of the target: {ROWS - 5} and {ROWS - 6}" in job.look().description


def test_a_text_without_its_vector_and_vectors_of_other_texts_are_found_by_reconcile(
    tmp_path, opensearch, embeddings, mysql
):
    job = TableJob(tmp_path, opensearch, embeddings, "server", mysql)
    # what a model that answers out of order does to a cluster, which goes by the order
    embeddings.fault(text="number", wrong="order", times=None)
    job.run()
    embeddings.reset()
    with job.open() as session:
        found = reconcile(session)
    broken = {each.name: each.left for each in found.equations if not each.holds}
    assert set(broken) == {"sampled my_vector that are not those of their my_text = 0"}
    assert not found.is_right()
    job.put([{"id": 3, "my_text": "text number 3"}])
    with job.open() as session:
        broken = {each.name: each.left for each in reconcile(session).equations if not each.holds}
    assert broken["documents with my_text that have no my_vector = 0"] == 1


def test_a_check_that_cannot_look_is_an_error(tmp_path, opensearch, embeddings, mysql, monkeypatch):
    monkeypatch.setattr("vector_assets.engine.env._passes", {})
    job = TableJob(tmp_path, opensearch, embeddings, "server", mysql)
    job.run()
    opensearch.ask("DELETE", job.index, status=200)
    found = job.look()
    assert not found.passed
    assert found.description.startswith("Could not verify: opensearch: ")
