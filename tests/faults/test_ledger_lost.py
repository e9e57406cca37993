"""A ledger that is deleted, or restored from an older copy, is brought back from target and archive."""

import shutil
import signal

import psycopg
import pytest

from tests.faults.car import CarJob, record
from vector_assets.engine import operate
from vector_assets.engine.books_check import check_books
from vector_assets.engine.core import BatchKind, State
from vector_assets.engine.errors import ExpiredError, FatalError, LedgerLostError
from vector_assets.engine.rebuild import plan_rebuild
from vector_assets.engine.rebuild_write import rebuild
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service
TOO_LONG = b"900\t2026-03-01 12:00:00\tultramarine blue\t1\t{1,2,3}"


@pytest.fixture
def job(tmp_path, kafka, postgres):
    return CarJob(tmp_path, kafka, postgres)


def ledger_of(job):
    return job.folder / "home" / "ledger.db"


def lose(job):
    """Delete the ledger, its log included."""
    for file in ledger_of(job).parent.glob("ledger.db*"):
        file.unlink()


def copy_of(job):
    """Yesterday's copy: every file of the ledger as it is now."""
    kept = job.folder / "yesterday"
    kept.mkdir()
    for file in ledger_of(job).parent.glob("ledger.db*"):
        shutil.copy(file, kept)
    return kept


def restore(job, kept):
    lose(job)
    for file in kept.iterdir():
        shutil.copy(file, ledger_of(job).parent)


def books(job):
    """What the ledger knows that a rebuild must bring back."""
    with job.open() as session:
        ledger = session.ledger
        where = (session.pipeline.name, session.pipeline.target)
        batches = [
            (b.seq, b.kind, b.state, b.span, b.first_splits, b.hour, b.archive, b.sidecar, b.code_version,
             b.schema_version, b.commit_id, b.newest_ms, b.run_id, {**b.counts.to_dict(), "bytes": 0})
            for b in ledger.batches(*where)
        ]  # fmt: skip
        letters = [
            (x.seq, x.ordinal, x.split, x.offset, x.origin_seq, x.attempt, x.timestamp_ms, x.stage, x.error, x.state,
             x.replayed_by)
            for x in ledger.dead_letters.listed(state=None)
        ]  # fmt: skip
        return batches, letters, ledger.position(*where), ledger.frozen_start(*where), ledger.incarnation(*where)


def rebuilt(job):
    with job.open() as session:
        return rebuild(session)


def assert_refused(job):
    with pytest.raises(
        LedgerLostError, match=r"holds batches up to \d+ .* ledger knows .* `vector-assets ledger rebuild"
    ):
        job.run()


def test_a_deleted_ledger_is_refused_and_rebuilt_as_it_was(job):
    job.produce(range(120))
    job.produce_raw([b"cut", TOO_LONG])
    job.run()
    before = books(job)
    lose(job)
    job.produce(range(120, 150))
    assert_refused(job)
    assert job.rows() == list(range(120))
    with job.open() as session:
        assert not plan_rebuild(session).is_empty
        assert session.ledger.batches("cars") == []  # a plan writes nothing
    done = rebuilt(job)
    assert (done.letters, done.notes) == (2, ())
    assert books(job) == before
    with job.open() as session:
        assert all(x.code_version.endswith(" rebuilt") for x in session.ledger.dead_letters.listed())
        assert plan_rebuild(session).is_empty
    job.run()
    job.assert_settled(range(150))


def test_a_ledger_restored_from_yesterdays_copy_is_brought_forward(job):
    job.produce(range(100))
    job.run()
    kept = copy_of(job)
    job.produce(range(100, 200))
    job.produce_raw([b"cut"])
    job.run()
    before = books(job)
    restore(job, kept)
    job.produce(range(200, 220))
    assert_refused(job)
    done = rebuilt(job)
    assert done.plan.kept > 0
    assert books(job) == before
    job.run()
    job.assert_settled(range(220))


@pytest.mark.parametrize("step", ["planned:2", "archived:2", "sealed:3", "staged:2", "committing:2", "committed:2"])
def test_a_ledger_lost_in_a_crash_is_rebuilt_and_the_batches_in_flight_are_finished(job, step):
    job.produce(range(200))
    job.produce_raw([b"cut"])
    code, output = job.run_apart(step)
    assert code == -signal.SIGKILL, output
    lose(job)
    if job.rows():
        assert_refused(job)
    rebuilt(job)
    job.run()
    job.assert_settled(range(200))
    with job.open() as session:
        assert [letter.offset for letter in session.ledger.dead_letters.listed()] == [100]


@pytest.mark.parametrize("step", ["read:1", "sealed:1", "committed:1"])
def test_a_copy_taken_in_mid_batch_is_brought_forward(job, step):
    job.produce(range(60))
    code, output = job.run_apart(step)
    assert code == -signal.SIGKILL, output
    kept = copy_of(job)
    job.produce(range(60, 200))
    job.run()
    restore(job, kept)
    job.produce(range(200, 230))
    assert_refused(job)
    rebuilt(job)
    job.run()
    job.assert_settled(range(230))


