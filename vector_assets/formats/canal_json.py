"""Format canal-json: arrays of rows after a change, and of updates what their changed fields were before.

Canal writes every value as text, so simple types are read from texts. A field that `old` lacks has not changed; one
that is null there was null before. Records of other databases and tables than those asked for, and of DDL, are passed
over, a TRUNCATE is rejected: the record does not say which rows are gone.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, Field

from vector_assets.engine.core import RowKind
from vector_assets.engine.schema import LogicalType, Table
from vector_assets.formats.changelog import (
    BIGINT,
    STRING,
    TIME,
    ChangelogDecoder,
    Changes,
    Envelopes,
    Images,
    WritableChangesOptions,
    actions_of,
    milliseconds,
    row_of,
    spelled,
    unknown_operations,
    writing_only,
)
from vector_assets.formats.grammar import Mask, as_mask
from vector_assets.formats.json_blocks import Places
from vector_assets.formats.json_rows import JsonRows
from vector_assets.formats.json_values import read_texts
from vector_assets.formats.old_values import nulls_in_old, restored

_OPERATIONS: Mapping[str, RowKind | None] = {
    "INSERT": RowKind.INSERT,
    "UPDATE": RowKind.UPDATE_AFTER,
    "DELETE": RowKind.DELETE,
    **dict.fromkeys(("CREATE", "ALTER", "ERASE", "RENAME", "CINDEX", "DINDEX", "QUERY")),
    **dict.fromkeys(("GTID", "XACOMMIT", "XAROLLBACK", "MHEARTBEAT")),
}
_MEMBERS = {
    "database": "database",
    "table": "table",
    "sql-type": "sqlType",
    "pk-names": "pkNames",
    "ingestion-timestamp": "ts",
    "event-timestamp": "es",
}
_REMEDIES: Mapping[str | None, str] = {"TRUNCATE": "it does not say which rows are gone"}
_NESTED = frozenset({"ARRAY", "MAP", "ROW"})
_FOUND_CHARS = 60


def _pattern(text: str) -> str:
    try:
        pc.match_substring_regex(pa.array([""]), rf"\A(?:{text})\z")
    except pa.ArrowInvalid as error:
        raise ValueError(f"no regular expression that is known here: {error}") from None
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


class CanalJsonOptions(WritableChangesOptions):
    """Flink's options of the canal-json format; those for writing are checked and have no effect on a source."""

    model_config = spelled("canal-json")
    idle: ClassVar[Mapping[str, str]] = writing_only("canal-json")

    database_include: Pattern | None = Field(None, alias="canal-json.database.include")
    """Regular expression for the whole name of the database; records of others are passed over."""
    table_include: Pattern | None = Field(None, alias="canal-json.table.include")
    """Regular expression for the whole name of the table; records of others are passed over."""


