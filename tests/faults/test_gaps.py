"""What a pipeline does when its source has lost records or has grown: policies, with kills between any two steps."""

import signal

import pytest

from tests.faults.car import TABLE, CarJob
from vector_assets.declare import flink_sql
from vector_assets.engine import env, operate
from vector_assets.engine.core import BatchKind
from vector_assets.engine.errors import FatalError, PositionLostError
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

pytestmark = pytest.mark.service
SKIP = "SET 'vector-assets.on-position-lost' = 'skip';"
FROM_ARCHIVE = "SET 'vector-assets.on-position-lost' = 'from_archive';"
EARLIEST = "SET 'vector-assets.on-new-split' = 'earliest';"


@pytest.fixture
def job(tmp_path, kafka, postgres):
    return CarJob(tmp_path, kafka, postgres)


def gaps(job):
    """(partition, kind, from, to, policy, state) of every gap."""
    with job.open() as session:
        return [
            (int(gap.split.rpartition("/")[2]), gap.kind, gap.start, gap.end, gap.policy, gap.state)
            for gap in session.ledger.gaps("cars")
        ]


def truncated(job):
    """A job that has landed 0-99 of 300 records, with offsets 50-79 and 50-59 of its two partitions lost."""
    job.produce(range(100))
    job.run()
    job.produce(range(100, 300))
    job.kafka.delete_records(job.topic, {0: 80, 1: 60})
    lost = {*range(100, 160, 2), *range(101, 121, 2)}
    return sorted(set(range(300)) - lost)


SKIPPED = [(0, "TRUNCATED", 50, 80, "skip", "skipped"), (1, "TRUNCATED", 50, 60, "skip", "skipped")]


def test_by_default_nothing_moves_and_the_gap_stays_open_until_a_reset(job):
    expected = truncated(job)
    for _ in range(2):
        with pytest.raises(PositionLostError, match="TRUNCATED"):
            job.run()
    assert job.rows() == list(range(100))
    assert gaps(job) == [(0, "TRUNCATED", 50, 80, "fail", "open"), (1, "TRUNCATED", 50, 60, "fail", "open")]
    with job.open() as session:
        operate.reset(session, "0:80,1:60", reason="they are gone")
    assert [gap[-1] for gap in gaps(job)] == ["reset", "reset"]
    job.run()
    job.assert_settled(expected)


def test_skip_goes_on_after_the_gap_and_keeps_its_exact_ranges(job):
    expected = truncated(job)
    job.write(settings=SKIP)
    outcomes = job.run()
    assert outcomes[0].batch.kind is BatchKind.RESET
    assert outcomes[0].batch.span.short() == "0:50-80,1:50-60"
    assert gaps(job) == SKIPPED
    job.assert_settled(expected)


@pytest.mark.parametrize("step", ["planned", "sealed", "committed"])
def test_kill_9_while_a_gap_is_skipped_loses_and_doubles_nothing(job, step):
    expected = truncated(job)
    job.write(settings=SKIP)
    # the batch that closes the gap is the first of the run
    code, output = job.run_apart(f"{step}:1")
    assert code == -signal.SIGKILL, output
    job.run()
    assert gaps(job) == SKIPPED
    job.assert_settled(expected)


def test_batches_that_were_planned_before_the_loss_are_given_up(job):
    job.produce(range(300))
    # batches 2 and 3 are planned and perhaps sealed, none of them is in the target
    code, _ = job.run_apart("sealed:2")
    assert code == -signal.SIGKILL
    job.kafka.delete_records(job.topic, {0: 120, 1: 140})
    job.write(settings=SKIP)
    job.run()
    lost = {2 * offset + split for split, _, start, end, *_ in gaps(job) for offset in range(start, end)}
    assert lost
    job.assert_settled(set(range(300)) - lost)


def test_skip_reads_a_recreated_topic_from_its_beginning(job):
    job.produce(range(60))
    job.run()
    job.produce(range(60, 70))
    job.kafka.delete_topic(job.topic)
    job.kafka.create_topic(2, name=job.topic)
    job.produce(range(1000, 1100))
    job.write(settings=SKIP)
    job.run()
    assert [gap[1:] for gap in gaps(job)] == [("RECREATED", 30, None, "skip", "skipped")] * 2
    job.assert_settled([*range(60), *range(1000, 1100)])


@pytest.mark.parametrize("settings", ["", EARLIEST])
def test_new_partitions_are_refused_or_read_from_their_beginning(tmp_path, kafka, postgres, settings):
    job = CarJob(tmp_path, kafka, postgres, partitions=1, settings=settings)
    job.produce(range(60))
    job.run()
    kafka.add_partitions(job.topic, 3)
    job.partitions = 3
    job.produce(range(60, 120))
    if settings:
        job.run()
        assert gaps(job) == [
            (1, "NEW_SPLIT", 0, None, "earliest", "read"),
            (2, "NEW_SPLIT", 0, None, "earliest", "read"),
        ]
        # what came before the frontier of the first drain knew the new partitions, too
        job.run()
        job.assert_settled(range(120))
    else:
        with pytest.raises(PositionLostError, match="NEW_SPLIT"):
            job.run()
        assert job.rows() == list(range(60))


