"""MaxCompute tables as dimension tables: one partition, the newest, the two newest, or all that the option means."""

from collections.abc import Iterator

import pyarrow as pa

from vector_assets.clients import maxcompute_read as reading
from vector_assets.clients.maxcompute import MaxCompute, MaxPartition, MaxTable
from vector_assets.clients.maxcompute_errors import SessionEndedError, TableModifiedError
from vector_assets.clients.maxcompute_partitions import chosen, listed, parse
from vector_assets.clients.maxcompute_types import is_widening, type_text
from vector_assets.engine.errors import PlanError, TransientError
from vector_assets.engine.lookup import Part, Snapshot
from vector_assets.engine.schema import Table
from vector_assets.lookups.maxcompute_options import MaxComputeLookupOptions


class MaxComputeLookup:
    """The rows of a MaxCompute table; partitions in ascending order, each in the order the service gives."""

    def __init__(self, options: MaxComputeLookupOptions, table: Table) -> None:
        """Nothing is contacted yet."""
        self._options = options
        self._table = table
        self._service = MaxCompute.of(options)
        self._found: MaxTable | None = None
        self._sessions: list[reading.Snapshot] = []

    @staticmethod
    def check(options: MaxComputeLookupOptions, table: Table) -> None:
        """Make sure that the options fit a dimension table.

        Raises:
            OptionError: `cache` is not ALL.
        """
        options.check_cache()

    def snapshot(self) -> Snapshot:
        """The partitions that the option means now, with the time of their last change.

        Raises:
            PlanError: the table, a column or the partition is not there, or a type does not fit.
        """
        found = self._found = self._service.table(self._options.table_name)
        reading.check_readable(found)
        self._check_columns(found)
        self._sessions = []
        if not found.is_partitioned:
            if self._options.partition is not None:
                what = f"maxcompute: table {found.name} has no partitions, option 'partition' is"
                raise PlanError(f"{what} {self._options.partition!r}; leave it out")
            return Snapshot((Part("", found.modified * 1000),))
        parts = self._partitions(found)
        return Snapshot(tuple(Part(each.spec, each.modified * 1000, _state(each)) for each in parts))

    def _partitions(self, found: MaxTable) -> list[MaxPartition]:
        text = self._options.partition
        if text is None:
            levels = ", ".join(level.name for level in found.levels)
            what = (
                f"maxcompute: table {found.name} is partitioned by {levels}: a dimension table over it wants the option"
            )
            raise PlanError(f"{what} 'partition', such as {found.levels[0].name}=20180905 or max_pt()")
        wanted = parse(text)
        levels_wanted = {level.name.lower() for level in found.levels}
        if wanted.is_exact and all({name.lower() for name in spec} == levels_wanted for spec in wanted.specs):
            specs = [{name.lower(): value for name, value in spec.items()} for spec in wanted.specs]
            texts = [",".join(f"{level.name}={spec[level.name.lower()]}" for level in found.levels) for spec in specs]
            asked = {text: self._service.partition(found, text) for text in texts}
            return sorted(asked.values(), key=lambda part: part.values)
        every = self._service.partitions(found)
        parts = chosen(text, found, every)
        if not parts:
            what = f"maxcompute: table {found.name}: no partition is meant by option 'partition' = {text!r}"
            raise PlanError(f"{what}; {listed(every)}")
        return parts

    def _check_columns(self, found: MaxTable) -> None:
        for column in self._table.columns:
            there = found.column(column.name)
            if not is_widening(there.type, column.type):
                what = f"maxcompute: table {found.name}: column {column.name} is {there.text.upper()}"
                raise PlanError(
                    f"{what}, dimension table {self._table.name} declares {column.type}, which is"
                    f" {type_text(column.type)} in MaxCompute; declare {there.type}"
                )
        found.check_nested([column.name for column in self._table.columns])

    def count(self, snapshot: Snapshot) -> int:
        """Rows of all partitions; their sessions stay open for `load`."""
        assert self._found is not None, "count comes after snapshot"
        found = self._found
        if not self._sessions:
            self._sessions = [reading.open_snapshot(self._service, found, part.name or None) for part in snapshot.parts]
        return sum(session.rows for session in self._sessions)

    def load(self, snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
        """The declared columns, partition by partition.

        Raises:
            TransientError: a partition changed meanwhile, or the service does not answer.
        """
        self.count(snapshot)
        names = [column.name for column in self._table.columns]
        for session in self._sessions:
            try:
                for batch in reading.read_partition(
                    self._service, session.table, session.spec, names, snapshot=session
                ):
                    yield pa.RecordBatch.from_arrays(batch.columns, names=names)
            except (TableModifiedError, SessionEndedError) as error:
                raise TransientError(f"it changed while it was loaded: {error}") from error

    def close(self) -> None:
        """Give back connections; idempotent."""
        self._service.close()


def _state(part: MaxPartition) -> str:
    """What changes with the rows beside the time, which has whole seconds."""
    return f"{part.created}/{part.rows}/{part.bytes}"
