"""`run`, `replay` and `status`: what they land and what they tell."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vector_assets.engine import env

COMMAND = Path(sys.executable).with_name("vector-assets")
SUMMARY = {"pipeline", "batches", "counts", "lag", "seconds", "rows_per_s"}


def test_a_run_lands_everything_and_a_second_one_nothing(job, cli):
    job.produce(range(120))
    job.produce_raw([b"poison", job_record(7)])
    first = cli("run", "cars", "--json").json
    assert set(first) == SUMMARY
    assert first["batches"]["applied"] >= 2
    assert (first["counts"]["records"], first["counts"]["written"]) == (122, 120)
    assert (first["counts"]["conflicts"], first["counts"]["rejected"]) == (1, 1)
    assert first["lag"] == 0
    assert job.rows() == list(range(120))
    again = cli("run", "cars", "--json").json
    assert again["batches"] == {"applied": 0, "found": 0, "first": None, "last": None}
    shown = cli("run", "cars")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split()[:4] == ["pipeline", "batches", "records", "written"]


def test_the_log_goes_to_stderr_and_leaves_the_result_alone(job, cli):
    job.produce(range(10))
    done = cli("--log-level", "info", "run", "cars", "--json")
    assert done.json["counts"]["written"] == 10
    assert "INFO vector_assets.cli.run: cars: batch 1 applied" in done.err


def job_record(number: int) -> bytes:
    return f"{number}\t2026-03-01 12:00:00\tred\t1\t{{1,2,3}}".encode()


def started(job, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *arguments], env=env.child_environment(**job.environment), cwd=job.folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until(what: str, condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not seen within 30 s"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_following_lands_what_comes_until_it_is_stopped(job, cli, number):
    job.produce(range(30))
    process = started(job, "run", "cars", "--follow", "--json")
    until("the first records", lambda: job.rows() == list(range(30)))
    job.produce(range(30, 60))
    until("the next records", lambda: job.rows() == list(range(60)))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "stopping" in err
    assert json.loads(out)["counts"]["written"] == 60
    job.assert_settled(range(60))


def test_a_second_signal_ends_a_run_at_once_and_the_next_one_carries_on(job, cli):
    job.produce(range(60))
    cli("run", "cars")
    job.produce(range(60, 120))
    with job.postgres.connect(job.database) as connection:
        connection.execute("LOCK TABLE vector_test.car_info IN ACCESS EXCLUSIVE MODE")
        process = started(job, "run", "cars")
        with job.open() as session:
            until("a batch to commit", lambda: session.ledger.unfinished("cars", session.pipeline.target))
        process.send_signal(signal.SIGINT)
        assert "stopping" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGINT
    assert "the next run carries on" in err
    assert "Traceback" not in err
    assert cli("run", "cars").code == 0
    job.assert_settled(range(120))


def test_a_replay_leaves_alone_what_the_target_has_and_brings_back_what_it_lost(job, cli):
    job.produce(range(120))
    cli("run", "cars")
    done = cli("replay", "cars", "--json").json
    assert (done["batches"]["applied"], done["batches"]["found"] >= 2) == (0, True)
    job.execute("DELETE FROM vector_test.car_info; DELETE FROM vector_assets.positions")
    job.execute("DELETE FROM vector_assets.batches")
    job.kafka.delete_topic(job.topic)
    assert cli("replay", "cars", "--partition", "2026-01-01-00:00", "--json").json["batches"]["applied"] == 0
    assert job.rows() == []
    assert cli("replay", "cars", "--json").json["counts"]["written"] == 120
    assert job.rows() == list(range(120))


STATUS_KEYS = {
    "name", "target", "activated", "finished", "position", "frontier", "lag", "lag_error", "waiting", "batches",
    "last_batch", "recent_batches", "totals", "dead_letters", "lease", "gaps", "events",
}  # fmt: skip
BATCH_KEYS = {
    "seq", "kind", "state", "partition", "span", "counts", "commit_id", "run_id", "code_version", "planned", "done",
    "commit_seconds", "note", "lookups",
}  # fmt: skip


def test_the_status_before_and_after_a_run(job, cli):
    job.produce(range(120))
    (before,) = cli("status", "--json").json["pipelines"]
    assert set(before) == STATUS_KEYS
    assert (before["activated"], before["position"], before["lag"]) == (False, {}, 120)
    assert (before["batches"], before["last_batch"], before["lease"]) == ({}, None, None)
    cli("run", "cars")
    (after,) = cli("status", "cars", "--batches", "2", "--json").json["pipelines"]
    assert (after["activated"], after["lag"], after["lag_error"]) == (True, 0, None)
    assert after["batches"] == {"DONE": after["last_batch"]["seq"]}
    assert after["totals"]["written"] == 120
    assert [set(batch) for batch in after["recent_batches"]] == [BATCH_KEYS] * 2
    shown = cli("status", "cars", "--batches", "1").out
    for text in ("position", "frontier", "120 written", "0 open", "free", "last batches of cars"):
        assert text in shown
    assert cli("status").out.splitlines()[1].split()[:2] == ["cars", "0"]


def test_the_status_names_who_holds_the_lease(job, cli):
    with job.open() as session, session.leased():
        (found,) = cli("status", "--json").json["pipelines"]
        assert found["lease"]["alive"] is True
        assert f"pid {found['lease']['pid']}" in cli("status", "cars").out


def test_a_lost_range_is_in_the_status(job, cli):
    job.produce(range(60))
    cli("run", "cars")
    job.produce(range(60, 120))
    job.kafka.delete_records(job.topic, {0: 50, 1: 50})
    done = cli("run", "cars")
    assert done.code == 1
    assert "TRUNCATED" in done.err
    gaps = cli("status", "cars", "--json").json["pipelines"][0]["gaps"]
    assert [(gap["kind"], gap["from"], gap["to"]) for gap in gaps] == [("TRUNCATED", 30, 50)] * 2
    assert "2 open; see --gaps" in cli("status", "cars").out
    shown = cli("status", "--gaps").out
    assert shown.count("TRUNCATED") == 2
    assert shown.split("TRUNCATED")[1].split()[:2] == ["30", "50"]


def test_the_history_of_the_columns_is_in_the_status(job, cli):
    job.produce(range(10))
    cli("run", "cars")
    assert "columns as declared" in cli("status", "cars", "--schema").out
    (version,) = cli("status", "cars", "--schema", "--json").json["pipelines"][0]["schema_versions"]
    assert (version["version"], version["from_batch"], version["changes"]) == (1, 1, [])
    assert version["columns"][0].keys() == {"name", "type"}


def test_a_pipeline_at_its_bound_is_finished_and_following_it_ends(job, cli):
    job.produce(range(20))
    script = job.folder / "pipelines" / "cars.sql"
    bounded = "'earliest-offset', 'scan.bounded.mode' = 'latest-offset')"
    script.write_text(script.read_text().replace("'earliest-offset')", bounded))
    assert cli("run", "cars", "--follow").code == 0
    job.produce(range(20, 40))
    assert cli("run", "cars", "--json").json["batches"]["applied"] == 0
    assert cli("status", "cars", "--json").json["pipelines"][0]["finished"] is True
    assert "0 (finished)" in cli("status", "cars").out
    assert job.rows() == list(range(20))