# -- from the archive


class Vans:
    """Another pipeline over the same topic, into a table of its own, with the same books."""

    def __init__(self, job, **changes):
        self.job = job
        job.execute(TABLE.split(";")[1].replace("car_info", "van_info") + ";")
        text = (job.folder / "pipelines" / "cars.sql").read_text()
        text = text.replace("'cars'", "'vans'").replace("'car_info'", "'van_info'")
        for old, new in changes.items():
            text = text.replace(old, new)
        self.file = job.folder / "vans.sql"
        self.file.write_text(text)

    def run(self):
        with env.overridden(**self.job.environment):
            (pipeline,) = flink_sql.load_file(self.file)
            session = Session(pipeline, Books.open())
        with session:
            list(Runner(session).catch_up())


def truncated_behind(job, vans, read_by_vans):
    """As `truncated`, where the other pipeline has read so many of the records in time."""
    job.produce(range(100))
    job.run()
    vans.run()
    job.produce(range(100, read_by_vans))
    vans.run()
    job.produce(range(read_by_vans, 300))
    job.kafka.delete_records(job.topic, {0: 80, 1: 60})


def assert_filled(job):
    """Exactly what was lost came from the archive, each offset once, however many batches it took."""
    found = gaps(job)
    assert {gap[4:] for gap in found} == {("from_archive", "filled")}
    covered = [(partition, offset) for partition, _, start, end, *_ in found for offset in range(start, end)]
    assert sorted(covered) == [(0, offset) for offset in range(50, 80)] + [(1, offset) for offset in range(50, 60)]


def test_what_another_pipelines_archive_holds_is_read_from_there(job):
    truncated_behind(job, Vans(job), 300)
    job.write(settings=FROM_ARCHIVE)
    job.run()
    assert_filled(job)
    job.assert_settled(range(300))


def test_records_from_an_archive_come_in_batches_of_the_usual_size(job):
    truncated_behind(job, Vans(job), 300)
    job.write(settings=FROM_ARCHIVE, max_rows=7)
    outcomes = job.run()
    assert max(outcome.batch.counts.records for outcome in outcomes) == 7
    assert_filled(job)
    job.assert_settled(range(300))


@pytest.mark.parametrize("step", ["read", "sealed", "committing"])
def test_kill_9_while_a_gap_is_filled_from_an_archive_loses_and_doubles_nothing(job, step):
    truncated_behind(job, Vans(job), 300)
    job.write(settings=FROM_ARCHIVE)
    code, output = job.run_apart(f"{step}:1")
    assert code == -signal.SIGKILL, output
    job.run()
    assert_filled(job)
    job.assert_settled(range(300))


def test_what_no_archive_holds_stays_a_gap_that_fails(job):
    truncated_behind(job, Vans(job), 140)
    job.write(settings=FROM_ARCHIVE)
    for _ in range(2):
        with pytest.raises(PositionLostError, match="offsets 70-80 of partition 0 are no longer held"):
            job.run()
    assert sorted(gaps(job)) == [
        (0, "TRUNCATED", 50, 70, "from_archive", "filled"),
        (0, "TRUNCATED", 70, 80, "from_archive", "open"),
        (1, "TRUNCATED", 50, 60, "from_archive", "filled"),
    ]
    assert set(range(120)) <= set(job.rows())
    job.write(settings=SKIP)
    job.run()
    job.assert_settled(set(range(300)) - set(range(140, 160, 2)))


def test_an_archive_of_uncommitted_records_does_not_count(job):
    reading = {"'scan.startup.mode'": "'properties.isolation.level' = 'read_uncommitted', 'scan.startup.mode'"}
    truncated_behind(job, Vans(job, **reading), 300)
    job.write(settings=FROM_ARCHIVE)
    with pytest.raises(PositionLostError, match="TRUNCATED"):
        job.run()
    assert {gap[-2:] for gap in gaps(job)} == {("from_archive", "open")}


def test_a_damaged_archive_is_refused_by_name(job):
    truncated_behind(job, Vans(job), 300)
    for file in (job.folder / "home").rglob("vans/*/*[0-9].parquet"):
        data = bytearray(file.read_bytes())
        data[10] ^= 1
        file.write_bytes(data)
    job.write(settings=FROM_ARCHIVE)
    with pytest.raises(FatalError, match=r"archive: .*vans/.*\.parquet refused: found sha256"):
        job.run()
    assert job.rows() == list(range(100))


# -- the end of a bounded pipeline


def bound(job, mode="latest-offset"):
    script = job.folder / "pipelines" / "cars.sql"
    script.write_text(
        script.read_text().replace("'earliest-offset')", f"'earliest-offset', 'scan.bounded.mode' = '{mode}')")
    )


def test_a_bounded_pipeline_ends_at_the_bound_it_started_with(job):
    job.produce(range(100))
    bound(job)
    # killed with its start frozen and nothing else
    code, _ = job.run_apart("planned:1")
    assert code == -signal.SIGKILL
    job.produce(range(100, 200))
    with job.open() as session:
        assert not session.is_finished()
        outcomes = list(Runner(session).follow())
        assert session.is_finished()
    assert outcomes[-1].lag == 0
    job.assert_settled(range(100))
