"""A model: whatever changes come, however they are batched, killed and replayed, the target holds what they come to.

Ten thousand random operations (`tests/faults/changes.py`) per target in `make test`, fewer in the other formats; with
`--soak` ten thousand in every format and more seeds.
"""

import random
import signal

import pytest

from tests.faults.changes import FORMATS, ChangeJob, Changes, MilvusPeople, OpenSearchPeople, PostgresPeople
from vector_assets.engine import env

pytestmark = pytest.mark.service
OPERATIONS, FEWER = 10_000, 2_500
FIXED_SEED, SOAK_SEEDS = 5, range(200, 210)
TARGETS = {"milvus": MilvusPeople, "postgres": PostgresPeople, "opensearch": OpenSearchPeople}
_OF = {"opensearch": ["debezium-json"]}
WIRE = "wire"
"""After a request with rows to Milvus or OpenSearch, in the middle of a batch."""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", SOAK_SEEDS if metafunc.config.getoption("--soak") else [FIXED_SEED])
    if "operations" in metafunc.fixturenames:
        soak = metafunc.config.getoption("--soak")
        many = {("changelog-json", "milvus"), ("debezium-json", "postgres")}
        # one format is enough for a sink that sees no format
        cases = [(name, target) for name in FORMATS for target in TARGETS if name in _OF.get(target, FORMATS)]
        counts = [(*case, OPERATIONS if soak or case in many else FEWER) for case in cases]
        metafunc.parametrize(("name", "target", "operations"), counts)


@pytest.fixture
def make_job(tmp_path, kafka, request):
    """A job into one of the targets, and the model of its changes."""

    def make(name: str, target: str, seed: int, **settings):
        is_text = name == "upsert-kafka"
        people = TARGETS[target](request.getfixturevalue(target), is_text=is_text)
        job = ChangeJob(tmp_path, kafka, people, name, is_text=is_text, **settings)
        return job, Changes(random.Random(seed), name, is_text)

    return make


def test_random_changes_come_to_what_the_model_says(make_job, name, target, operations, seed):
    """Rounds of changes in batches of any size, each round killed at another step and then gone on with."""
    job, changes = make_job(name, target, seed)
    chance = random.Random(seed)
    steps = [*env.STEPS, WIRE] if target != "postgres" else list(env.STEPS)
    chance.shuffle(steps)
    count = operations // (len(steps) + 1)
    for number, step in enumerate(steps):
        job.produce(changes.records(count))
        limit = chance.choice([100, 250, 700, 10_000])
        job.write(max_rows=limit)
        nth = chance.randint(1, 3) if limit < count // 3 or step == WIRE else 1
        assert job.run_apart(f"{step}:{nth}") == -signal.SIGKILL
        # a second crash while the first one is mended
        if number % 3 == 1:
            job.run_apart(f"{chance.choice(env.STEPS)}:1")
        if number % 3 == 2:
            assert job.run_apart(what="replay") == 0
    job.produce(changes.records(operations - changes.made))
    assert job.run_apart() == 0
    assert changes.made == operations
    assert job.run_apart(what="replay") == 0
    job.assert_settled(changes.wanted())


@pytest.mark.parametrize("target", TARGETS)
def test_every_batch_decoded_and_written_again_changes_nothing(make_job, target, seed):
    """A rewrite of everything, killed in its middle and asked for again: no row of an older change comes back."""
    job, changes = make_job("changelog-json", target, seed, max_rows=150)
    for _ in range(2):
        job.produce(changes.records(400))
        assert job.run_apart() == 0
    assert job.run_apart("committed:2", what="rewrite") == -signal.SIGKILL
    assert job.people.rows() == changes.wanted()
    job.produce(changes.records(100))
    assert job.run_apart() == 0
    assert job.run_apart(what="rewrite") == 0
    job.assert_settled(changes.wanted())
