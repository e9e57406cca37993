"""`doctor` finds what is wrong, says what to do, and changes nothing."""

from pathlib import Path

import pytest

from vector_assets.engine import env


def look(cli, *arguments):
    """Findings by level; the exit code says whether there is a problem."""
    import json

    done = cli("doctor", *arguments, "--json")
    found = json.loads(done.out)
    assert done.code == (1 if found["problems"] else 0), done.err
    return found["findings"]


def of(findings, level):
    return [finding["what"] for finding in findings if finding["level"] == level]


def test_a_pipeline_that_is_well_has_no_problem_and_nothing_is_made(job, cli):
    job.produce(range(4))
    findings = look(cli, "cars")
    assert of(findings, "problem") == []
    well = "\n".join(of(findings, "ok"))
    for text in (
        "vector-assets ", "pyarrow ", "GiB free", "not there yet", "kafka is down", "Kafka 4.", "2 partitions, 1 copy",
        f"topic {job.topic} keeps records of", "the first run would read 4 records", "PostgreSQL answers",
        "the database's clock agrees", "extension vector", "may read and write", "will be made by the first run",
        "fits (key id",
    ):  # fmt: skip
        assert text in well
    assert any("has no vector index" in what for what in of(findings, "warning"))
    assert not Path(env.ledger_location()).exists()
    with job.postgres.connect(job.database) as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'vector_assets'").fetchall() == []


def test_after_a_run_the_ledger_the_backlog_and_the_letters_are_looked_at(job, cli):
    job.produce(range(4))
    job.produce_raw([b"bad"])
    job.run()
    job.produce([9])
    findings = look(cli, "cars")
    assert of(findings, "problem") == []
    assert any("whole" in what for what in of(findings, "ok"))
    assert "1 records behind" in of(findings, "ok")
    assert "1 open dead letters" in of(findings, "warning")
    shown = cli("doctor").out
    assert "-> `vector-assets dead-letters list cars`" in shown
    assert "0 problems" in shown


@pytest.mark.parametrize(
    ("change", "wanted", "remedy"),
    [
        (lambda job: job.write(topic="no_such_topic"), "does not exist", ""),
        (lambda job: job.write(brokers="127.0.0.1:9"), "127.0.0.1:9", "services up"),
        (lambda job: job.write(url="jdbc:postgresql://127.0.0.1:9/db"), "127.0.0.1:9", "services up"),
        (lambda job: job.write(user="nobody"), "authentication failed", "credentials"),
        (lambda job: job.execute("DROP TABLE vector_test.car_info"), "does not exist", "target create"),
        (
            lambda job: job.execute("ALTER TABLE vector_test.car_info DROP COLUMN feature"),
            "feature does not exist",
            "mend",
        ),
        (lambda job: (job.folder / "pipelines" / "b.sql").write_text("SELECT 1"), "b.sql:1:1", "mend the script"),
    ],
    ids=["no topic", "no broker", "no database", "wrong user", "no table", "no column", "wrong script"],
)
def test_what_is_wrong_is_a_problem_with_a_remedy(job, cli, change, wanted, remedy):
    change(job)
    problems = [finding for finding in look(cli) if finding["level"] == "problem"]
    assert any(wanted in finding["what"] for finding in problems), problems
    assert any(remedy in (finding["remedy"] or "") for finding in problems), problems
    assert job.postgres.password not in str(problems)


def test_lost_records_a_replaced_target_and_a_damaged_ledger_are_problems(job, cli):
    job.produce(range(20))
    job.run()
    job.produce(range(20, 40))
    job.kafka.delete_records(job.topic, {0: 15})
    job.execute("ALTER TABLE vector_test.car_info RENAME TO old")
    job.execute("CREATE TABLE vector_test.car_info (LIKE vector_test.old INCLUDING ALL)")
    problems = "\n".join(of(look(cli, "cars"), "problem"))
    assert "TRUNCATED" in problems
    assert "TARGET_REPLACED" in problems
    ledger = Path(env.ledger_location())
    for companion in ledger.parent.glob("ledger.db-*"):
        companion.unlink()
    ledger.write_bytes(b"not a database" * 100)
    assert any("is damaged" in what for what in of(look(cli, "cars"), "problem"))


def test_unread_records_that_the_topic_is_about_to_forget_are_a_warning(job, cli):
    job.produce(range(20))
    job.run()
    job.produce(range(20, 40))
    job.kafka.delete_records(job.topic, {0: 10, 1: 10})
    assert any("it has forgotten older ones" in what for what in of(look(cli, "cars"), "warning"))


def test_a_missing_archive_file_and_a_batch_left_unfinished_are_found(job, cli):
    job.produce(range(4))
    code, _ = job.run_apart("staged:1")
    assert code != 0
    findings = look(cli, "cars")
    assert any("unfinished batches: 1 STAGED" in what for what in of(findings, "warning"))
    assert any("which is gone" in what for what in of(findings, "warning"))
    for file in env.archive_dir().rglob("*.parquet"):
        file.unlink()
    assert any("is missing or not as long" in what for what in of(look(cli, "cars"), "problem"))


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_problems(cli, home, monkeypatch):
    from vector_assets.engine import health

    monkeypatch.setattr(health, "_SCARCE_BYTES", 1 << 60)
    assert sum("GiB free" in what for what in of(look(cli), "problem")) == 3
    monkeypatch.setenv("DAGSTER_HOME", "/proc/nothing")
    assert sum("DAGSTER_HOME /proc/nothing" in what for what in of(look(cli), "problem")) == 1


def test_a_ledger_in_postgresql_is_looked_at_by_its_url(job, cli, monkeypatch):
    job.produce(range(4))
    place = f"{job.postgres.host}:{job.postgres.port}/{job.database}"
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", f"postgresql://{job.postgres.user}:{job.postgres.password}@{place}")
    assert any("in PostgreSQL: not there yet" in what for what in of(look(cli, "cars"), "ok"))
    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", "postgresql://me:sesame@127.0.0.1:9/ledger")
    problems = of(look(cli, "cars"), "problem")
    assert any("127.0.0.1:9" in what for what in problems)
    assert "sesame" not in str(problems)
