"""Links in both embedding modes, over joined tables, and asked for in a MySQL client: taken up without a restart."""

import json
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from tests.autoetl_world import CLIENT, PROPERTIES, SETTINGS, call, embedding_index, environment, run
from vector_assets.cli import app
from vector_assets.defs import probe
from vector_assets.defs.folder import load
from vector_assets.engine import env
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.links import is_paused

pytestmark = pytest.mark.service

REQUESTS = "SET 'autoetl.requests' = 'true';\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mysql, opensearch, embeddings) -> Path:
    for name, value in environment(tmp_path, mysql, opensearch, embeddings).items():
        monkeypatch.setenv(name, value)
    mysql.sql("CREATE TABLE a (id INT PRIMARY KEY, s TEXT)")
    mysql.sql("CREATE TABLE b (a_id INT NOT NULL UNIQUE, n INT)")
    mysql.sql("INSERT INTO a VALUES (1, 'a cat sleeps'), (2, 'rates rose'), (3, NULL)")
    mysql.sql("INSERT INTO b VALUES (1, 10), (3, 30)")
    return tmp_path


def test_both_sides_give_the_same_documents_and_vectors(place, mysql, opensearch, embeddings):
    server = embedding_index(place, opensearch, embeddings)
    client = opensearch.create(PROPERTIES, knn=True)
    d = mysql.database
    fields, keys = {"my_text": f"{d}.a.s", "number": f"{d}.b.n"}, (f"{d}.a.id", f"{d}.b.a_id")
    (place / "pipelines" / "server.sql").write_text(SETTINGS + call(server, fields, *keys))
    (place / "pipelines" / "client.sql").write_text(SETTINGS + CLIENT + call(client, fields, *keys))
    for statement in (
        "UPDATE b SET a_id = 2 WHERE a_id = 1",
        "UPDATE a SET s = 'the dog barks' WHERE id = 2",
        "UPDATE a SET id = 4 WHERE id = 1",
        "DELETE FROM a WHERE id = 3",
    ):
        for name in (server, client):
            run("run", name)
        found = [opensearch.documents(name) for name in (server, client)]
        vectors = [{key: each.pop("my_vector", None) for key, each in side.items()} for side in found]
        assert found[0] == found[1]
        assert vectors[0].keys() == vectors[1].keys()
        for key, vector in vectors[0].items():
            assert vectors[1][key] == (vector if vector is None else pytest.approx(vector, abs=1e-5))
        rows = mysql.sql("SELECT a.id, a.s, b.n FROM a LEFT JOIN b ON b.a_id = a.id")
        assert {(each["id"], each.get("my_text"), each.get("number")) for each in found[0].values()} == set(rows)
        mysql.sql(statement)
    for name in (server, client):
        run("run", name)
        run("reconcile", name)


def test_a_text_that_is_empty_has_no_vector_on_either_side(place, mysql, opensearch, embeddings):
    server = embedding_index(place, opensearch, embeddings)
    client = opensearch.create(PROPERTIES, knn=True)
    link = {"my_text": f"{mysql.database}.a.s"}, f"{mysql.database}.a.id"
    (place / "pipelines" / "server.sql").write_text(SETTINGS + call(server, *link))
    (place / "pipelines" / "client.sql").write_text(SETTINGS + CLIENT + call(client, *link))
    texts = {1: "a cat sleeps", 2: "rates rose", 3: None}
    for changes in (
        {4: "", 5: " \t\u00a0\n"},
        {1: "", 2: None, 3: "", 4: "the dog barks", 5: ""},
        {1: "a cat sleeps", 2: "", 3: None, 4: " ", 5: "rates rose"},
    ):
        for key, text in changes.items():
            mysql.sql("REPLACE INTO a VALUES (%s, %s)", (key, text))
        texts |= changes
        for name in (server, client):
            run("run", name)
            found = {each["id"]: each for each in opensearch.documents(name).values()}
            assert {key: each.get("my_text") for key, each in found.items()} == texts
            vectors = {key for key, each in found.items() if each.get("my_vector") is not None}
            assert vectors == {key for key, text in texts.items() if text and text.strip()}
    for name in (server, client):
        assert json.loads(run("dead-letters", "list", name, "--json"))["dead_letters"] == []
        run("reconcile", name)


