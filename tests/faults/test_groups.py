"""A model: however records are batched, killed and replayed, a GROUP BY counts each of them once.

Seeds and sizes as in `tests/faults/test_changes.py`.
"""

import os
import random
import signal

import pytest

from tests.faults.apart import Apart
from tests.faults.counts import CountJob, Counts, MilvusCounts, PostgresCounts
from tests.faults.test_crash import wait_for_stop
from vector_assets.engine import env, operate
from vector_assets.engine.errors import FatalError, StateLostError, TargetReplacedError
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Runner

pytestmark = pytest.mark.service
RECORDS = 900
FIXED_SEED, SOAK_SEEDS = 11, range(300, 310)
TARGETS = {"postgres": PostgresCounts, "milvus": MilvusCounts}


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", SOAK_SEEDS if metafunc.config.getoption("--soak") else [FIXED_SEED])


@pytest.fixture
def make_job(tmp_path, kafka, request):
    def make(target: str = "postgres", seed: int = FIXED_SEED, **script):
        job = CountJob(tmp_path, kafka, TARGETS[target](request.getfixturevalue(target)), **script)
        return job, Counts(random.Random(seed))

    return make


@pytest.mark.parametrize("target", TARGETS)
def test_random_records_come_to_what_the_model_says(make_job, target, seed, pytestconfig):
    """Rounds of records in batches of any size, each round killed at another step and then gone on with."""
    soak = pytestconfig.getoption("--soak")
    job, counts = make_job(target, seed)
    chance = random.Random(seed)
    steps = list(env.STEPS)
    chance.shuffle(steps)
    if target == "milvus" and not soak:
        steps = steps[:4]
    share = RECORDS // (len(steps) + 1)
    for number, step in enumerate(steps):
        job.produce(counts.records(share))
        limit = chance.choice([20, 50, 120, 10_000])
        job.write(max_rows=limit)
        nth = chance.randint(1, 3) if limit < share // 3 else 1
        assert job.run_apart(f"{step}:{nth}") == -signal.SIGKILL
        # a second crash while the first one is mended
        if number % 3 == 1:
            job.run_apart(f"{chance.choice(env.STEPS)}:1")
        if number % 3 == 2:
            assert job.run_apart(what="replay") == 0
    job.produce(counts.records(RECORDS - counts.made))
    assert job.run_apart() == 0
    assert job.run_apart(what="replay") == 0
    job.assert_settled(counts.wanted())


@pytest.mark.parametrize(("step", "number"), [("staged", 1), ("sealed", 3)])
def test_kill_9_counts_nothing_twice_and_loses_nothing(make_job, step, number):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(200))
    assert job.run_apart(f"{step}:{number}") == -signal.SIGKILL
    job.run()
    job.assert_settled(counts.wanted())


@pytest.mark.parametrize("step", ["sealed", "staged"])
def test_a_zombie_spoils_neither_the_groups_nor_the_target(make_job, step):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(200))
    zombie = Apart(["run", "people"], {**os.environ, **job.environment, "VECTOR_ASSETS_FAIL_AT": f"{step}:2:stop"},
                   job.folder)  # fmt: skip
    wait_for_stop(zombie)
    job.run()
    assert job.people.rows() == counts.wanted()
    os.kill(zombie.pid, signal.SIGCONT)
    output, _ = zombie.communicate(timeout=60)
    assert zombie.returncode == 1, output
    job.produce(counts.records(50))
    job.run()
    job.assert_settled(counts.wanted())


def test_a_new_target_gets_every_group_from_the_archive(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(300))
    job.run()
    job.people.make_again()
    with pytest.raises(TargetReplacedError):
        job.run()
    with job.open() as session:
        operate.adopt_target(session, reason="test")
    assert job.run_apart(what="replay") == 0
    assert job.people.rows() == counts.wanted()
    job.produce(counts.records(60))
    job.run()
    job.assert_settled(counts.wanted())


