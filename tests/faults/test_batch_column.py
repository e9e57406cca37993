"""Rewrites of append tables by the column that notes each row's batch, killed anywhere, over real Kafka."""

import json
import signal
from datetime import timedelta

import pytest

from tests.faults.changes import ChangeJob
from tests.faults.lake import APPENDED, IcebergPeople
from tests.faults.paimon_people import PaimonPeople
from vector_assets.engine import env
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.books_check import check_books
from vector_assets.engine.core import BatchKind
from vector_assets.engine.rebuild_write import rebuild
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Runner
from vector_assets.engine.upkeep import maintain

pytestmark = pytest.mark.service
ROWS = 200
LAKES = {
    "iceberg": lambda folder: IcebergPeople(folder, appends=True, options=", 'batch_column' = '_batch'"),
    "paimon": lambda folder: PaimonPeople(folder, options=", 'batch_column' = '_batch'"),
}
STEPS = tuple(step for step in env.STEPS if step not in {"planned", "read", "archived"})
"""A rewrite reads nothing and archives nothing."""
UPPER = "INSERT INTO people SELECT id, UPPER(name), age, vec FROM changes;"


def records(first: int, last: int):
    found = {number: [] for number in range(3)}
    for number in range(first, last):
        row = {"id": number, "name": f"n{number % 7}", "age": number, "vec": [0.5, number, 1]}
        found[number % 3].append((None, json.dumps(row).encode()))
    return found


def wanted(count: int, letter: str = "n"):
    return {n: (f"{letter}{n % 7}", n, [0.5, float(n), 1.0]) for n in range(count)}


@pytest.fixture(params=LAKES)
def job(request, tmp_path, kafka):
    people = LAKES[request.param](tmp_path / "lake")
    made = ChangeJob(tmp_path, kafka, people, "changelog-json", source=APPENDED, max_rows=80, primary="")
    made.produce(records(0, ROWS))
    yield made
    people.close()


def change_code(job: ChangeJob) -> None:
    """From now on names are in upper case."""
    script = job.folder / "pipelines" / "people.sql"
    script.write_text(script.read_text().replace("INSERT INTO people SELECT * FROM changes;", UPPER))


def batches(job: ChangeJob):
    with job.open() as session:
        return session.ledger.batches(session.pipeline.name, session.pipeline.target)


@pytest.mark.parametrize("step", STEPS)
def test_a_rewrite_killed_between_two_states_replaces_every_row_once(job, step):
    job.run()
    before = job.people.batches()
    assert set(before.values()) == {1, 2, 3}
    change_code(job)
    assert job.run_apart(f"{step}:2", what="rewrite") == -signal.SIGKILL
    job.run()
    with job.open() as session:
        list(rewrite(Runner(session), Selection()))
    # every row is that of today's code and belongs to the batch that read its record
    assert job.people.batches() == before
    job.assert_settled(wanted(ROWS, "N"))


def test_rows_of_compacted_files_are_replaced_and_others_stay(job):
    job.run()
    with job.open() as session:
        maintain(session, "compact", Upkeep(grace=timedelta(0)))
    before = job.people.batches()
    change_code(job)
    with job.open() as session:
        list(rewrite(Runner(session), Selection(first=2, last=2)))
    assert job.people.batches() == before
    names = {key: row[0][0] for key, row in job.people.rows().items()}
    assert names == {key: "N" if seq == 2 else "n" for key, seq in before.items()}
    with job.open() as session:
        list(rewrite(Runner(session), Selection()))
    job.assert_settled(wanted(ROWS, "N"))


def test_new_rows_and_a_rewrite_from_two_processes_are_all_there_once(job):
    job.run()
    change_code(job)
    job.produce(records(ROWS, 2 * ROWS))
    assert job.run_apart(what="rewrite") == 0
    job.run()
    job.assert_settled(wanted(2 * ROWS, "N"))


def test_a_lost_ledger_knows_the_rewrite_again(job, tmp_path):
    job.run()
    change_code(job)
    with job.open() as session:
        list(rewrite(Runner(session), Selection(first=1, last=2)))
    before = [(b.seq, b.kind, b.root, b.counts.written) for b in batches(job)]
    for file in (tmp_path / "home").glob("ledger*"):
        file.unlink()
    with job.open() as session:
        rebuild(session)
        assert check_books(session.books).findings == ()
    assert [(b.seq, b.kind, b.root, b.counts.written) for b in batches(job)] == before
    assert [b.kind for b in batches(job)][-2:] == [BatchKind.REWRITE] * 2
    with job.open() as session:
        list(rewrite(Runner(session), Selection(again=True)))
    job.assert_settled(wanted(ROWS, "N"))
