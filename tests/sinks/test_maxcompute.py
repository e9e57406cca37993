"""The MaxCompute sink by the upsert tunnel keeps the contract, as far as a target without tokens can."""

import pytest

from tests.sinks.contract import SCHEMA, SinkContract, car, keys_of, rows_of
from tests.sinks.maxcompute_target import CARS, DELTA, UPSERT, Lot

pytestmark = pytest.mark.service


class TestMaxComputeSink(SinkContract):
    repeats = ()

    @pytest.fixture
    def lot(self, request, maxcompute):
        server = maxcompute
        if "that_is_gone" in request.node.name:
            server = request.getfixturevalue("own_maxcompute")()
        name = str(server.table(f"{CARS}, PRIMARY KEY (id)", DELTA).name)
        return Lot(server, name)

    @pytest.fixture
    def open_sink(self, lot):
        return lambda: lot.sink(None, retryTimes=1, **UPSERT)

    @pytest.fixture
    def rows(self, lot):
        def rows():
            return [(i, c, [int(x) for x in f.strip("{}").split(",")]) for i, c, f in lot.rows()]

        return rows

    @pytest.fixture
    def cut(self, lot):
        return lambda: lot.server.service.stop()

    def test_an_empty_batch_counts_as_applied(self, feed, sink, rows):
        feed.apply(car(1))
        token = feed.token(0)
        staged = feed.stage(rows_of())
        assert sink.commit(staged).counts.written == 0
        assert sink.find(token, staged.committable) == "APPLIED"
        assert len(rows()) == 1

    def test_another_batch_from_the_same_position_changes_nothing(self):
        """MaxCompute keeps no positions: the lease and the ledger alone refuse a second writer (docs/maxcompute.md)."""

    def test_a_bad_vector_is_rejected_by_its_position_and_the_rest_lands(self):
        """MaxCompute has no vectors; what it refuses is in test_maxcompute_types."""

    def test_a_new_process_finds_the_batch_and_reads_the_same_receipt(self, feed, open_sink):
        token = feed.token(3)
        staged = feed.stage(rows_of(car(1), car(2)), keys_of(9, first=2))
        receipt = feed.sink.commit(staged)
        other = open_sink()
        other.prepare(SCHEMA, ("id",))
        assert other.find(token, staged.committable) == "APPLIED"
        assert other.receipt(token) == receipt
        other.close()
