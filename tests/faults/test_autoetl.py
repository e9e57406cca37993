"""MySQL to OpenSearch with vectors, killed at every step: the index is the table, and a second run does nothing."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.autoetl_world import CLIENT, PROPERTIES, SETTINGS, call, embedding_index, environment
from tests.faults.apart import Apart
from vector_assets.engine import env

pytestmark = pytest.mark.service

MODES = ["server side, one table", "client side, joined tables"]


class LinkJob:
    """A link over tables of the test's database, run in processes of its own."""

    def __init__(self, folder: Path, mysql: Any, opensearch: Any, embeddings: Any, mode: str) -> None:
        self.folder, self.mysql, self.opensearch, self.embeddings = folder, mysql, opensearch, embeddings
        self.is_joined = "joined" in mode
        self.environment = environment(folder, mysql, opensearch, embeddings)
        is_client = "client" in mode
        self.index = (
            opensearch.create(PROPERTIES, knn=True) if is_client else embedding_index(folder, opensearch, embeddings)
        )
        database = mysql.database
        mysql.sql("CREATE TABLE a (id INT PRIMARY KEY, s TEXT)")
        mysql.sql("CREATE TABLE b (a_id INT UNIQUE, n INT)")
        fields = {"my_text": f"{database}.a.s"} | ({"number": f"{database}.b.n"} if self.is_joined else {})
        keys = [f"{database}.a.id", *([f"{database}.b.a_id"] if self.is_joined else [])]
        limits = "SET 'vector-assets.batch.max-rows' = '40'; SET 'vector-assets.lease.ttl' = '2 s';\n"
        chunks = "SET 'mysql.scan.incremental.snapshot.chunk.size' = '8';\n"
        text = SETTINGS + (CLIENT if is_client else "") + limits + chunks + call(self.index, fields, *keys)
        (folder / "pipelines" / "links.sql").write_text(text)

    def run(self, fail_at: str = "") -> int:
        more = {"VECTOR_ASSETS_FAIL_AT": fail_at} if fail_at else {}
        process = Apart(["run", self.index], {**env.child_environment(), **self.environment, **more}, self.folder)
        output, _ = process.communicate(120)
        assert process.returncode in {0, -signal.SIGKILL}, output
        return int(process.returncode or 0)

    def wanted(self) -> dict[str, tuple[Any, ...]]:
        number = "b.n" if self.is_joined else "NULL"
        rows = self.mysql.sql(f"SELECT a.id, a.s, {number} FROM a LEFT JOIN b ON b.a_id = a.id")
        return {str(row[0]): row for row in rows}

    def assert_settled(self) -> None:
        """Documents are rows, with the vectors of their texts; one more run asks no model and writes nothing."""
        documents = self.opensearch.documents(self.index)
        found = {key: (each["id"], each["my_text"], each.get("number")) for key, each in documents.items()}
        assert found == self.wanted()
        texts = [each["my_text"] for each in documents.values()]
        wanted = self.embeddings.vectors(texts)
        for document, vector in zip(documents.values(), wanted, strict=True):
            assert document["my_vector"] == pytest.approx(vector.tolist(), abs=1e-5)
        before = self.written()
        self.embeddings.reset()
        assert self.run() == 0
        assert self.embeddings.counters()["texts"] == 0
        assert self.written() == before

    def written(self) -> list[tuple[str, int]]:
        """What changes with every write: the sequence numbers of the documents."""
        body = {"size": 1000, "seq_no_primary_term": True, "_source": False}
        hits = self.opensearch.ask("POST", f"{self.index}/_search", body, status=200)["hits"]["hits"]
        return sorted((hit["_id"], hit["_seq_no"]) for hit in hits)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_every_step_the_index_is_the_table(tmp_path, monkeypatch, mysql, opensearch, embeddings, mode):
    job = LinkJob(tmp_path, mysql, opensearch, embeddings, mode)
    mysql.sql("INSERT INTO a VALUES (%s, %s)", *[(n, f"text {n}") for n in range(20)])
    mysql.sql("INSERT INTO b VALUES (%s, %s)", *[(n, n) for n in range(0, 20, 2)])
    for number, step in enumerate(env.STEPS):
        # the first ones are chunks of the snapshot, the later ones changes
        assert job.run(f"{step}:1") == -signal.SIGKILL
        mysql.sql(f"UPDATE a SET s = 'changed by {step}' WHERE id = {number}")
        mysql.sql(f"UPDATE b SET n = n + 100 WHERE a_id = {number}")
        mysql.sql(f"UPDATE a SET id = id + 100 WHERE id = {number + 8}")
        mysql.sql(f"DELETE FROM a WHERE id = {number + 101}")
        mysql.sql(f"INSERT INTO a VALUES ({number + 40}, 'new by {step}')")
    assert job.run() == 0
    job.assert_settled()
