"""The Milvus sink keeps the contract."""

import pytest

from tests.sinks.contract import Feed, SinkContract, car

pytestmark = pytest.mark.service


class TestMilvusSink(SinkContract):
    takes_bare_vectors = True

    @pytest.fixture
    def gate(self, cars_collection, proxy):
        gate = proxy(cars_collection.host, cars_collection.port)
        cars_collection.port = gate.port
        return gate

    @pytest.fixture
    def open_sink(self, cars_collection, gate):
        return lambda: cars_collection.sink(None)

    @pytest.fixture
    def rows(self, cars_collection):
        def rows():
            return [(row["id"], row["color"], list(row["feature"])) for row in cars_collection.rows()]

        return rows

    @pytest.fixture
    def cut(self, gate):
        return gate.stop

    def test_a_commit_over_a_new_connection_goes_on(self, feed, sink, gate, rows):
        feed.apply(car(1))
        token = feed.token(1)
        gate.drop_connections()
        feed.apply(car(2))
        assert sink.find(token, None) == "APPLIED"
        assert [row[0] for row in rows()] == [1, 2]
        assert Feed(sink).token(1).id != token.id