@pytest.mark.parametrize("is_joined", [False, True], ids=["alone", "joined"])
def test_a_text_that_the_model_refuses_leaves_the_same_on_either_side(place, mysql, opensearch, embeddings, is_joined):
    server = embedding_index(place, opensearch, embeddings)
    client = opensearch.create(PROPERTIES, knn=True)
    d = mysql.database
    link = ({"my_text": f"{d}.a.s"}, f"{d}.a.id", *([f"{d}.b.a_id"] if is_joined else []))
    (place / "pipelines" / "server.sql").write_text(SETTINGS + call(server, *link))
    (place / "pipelines" / "client.sql").write_text(SETTINGS + CLIENT + call(client, *link))
    for name in (server, client):
        run("run", name)
    embeddings.fault(text="poison", status=400, message="not allowed", times=None)
    try:
        mysql.sql("UPDATE a SET s = 'poison' WHERE id = 2")
        mysql.sql("INSERT INTO a VALUES (4, 'poison'), (5, 'the dog barks')")
        for name in (server, client):
            run("run", name)
            assert len(json.loads(run("dead-letters", "list", name, "--json"))["dead_letters"]) == 2
    finally:
        embeddings.reset()
    for name in (server, client):
        found = {each["id"]: each.get("my_text") for each in opensearch.documents(name).values()}
        # the model would take it by now, but nobody has asked it
        assert found == {1: "a cat sleeps", 3: None, 5: "the dog barks"} | ({2: "rates rose"} if is_joined else {})
        run("reconcile", name)
    mysql.sql("UPDATE a SET s = 'well' WHERE id = 2")
    for name in (server, client):
        run("run", name)
        run("reconcile", name)


def test_of_several_texts_an_empty_one_costs_the_others_no_vector(place, mysql, opensearch, embeddings):
    index = embedding_index(place, opensearch, embeddings)
    whole = opensearch.ask("GET", f"_ingest/pipeline/pipeline_{index}")[f"pipeline_{index}"]
    whole["processors"][0]["text_embedding"]["field_map"]["title"] = "title_vector"
    opensearch.ask("PUT", f"_ingest/pipeline/pipeline_{index}", whole, status=200)
    more = {"title": {"type": "text"}, "title_vector": PROPERTIES["my_vector"]}
    opensearch.ask("PUT", f"{index}/_mapping", {"properties": more}, status=200)
    mysql.sql("ALTER TABLE a ADD COLUMN title TEXT")
    mysql.sql("REPLACE INTO a VALUES (1, 'a cat sleeps', ''), (2, '', 'rates'), (3, NULL, ' '), (4, 'dog', 'dog')")
    d = mysql.database
    link = call(index, {"my_text": f"{d}.a.s", "title": f"{d}.a.title"}, f"{d}.a.id")
    (place / "pipelines" / "server.sql").write_text(SETTINGS + link)
    run("run", index)
    found = [
        [each.get("my_text"), each.get("title"), "my_vector" in each, "title_vector" in each]
        for _, each in sorted(opensearch.documents(index).items())
    ]
    assert found == [
        ["a cat sleeps", None, True, False],
        [None, "rates", False, True],
        [None, " ", False, False],
        ["dog", "dog", True, True],
    ]
    assert json.loads(run("dead-letters", "list", index, "--json"))["dead_letters"] == []
    run("reconcile", index)


def test_vectors_that_are_brought_along_are_not_made_again_by_the_index(place, mysql, opensearch, embeddings):
    index, d = embedding_index(place, opensearch, embeddings), mysql.database
    link = call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id")
    (place / "pipelines" / "client.sql").write_text(SETTINGS + CLIENT + link)
    before = embeddings.counters()["texts"]
    assert "do not pass the ingest pipeline" in run("plan", index)
    run("run", index)
    assert embeddings.counters()["texts"] - before == 2
    assert {key for key, each in opensearch.documents(index).items() if each["my_vector"]} == {"1", "2"}
    run("reconcile", index)
    # a pipeline that does more is not left out
    whole = opensearch.ask("GET", f"_ingest/pipeline/pipeline_{index}")[f"pipeline_{index}"]
    whole["processors"].append({"set": {"field": "number", "value": 7}})
    opensearch.ask("PUT", f"_ingest/pipeline/pipeline_{index}", whole, status=200)
    mysql.sql("UPDATE a SET s = 'the dog barks' WHERE id = 2")
    run("run", index)
    assert opensearch.documents(index)["2"]["number"] == 7


def links() -> dict[str, dict[str, str]]:
    return {each["link"]: each for each in json.loads(run("autoetl", "list", "--json"))["links"]}


def ticked(
    folder: Path, instance: dg.DagsterInstance, definitions: dg.Definitions, *, is_failing: bool = False
) -> list[str]:
    """One look of the sensor, whose runs are run; the links that were."""
    job = definitions.resolve_job_def("autoetl_requests")
    (sensor,) = [each for each in definitions.sensors or () if each.name == "autoetl_requests_sensor"]
    with dg.build_sensor_context(instance=instance) as context:
        found = sensor(context)
    requests = found.run_requests or []
    for request in requests:
        done = job.execute_in_process(
            run_config=request.run_config, tags=request.tags, instance=instance, raise_on_error=False
        )
        assert done.success or is_failing
    return [request.tags["vector_assets/pipeline"] for request in requests]


