"""A random mix of crashes, zombies, rivals and poison; one fixed seed in `make test`, twenty in `make soak`."""

import os
import random
import signal
from collections import Counter

import pytest

from tests.faults.car import CarJob, record
from tests.faults.test_crash import wait_for_stop
from vector_assets.engine import env, operate
from vector_assets.engine.errors import FatalError
from vector_assets.engine.reconcile import reconcile

pytestmark = pytest.mark.service
FIXED_SEED = 7
SOAK_SEEDS = range(100, 120)
STEPS_IN_TEST, STEPS_IN_SOAK = 6, 15


def pytest_generate_tests(metafunc):
    soak = metafunc.config.getoption("--soak")
    metafunc.parametrize("seed", SOAK_SEEDS if soak else [FIXED_SEED])


class Mix:
    """The actions, and what the table must hold in the end: the first row of every key."""

    def __init__(self, job: CarJob, seed: int) -> None:
        self.job, self.chance = job, random.Random(seed)
        self.first: dict[int, int] = {}
        self.poison = 0
        self.produced = 0
        self.done: Counter[str] = Counter()

    def produce(self) -> None:
        """Keys stay in one partition, so their order is the topic's."""
        for partition in range(self.job.partitions):
            values = []
            for _ in range(self.chance.randint(0, 120)):
                self.produced += 1
                if self.chance.random() < 0.03:
                    self.poison += 1
                    values.append(b"poison")
                    continue
                key = self.chance.randrange(400) * self.job.partitions + partition
                self.first.setdefault(key, self.produced)
                values.append(record(key, self.produced))
            self.job.produce_raw(values, partition)

    def crash(self) -> None:
        step, number = self.chance.choice(env.STEPS), self.chance.randint(1, 4)
        code, output = self.job.run_apart(f"{step}:{number}")
        assert code in {0, -signal.SIGKILL}, output
        self.done["kills"] += code != 0

    def zombie(self) -> None:
        process = self.job.start(f"{self.chance.choice(['sealed', 'staged', 'committing'])}:1:stop")
        try:
            wait_for_stop(process)
        except AssertionError:
            assert process.returncode == 0
            return
        try:
            self.job.run()
        except FatalError as error:
            # stopped with the ledger's write lock in its hands: nobody gets on before it does
            if "database is locked" not in str(error):
                raise
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=90)
        assert process.returncode in {0, 1}, output

    def rivals(self) -> None:
        for process in [self.job.start(), self.job.start()]:
            output, _ = process.communicate(timeout=90)
            assert process.returncode == 0, output

    def replay(self) -> None:
        code, output = self.job.run_apart(command="replay")
        assert code == 0, output

    def rewrite(self) -> None:
        """By the same script, so no row may change; sometimes killed on its way."""
        step = self.chance.choice(["", "", "staged:1", "committing:2", "committed:1"])
        code, output = self.job.run_apart(step, "replay --rewrite")
        assert code in {0, -signal.SIGKILL}, output

    def lose_ledger(self) -> None:
        """The ledger is deleted, sometimes in the middle of a run, and rebuilt from target and archive."""
        self.crash()
        for file in (self.job.folder / "home").glob("ledger.db*"):
            file.unlink()
        code, output = self.job.run_apart(command="ledger rebuild --yes")
        assert code == 0, output

    def letters(self) -> None:
        with self.job.open() as session:
            operate.replay_dead_letters(session, session.ledger.dead_letters.listed("cars"))


def test_a_random_mix_of_faults_loses_doubles_and_invents_nothing(
    tmp_path, kafka, postgres, seed, request, record_property
):
    job = CarJob(tmp_path, kafka, postgres, partitions=3)
    mix = Mix(job, seed)
    actions = [mix.crash, mix.crash, mix.zombie, mix.rivals, mix.replay, mix.letters, mix.rewrite, mix.lose_ledger]
    actions += [job.run]
    for _ in range(STEPS_IN_SOAK if request.config.getoption("--soak") else STEPS_IN_TEST):
        mix.produce()
        action = mix.chance.choice(actions)
        mix.done[action.__name__] += 1
        action()
    job.run()
    landed = job.rows("id, price")
    found = {
        "lost": len(mix.first.keys() - dict(landed).keys()),
        "doubled": len(landed) - len(dict(landed)),
        "phantom": len(set(landed) - mix.first.items()),
    }
    record_property("soak", {"seed": seed, "records": mix.produced, "rows": len(landed), **found, **mix.done})
    assert not any(found.values()), f"seed {seed}: {found}"
    job.assert_settled(mix.first)
    with job.open() as session:
        assert session.ledger.dead_letters.count("cars") == mix.poison
        _, counts = session.ledger.totals(session.pipeline.name, session.pipeline.target)
        assert counts.written >= len(mix.first)
        compared = reconcile(session)
        assert compared.is_right(), f"seed {seed}: {compared}"
