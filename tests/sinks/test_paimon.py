"""The Paimon sink keeps the contract, with fixed and with dynamic buckets."""

from pathlib import Path

import pytest

from tests.sinks.contract import SinkContract
from tests.sinks.paimon_target import lake, make_lake  # noqa: F401  (fixtures)


def numbers(text: str | None) -> list[float]:
    return [float(part) for part in (text or "").strip("{}").split(",") if part]


class TestPaimonSink(SinkContract):
    @pytest.fixture(params=[1, 2, -1], ids=["one bucket", "two buckets", "dynamic buckets"])
    def open_sink(self, lake, request):  # noqa: F811
        lake.sink(bucket=request.param)
        return lambda: lake.sink(None)

    @pytest.fixture
    def rows(self, lake):  # noqa: F811
        return lambda: [(row[0], row[1], numbers(row[2])) for row in lake.rows()]

    @pytest.fixture
    def cut(self, lake):  # noqa: F811
        return lambda: Path(lake.warehouse, "db.db").rename(Path(lake.warehouse, "unmounted"))

    @pytest.mark.parametrize("bad", ["{1,2}"])
    def test_a_bad_vector_is_rejected_by_its_position_and_the_rest_lands(self, bad):
        """Paimon has no vectors: text stays text, and `test_paimon_values` holds what the table refuses."""
