"""Crashes, outages and losses around an Iceberg table, over real Kafka."""

import json
import random
import signal
import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from tests.faults.changes import ChangeJob, Changes
from tests.faults.disks import Tmpfs, small
from tests.faults.lake import APPENDED, IcebergPeople
from vector_assets.engine import env, operate
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.books_check import check_books
from vector_assets.engine.errors import FatalError, LedgerLostError, TargetReplacedError, TransientError
from vector_assets.engine.rebuild_write import rebuild
from vector_assets.engine.run import Runner
from vector_assets.engine.upkeep import TASKS, maintain

pytestmark = pytest.mark.service
NOW = Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0))
MODES = ("append", "upsert")


class Inserts:
    """Rows that come once each, and their model."""

    def __init__(self) -> None:
        self.count = 0

    def records(self, operations: int):
        found = {number: [] for number in range(3)}
        for number in range(self.count, self.count + operations):
            row = {"id": number, "name": f"n{number % 7}", "age": number, "vec": [0.5, number, 1]}
            found[number % 3].append((None, json.dumps(row).encode()))
        self.count += operations
        return found

    def wanted(self):
        return {n: (f"n{n % 7}", n, [0.5, float(n), 1.0]) for n in range(self.count)}


@pytest.fixture
def make_job(tmp_path, kafka):
    """A job of a mode with records in its topic, and their model."""
    made = []

    def make(mode="upsert", operations=350, people=None, **settings):
        people = people or IcebergPeople(tmp_path / "lake", appends=mode == "append")
        made.append(people)
        source = {"source": APPENDED} if mode == "append" else {}
        job = ChangeJob(tmp_path, kafka, people, "changelog-json", **source, **settings)
        changes = Inserts() if mode == "append" else Changes(random.Random(5), "changelog-json")
        job.produce(changes.records(operations))
        return job, changes

    yield make
    for people in made:
        people.close()


@pytest.mark.parametrize("step", env.STEPS)
@pytest.mark.parametrize("mode", MODES)
def test_kill_9_between_two_states_loses_and_doubles_nothing(make_job, mode, step):
    job, changes = make_job(mode)
    assert job.run_apart(f"{step}:2") == -signal.SIGKILL
    job.run()
    job.assert_settled(changes.wanted())


@pytest.mark.parametrize("step", ["committed", "staged"])
def test_a_snapshot_that_expires_between_crash_and_retry_takes_no_token_with_it(make_job, step):
    job, changes = make_job()
    assert job.run_apart(f"{step}:2") == -signal.SIGKILL
    with job.open() as session:
        # every snapshot but the current one, and every file that nobody knows
        for task in TASKS:
            maintain(session, task, NOW)
    assert len(job.people.table().snapshots()) <= 1
    job.run()
    job.assert_settled(changes.wanted())


def test_maintenance_beside_a_running_job_changes_no_row_and_removes_nothing_of_it(make_job):
    job, changes = make_job(max_rows=40)
    job.run()
    done, failures = threading.Event(), []

    def keep_in_order() -> None:
        while not done.is_set():
            with job.open() as session:
                try:
                    maintain(session, "compact")
                    maintain(session, "expire", NOW)
                    maintain(session, "orphans")
                except TransientError as error:
                    failures.append(error)

    thread = threading.Thread(target=keep_in_order)
    thread.start()
    try:
        for _ in range(2):
            job.produce(changes.records(100))
            job.run()
    finally:
        done.set()
        thread.join()
    with job.open() as session:
        events = [detail for _, what, detail in session.ledger.events("people") if what == "maintenance"]
    assert any(detail.startswith("expire") for detail in events), failures
    job.assert_settled(changes.wanted())


def test_two_jobs_of_one_table_at_once_land_everything_once(make_job):
    job, changes = make_job("append", max_rows=40)
    threads = [threading.Thread(target=job.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job.assert_settled(changes.wanted())


def test_a_catalog_that_is_down_is_reported_and_the_next_run_goes_on(make_job, tmp_path, postgres, proxy):
    database = postgres.create_database()
    gate = proxy(postgres.host, postgres.port)
    people = IcebergPeople(tmp_path / "lake")
    address = f"{postgres.user}:{postgres.password}@{postgres.host}"
    people.uri = f"postgresql://{address}:{gate.port}/{database}"
    people.seen_uri = f"postgresql://{address}:{postgres.port}/{database}"
    job, changes = make_job(people=people, settings="SET 'vector-assets.outage.timeout' = '1 s';")
    gate.stop()
    with pytest.raises(TransientError, match="UNAVAILABLE") as caught:
        job.run()
    assert postgres.password not in str(caught.value)
    gate.start()
    job.run()
    job.assert_settled(changes.wanted())


def test_a_full_warehouse_is_named_and_the_next_run_completes(make_job, tmp_path):
    with small(Tmpfs, tmp_path / "disk") as disk:
        people = IcebergPeople(tmp_path / "lake", options=", 'write.parquet.compression-codec' = 'uncompressed'")
        people.warehouse = disk.folder / "warehouse"
        job, changes = make_job(people=people)
        job.run()
        with (disk.folder / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(4096))
        job.produce(changes.records(120))
        with pytest.raises(FatalError, match=r"iceberg: shop\.people: cannot write: ENOSPC"):
            job.run()
        disk.grow()
        job.run()
        job.assert_settled(changes.wanted())


def test_a_table_made_anew_is_named_and_restored_from_the_archive_after_the_topic_is_gone(make_job):
    job, changes = make_job(max_rows=60)
    job.run()
    before = job.people.rows()
    job.people.drop()
    job.kafka.admin.delete_topics([job.topic])
    with pytest.raises(TargetReplacedError, match=r"reset people --adopt-target.*replay people"):
        job.run()
    with job.open() as session:
        operate.adopt_target(session, reason="dropped by mistake")
        outcomes = list(Runner(session).replay())
    assert {outcome.how for outcome in outcomes} == {"applied"}
    assert len(outcomes) > 3
    assert job.people.rows() == before == changes.wanted()


def test_a_lost_ledger_is_rebuilt_from_the_table_and_the_archive(make_job):
    job, changes = make_job()
    job.run()
    for file in (job.folder / "home").glob("ledger.db*"):
        file.unlink()
    job.produce(changes.records(100))
    with pytest.raises(LedgerLostError, match="holds batches up to"):
        job.run()
    with job.open() as session:
        rebuild(session)
        assert check_books(session.books, deep=True).findings == ()
    job.run()
    job.assert_settled(changes.wanted())


def test_a_replay_finds_batches_whose_snapshots_are_expired(make_job):
    job, changes = make_job("append", max_rows=50)
    job.run()
    with job.open() as session:
        maintain(session, "expire", NOW)
        assert {outcome.how for outcome in Runner(session).replay()} == {"found"}
    job.assert_settled(changes.wanted())
