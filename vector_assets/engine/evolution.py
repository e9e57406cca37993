"""Columns that change while a pipeline runs: only the committer changes them, between two batches.

What workers decoded ahead under older columns is decoded again, so the rows of a batch depend on the batches before it
and not on who was quicker. The target is changed first and the ledger second: after a crash between the two the batch
asks for the same change again, and the target has it already.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from vector_assets.engine.abilities import Describing, Evolvable, Evolving
from vector_assets.engine.column_changes import (
    changes_between,
    check_following,
    following,
    is_destructive,
    make,
    refused,
    with_key,
)
from vector_assets.engine.core import HIDDEN, Decoder, Json, SchemaChange, Sink, Split, Target, Transform
from vector_assets.engine.env import failpoint
from vector_assets.engine.errors import ConfigError, Place, PlanError
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.schema import Column, Table
from vector_assets.engine.schema_history import Change, add_version, latest_state, state_of, unsettled

log = logging.getLogger(__name__)


def check_evolvable(
    decoder: Decoder, sink: type[Any] | Sink, transforms: Sequence[Transform], place: Place | None = None
) -> None:
    """Make sure that columns can change where the decoder is told to change them; `sink` is the sink or its class.

    Raises:
        ConfigError: the target cannot be changed by us, or transforms stand between decoder and sink.
    """
    if isinstance(decoder, Describing):
        # what a target cannot do is known when it is asked: most changes never come
        check_following(transforms, place)
        return
    if not (isinstance(decoder, Evolving) and decoder.evolves):
        return
    is_able = issubclass(sink, Evolvable) if isinstance(sink, type) else isinstance(sink, Evolvable)
    if not is_able:
        name = sink.__name__ if isinstance(sink, type) else type(sink).__name__
        raise ConfigError(
            f"drift mode evolve: {name} cannot add or widen columns; want the mode rescue, freeze or fail", place
        )
    if transforms:
        raise ConfigError(
            "drift mode evolve: the pipeline transforms its rows, so a new column would not reach the target; want the"
            " mode rescue, freeze or fail", place,
        )  # fmt: skip


def evolved(pipeline: Pipeline, state: Sequence[Json]) -> Pipeline:
    """The pipeline with the columns that its decoder has after these changes; new ones stand at the end."""
    if not isinstance(pipeline.decoder, Evolving) or not (state or isinstance(pipeline.decoder, Describing)):
        return pipeline
    decoder = pipeline.decoder.evolved(state)
    if not isinstance(decoder, Evolving):
        return pipeline
    if isinstance(decoder, Describing):
        return with_key(following(pipeline, decoder, decoder.columns), decoder.renamed)
    found = {column.name: column for column in decoder.columns}
    table = pipeline.sink_table
    kept = [
        replace(found[column.name], comment=column.comment) if column.name in found else column
        for column in table.columns
    ]
    columns = [*kept, *_added(table, decoder.columns)]
    sent = {each.name: each for each in pipeline.schema}
    fields = {each.name: each for each in Table("", tuple(decoder.columns)).schema}
    schema = pa.schema(list((sent | fields).values()))
    return replace(pipeline, decoder=decoder, sink_table=replace(table, columns=tuple(columns)), schema=schema)


def _added(table: Table, columns: Sequence[Column]) -> list[Column]:
    known = {column.name for column in table.columns}
    return [column for column in columns if column.name not in known]


def todays_new(ledger: Ledger, pipeline: Pipeline) -> frozenset[str]:
    """Columns of a job that its newest batches did not have, or had in another type: its form was changed since."""
    if pipeline.creation is None:
        return frozenset()
    columns = [(column.name, str(column.type)) for column in pipeline.sink_table.columns]
    return unsettled(ledger, pipeline.name, pipeline.target, columns)


def form_changes(ledger: Ledger, pipeline: Pipeline, sink: Sink) -> tuple[str, ...]:
    """What the next run will change of a job's table, because the form's columns were changed since the last batch.

    Nothing is changed. `pipeline` is as declared.

    Raises:
        PlanError: the table cannot take the columns, so the run would stop.
        TransientError: the table cannot be asked.
    """
    if not ledger.is_activated(pipeline.name, pipeline.target) or not isinstance(sink, Evolvable):
        return ()
    today = evolved(pipeline, latest_state(ledger, pipeline.name, pipeline.target))
    return sink.would_evolve(today.schema) if todays_new(ledger, today) else ()


def without(schema: pa.Schema, names: frozenset[str]) -> pa.Schema:
    """The schema without some columns."""
    return pa.schema([each for each in schema if each.name not in names])


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of an older version with the columns of today's: those they lack as nulls, narrower ones widened."""
    hidden = [name for name in rows.column_names if name in HIDDEN]
    arrays = [
        rows.column(each.name).cast(each.type) if each.name in rows.column_names else pa.nulls(rows.num_rows, each.type)
        for each in schema
    ]
    fields = [*schema, *(rows.schema.field(name) for name in hidden)]
    return pa.table([*arrays, *(rows.column(name) for name in hidden)], schema=pa.schema(fields))


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """The pipeline as a schema version has it."""

    version: int
    pipeline: Pipeline
    state: tuple[Json, ...] = ()