def test_a_client_s_call_is_taken_up_paused_resumed_and_dropped_without_a_restart(place, mysql, opensearch, embeddings):
    index, d = opensearch.create(PROPERTIES, knn=True), mysql.database
    (place / "pipelines" / "requests.sql").write_text(SETTINGS + CLIENT + REQUESTS)
    run("autoetl", "install")
    definitions = load(place / "pipelines")
    wanted = call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id").rstrip(";\n")
    try:
        with dg.DagsterInstance.ephemeral(tempdir=str(place)) as instance:
            assert ticked(place, instance, definitions) == []
            mysql.sql(wanted)
            assert ticked(place, instance, definitions) == [index]
            assert {key: each["my_text"] for key, each in opensearch.documents(index).items()} == {
                "1": "a cat sleeps", "2": "rates rose", "3": None,
            }  # fmt: skip
            assert ticked(place, instance, definitions) == []
            ((_, link, state, status, *_),) = mysql.sql("CALL dbms_etl.show_sync_link()")
            assert (link, state, status) == (index, "RUNNING", None)
            assert instance.get_latest_materialization_event(dg.AssetKey([index])) is not None
            run("autoetl", "pause", index)
            mysql.sql("DELETE FROM a WHERE id = 3")
            assert ticked(place, instance, definitions) == []
            assert links()[index]["state"] == "PAUSED"
            mysql.sql(f"CALL dbms_etl.resume_sync_link('{index}')")
            assert ticked(place, instance, definitions) == [index]
            assert set(opensearch.documents(index)) == {"1", "2"}
            run("autoetl", "drop", index, "--yes")
            mysql.sql("UPDATE a SET s = 'later' WHERE id = 1")
            assert ticked(place, instance, definitions) == []
            assert links() == {}
            # under the same name another mapping: all documents are written anew
            more = {"my_text": f"{d}.a.s", "number": f"{d}.b.n"}
            mysql.sql(call(index, more, f"{d}.a.id", f"{d}.b.a_id").rstrip(";\n"))
            assert ticked(place, instance, definitions) == [index]
            found = {key: (each["my_text"], each["number"]) for key, each in opensearch.documents(index).items()}
            assert found == {"1": ("later", 10), "2": ("rates rose", None)}
            # after a reload it is an asset like any other
            keys = load(place / "pipelines").resolve_asset_graph().get_all_asset_keys()
            assert dg.AssetKey([index]) in keys
    finally:
        probe.forget()
        mysql.sql("DROP DATABASE dbms_etl")


def status_of(mysql, index: str) -> str | None:
    return next(row[3] for row in mysql.sql("CALL dbms_etl.show_sync_link()") if row[1] == index)


