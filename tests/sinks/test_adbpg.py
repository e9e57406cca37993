"""The sink keeps the contract, in every way of writing that updates rows."""

import pytest

from tests.sinks.contract import Feed, SinkContract, car

pytestmark = pytest.mark.service

WAYS = {
    "copy, update": {"writemode": 1, "conflictmode": "update"},
    "insert, update": {"writemode": 0, "conflictmode": "update"},
    "upsert": {"writemode": 2},
}


class TestAdbPgSink(SinkContract):
    @pytest.fixture(params=WAYS.values(), ids=list(WAYS))
    def way(self, request):
        return request.param

    @pytest.fixture
    def gate(self, cars, proxy):
        gate = proxy(cars.host, cars.port)
        cars.port = gate.port
        return gate

    @pytest.fixture
    def open_sink(self, cars, way, gate):
        return lambda: cars.sink(None, vector__dimensions="feature:3", **way)

    @pytest.fixture
    def rows(self, cars):
        return cars.rows

    @pytest.fixture
    def cut(self, gate):
        return gate.stop

    def test_a_commit_whose_answer_is_lost_is_found_by_a_new_attempt(self, feed, sink, gate, rows):
        feed.apply(car(1))
        token = feed.token(1)
        gate.drop_connections()
        feed.apply(car(2))
        assert sink.find(token, None) == "APPLIED"
        assert [row[0] for row in rows()] == [1, 2]
        assert Feed(sink).token(1).id != token.id
