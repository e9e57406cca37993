"""Generated rows into MaxCompute by each tunnel, killed at every failpoint: every row once, or at least once."""

import os
import re
import signal
from collections import Counter
from contextlib import closing, contextmanager

import pytest

from tests.faults.apart import Apart
from tests.faults.test_crash import wait_for_stop
from tests.sinks.maxcompute_target import DELTA, TUNNELS
from tests.sources.maxcompute_table import options_of
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import BatchLimit, canonical
from vector_assets.engine.errors import ConfigError, FatalError, LedgerLostError
from vector_assets.engine.evidence import unheard_of
from vector_assets.engine.lost import start_at
from vector_assets.engine.reconcile import reconcile
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
SCRIPT = """
SET 'vector-assets.batch.max-rows' = '50';
SET 'vector-assets.lease.ttl' = '2 s';
CREATE TABLE made (id INT) WITH ('connector' = 'datagen', 'rows-per-second' = '100000', 'fields.id.kind' = 'sequence',
  'fields.id.start' = '0', 'fields.id.end' = '199');
CREATE TABLE kept (id INT, color STRING, ds STRING{key}) WITH ({options});
INSERT INTO kept SELECT id, 'red', CAST(MOD(id, 2) AS STRING) FROM made;
"""


class Job:
    """A script from datagen to a partitioned table."""

    def __init__(self, folder, server, tunnel) -> None:
        self.folder, self.server = folder, server
        key = ", PRIMARY KEY (id)" if tunnel == "upsert" else ""
        more = DELTA if tunnel == "upsert" else ""
        self.table = str(server.table(f"id int NOT NULL, color string{key}", f"PARTITIONED BY (ds string) {more}").name)
        options = options_of(server, self.table, partition="ds", **TUNNELS[tunnel])
        key = ", PRIMARY KEY (id) NOT ENFORCED" if tunnel == "upsert" else ""
        (folder / "pipelines").mkdir()
        listed = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
        (folder / "pipelines" / "kept.sql").write_text(SCRIPT.format(options=listed, key=key))
        self.environment = {
            "VECTOR_ASSETS_HOME": str(folder / "home"),
            "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        }

    @contextmanager
    def open(self):
        with env.overridden(**self.environment):
            (pipeline,) = flink_sql.load_file(self.folder / "pipelines" / "kept.sql")
            books = Books.open()
            with closing(books), Session(pipeline, books) as session:
                yield session

    def run(self):
        with self.open() as session:
            return list(Runner(session).catch_up())

    def kill(self, fail_at) -> None:
        process = Apart(
            ["run", "kept"], {**os.environ, **self.environment, "VECTOR_ASSETS_FAIL_AT": fail_at}, self.folder
        )
        output, _ = process.communicate(timeout=90)
        assert process.returncode == -signal.SIGKILL, output

    def run_apart(self, *more: str) -> tuple[int, str]:
        """The command in a process of its own to its end: exit code and output."""
        process = Apart(["run", "kept", *more], {**os.environ, **self.environment}, self.folder)
        output, _ = process.communicate(timeout=90)
        return process.returncode, output

    def lose_ledger(self) -> None:
        for file in (self.folder / "home").glob("ledger.db*"):
            file.unlink()

    def ids(self) -> Counter[int]:
        return Counter(int(row[0]) for row in self.server.rows(f"SELECT id FROM {self.table}"))


@pytest.fixture
def make_job(tmp_path, maxcompute):
    return lambda tunnel: Job(tmp_path, maxcompute, tunnel)


@pytest.mark.parametrize("step", env.STEPS)
@pytest.mark.parametrize("tunnel", TUNNELS)
def test_kill_9_between_two_states(make_job, tunnel, step):
    job = make_job(tunnel)
    job.kill(f"{step}:2")
    job.run()
    found = job.ids()
    assert found.keys() == set(range(200))
    is_doubled = tunnel == "stream" and step == "committed"
    assert set(found.values()) == ({1, 2} if is_doubled else {1}), "the streaming tunnel is at least once"
    assert job.run() == []
    assert job.ids() == found, "a second run changes nothing"


@pytest.mark.parametrize("step", ["sealed", "staged", "committing", "committed"])
@pytest.mark.parametrize("tunnel", ["batch", "upsert"])
def test_a_worker_that_wakes_up_after_its_lease_was_taken_changes_nothing(make_job, tunnel, step):
    """Two workers on one pipeline: the first sleeps past its lease, the second finishes what it began."""
    job = make_job(tunnel)
    zombie = Apart(
        ["run", "kept"], {**os.environ, **job.environment, "VECTOR_ASSETS_FAIL_AT": f"{step}:2:stop"}, job.folder
    )
    wait_for_stop(zombie)
    job.run()
    found = job.ids()
    assert found == Counter(range(200))
    zombie.send_signal(signal.SIGCONT)
    output, _ = zombie.communicate(timeout=90)
    assert zombie.returncode == 1, output
    assert "lease" in output or "fence" in output, output
    assert job.ids() == found
    assert job.run() == []


@pytest.mark.parametrize("tunnel", ["batch", "upsert"])
def test_what_landed_is_reconciled_and_a_replay_does_nothing(make_job, tunnel):
    job = make_job(tunnel)
    job.run()
    with job.open() as session:
        assert reconcile(session).is_right()
        assert {outcome.how for outcome in Runner(session).replay()} == {"found"}
    assert set(job.ids().values()) == {1}


def test_a_batch_nobody_can_tell_stops_the_pipeline_with_the_command(make_job):
    job = make_job("batch")
    job.kill("committing:1")
    job.server.service.ask("POST", "sessions", {"expire": "all"})
    handle = job.server.odps.get_table(job.table)
    with handle.open_writer(partition="ds=0", arrow=False) as writer:
        writer.write([[1000, "black"]])
    with pytest.raises(FatalError, match="vector-assets reset kept --to"):
        job.run()
    assert set(job.ids()) == {1000}


@pytest.mark.parametrize("step", ["committing", "committed"])
def test_a_lost_ledger_is_refused_until_somebody_says_where_to_go_on(make_job, step):
    """The table keeps nothing of batches: the archive shows the loss, and the error has both commands."""
    job = make_job("batch")
    job.kill(f"{step}:3")
    landed = job.ids()
    assert len(landed) == (150 if step == "committed" else 100)
    job.lose_ledger()
    with pytest.raises(LedgerLostError, match=r"archive holds batches up to \d+ .* the ledger knows of none") as lost:
        job.run()
    assert job.ids() == landed
    # more batches than the one that was being committed may have been sealed ahead of it
    newest, after, before = re.search(
        r"up to (\d+) .*--start-at '(.+)'`; if not: .*--start-at '(.+)'`$", str(lost.value)
    ).groups()
    sealed = archived_places(job)
    assert (after, before) == (sealed[int(newest)], sealed[int(newest) - 1])
    code, output = job.run_apart("--start-at", sealed[len(landed) // 50])
    assert code == 0, output
    assert job.ids() == Counter(range(200))
    assert job.run() == []
    with job.open() as session:
        given_up = [batch.seq for batch in session.ledger.batches("kept") if batch.state == "DISCARDED"]
        assert given_up == list(range(1, int(newest) + 1)), "their numbers are not used again"
    with job.open() as session, pytest.raises(ConfigError, match="knows where it stands"):
        start_at(session, sealed[1])


def archived_places(job):
    """Where the pipeline stood after each batch of the archive, as the command takes it."""
    with job.open() as session:
        spans = unheard_of(session.books.archive, session.pipeline, 0)
    return {0: canonical(spans[0][1].start)} | {seq: canonical(span.end) for seq, span in spans}


def test_an_older_copy_of_the_ledger_is_refused_as_well(make_job):
    job = make_job("upsert")
    job.kill("committed:1")
    kept = {file.name: file.read_bytes() for file in (job.folder / "home").glob("ledger.db*")}
    job.run()
    job.lose_ledger()
    for name, data in kept.items():
        (job.folder / "home" / name).write_bytes(data)
    with pytest.raises(LedgerLostError, match=r"restored from an older copy.*--start-at") as lost:
        job.run()
    after = re.search(r"--start-at '(.+)'`; if not", str(lost.value))[1]
    with job.open() as session:
        start_at(session, after)
    assert job.run() == []
    assert job.ids() == Counter(range(200))


def test_start_at_says_where_a_new_pipeline_begins(make_job):
    job = make_job("batch")
    with job.open() as session:
        place = canonical(session.source.plan(session.source.start(), BatchLimit(50, 1 << 30)).end)
    code, output = job.run_apart("--start-at", "{")
    assert (code, "want positions by split as JSON" in output) == (1, True), output
    code, output = job.run_apart("--start-at", place)
    assert code == 0, output
    assert len(job.ids()) == 150
