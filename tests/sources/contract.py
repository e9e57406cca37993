"""What every source must do; a source's own test class inherits it and provides the fixtures."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.sources.reading import NO_LIMIT, drain, places, read, values
from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Source
from vector_assets.engine.errors import PositionLostError


@dataclass(frozen=True)
class Upstream:
    """What the contract does to the system behind the source, which has two splits and starts empty.

    `append(split, values)` adds records in order; `expire()` makes the system forget its oldest records in every split.
    """

    append: Callable[[int, list[bytes]], object]
    expire: Callable[[], object]


class SourceContract:
    """Override the fixtures `upstream` and `source`; the source starts from the beginning."""

    @pytest.fixture
    def upstream(self) -> Upstream:
        raise NotImplementedError

    @pytest.fixture
    def source(self, upstream: Upstream) -> Source:
        raise NotImplementedError

    def test_an_empty_source_has_nothing_to_plan(self, source):
        start = source.start()
        assert source.plan(start, NO_LIMIT) is None
        assert source.lag(start, source.frontier()) == 0

    def test_records_come_as_raw_schema_in_order_within_their_split(self, source, upstream):
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d", b"e"])
        table, _ = read(source, source.plan(source.start(), NO_LIMIT))
        assert table.schema == RAW_SCHEMA
        assert values(table) == [b"a", b"b", b"c", b"d", b"e"]
        assert places(table) == sorted(places(table))

    def test_the_position_after_the_last_record_is_the_frontier(self, source, upstream):
        upstream.append(0, [b"a", b"b", b"c"])
        upstream.append(1, [b"d"])
        _, position = drain(source, source.start())
        frontier = source.frontier()
        assert source.lag(position, frontier) == 0
        assert source.plan(position, NO_LIMIT) is None
        assert source.plan(frontier, NO_LIMIT) is None

    def test_resuming_reads_every_record_once(self, source, upstream):
        upstream.append(0, [b"a%d" % number for number in range(50)])
        upstream.append(1, [b"b%d" % number for number in range(30)])
        tables, position = drain(source, source.start(), BatchLimit(7, 1 << 30))
        upstream.append(0, [b"late"])
        more, _ = drain(source, position)
        found = [value for table in [*tables, *more] for value in values(table)]
        assert len(found) == len(set(found)) == 81

    def test_a_batch_takes_no_more_rows_than_its_limit(self, source, upstream):
        upstream.append(0, [b"x"] * 40)
        upstream.append(1, [b"y"] * 40)
        table, _ = read(source, source.plan(source.start(), BatchLimit(9, 1 << 30)))
        assert table.num_rows == 9

    def test_the_ends_of_a_span_are_as_far_apart_as_it_has_records(self, source, upstream):
        upstream.append(0, [b"x"] * 20)
        upstream.append(1, [b"y"] * 15)
        position, limit = source.start(), BatchLimit(6, 1 << 30)
        while (span := source.plan(position, limit)) is not None:
            table, span = read(source, span, limit)
            assert source.lag(span.start, span.end) == table.num_rows
            position = {**position, **span.end}

    def test_a_batch_stops_at_its_bytes_but_makes_progress(self, source, upstream):
        upstream.append(0, [b"x" * 10_000] * 20)
        start = source.start()
        for limit in (BatchLimit(100, 30_000), BatchLimit(100, 1)):
            span = source.plan(start, limit)
            table, as_read = read(source, span, limit)
            assert 1 <= table.num_rows <= 3
            rest, _ = drain(source, {**start, **as_read.end})
            assert table.num_rows + sum(each.num_rows for each in rest) == 20

    def test_nothing_is_planned_past_a_frontier_seen_before(self, source, upstream):
        start = source.start()
        upstream.append(0, [b"a", b"b"])
        until = source.frontier()
        upstream.append(0, [b"c"])
        upstream.append(1, [b"d"])
        limit = BatchLimit(100, 1 << 30, until)
        tables, position = drain(source, start, limit)
        assert [values(table) for table in tables] == [[b"a", b"b"]]
        assert source.lag(position, until) == 0
        assert source.lag(position, source.frontier()) == 2

    def test_a_span_read_again_gives_the_same_records_and_ends(self, source, upstream):
        upstream.append(0, [b"a%d" % number for number in range(20)])
        upstream.append(1, [b"b%d" % number for number in range(20)])
        limit = BatchLimit(15, 1 << 30)
        first, span = read(source, source.plan(source.start(), limit), limit)
        read(source, source.plan({**source.start(), **span.end}, limit), limit)
        again, same = read(source, span)
        assert again.equals(first)
        assert same == span

    def test_a_reading_given_up_half_way_can_start_again(self, source, upstream):
        upstream.append(0, [b"a"] * 10)
        upstream.append(1, [b"b"] * 10)
        span = source.plan(source.start(), NO_LIMIT)
        reading = source.read(span, NO_LIMIT)
        next(reading)
        reading.close()
        table, _ = read(source, span)
        assert table.num_rows == 20

    def test_an_expired_start_is_a_lost_position(self, source, upstream):
        upstream.append(0, [b"a"] * 10)
        upstream.append(1, [b"b"] * 10)
        start = source.start()
        upstream.expire()
        with pytest.raises(PositionLostError):
            source.plan(start, NO_LIMIT)

    def test_a_span_that_expires_before_it_is_read_is_a_lost_position(self, source, upstream):
        upstream.append(0, [b"a"] * 10)
        upstream.append(1, [b"b"] * 10)
        span = source.plan(source.start(), NO_LIMIT)
        upstream.expire()
        with pytest.raises(PositionLostError):
            read(source, span)

    def test_an_operator_can_name_the_earliest_and_the_latest_place(self, source, upstream):
        upstream.append(0, [b"a"] * 10)
        assert source.lag(source.locate("earliest"), source.frontier()) == 10
        assert source.lag(source.locate("latest"), source.frontier()) == 0

    def test_closing_twice_is_harmless(self, source, upstream):
        upstream.append(0, [b"a"])
        drain(source, source.start())
        source.close()
        source.close()