def until(what: str, condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not seen within 60 s"
        time.sleep(0.05)


def test_who_follows_a_link_heeds_its_client_without_a_sensor(place, mysql, opensearch):
    index, d = opensearch.create(PROPERTIES, knn=True), mysql.database
    (place / "pipelines" / "requests.sql").write_text(SETTINGS + REQUESTS)
    run("autoetl", "install")
    wanted = call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id").rstrip(";\n")
    try:
        mysql.sql(wanted)
        assert links()[index]["state"] == "RUNNING"
        process = subprocess.Popen(
            [Path(sys.executable).with_name("vector-assets"), "run", index, "--follow"], text=True, cwd=place,
            env=env.child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        until("documents", lambda: set(opensearch.documents(index)) == {"1", "2", "3"})
        ledger = Ledger(env.ledger_location())
        mysql.sql(f"CALL dbms_etl.pause_sync_link('{index}')")
        until("the pause", lambda: is_paused(ledger, index))
        mysql.sql("INSERT INTO a VALUES (4, 'late')")
        mysql.sql(f"CALL dbms_etl.resume_sync_link('{index}')")
        until("the row", lambda: "4" in opensearch.documents(index))
        mysql.sql(f"CALL dbms_etl.drop_sync_link('{index}')")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"link {index} was dropped by a MySQL client" in err
        ledger.close()
        # the same CALL with another mapping goes on as another link
        mysql.sql(call(index, {"my_text": f"{d}.a.s", "number": f"{d}.b.n"}, f"{d}.a.id", f"{d}.b.a_id").rstrip(";\n"))
        assert links()[index]["state"] == "RUNNING"
        run("run", index)
        assert {each["number"] for each in opensearch.documents(index).values()} == {10, 30, None}
    finally:
        process.kill()
        mysql.sql("DROP DATABASE dbms_etl")


def test_who_runs_a_link_tells_its_client_how_it_went(place, mysql, opensearch):
    index, d = opensearch.name(), mysql.database
    (place / "pipelines" / "requests.sql").write_text(SETTINGS + REQUESTS)
    run("autoetl", "install")
    try:
        mysql.sql(call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id").rstrip(";\n"))
        assert links()[index]["state"] == "RUNNING"
        refused = CliRunner().invoke(app, ["run", index])
        assert refused.exit_code == 1
        assert status_of(mysql, index).startswith(f"failed: opensearch: {index} does not exist")
        body = {"settings": {"index.knn": True}, "mappings": {"properties": PROPERTIES}}
        opensearch.ask("PUT", index, body, status=200)
        run("run", index)
        assert status_of(mysql, index) is None
        assert len(opensearch.documents(index)) == 3
        other = opensearch.name()
        mysql.sql(call(other, {"number": f"{d}.b.n"}, f"{d}.b.a_id").rstrip(";\n"))
        mysql.sql("ALTER TABLE b DROP INDEX a_id")
        assert links()[other]["state"] == "WRONG"
        assert f"{d}.b has no unique key on a_id" in status_of(mysql, other)
    finally:
        mysql.sql("DROP DATABASE dbms_etl")


def test_a_request_that_cannot_be_made_is_told_to_the_client_and_hurts_nobody(place, mysql, opensearch):
    index, d = opensearch.create(PROPERTIES, knn=True), mysql.database
    (place / "pipelines" / "requests.sql").write_text(SETTINGS + REQUESTS)
    run("autoetl", "install")
    try:
        mysql.sql(call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id").rstrip(";\n"))
        mysql.sql(call("no_such_index", {"number": f"{d}.b.n"}, f"{d}.b.a_id").rstrip(";\n"))
        taken = opensearch.create(PROPERTIES, knn=True)
        (place / "pipelines" / "links.sql").write_text(SETTINGS + call(taken, {"number": f"{d}.b.n"}, f"{d}.b.a_id"))
        mysql.sql(call(taken, {"number": f"{d}.b.n"}, f"{d}.b.a_id").rstrip(";\n"))
        mysql.sql("ALTER TABLE a DROP PRIMARY KEY")
        definitions = load(place / "pipelines")
        with dg.DagsterInstance.ephemeral(tempdir=str(place)) as instance:
            assert ticked(place, instance, definitions, is_failing=True) == ["no_such_index"]
        first, second, third = (row[3] for row in mysql.sql("CALL dbms_etl.show_sync_link()"))
        assert f"{d}.a has no unique key on id" in first
        assert "opensearch: no_such_index does not exist" in second
        assert f"pipeline name {taken} is taken by" in third
        assert "links.sql" in third
        load(place / "pipelines")
        listed = json.loads(run("autoetl", "list", "--json"))["links"]
        assert [each["state"] for each in listed if each["link"] == index] == ["WRONG"]
        of_file, of_client = [each for each in listed if each["link"] == taken]
        assert (of_file["state"], of_client["state"]) == ("RUNNING", "WRONG")
        assert "its name is taken by" in of_client["status"]
        assert "links.sql" in of_client["status"]
    finally:
        mysql.sql("DROP DATABASE dbms_etl")


def test_the_index_of_a_link_is_made_by_its_script(place, mysql, opensearch, embeddings):
    index, d = opensearch.name(), mysql.database
    script = place / "pipelines" / "links.sql"
    script.write_text(SETTINGS + CLIENT + call(index, {"my_text": f"{d}.a.s", "number": f"{d}.a.id"}, f"{d}.a.id"))
    assert "my_vector knn_vector" in run("target", "create", str(script))
    run("run", index)
    vector = opensearch.ask("GET", index)[index]["mappings"]["properties"]["my_vector"]
    assert (vector["type"], vector["dimension"]) == ("knn_vector", 1024)
    assert {key for key, each in opensearch.documents(index).items() if each["my_vector"]} == {"1", "2"}


def test_a_link_in_a_file_is_paused_and_resumed_but_dropped_in_the_file(place, mysql, opensearch):
    index, d = opensearch.create(PROPERTIES, knn=True), mysql.database
    (place / "pipelines" / "links.sql").write_text(SETTINGS + call(index, {"my_text": f"{d}.a.s"}, f"{d}.a.id"))
    assert links()[index]["state"] == "RUNNING"
    run("autoetl", "pause", index)
    assert links()[index]["state"] == "PAUSED"
    refused = CliRunner().invoke(app, ["run", index])
    assert refused.exit_code == 1
    assert f"link {index} is paused: vector-assets autoetl resume {index}" in refused.stderr
    assert opensearch.documents(index) == {}
    run("autoetl", "resume", index)
    run("run", index)
    assert set(opensearch.documents(index)) == {"1", "2", "3"}
    assert links()[index]["state"] == "RUNNING"
    refused = CliRunner().invoke(app, ["autoetl", "drop", index, "--yes"])
    assert refused.exit_code == 1
    assert "take its CALL out of the file" in refused.stderr
