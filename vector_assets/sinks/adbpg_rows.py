"""A batch's rows ready to be sent: converted and checked once, encoded for the statement that wants them."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients import pgcopy
from vector_assets.engine.core import POSITION, Merge
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.adbpg_convert import conversion
from vector_assets.sinks.adbpg_plan import Plan, PlannedColumn
from vector_assets.sinks.refusals import Refusals

Ordinals = npt.NDArray[np.int64]


class Rows:
    """Rows of the target's types in order; `positions` are their ordinals in the batch. Encoded when first asked."""

    def __init__(self, plan: Plan, columns: Sequence[PlannedColumn], values: Sequence[pa.Array], positions: Ordinals):
        self.plan = plan
        self.columns = tuple(columns)
        self.values = tuple(values)
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def copied(self) -> pa.LargeBinaryArray:
        """Each row as a tuple of a binary COPY of `columns`."""
        return pgcopy.copy_rows([field for _, field in self._fields()])

    @cached_property
    def records(self) -> pa.LargeBinaryArray:
        """Each row as a record of the target's row type, null where the pipeline sends nothing."""
        fields = {column.target.number: field for column, field in self._fields()}
        return pgcopy.record_rows([(c.type_oid, fields.get(c.number)) for c in self.plan.relation.columns])

    @cached_property
    def keys(self) -> tuple[pa.Array, ...]:
        """The values of the key columns."""
        by_source = dict(zip((column.source for column in self.columns), self.values, strict=True))
        return tuple(by_source[column.source] for column in self.plan.key)

    def key_parameters(self, rows: Ordinals) -> list[tuple[int, bytes]]:
        """The key columns of these rows as array parameters: type oid and bytes."""
        return [
            (
                column.target.base_array_oid,
                pgcopy.array_parameter(
                    pgcopy.value_rows(pgcopy.encode(values.take(pa.array(rows)), column.wire)), column.target.base_oid
                ),
            )
            for column, values in zip(self.plan.key, self.keys, strict=True)
        ]

    def first_of_each_key(self, candidates: Ordinals) -> Ordinals:
        """The first of the candidates with each key, in order; keys with a null are all different."""
        codes = self._key_codes()[candidates]
        _, first = np.unique(codes, return_index=True)
        kept = np.zeros(len(candidates), np.bool_)
        kept[first] = True
        kept[codes < 0] = True
        return candidates[kept]

    def _key_codes(self) -> Ordinals:
        """One number per distinct key; negative where the key holds a null."""
        codes: Ordinals = np.zeros(len(self), np.int64)
        is_null = np.zeros(len(self), np.bool_)
        for values in self.keys:
            indices = pc.fill_null(pc.dictionary_encode(values).indices, -1).to_numpy(zero_copy_only=False)
            is_null |= indices < 0
            # renumbered at each step, so that the product stays small
            _, codes = np.unique(codes * (len(self) + 1) + indices, return_inverse=True)
        return np.where(is_null, -1, codes).astype(np.int64)

    def _fields(self) -> list[tuple[PlannedColumn, pgcopy.Field]]:
        return [
            (column, pgcopy.encode(values, column.wire))
            for column, values in zip(self.columns, self.values, strict=True)
        ]


def convert(plan: Plan, columns: Sequence[PlannedColumn], table: pa.Table) -> tuple[Rows, dict[int, str]]:
    """The table's good rows, and the reason for each row the target would refuse, by its ordinal in the batch."""
    refusals = Refusals()
    positions = table.column(POSITION).combine_chunks().to_numpy(zero_copy_only=False)
    converted = [_column(plan, column, _whole(table.column(column.source)), refusals) for column in columns]
    if refusals.reasons:
        kept = np.ones(len(positions), np.bool_)
        kept[list(refusals.reasons)] = False
        converted = [values.filter(pa.array(kept)) for values in converted]
        reasons = {int(positions[row]): reason for row, reason in sorted(refusals.reasons.items())}
        return Rows(plan, columns, converted, positions[kept]), reasons
    return Rows(plan, columns, converted, positions), {}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    # binary_slice and friends of Arrow 19 trip over arrays that start inside a buffer
    return pa.concat_arrays([whole]) if whole.offset else whole


def _column(plan: Plan, column: PlannedColumn, array: pa.Array, refusals: Refusals) -> pa.Array:
    convert_values = conversion(array.type, column.wire)
    if convert_values is None:
        raise PlanError(
            f"adbpg: {plan.relation}: column {column.source} came as {array.type}, which {column.target.spelled}"
            " does not take"
        )
    refuse = refusals.of(column.source)
    if array.null_count:
        is_null = np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False))
        # a trigger may still fill the column in
        if column.target.is_not_null and not plan.relation.has_insert_trigger:
            refuse(is_null, "is null, the target has NOT NULL")
        if plan.merge is Merge.LAST and column in plan.key:
            refuse(is_null, "is null, and it is part of the key")
    return convert_values(array, column.wanted, refuse)