def test_a_bad_record_is_counted_once_it_is_mended(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(60))
    job.produce({0: [(None, b'{"cid": "k1", "v": ')]})
    job.produce(counts.records(60))
    job.run()
    assert job.people.rows() == counts.wanted()
    with job.open() as session:
        (letter,) = session.ledger.dead_letters.listed()
        session.ledger.dead_letters.edit(letter.id, b'{"cid": "k1", "v": 7}', now_ms=0)
        operate.replay_dead_letters(session, [session.ledger.dead_letters.get(letter.id)])
    counts.values["k1"].append(7)
    assert job.people.rows() == counts.wanted()
    assert job.run_apart(what="replay") == 0
    job.produce(counts.records(60))
    job.run()
    assert job.people.rows() == counts.wanted()


def test_a_damaged_file_is_named_and_the_groups_are_made_again(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(200))
    job.run()
    files = sorted((job.folder / "home" / "archive").glob("people/*/*.groups.*.parquet"))
    data = bytearray(files[-1].read_bytes())
    data[len(data) // 2] ^= 1
    files[-1].write_bytes(data)
    job.produce(counts.records(50))
    with pytest.raises(StateLostError, match=r"STATE_LOST: people: .* `vector-assets state rebuild people`"):
        job.run()
    process = Apart(["state", "rebuild", "people", "--yes"], {**os.environ, **job.environment}, job.folder)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    job.run()
    job.assert_settled(counts.wanted())


def test_a_lost_ledger_brings_the_groups_back(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(200))
    job.run()
    for file in (job.folder / "home").glob("ledger.db*"):
        file.unlink()
    process = Apart(["ledger", "rebuild", "people", "--yes"], {**os.environ, **job.environment}, job.folder)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    job.produce(counts.records(50))
    job.run()
    job.assert_settled(counts.wanted())


def test_another_group_by_needs_the_groups_made_anew(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(100))
    job.run()
    job.write(more=" + MIN(v) * 0")
    job.produce(counts.records(50))
    with pytest.raises(StateLostError, match="GROUP BY, WHERE or aggregates are not those"):
        job.run()
    process = Apart(["state", "rebuild", "people", "--yes"], {**os.environ, **job.environment}, job.folder)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    job.run()
    job.assert_settled(counts.wanted())


def test_another_having_needs_no_new_groups_and_reconcile_names_what_it_left(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(100))
    job.run()
    job.write(least=40)
    with job.open() as session:
        found = reconcile(session)
    assert found.counts == {"foreign": len(counts.wanted()) - len(counts.wanted(40))}
    job.produce(counts.records(50))
    job.run()
    assert counts.wanted(40).items() <= job.people.rows().items()


def test_a_reset_says_what_becomes_of_the_groups(make_job):
    job, counts = make_job(max_rows=40)
    job.produce(counts.records(100))
    job.run()
    with job.open() as session:
        operate.reset(session, "earliest", reason="again", groups="drop")
    job.run()
    assert job.people.rows() == counts.wanted()
    with job.open() as session:
        operate.reset(session, "earliest", reason="twice", groups="keep")
    job.run()
    counts.values = {key: [*values, *values] for key, values in counts.values.items()}
    assert job.people.rows() == counts.wanted()


def test_a_row_that_the_target_refuses_stops_the_batch(make_job):
    job, counts = make_job(max_rows=40)
    with job.people.server.connect(job.people.database, autocommit=True) as connection:
        connection.execute("ALTER TABLE counts ADD CHECK (n < 5)")
    job.produce(counts.records(300))
    with pytest.raises(FatalError, match=r"counts_n_check|refuses|budget"):
        job.run()
    with job.open() as session:
        assert session.ledger.dead_letters.listed() == []
    with job.people.server.connect(job.people.database, autocommit=True) as connection:
        connection.execute("ALTER TABLE counts DROP CONSTRAINT counts_n_check")
    job.run()
    job.assert_settled(counts.wanted())


def test_runs_in_one_session_go_on_without_reading_the_groups_again(make_job, caplog):
    job, counts = make_job(max_rows=40)
    with job.open() as session, caplog.at_level("INFO", "vector_assets.engine.keyed_state"):
        for _ in range(3):
            job.produce(counts.records(100))
            list(Runner(session).catch_up())
        assert "groups read from" not in caplog.text
    job.assert_settled(counts.wanted())
