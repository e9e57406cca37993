"""The contract of sources, of a MaxCompute table that is followed."""

from typing import Any

import pytest

from tests.sources import test_maxcompute as full
from tests.sources.maxcompute_table import source_of, values_of
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets.engine.core import BatchLimit
from vector_assets.engine.errors import PositionLostError

pytestmark = pytest.mark.service
FOLLOW = {"startPartition": "ds=0", "vector-assets.partition.quiet": "0 s"}


class TestIncrementalContract(full.MaxComputeContract):
    """A batch is of one partition; a partition that changes before it is begun is read as it is then."""

    @pytest.fixture
    def source(self, upstream: Any, maxcompute: Any) -> Any:
        found = source_of(maxcompute, self.table, "v STRING", **FOLLOW)
        yield found
        found.close()

    def test_records_come_as_raw_schema_in_order_within_their_split(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d", b"e"])
        tables, _ = drain(source, source.start())
        assert [values_of([table]).column("v").to_pylist() for table in tables] == [["a", "b", "c"], ["d", "e"]]
        assert [table.column("offset").to_pylist() for table in tables] == [[0, 1, 2], [0, 1]]

    def test_nothing_is_planned_past_a_frontier_seen_before(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a", b"b"])
        until = source.frontier()
        upstream.append(1, [b"c"])
        tables, position = drain(source, source.start(), BatchLimit(100, 1 << 30, until))
        assert values_of(tables).column("v").to_pylist() == ["a", "b"]
        assert source.lag(position, source.frontier()) == 1

    def test_a_reading_given_up_half_way_can_start_again(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a"] * 10)
        span = source.plan(source.start(), NO_LIMIT)
        reading = source.read(span, NO_LIMIT)
        next(reading)
        reading.close()
        table, _ = read(source, span)
        assert table.num_rows == 10

    def test_an_expired_start_is_a_lost_position(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a"] * 10)
        _, span = read(source, source.plan(source.start(), BatchLimit(5, 1 << 30)))
        upstream.expire()
        source.frontier()
        with pytest.raises(PositionLostError, match="DELETED"):
            source.plan(span.end, NO_LIMIT)

    def test_an_operator_can_name_the_earliest_and_the_latest_place(self, source: Any, upstream: Any) -> None:
        upstream.append(0, [b"a"] * 10)
        upstream.append(1, [b"b"] * 5)
        assert source.lag(source.locate("earliest"), source.frontier()) == 15
        assert source.lag(source.locate("latest"), source.frontier()) == 0
        assert source.lag(source.locate("ds=1"), source.frontier()) == 5