class CanalJsonDecoder(ChangelogDecoder):
    """Records of format canal-json to changes."""

    NAME: ClassVar[str] = "canal-json"
    METADATA: ClassVar[Mapping[str, LogicalType]] = {
        **ChangelogDecoder.METADATA,
        "database": STRING,
        "table": STRING,
        "sql-type": LogicalType("MAP", children=(STRING, LogicalType("INT"))),
        "pk-names": LogicalType("ARRAY", children=(STRING,)),
        "ingestion-timestamp": TIME,
        "event-timestamp": TIME,
    }

    def __init__(self, options: CanalJsonOptions, table: Table) -> None:
        """Make the readers of the envelopes.

        Raises:
            ConfigError: at a column that the format cannot fill.
        """
        super().__init__(options.rules(), table)
        texts = [(name, kind if kind.name in _NESTED else STRING) for name, kind in self.physical]
        rows = LogicalType("ARRAY", children=(row_of(texts),))
        times = {"ts": BIGINT, "es": BIGINT}
        self._members = [("data", rows), ("old", rows), ("type", STRING)]
        self._members += [
            (member, times.get(member, self.METADATA[key])) for key, member in _MEMBERS.items() if key in self.wanted
        ]
        self._reader = JsonRows(self._members, self.rules)
        filters = {"database": options.database_include, "table": options.table_include}
        self._filters = {name: rf"\A(?:{pattern})\z" for name, pattern in filters.items() if pattern is not None}
        self._origin = JsonRows([(name, STRING) for name in self._filters], self.rules)

    def read(self, documents: pa.Array) -> Envelopes:
        """Data, old and type of the records that the filters let pass; only those are read as rows."""
        names = [name for name, _ in self._members]
        if not self._filters:
            return Envelopes.of(self._reader.parse(documents), names)
        origin = self._origin.parse(documents)
        errors = dict(origin.errors)
        passes = np.ones(len(origin.places), bool)
        for (name, pattern), values in zip(self._filters.items(), origin.columns, strict=True):
            passes &= as_mask(pc.fill_null(pc.match_substring_regex(values, pattern), fill_value=False))
            for place in origin.places[as_mask(values.is_null())].tolist():
                errors.setdefault(place, f"column {name}: found nothing, '{self.NAME}.{name}.include' wants a name")
        kept = origin.places[passes]
        parsed = self._reader.parse(documents.take(pa.array(kept)))
        errors |= {int(kept[place]): reason for place, reason in parsed.errors.items()}
        return Envelopes(
            dict(zip(names, parsed.columns, strict=True)), kept[parsed.places], errors, origin.nulled + parsed.nulled
        )

    def changes(self, documents: pa.Array, envelopes: Envelopes) -> Changes:
        """Rows of every element of `data`, in order."""
        data, old, kind = (envelopes.columns[name] for name in ("data", "old", "type"))
        actions, is_unknown = actions_of(kind, _OPERATIONS)
        wrong = unknown_operations("type", kind, is_unknown, _OPERATIONS, _REMEDIES)
        wrong |= _misshapen(actions, data, old)
        lacking = np.zeros(len(kind), bool)
        lacking[list(wrong)] = True
        owners = np.flatnonzero((actions >= 0) & ~lacking)
        taken = data.take(pa.array(owners))
        elements = np.repeat(np.arange(len(owners)), np.asarray(pc.list_value_length(taken), np.int64))
        whose = owners[elements]
        after, nulled = self._typed("data", pc.list_flatten(taken).flatten(), whose, wrong)
        is_update = actions[whose] == RowKind.UPDATE_AFTER
        before, more = self._before(documents, envelopes, after, whose, is_update, wrong)
        changes = Images(whose, actions[whose].astype(np.int8), before, after).changes()
        changes.wrong, changes.nulled = wrong, nulled + more
        return changes

    def _before(
        self, documents: pa.Array, envelopes: Envelopes, after: list[pa.Array], whose: Places, is_update: Mask,
        wrong: dict[int, str],
    ) -> tuple[list[pa.Array], int]:  # fmt: skip
        """The rows before; those of inserts and deletes are as they are after."""
        updates = np.flatnonzero(is_update)
        if not len(updates):
            return after, 0
        changing = pa.array(np.unique(whose[updates]))
        lists = envelopes.columns["old"].take(changing)
        counts = np.asarray(pc.list_value_length(lists), np.int64)
        old, firsts = pc.list_flatten(lists), np.cumsum(counts) - counts
        changed, nulled = self._typed("old", old.flatten(), whose[updates], wrong)
        nulls = nulls_in_old(documents.take(pa.array(envelopes.places).take(changing)), firsts)
        names = [name for name, _ in self.physical]
        rows = restored(changed, [column.take(pa.array(updates)) for column in after], nulls, names)
        index = np.arange(len(whose))
        index[updates] = len(whose) + np.arange(len(updates))
        pairs = zip(after, rows, strict=True)
        return [pa.concat_arrays([new, row]).take(pa.array(index)) for new, row in pairs], nulled

    def _typed(
        self, member: str, texts: list[pa.Array], whose: Places, wrong: dict[int, str]
    ) -> tuple[list[pa.Array], int]:
        """Columns of texts in the table's types, and how many values were set to null; bad ones add to `wrong`."""
        columns, nulled = [], 0
        is_iso, lenient = self.rules.timestamp_format == "ISO-8601", self.rules.ignore_parse_errors
        for (name, kind), column in zip(self.physical, texts, strict=True):
            if kind.name in _NESTED:
                columns.append(column)
                continue
            parsed = read_texts(column, kind, iso=is_iso, lenient=lenient)
            columns.append(parsed.values)
            nulled += parsed.nulled
            if parsed.bad is not None:
                bad = np.flatnonzero(parsed.bad)
                found = pc.utf8_slice_codeunits(column.take(pa.array(bad)), 0, _FOUND_CHARS).to_pylist()
                for owner, text in zip(whose[bad].tolist(), found, strict=True):
                    wrong.setdefault(owner, f"column {member}[].{name}: found {text!r}, wanted {kind}")
        return columns, nulled

    def metadata(self, key: str, envelopes: Envelopes) -> pa.Array:
        """Times in milliseconds, the others as they are."""
        values = envelopes.columns[_MEMBERS[key]]
        return milliseconds(values) if key.endswith("timestamp") else values


def _misshapen(actions: npt.NDArray[np.int64], data: pa.Array, old: pa.Array) -> dict[int, str]:
    """Changes without rows, with an element that is none, and updates whose arrays are not of one length."""
    wrong: dict[int, str] = {}
    counts = np.asarray(pc.fill_null(pc.list_value_length(data), -1), np.int64)
    befores = np.asarray(pc.fill_null(pc.list_value_length(old), -1), np.int64)
    for place in np.flatnonzero((actions >= 0) & (counts < 0)).tolist():
        wrong[place] = "column data: found nothing, wanted an array of rows"
    for place in np.flatnonzero((actions == RowKind.UPDATE_AFTER) & (befores != counts)).tolist():
        found = "nothing" if befores[place] < 0 else f"{befores[place]} rows"
        wrong.setdefault(place, f"column old: found {found} in an update, wanted as many as in data ({counts[place]})")
    for name, rows in (("data", data), ("old", old)):
        is_null = as_mask(pc.list_flatten(rows).is_null())
        for place in np.unique(pc.list_parent_indices(rows).to_numpy()[is_null]).tolist():
            if actions[place] >= 0:
                wrong.setdefault(place, f"column {name}: an element is null, wanted a row")
    return wrong
