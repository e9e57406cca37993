"""What every sink must do; a sink's own test class inherits it and provides the fixtures."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest

from vector_assets.engine.abilities import Auditable, KeyReadable
from vector_assets.engine.core import POSITION, Batch, BatchToken, Merge, Range, Receipt, Sink, Span
from vector_assets.engine.errors import FencedError, PlanError, TransientError

SCHEMA = pa.schema([("id", pa.int32()), ("color", pa.string()), ("feature", pa.string())])
"""Rows of the contract: key `id`, a text, and a vector of three dimensions written as text."""

SPLIT = "vector_ingest@topic/0"

Row = tuple[Any, ...]
Rows = Callable[[], list[Row]]


def rows_of(*rows: Row, schema: pa.Schema = SCHEMA, first: int = 0) -> pa.Table:
    """Rows with their ordinals, counted from `first`."""
    columns = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(schema)]
    return pa.table([*columns, pa.array(range(first, first + len(rows)), pa.int64())], names=[*schema.names, POSITION])


def keys_of(*keys: object, first: int = 0) -> pa.Table:
    """Keys to delete, with their ordinals."""
    return pa.table({"id": pa.array(keys, pa.int32()), POSITION: pa.array(range(first, first + len(keys)), pa.int64())})


def car(number: int, color: str | None = "red", feature: str | None = "{1,2,3}") -> Row:
    """A row that the target takes."""
    return (number, color, feature)


class Feed:
    """Hands batches to a sink as the engine would: numbered, each where the one before ended."""

    def __init__(self, sink: Sink, *, pipeline: str = "cars", fence: int = 1, target: str = "target") -> None:
        self.sink, self.pipeline, self.fence, self.target = sink, pipeline, fence, target
        self.seq = 0
        self.offset = 0

    def token(self, records: int) -> BatchToken:
        """The name of the next batch."""
        span = Span((Range(SPLIT, {"offset": self.offset}, {"offset": self.offset + records}),) if records else ())
        first = frozenset({SPLIT}) if self.offset == 0 else frozenset()
        return BatchToken(self.pipeline, self.target, self.seq + 1, span, self.fence, first)

    def stage(self, upserts: pa.Table, deletes: pa.Table | None = None, limit: int | None = None):
        """The next batch, staged; its number is used up."""
        records = upserts.num_rows + (deletes.num_rows if deletes is not None else 0)
        staged = self.sink.stage(Batch(upserts, deletes, reject_limit=limit), self.token(records))
        self.seq += 1
        self.offset += records
        return staged

    def apply(self, *rows: Row, deletes: tuple[object, ...] = (), limit: int | None = None) -> Receipt:
        """Stage and commit the next batch."""
        keys = keys_of(*deletes, first=len(rows)) if deletes else None
        return self.sink.commit(self.stage(rows_of(*rows), keys, limit))


class SinkContract:
    """Override the fixtures; `sink` merges by `last change` into an empty target with key `id`."""

    repeats = (FencedError,)
    """What the target may raise for a batch it has; none for a target that takes it as done."""

    takes_bare_vectors = False
    """True for a target that reads `1,2,3` as a vector."""

    @pytest.fixture
    def open_sink(self) -> Callable[[], Sink]:
        """Opens one more sink on the target, as a new process would."""
        raise NotImplementedError

    @pytest.fixture
    def rows(self) -> Rows:
        """The target's rows (id, color, vector as a list) by id, read through its own client."""
        raise NotImplementedError

    @pytest.fixture
    def cut(self) -> Callable[[], object]:
        """Cuts the target off from every sink."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self, open_sink):
        sink = open_sink()
        sink.prepare(SCHEMA, ("id",))
        yield sink
        sink.close()

    @pytest.fixture
    def feed(self, sink) -> Feed:
        return Feed(sink)

    def test_rows_are_visible_and_counted_when_commit_returns(self, feed, rows):
        receipt = feed.apply(car(1), car(2, "blue", "{4,5,6}"))
        assert rows() == [(1, "red", [1, 2, 3]), (2, "blue", [4, 5, 6])]
        assert receipt.counts.written == 2
        assert receipt.rejected.num_rows == 0
        assert receipt.commit_id

    def test_nothing_is_visible_before_commit(self, feed, rows):
        feed.stage(rows_of(car(1)))
        assert rows() == []

    def test_prepare_tells_key_columns_and_incarnation(self, sink):
        target = sink.prepare(SCHEMA, ("id",))
        assert target.key == ("id",)
        assert set(target.columns) >= set(SCHEMA.names)
        assert target.incarnation

    def test_a_declared_key_that_is_not_the_targets_is_refused(self, sink):
        with pytest.raises(PlanError, match="color"):
            sink.prepare(SCHEMA, ("color",))

    def test_a_column_that_the_target_lacks_is_refused_by_name(self, sink):
        with pytest.raises(PlanError, match="colour"):
            sink.prepare(pa.schema([*SCHEMA, ("colour", pa.string())]), ())

    def test_a_type_that_the_target_does_not_take_is_refused_by_name(self, sink):
        with pytest.raises(PlanError, match="color"):
            sink.prepare(SCHEMA.set(1, pa.field("color", pa.date32())), ())

    def test_an_update_replaces_the_row(self, feed, rows):
        feed.apply(car(1), car(2))
        feed.apply(car(1, "blue", "{7,8,9}"))
        assert rows() == [(1, "blue", [7, 8, 9]), (2, "red", [1, 2, 3])]

    def test_a_moved_key_leaves_no_orphan(self, feed, rows):
        feed.apply(car(1))
        feed.apply(car(2), deletes=(1,))
        assert rows() == [(2, "red", [1, 2, 3])]

    def test_a_delete_removes_the_row_and_deleting_an_absent_key_is_nothing(self, feed, rows):
        feed.apply(car(1), car(2))
        receipt = feed.apply(deletes=(2, 99))
        assert rows() == [(1, "red", [1, 2, 3])]
        assert receipt.counts.deleted == 2

    def test_nulls_arrive_as_nulls(self, feed, rows):
        feed.apply(car(1, None), car(2))
        assert rows()[0][:2] == (1, None)

    def test_an_empty_batch_counts_as_applied(self, feed, sink, rows):
        feed.apply(car(1))
        token = feed.token(0)
        receipt = feed.apply()
        assert receipt.counts.written == 0
        assert sink.find(token, None) == "APPLIED"
        assert len(rows()) == 1

    def test_a_batch_is_absent_before_and_found_after_its_commit(self, feed, sink):
        token = feed.token(1)
        staged = feed.stage(rows_of(car(1)))
        assert sink.find(token, staged.committable) == "ABSENT"
        sink.commit(staged)
        assert sink.find(token, staged.committable) == "APPLIED"

    def test_a_new_process_finds_the_batch_and_reads_the_same_receipt(self, feed, open_sink):
        token = feed.token(3)
        staged = feed.stage(rows_of(car(1), car(2), car(3, feature="{1}")))
        receipt = feed.sink.commit(staged)
        other = open_sink()
        other.prepare(SCHEMA, ("id",))
        assert other.find(token, staged.committable) == "APPLIED"
        again = other.receipt(token)
        other.close()
        assert again == receipt

    def test_the_same_batch_twice_leaves_its_rows_once(self, feed, sink, rows):
        staged = feed.stage(rows_of(car(1)))
        sink.commit(staged)
        feed.apply(car(1, "blue"))
        with suppress(*self.repeats):
            sink.commit(staged)
        assert rows() == [(1, "blue", [1, 2, 3])]

    def test_another_batch_from_the_same_position_changes_nothing(self, feed, sink, rows):
        feed.apply(car(1))
        rival = Feed(sink, fence=2)
        staged = rival.stage(rows_of(car(1, "black"), car(2, "black")))
        with pytest.raises(FencedError):
            sink.commit(staged)
        assert rows() == [(1, "red", [1, 2, 3])]
        assert sink.find(staged.token, staged.committable) == "UNKNOWN"

    @pytest.mark.parametrize("bad", ["{1,2}", "{1,2,3,4}", "{1,2,NaN}", "{1,2,1e99}", "{1,2,x}", "1,2,3", ""], ids=str)
    def test_a_bad_vector_is_rejected_by_its_position_and_the_rest_lands(self, feed, rows, bad):
        bad = bad + ",4" if bad[:1].isdigit() and self.takes_bare_vectors else bad
        staged = feed.stage(rows_of(car(1), car(2, feature=bad), car(3)))
        receipt = feed.sink.commit(staged)
        rejected = pa.concat_tables([staged.rejected, receipt.rejected]).to_pylist()
        assert [(row[POSITION], row["stage"]) for row in rejected] == [(1, "write")]
        assert "feature" in rejected[0]["error"]
        assert [row[0] for row in rows()] == [1, 3]
        assert receipt.counts.written == 2

    def test_a_target_that_is_gone_is_a_passing_error(self, feed, sink, cut):
        staged = feed.stage(rows_of(car(1)))
        cut()
        with pytest.raises(TransientError):
            sink.commit(staged)

    def test_a_forgotten_pipeline_starts_anew(self, feed, sink, rows):
        feed.apply(car(1))
        sink.forget("cars")
        again = Feed(sink)
        assert sink.find(again.token(1), None) == "ABSENT"
        again.apply(car(2))
        assert [row[0] for row in rows()] == [1, 2]

    def test_pipelines_do_not_know_each_others_positions(self, feed, sink, rows):
        feed.apply(car(1))
        Feed(sink, pipeline="others").apply(car(2))
        assert [row[0] for row in rows()] == [1, 2]

    def test_what_is_read_back_is_what_was_to_be_stored(self, feed, sink):
        if not isinstance(sink, Auditable):
            return
        feed.apply(car(1), car(2, color=None), car(3))
        feed.apply(car(2, color="blue"), deletes=(3,))
        wanted = sink.as_stored(rows_of(car(1), car(2, color="blue"))).drop_columns(POSITION).sort_by("id")
        found = pa.Table.from_batches(list(sink.scan())).sort_by("id")
        assert found.equals(wanted)
        if isinstance(sink, KeyReadable):
            assert sink.rows_of(keys_of(1, 3)).equals(wanted.slice(0, 1))

    def test_close_may_be_called_twice(self, sink):
        assert sink.merge is Merge.LAST
        sink.close()
        sink.close()
