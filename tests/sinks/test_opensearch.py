"""The OpenSearch sink keeps the contract."""

import pytest

from tests.sinks.contract import SinkContract

pytestmark = pytest.mark.service


class TestOpenSearchSink(SinkContract):
    @pytest.fixture
    def gate(self, cars_index, proxy):
        gate = proxy("127.0.0.1", cars_index.server.service.port)
        cars_index.url = f"http://127.0.0.1:{gate.port}"
        return gate

    @pytest.fixture
    def open_sink(self, cars_index, gate):
        return lambda: cars_index.sink(None)

    @pytest.fixture
    def rows(self, cars_index):
        def rows():
            found = [(row["id"], row["color"], list(row["feature"])) for row in cars_index.documents().values()]
            return sorted(found, key=lambda row: row[0])

        return rows

    @pytest.fixture
    def cut(self, gate):
        return gate.stop
