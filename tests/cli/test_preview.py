"""`preview` shows what would become of live records, and leaves no trace."""

from pathlib import Path

from tests.faults.car import record
from vector_assets.engine import env

BAD = b"12x\t2026-03-01 12:00:00\tred\t1\t{1,2,3}"
SHORT = b"900\t2026-03-01 12:00:00\tred\t1\t{1,2}"


def test_rows_and_rejects_are_shown_as_a_run_would_make_them_and_nothing_is_written(job, cli):
    job.produce_raw([record(1), BAD, SHORT, record(2)])
    found = cli("preview", "cars", "--json").json
    assert [row["row"]["id"] for row in found["rows"]] == [1, 2]
    assert found["rows"][0]["row"]["feature"] == "{1.5,1,2}"
    assert [(each["offset"], each["stage"]) for each in found["rejected"]] == [(1, "decode"), (2, "write")]
    assert "2 dimensions, wanted 3" in found["rejected"][1]["error"]
    counts = found["counts"]
    assert (counts["records"], counts["rejected"], counts["refused"], counts["handed_over"]) == (4, 1, 1, 2)
    assert found["doubt"] is None
    assert job.rows() == []
    assert not Path(env.ledger_location()).exists()
    assert not env.archive_dir().exists()
    with job.postgres.connect(job.database) as connection:
        assert connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'vector_assets'").fetchall() == []
    (outcome,) = job.run()
    assert (outcome.batch.counts.written, outcome.batch.counts.rejected, outcome.batch.counts.refused) == (2, 1, 1)


def test_it_begins_where_the_pipeline_stands_or_where_it_is_told(job, cli):
    job.produce(range(20))
    job.run()
    job.produce([100, 101])
    ids = lambda *options: sorted(row["row"]["id"] for row in cli("preview", "cars", "--json", *options).json["rows"])  # noqa: E731
    assert ids() == [100, 101]
    assert len(ids("--from", "earliest", "--records", "6")) == 6
    assert ids("--from", "1:9") == [19, 101]
    assert ids("--from", "latest", "--wait", "0") == []
    assert "no records there now" in cli("preview", "cars", "--from", "latest", "--wait", "0").out


def test_it_waits_for_records_that_arrive(job, cli):
    import threading

    job.produce(range(4))
    later = threading.Timer(1.0, lambda: job.produce([50]))
    later.start()
    found = cli("preview", "cars", "--from", "latest", "--records", "1", "--json").json
    later.join()
    assert [row["row"]["id"] for row in found["rows"]] == [50]


def test_it_works_while_a_run_holds_the_lease(job, cli):
    job.produce(range(4))
    with job.open() as session, session.leased():
        assert cli("preview", "cars", "--json").json["counts"]["records"] == 4


def test_what_the_sink_would_compact_and_delete_is_shown_so(job, cli):
    job.write(conflictmode="upsert")
    job.produce_raw([record(1, 5), record(1, 6), record(2)])
    found = cli("preview", "cars", "--json").json
    assert [(row["row"]["id"], row["row"]["price"]) for row in found["rows"]] == [(1, 6), (2, 2)]
    assert found["counts"]["compacted"] == 1


def test_without_the_target_rows_are_shown_all_the_same(job, cli):
    job.produce(range(2))
    job.execute("DROP TABLE vector_test.car_info")
    done = cli("preview", "cars")
    assert done.code == 0
    assert "{0.5,1,2}" in done.out
    assert "warning: the target was not asked" in done.err


def test_a_person_sees_rows_dead_letters_and_counts(job, cli):
    job.produce_raw([record(1), BAD])
    out = cli("preview", "cars").out
    for text in (
        "rows the target would get",
        "dead letters",
        f"{job.topic}/0:1",
        "handed to the target",
        "nothing was written",
    ):
        assert text in out


def test_a_place_that_is_none_is_refused(job, cli):
    done = cli("preview", "cars", "--from", "yesterday")
    assert done.code == 1
    assert "a place is 'earliest'" in done.err
