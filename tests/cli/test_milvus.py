"""The commands over a Milvus target: what they show of a collection, and a lost ledger brought back."""

import random

import pytest

from tests.faults.changes import ChangeJob, Changes, MilvusPeople

pytestmark = pytest.mark.service


@pytest.fixture
def people(tmp_path, kafka, milvus, monkeypatch):
    """The pipeline `people` with changes landed, and their model."""
    job, changes = (
        ChangeJob(tmp_path, kafka, MilvusPeople(milvus), "debezium-json"),
        Changes(random.Random(1), "debezium-json"),
    )
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    job.produce(changes.records(300))
    job.run()
    return job, changes


def test_every_command_that_looks_at_a_target_looks_at_a_collection(people, cli):
    _, changes = people
    findings = cli("doctor", "people", "--json").json["findings"]
    said = "\n".join(finding["what"] for finding in findings)
    for text in ("Milvus answers at", "has an index: FLAT by L2", f"has {len(changes.rows):,} rows", "fits (key id"):
        assert text in said
    assert [finding for finding in findings if finding["level"] == "problem"] == []
    recall = cli("search", "people", "--check", "--samples", "5", "--json").json["recall"]
    assert (recall["samples"], recall["mean"]) == (5, 1.0)
    wanted = next(iter(changes.wanted().items()))
    found = cli("search", "people", "--vector", str(wanted[1][2]), "-k", "1", "--json").json
    assert found["rows"][0]["id"] == wanted[0]
    assert cli("reconcile", "people").code == 0
    assert cli("reconcile", "people", "--sample", "20").code == 0
    assert str(wanted[0]) in cli("explain", "people", "--key", f'{{"id": {wanted[0]}}}').out


def test_a_preview_tells_what_a_collection_would_refuse(people, cli):
    job, changes = people
    bad = {"id": 9000, "name": "far longer than twenty characters", "age": 1, "vec": [1.0, 2.0, 3.0]}
    job.produce(
        {0: [record for row in (bad, bad | {"id": 9001, "name": "a"}) for record in changes.encode((None, row))]}
    )
    script = job.folder / "pipelines" / "people.sql"
    script.write_text(script.read_text().replace("VARCHAR(20)", "STRING"))
    shown = cli("preview", "people", "--json").json
    (refused,) = shown["rejected"]
    assert "name" in refused["error"]
    assert [row["row"]["id"] for row in shown["rows"]] == [9001]
    assert (shown["counts"]["refused"], shown["doubt"]) == (1, None)
    assert not {9000, 9001} & set(job.people.rows())


def test_a_lost_ledger_is_rebuilt_by_the_command(people, cli):
    job, changes = people
    for file in (job.folder / "home").glob("ledger.db*"):
        file.unlink()
    job.produce(changes.records(50))
    refused = cli("run", "people")
    assert refused.code == 1
    assert "vector-assets ledger rebuild people" in refused.err
    assert cli("ledger", "rebuild", "people", "--yes").code == 0
    assert cli("ledger", "check", "--deep").code == 0
    assert cli("run", "people").code == 0
    job.assert_settled(changes.wanted())