def test_replays_of_dead_letters_and_resets_are_known_again(job):
    job.produce(range(60))
    job.produce_raw([TOO_LONG, b"cut"])
    job.run()
    job.execute("ALTER TABLE vector_test.car_info ALTER color TYPE varchar(20)")
    script = job.folder / "pipelines" / "cars.sql"
    script.write_text(script.read_text().replace("VARCHAR(10)", "VARCHAR(20)"))
    with job.open() as session:
        operate.replay_dead_letters(session, session.ledger.dead_letters.listed())
        operate.reset(session, "0:10,1:10", reason="again")
    job.run()
    _, letters, position, *_ = books(job)
    lose(job)
    # today's script and table no longer reject what was rejected then
    done = rebuilt(job)
    batches, found, place, *_ = books(job)
    assert found == letters
    assert place == position
    assert [b[1] for b in batches if b[1] is not BatchKind.RECORDS] == [BatchKind.DEAD_LETTERS, BatchKind.RESET]
    assert done.notes == ()
    assert done.plan.recalled.fence >= 3
    job.run()
    job.assert_settled([*range(60), 900])


def test_a_rebuild_that_was_killed_goes_on(job, monkeypatch):
    job.produce(range(200))
    job.run()
    before = books(job)
    lose(job)
    from vector_assets.engine import rebuild_write

    write, calls = rebuild_write._Writer._write_row, []

    def dying(self, row):
        calls.append(row.seq)
        if len(calls) == 3:
            raise FatalError("killed")
        write(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(rebuild_write._Writer, "_write_row", dying)
        with pytest.raises(FatalError, match="killed"):
            rebuilt(job)
    assert_refused(job)
    rebuilt(job)
    assert books(job) == before
    job.assert_settled(range(200))


def test_without_the_archive_the_target_alone_tells_where_to_go_on(job):
    job.produce(range(100))
    job.run()
    lose(job)
    shutil.rmtree(job.folder / "home" / "archive")
    done = rebuilt(job)
    assert all("its archive file is missing" in note for note in done.notes)
    job.produce(range(100, 110))
    job.run()
    job.execute("DELETE FROM vector_assets.batches; DELETE FROM vector_assets.positions")
    with job.open() as session, pytest.raises(ExpiredError, match=r"batch 1 .* is expired"):
        list(Runner(session).replay())
    assert job.rows() == list(range(110))


def test_tokens_of_older_code_have_no_spans_and_the_archives_are_taken(job):
    job.produce(range(100))
    job.run()
    before = books(job)
    job.execute("ALTER TABLE vector_assets.batches DROP COLUMN span")
    lose(job)
    with job.open() as session:
        assert len(plan_rebuild(session).done) == len(before[0])
    rebuilt(job)
    assert books(job) == before
    job.produce(range(100, 120))
    job.run()
    job.assert_settled(range(120))
    with job.postgres.connect(job.database) as connection:
        spans = connection.execute("SELECT count(*), count(span) FROM vector_assets.batches").fetchone()
        assert 0 < spans[1] < spans[0]


def test_a_damaged_archive_file_stops_a_rebuild_by_name(job):
    job.produce(range(60))
    job.run()
    lose(job)
    file = sorted((job.folder / "home" / "archive" / "cars").glob("*/0000000001.parquet"))[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(FatalError, match=rf"archive: {file} refused"):
        rebuilt(job)


def test_a_worker_of_the_lost_ledger_that_wakes_up_changes_nothing(job):
    from tests.faults.test_crash import wait_for_stop

    job.produce(range(200))
    zombie = job.start("committing:2:stop")
    wait_for_stop(zombie)
    lose(job)
    rebuilt(job)
    job.run()
    zombie.send_signal(signal.SIGCONT)
    zombie.communicate(timeout=60)
    assert zombie.returncode == 1
    job.assert_settled(range(200))


def test_a_dropped_postgres_ledger_is_rebuilt(tmp_path, kafka, postgres, postgres_ledger):
    job = CarJob(tmp_path, kafka, postgres, ledger=postgres_ledger)
    job.produce(range(100))
    job.produce_raw([b"cut"])
    job.run()
    before = books(job)
    with postgres.connect("postgres", autocommit=True) as connection:
        schema = postgres_ledger.rpartition("schema=")[2]
        connection.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(schema)))
    assert_refused(job)
    rebuilt(job)
    assert books(job) == before
    job.produce_raw([record(100)])
    job.run()
    job.assert_settled(range(101))
    with job.open() as session:
        assert session.ledger.states("cars", session.pipeline.target).keys() == {State.DONE}


def test_an_edited_letter_that_a_replay_landed_is_known_again_and_rewritten(job):
    job.produce(range(5))
    job.produce_raw([TOO_LONG])
    with job.open() as session:
        list(Runner(session).catch_up())
        (letter,) = session.ledger.dead_letters.listed()
        session.ledger.dead_letters.edit(letter.id, record(900), now_ms=1)
        operate.replay_dead_letters(session, [letter])
    _, letters, *_ = books(job)
    lose(job)
    assert rebuilt(job).notes == ()
    assert books(job)[1] == letters
    with job.open() as session:
        assert check_books(session.books).findings == ()
        (again,) = session.ledger.dead_letters.claimed(session.pipeline.name, session.pipeline.target, 2)
        assert again.edited == record(900)
        assert [o.batch.kind for o in rewrite(Runner(session), Selection(again=True))] == [BatchKind.REWRITE] * 2
