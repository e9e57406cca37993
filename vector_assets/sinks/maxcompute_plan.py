"""How a pipeline's rows fit a MaxCompute table: columns, types, key, partition levels. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.maxcompute import MaxColumn, MaxTable
from vector_assets.clients.maxcompute_hash import HASHABLE
from vector_assets.clients.maxcompute_records import Form, form_of
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import FatalError, PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.kinds import kind_of
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions, levels_of
from vector_assets.sinks.refusals import Refusals, Refuse

BUCKETS = "write.bucket.num"
MOST_BYTES = 8 << 20
"""The longest value that the tunnel takes (its MaxFieldSize)."""
_WHOLE = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
_NO_VALUE = "is no partition value: it is empty, or has one of , / = ' \" or a control character"
_UNITS = ("s", "ms", "us", "ns")
_NS_LEAST, _NS_MOST = -9_223_372_036, 9_223_372_036


@dataclass(frozen=True, slots=True)
class Plan:
    """Rows of `source` become rows of `table`. `sent` are the table's columns that the rows have, by place; a level of
    `levels` has a fixed value, or None where the rows' column of its name gives it."""

    place: str
    table: MaxTable
    source: pa.Schema
    sent: tuple[int, ...]
    levels: tuple[tuple[MaxColumn, str | None], ...]
    key: tuple[MaxColumn, ...]
    notes: tuple[str, ...] = ()

    @property
    def dynamic(self) -> tuple[MaxColumn, ...]:
        """Levels that the rows name."""
        return tuple(level for level, value in self.levels if value is None)

    @property
    def forms(self) -> list[Form]:
        """How the table's columns are written in records."""
        return [form_of(column.type) for column in self.table.columns]

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that identify a row of the rows: the table's key, and the levels that the rows name."""
        names = {name.lower(): name for name in self.source.names}
        found = [column.name for column in self.key]
        found += [level.name for level in self.dynamic if level.name not in found]
        return tuple(names.get(name.lower(), name) for name in found)

    def rows(self, rows: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """Rows in the table's columns (all of them, then the levels that the rows name), and what it refuses."""
        return self._converted(rows, [*self.table.columns, *self.dynamic])

    def keys(self, rows: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        """The same of deletes, which have the key and the levels only: all other columns are null."""
        return self._converted(rows, [*self.table.columns, *self.dynamic], keys_only=True)

    def _converted(
        self, rows: pa.Table, columns: Sequence[MaxColumn], *, keys_only: bool = False
    ) -> tuple[pa.Table, dict[int, str]]:
        names = {name.lower(): name for name in rows.column_names}
        refusals = Refusals()
        needed = {name.lower() for name in self.identity}
        levels = {level.name for level in self.dynamic}
        arrays = []
        for column in columns:
            given = names.get(column.name.lower())
            if given is None:
                arrays.append(pa.nulls(rows.num_rows, column.type.arrow))
                continue
            refuse = refusals.of(given)
            array = converted(rows.column(given).combine_chunks(), column, refuse)
            if array.null_count and (column.name.lower() in needed or not (column.nullable or keys_only)):
                refuse(np.asarray(array.is_null()), "is null, the table takes no null there")
            if column.name in levels:
                unfit = pc.match_substring_regex(array.cast(pa.string()), r"^$|[,/='\"\x00-\x1f]")
                refuse(np.asarray(pc.fill_null(unfit, pa.scalar(value=False))), _NO_VALUE)
            arrays.append(array)
        schema = pa.schema([pa.field(column.name, column.type.arrow) for column in columns])
        table = pa.Table.from_arrays(arrays, schema=schema)
        if not refusals.reasons:
            return table, {}
        keep = np.ones(rows.num_rows, dtype=bool)
        keep[list(refusals.reasons)] = False
        positions = rows.column(POSITION).to_numpy() if POSITION in rows.column_names else np.arange(rows.num_rows)
        refused = {int(positions[row]): reason for row, reason in sorted(refusals.reasons.items())}
        return table.filter(pa.array(keep)), refused

    def by_partition(self, rows: pa.Table, limit: int) -> Iterator[tuple[str | None, pa.Table]]:
        """Rows of `rows` in the table's own columns by partition, in the order of first appearance.

        Raises:
            FatalError: they name more partitions than `limit`.
        """
        own = rows.select([column.name for column in self.table.columns])
        if not self.levels:
            yield None, own
            return
        if not self.dynamic:
            yield _spec([(level.name, value or "") for level, value in self.levels]), own
            return
        values = [rows.column(level.name).cast(pa.string()) for level in self.dynamic]
        joined = values[0] if len(values) == 1 else pc.binary_join_element_wise(*values, "\x00")
        encoded = joined.combine_chunks().dictionary_encode() if rows.num_rows else None
        if encoded is None:
            return
        encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
        if len(encoded.dictionary) > limit:
            raise FatalError(
                f"{self.place}: Too many dynamic partitions: the rows of a batch name {len(encoded.dictionary)},"
                f" dynamicPartitionLimit is {limit}. Nothing was written; raise the option, or let batches be smaller"
                " (SET 'vector-assets.batch.max-rows')"
            )
        numbers = encoded.indices.to_numpy()
        order = np.argsort(numbers, kind="stable")
        ordered = own.take(pa.array(order)) if len(encoded.dictionary) > 1 else own
        starts = np.searchsorted(numbers[order], np.arange(len(encoded.dictionary) + 1))
        for number, text in enumerate(encoded.dictionary.tolist()):
            start, end = int(starts[number]), int(starts[number + 1])
            given = iter(text.split("\x00"))
            spec = [(level.name, next(given) if value is None else value) for level, value in self.levels]
            yield _spec(spec), ordered.slice(start, end - start)


def _spec(levels: Sequence[tuple[str, str]]) -> str:
    return "/".join(f"{name}={value}" for name, value in levels)


def make_plan(
    table: MaxTable, source: pa.Schema, declared_key: tuple[str, ...], options: MaxComputeSinkOptions
) -> Plan:
    """Check a table that is there.

    Raises:
        PlanError: a column, a type, the key, a level or the number of buckets does not fit.
    """
    place = f"maxcompute: {table.name}"
    if table.is_view:
        raise PlanError(f"{place} is a view: the tunnel writes to tables")
    levels = _levels(place, table, options.partition)
    fixed = {level.name.lower() for level, value in levels if value is not None}
    dynamic = {level.name.lower() for level, value in levels if value is None}
    sent = _columns(place, table, source, fixed, dynamic)
    table.check_nested([table.columns[at].name for at in sent])
    key = _key(place, table, source, declared_key, options, dynamic)
    if options.arrow and options.tunnel == "batch" and (texts := [c.name for c in table.columns if c.is_json]):
        raise PlanError(
            f"{place}: column {', '.join(texts)} is JSON, which Arrow has no type for: leave out"
            " insert.arrow-writer.enable"
        )
    missing = [column for at, column in enumerate(table.columns) if at not in sent]
    for column in missing:
        if not column.nullable:
            raise PlanError(f"{place}: column {column.name} is NOT NULL, and the pipeline does not send it")
    notes: tuple[str, ...] = ()
    if missing:
        stay = "keep what they hold" if options.partial else "are null in the rows that are written"
        notes = (f"columns the pipeline does not send {stay}: {', '.join(column.name for column in missing)}",)
    return Plan(place, table, source, tuple(sent), tuple(levels), key, notes)


def _levels(place: str, table: MaxTable, text: str | None) -> list[tuple[MaxColumn, str | None]]:
    known = ", ".join(level.name for level in table.levels)
    if text is None:
        if table.is_partitioned:
            raise PlanError(
                f"{place} has partitions ({known}): option 'partition' is required, such as"
                f" '{known}' for the values of columns, or '{table.levels[0].name}=20180905'"
            )
        return []
    given = {name.lower(): (name, value) for name, value in levels_of(text).items()}
    if not table.is_partitioned:
        raise PlanError(f"{place} has no partitions: leave out the option 'partition' ({text})")
    for name, _ in given.values():
        if name.lower() not in {level.name.lower() for level in table.levels}:
            near = nearest(name, [level.name for level in table.levels])
            raise PlanError(f"{place}: option 'partition': there is no level {name}{near}; levels: {known}")
    for level in table.levels:
        if level.name.lower() not in given:
            raise PlanError(f"{place}: option 'partition' ({text}) leaves out level {level.name}; levels: {known}")
    return [(level, given[level.name.lower()][1]) for level in table.levels]


def _columns(place: str, table: MaxTable, source: pa.Schema, fixed: set[str], dynamic: set[str]) -> list[int]:
    places = {column.name.lower(): at for at, column in enumerate(table.columns)}
    found = []
    for field in source:
        name = field.name.lower()
        if name in fixed:
            raise PlanError(
                f"{place}: column {field.name} is a partition level whose value the option 'partition' fixes: leave it"
                " out of one of the two"
            )
        if name not in places and name not in dynamic:
            known = [column.name for column in (*table.columns, *table.levels)]
            raise PlanError(
                f"{place}: column {field.name} does not exist{nearest(field.name, known)}; columns there:"
                f" {', '.join(known)}"
            )
        column = table.column(field.name)
        if not fits(field.type, column):
            raise PlanError(
                f"{place}: column {field.name} is {column.text.upper()} there; the pipeline sends"
                f" {kind_of(field.type)} ({field.type}): use a CAST in the SELECT"
            )
        if name in places:
            found.append(places[name])
    for name in dynamic - {field.name.lower() for field in source}:
        raise PlanError(f"{place}: option 'partition' takes the level {name} from a column, which the pipeline lacks")
    return sorted(found)


def _key(
    place: str, table: MaxTable, source: pa.Schema, declared: tuple[str, ...], options: MaxComputeSinkOptions,
    dynamic: set[str],
) -> tuple[MaxColumn, ...]:  # fmt: skip
    own = {name.lower() for name in table.primary_key}
    given = {name.lower() for name in declared}
    if given and own and given not in (own, own | dynamic):
        raise PlanError(
            f"{place}: PRIMARY KEY ({', '.join(declared)}) is declared, the table has PRIMARY KEY"
            f" ({', '.join(table.primary_key)})"
        )
    if not options.is_upsert:
        return ()
    if not table.is_delta:
        raise PlanError(
            f"{place} is no Delta table (a primary key and transactional): enableUpsert and sink.operation=upsert write"
            " only such tables"
        )
    found = table.properties.get(BUCKETS) or table.properties.get("BucketNum")
    if found and str(options.bucket_num) != str(found) and not options.keeps_buckets:
        raise PlanError(f"{place} has {found} buckets ({BUCKETS}), upsert.write.bucket.num is {options.bucket_num}")
    key = tuple(table.column(name) for name in table.primary_key)
    sent = {name.lower() for name in source.names}
    for column in key:
        if column.name.lower() not in sent:
            raise PlanError(f"{place}: key column {column.name} is not sent")
        if column.type.name not in HASHABLE:
            raise PlanError(
                f"{place}: key column {column.name} is {column.text.upper()}; keys may be:"
                f" {', '.join(sorted(HASHABLE))}"
            )
    return key


def fits(source: pa.DataType, column: MaxColumn) -> bool:
    """True when a column takes values of an Arrow type: nothing is lost but what single rows are refused for."""
    return _fits(source, column.type.arrow, is_json=column.is_json)


def _fits(source: pa.DataType, target: pa.DataType, *, is_json: bool = False) -> bool:
    if source == target or pa.types.is_null(source):
        return True
    if pa.types.is_integer(source) and pa.types.is_integer(target):
        return bool(source.bit_width <= target.bit_width)
    if pa.types.is_floating(source) and pa.types.is_floating(target):
        return bool(source.bit_width <= target.bit_width)
    if pa.types.is_decimal(source) and pa.types.is_decimal(target):
        whole = source.precision - source.scale <= target.precision - target.scale
        return bool(whole and source.scale <= target.scale)
    if pa.types.is_timestamp(source) and pa.types.is_timestamp(target):
        return _UNITS.index(source.unit) <= _UNITS.index(target.unit)
    if (kind := kind_of(source)) in {"STRING", "BYTES"}:
        return kind == kind_of(target)
    if pa.types.is_list(source) and pa.types.is_list(target):
        return _fits(source.value_type, target.value_type)
    if pa.types.is_map(source) and pa.types.is_map(target):
        return _fits(source.key_type, target.key_type) and _fits(source.item_type, target.item_type)
    if pa.types.is_struct(source) and pa.types.is_struct(target):
        names = [each.name.lower() for each in source] == [each.name.lower() for each in target]
        return names and all(_fits(a.type, b.type) for a, b in zip(source, target, strict=True))
    return False


def converted(array: pa.Array, column: MaxColumn, refuse: Refuse) -> pa.Array:
    """An array of a fitting type in the column's own; values that it cannot hold are refused, and null."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    target = column.type.arrow
    if pa.types.is_timestamp(target):
        plain = array.cast(pa.timestamp(array.type.unit)) if array.type.tz else array
        if target.unit == "ns" and plain.type.unit != "ns":
            seconds = np.asarray(plain.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).fill_null(0))
            is_outside = (seconds <= _NS_LEAST) | (seconds >= _NS_MOST)
            if is_outside.any():
                refuse(is_outside, "is outside of 1677 to 2262, which nanoseconds span; DATETIME holds it")
                plain = pc.if_else(pa.array(is_outside), pa.scalar(None, plain.type), plain)
        return plain.cast(target)
    if pa.types.is_struct(target) and pa.types.is_struct(array.type):
        parts = [part.cast(field.type) for part, field in zip(array.flatten(), target, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=list(target), mask=array.is_null())
    found = array.cast(target)
    if pa.types.is_string(target) or pa.types.is_binary(target):
        limit = column.type.precision if column.type.name in {"CHAR", "VARCHAR"} else None
        if limit is not None:
            too_long = pc.greater(pc.utf8_length(found), limit).fill_null(False)  # noqa: FBT003
            if pc.any(too_long).as_py():
                refuse(np.asarray(too_long), f"is longer than {limit} characters ({column.text.upper()})")
        elif (pc.max(pc.binary_length(found)).as_py() or 0) > MOST_BYTES:
            too_long = pc.greater(pc.binary_length(found), MOST_BYTES).fill_null(False)  # noqa: FBT003
            refuse(np.asarray(too_long), f"is longer than {MOST_BYTES} bytes, the most that the tunnel takes")
    return found
