"""Logical types as Flink SQL spells them, their Arrow types, and declared tables.

Every front end compiles to these; each connector keeps its own mapping table to its vendor's types.
"""

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from vector_assets.engine.errors import ConfigError, Place

_SIMPLE = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "CHAR": pa.string(),
    "VARCHAR": pa.string(),
    "BINARY": pa.binary(),
    "VARBINARY": pa.binary(),
}
_DEFAULT_PRECISION = {"DECIMAL": 10, "TIMESTAMP": 6, "TIMESTAMP_LTZ": 6}
_MOST_PRECISION = {"DECIMAL": 38, "TIMESTAMP": 9, "TIMESTAMP_LTZ": 9, "TIME": 9}
_LEAST_ONE = frozenset({"DECIMAL", "CHAR", "VARCHAR", "BINARY", "VARBINARY"})
TYPE_NAMES = (*_SIMPLE, "DECIMAL", "TIMESTAMP", "TIMESTAMP_LTZ", "ARRAY", "MAP", "ROW")
"""The type roots we know; STRING and BYTES are spelled VARCHAR and VARBINARY without a length."""


@dataclass(frozen=True, slots=True)
class LogicalType:
    """A Flink SQL type.

    `precision` is also the length of CHAR, VARCHAR, BINARY and VARBINARY; None there means no limit (a bare VARCHAR is
    unlimited as in the seeds' scripts, where open source Flink would read VARCHAR(1)).
    """

    name: str
    precision: int | None = None
    scale: int | None = None
    children: tuple["LogicalType", ...] = ()
    child_names: tuple[str, ...] = ()
    nullable: bool = True

    def __post_init__(self) -> None:
        if self.name not in TYPE_NAMES:
            raise ConfigError(f"type {self.name} is not supported; known types: {', '.join(TYPE_NAMES)}")
        if self.precision is None and self.name in _DEFAULT_PRECISION:
            object.__setattr__(self, "precision", _DEFAULT_PRECISION[self.name])
        most = _MOST_PRECISION.get(self.name)
        least = 1 if self.name in _LEAST_ONE else 0
        if self.precision is not None and not least <= self.precision <= (most or self.precision):
            wanted = f"{least} to {most}" if most else f"{least} or more"
            raise ConfigError(f"type {self}: found precision or length {self.precision}, wanted {wanted}")
        if self.name == "DECIMAL" and not 0 <= (self.scale or 0) <= (self.precision or 0):
            raise ConfigError(f"type {self}: found scale {self.scale}, wanted 0 to the precision {self.precision}")

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of a column of this type."""
        if self.name in _SIMPLE:
            return _SIMPLE[self.name]
        if self.name == "DECIMAL":
            return pa.decimal128(self.precision or 10, self.scale or 0)
        if self.name in {"TIMESTAMP", "TIMESTAMP_LTZ"}:
            unit = "ms" if (self.precision or 0) <= 3 else "us" if (self.precision or 0) <= 6 else "ns"
            return pa.timestamp(unit, tz="UTC" if self.name == "TIMESTAMP_LTZ" else None)
        if self.name == "ARRAY":
            return pa.list_(self.children[0].arrow)
        if self.name == "MAP":
            return pa.map_(self.children[0].arrow, self.children[1].arrow)
        return pa.struct(
            [
                pa.field(name, child.arrow, child.nullable)
                for name, child in zip(self.child_names, self.children, strict=True)
            ]
        )

    def __str__(self) -> str:
        text = self.name
        if self.name == "ARRAY":
            text = f"ARRAY<{self.children[0]}>"
        elif self.name == "MAP":
            text = f"MAP<{self.children[0]}, {self.children[1]}>"
        elif self.name == "ROW":
            inner = ", ".join(f"{name} {child}" for name, child in zip(self.child_names, self.children, strict=True))
            text = f"ROW<{inner}>"
        elif self.name == "DECIMAL":
            text = f"DECIMAL({self.precision}, {self.scale or 0})"
        elif self.precision is not None:
            text = f"{self.name}({self.precision})"
        elif self.name in {"VARCHAR", "VARBINARY"}:
            text = {"VARCHAR": "STRING", "VARBINARY": "BYTES"}[self.name]
        return text if self.nullable else f"{text} NOT NULL"


@dataclass(frozen=True, slots=True)
class Column:
    """A declared column.

    `physical` columns are in the records; a `computed` one has an `expression` (Flink SQL text); a `metadata` one is
    read from the source under `metadata_key`.
    """

    name: str
    type: LogicalType
    kind: Literal["physical", "computed", "metadata"] = "physical"
    expression: str | None = None
    metadata_key: str | None = None
    comment: str | None = None
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A declared table: what a connector is built for, beside its options.

    `partitioned_by` are the columns of PARTITIONED BY, which only connectors with `PARTITIONED = True` take.
    """

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    comment: str | None = None
    place: Place | None = field(default=None, compare=False, repr=False)
    partitioned_by: tuple[str, ...] = ()

    @property
    def physical(self) -> tuple[Column, ...]:
        """The columns that the records themselves hold."""
        return tuple(column for column in self.columns if column.kind == "physical")

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of all columns."""
        return pa.schema([pa.field(c.name, c.type.arrow, c.type.nullable) for c in self.columns])


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One change of a target's columns (`abilities.Alterable`); each may be made twice.

    `add`: `column` is new, nullable, at the end. `drop`: `column` goes. `rename`: `old` is called as `column` is.
    `type`: `column` has its type (and may be null, where that says so) from now on.
    """

    kind: Literal["add", "drop", "rename", "type"]
    column: Column
    old: str | None = None

    def __str__(self) -> str:
        name = self.column.name
        said = {
            "add": f"column {name} {self.column.type} is added",
            "drop": f"column {name} is dropped",
            "rename": f"column {self.old} is renamed to {name}",
            "type": f"column {name} becomes {self.column.type}",
        }
        return said[self.kind]
