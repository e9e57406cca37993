"""Changelogs over real Kafka into Milvus: what a collection holds after updates, deletes and moves of keys."""

import random

import pytest

from tests.faults.changes import FORMATS, ChangeJob, Changes, MilvusPeople

pytestmark = pytest.mark.service
ROWS = {number: {"id": number, "name": "a", "age": number, "vec": [1.0, 2.0, float(number)]} for number in range(9)}


@pytest.fixture(params=FORMATS)
def job(tmp_path, kafka, milvus, request):
    return ChangeJob(tmp_path, kafka, MilvusPeople(milvus), request.param)


@pytest.fixture
def say(job, request):
    """Produces changes, in order, in one partition."""
    changes = Changes(random.Random(0), request.node.callspec.params["job"])

    def say(*pairs):
        job.produce({0: [record for pair in pairs for record in changes.encode(pair)]})

    return say


def row(number: int, age: int) -> dict:
    return ROWS[number] | {"age": age}


def ages(job) -> dict[int, int]:
    return {number: age for number, (_, age, _) in job.people.rows().items()}


SIZES = pytest.mark.parametrize("size", [1, 2, 100], ids=lambda size: f"batches of {size}")


@SIZES
def test_a_delete_and_a_re_insert_of_a_key_within_one_batch_leave_the_new_row(job, say, size):
    say(*((None, ROWS[number]) for number in range(4)))
    job.run()
    job.write(max_rows=size)
    say(
        (ROWS[0], None), (None, row(0, 70)),  # deleted and inserted again
        (ROWS[1], None), (None, row(1, 71)), (row(1, 71), None),  # and deleted again
        (None, row(5, 75)), (row(5, 75), None),  # inserted and deleted
        (None, row(6, 76)), (row(6, 76), None), (None, row(6, 86)), (row(6, 86), row(6, 96)),
        (ROWS[2], row(2, 72)), (row(2, 72), None),
    )  # fmt: skip
    outcomes = job.run()
    assert ages(job) == {0: 70, 3: 3, 6: 96}
    if size == 100:
        (batch,) = [outcome.batch for outcome in outcomes]
        assert (batch.counts.written, batch.counts.deleted) == (2, 3)
    job.assert_settled({n: ("a", age, [1.0, 2.0, float(n)]) for n, age in {0: 70, 3: 3, 6: 96}.items()})


@SIZES
def test_an_update_that_moves_the_key_leaves_no_orphan(job, say, size):
    say(*((None, ROWS[number]) for number in range(4)))
    job.run()
    job.write(max_rows=size)
    moves = [
        (ROWS[0], row(7, 70)),  # to a new key
        (ROWS[1], row(0, 71)),  # to a key that was given up
        (row(7, 70), row(1, 72)),  # on, to another that was given up
        (ROWS[3], row(8, 73)), (row(8, 73), row(3, 83)),  # there and back
    ]  # fmt: skip
    if "upsert-kafka" in job.values["source"]:
        # a topic of keys says a move by two records
        moves = [part for before, after in moves for part in ((before, None), (None, after))]
    say(*moves)
    job.run()
    assert ages(job) == {0: 71, 1: 72, 2: 2, 3: 83}
    job.assert_settled({n: ("a", age, [1.0, 2.0, float(n)]) for n, age in {0: 71, 1: 72, 2: 2, 3: 83}.items()})