@dataclass
class Schemas:
    """Schema versions of one pipeline under one lease. Any thread may ask, only the committer changes.

    Workers stage inside `staging`, so that the columns never change under them.
    """

    ledger: Ledger
    declared: Pipeline
    current: PipelineVersion
    _older: dict[int, PipelineVersion] = field(default_factory=dict)
    _at_work: int = 0
    _turn: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def staging(self) -> Iterator[PipelineVersion]:
        """The current version, which stays so until the block ends."""
        with self._turn:
            self._at_work += 1
        try:
            yield self.current
        finally:
            with self._turn:
                self._at_work -= 1
                self._turn.notify_all()

    def at(self, version: int) -> PipelineVersion:
        """A version of a batch: the current one, or an older one out of the ledger."""
        decoder = self.declared.decoder
        if version == self.current.version or not isinstance(decoder, Evolving) or isinstance(decoder, Describing):
            return self.current
        if version not in self._older:
            state = state_of(self.ledger, self.declared.name, self.declared.target, version)
            self._older[version] = PipelineVersion(version, evolved(self.declared, state), state)
        return self._older[version]

    def evolve(
        self, lease: Lease, sink: Sink, seq: int, raw: pa.Table, splits: Sequence[Split],
        wants: Sequence[SchemaChange], try_again: Callable[[Callable[[], object]], object],
    ) -> Target:  # fmt: skip
        """Change the target as batch `seq` wants it, as far as the target goes along, and note that in the ledger.

        What the target says of itself afterwards.

        Raises:
            FatalError: the target refuses a change that it must make.
            ConfigError: the sink cannot change its target.
            TransientError: the target does not answer.
        """
        check_evolvable(self.declared.decoder, sink, self.declared.transforms, self.declared.place)
        with self._turn:
            # workers that stage now do so under the columns of now
            self._turn.wait_for(lambda: self._at_work == 0)
            if isinstance(self.declared.decoder, Describing):
                return self._alter(lease, sink, seq, raw, splits, wants, try_again)
            assert isinstance(sink, Evolvable)
            state, reasons = self._asked(sink, wants, try_again)
            failpoint("evolved")
            pipeline = evolved(self.declared, state)
            changes = [_change(want, raw, splits, reasons.get(want.what)) for want in wants]
            version = add_version(self.ledger, lease, pipeline.columns, state, seq, changes)
            target = self._prepared(sink, pipeline, try_again)
            self.current = PipelineVersion(version, pipeline, state)
        _tell(lease, seq, changes)
        return target

    def _prepared(self, sink: Sink, pipeline: Pipeline, try_again: Callable[[Callable[[], object]], object]) -> Target:
        found = try_again(lambda: sink.prepare(pipeline.schema, pipeline.sink_table.primary_key))
        assert isinstance(found, Target)
        return found

    def _alter(
        self, lease: Lease, sink: Sink, seq: int, raw: pa.Table, splits: Sequence[Split],
        wants: Sequence[SchemaChange], try_again: Callable[[Callable[[], object]], object],
    ) -> Target:  # fmt: skip
        """As `evolve`, a change at a time: one that takes something away is noted before the next one is made.

        So what is made again after a crash is the last change only, which a second time changes nothing.
        """
        state, noted = self.current.state, list[Change]()
        pipeline = evolved(self.declared, state)
        for number, want in enumerate(wants):
            state, pipeline, reason, is_last = self._altered(lease, sink, state, pipeline, want, try_again)
            noted.append(_change(want, raw, splits, reason))
            if is_last or number + 1 == len(wants):
                failpoint("evolved")
                version = add_version(self.ledger, lease, pipeline.columns, state, seq, noted)
                self.current = PipelineVersion(version, pipeline, state)
                _tell(lease, seq, noted)
                noted = []
        return self._prepared(sink, pipeline, try_again)

    def _altered(
        self, lease: Lease, sink: Sink, state: tuple[Json, ...], pipeline: Pipeline, want: SchemaChange,
        try_again: Callable[[Callable[[], object]], object],
    ) -> tuple[tuple[Json, ...], Pipeline, str | None, bool]:  # fmt: skip
        """State and pipeline after a change, why it was refused, and whether it must be noted before the next one."""
        try:
            after = evolved(self.declared, (*state, want.entry))
            changes = changes_between(pipeline.sink_table, after.sink_table, want.renamed)
            if changes:
                try_again(lambda: make(sink, changes, after))
        except PlanError as error:
            if want.is_required:
                raise refused(lease.pipeline, want, str(error)) from error
            state = (*state, want.refusal)
            return state, evolved(self.declared, state), str(error), False
        return (*state, want.entry), after, None, is_destructive(changes)

    def _asked(
        self, sink: Evolvable, wants: Sequence[SchemaChange], try_again: Callable[[Callable[[], object]], object]
    ) -> tuple[tuple[Json, ...], dict[str, str]]:
        """The state after the changes that the target makes, and why it refuses the others."""

        def ask(state: tuple[Json, ...]) -> str | None:
            schema = evolved(self.declared, state).schema
            try:
                try_again(lambda: sink.evolve(schema))
            except PlanError as error:
                return str(error)
            return None

        state = self.current.state
        whole = (*state, *(want.entry for want in wants))
        if ask(whole) is None:
            return whole, {}
        reasons: dict[str, str] = {}
        for want in wants:
            # a second change of a column whose first was refused starts from what the column is not
            earlier = next(
                (reasons[each.what] for each in wants if each.what in reasons and each.refusal == want.refusal), None
            )
            reason = earlier or ask((*state, want.entry))
            state = (*state, want.entry if reason is None else want.refusal)
            if reason is not None:
                reasons[want.what] = reason
        return state, reasons


def _tell(lease: Lease, seq: int, changes: Sequence[Change]) -> None:
    for change in changes:
        why = f": {change.refused}" if change.refused else ""
        log.info("%s: batch %d: %s%s", lease.pipeline, seq, change.what, why)


def _change(want: SchemaChange, raw: pa.Table, splits: Sequence[Split], refused: str | None) -> Change:
    split = splits[raw.column("split")[want.position].as_py()]
    return Change(want.what, split, int(raw.column("offset")[want.position].as_py()), refused)
