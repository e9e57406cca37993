"""`projection` and `filter` of a CDC transform: the SELECT of Flink SQL over a table's columns as they are."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from sqlglot import exp

from vector_assets.declare.flink_expressions import translator
from vector_assets.declare.flink_script import Script
from vector_assets.declare.flink_select import Selection, query_of, select, source_of
from vector_assets.declare.flink_tables import Declared
from vector_assets.declare.flink_translator import Translator
from vector_assets.declare.flink_types import shown
from vector_assets.declare.yaml_text import Document, Path
from vector_assets.engine.core import HIDDEN, Decoded
from vector_assets.engine.errors import ConfigError, Place, PlanError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.transforms.sql import SqlTransform

_STAR = re.compile(r"(?:(?<=^)|(?<=,))(\s*)\\\*")


@dataclass(frozen=True)
class Written:
    """A transform's texts and where they stand; `stored` maps a type of a row to that of the target's column.

    `metadata` are the columns that the source fills, by the names that expressions use; `key` are the columns of the
    target's key (None: those of `source_key`), `texts` the columns that have to be STRING there.
    """

    document: Document
    path: Path
    projection: str
    filter: str | None
    source_key: tuple[str, ...]
    key: tuple[str, ...] | None
    metadata: Mapping[str, Column]
    stored: Callable[[LogicalType], LogicalType]
    texts: tuple[str, ...] = ()

    def error(self, message: str, key: str) -> ConfigError:
        """A ConfigError at one of the transform's keys."""
        return self.document.error(message, (*self.path, key))


class _Text(Script):
    """The statement that the texts make, which knows where each of them stands in the YAML file."""

    def __init__(self, written: Written, table: str) -> None:
        self._written = written
        name = "`" + table.replace("`", "``") + "`"
        head = f"INSERT INTO {name} SELECT "
        # the same length, so that places stay right
        text = head + _STAR.sub(r"\1 *", written.projection)
        self._parts = [(len(head), "projection")]
        text += f" FROM {name}"
        if written.filter is not None:
            text += " WHERE "
            self._parts.insert(0, (len(text), "filter"))
            text += written.filter
        super().__init__(text, written.document.file)

    def place(self, where: int | exp.Expr) -> Place:
        """The place in the YAML file; of a text that YAML folds or escapes that of its beginning."""
        inner = super().place(where)
        offset = sum(len(line) + 1 for line in self.text.split("\n")[: (inner.line or 1) - 1]) + (inner.column or 1) - 1
        for start, key in self._parts:
            if offset >= start:
                return self._at(key, offset - start)
        return self._at("projection", 0)

    def _at(self, key: str, offset: int) -> Place:
        path = (*self._written.path, key)
        begin = self._written.document.place_of(path)
        try:
            node = self._written.document.entry(path).value
        except KeyError:
            return begin
        at = node.start_mark.index + (1 if node.style else 0)
        if not self._written.document.text.startswith(node.value, at) or "\n" in node.value:
            return begin
        return replace(begin, column=(begin.column or 1) + (1 if node.style else 0) + offset)


@dataclass(frozen=True)
class Projected:
    """What a transform makes of a table: the target's columns, which of them are its key, and the SELECT.

    `used` are the names of metadata that the expressions use.
    """

    columns: tuple[Column, ...]
    key: tuple[str, ...]
    selection: Selection
    used: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """The target's columns in Arrow."""
        return Table("", self.columns).schema


def project(written: Written, table: str, columns: Sequence[Column]) -> Projected:
    """The SELECT over a table of these columns; a later column of a name takes the place of an earlier one.

    Raises:
        ConfigError: at the part that is wrong.
    """
    script = _Text(written, table)
    try:
        (statement,) = script.statements()
        return _projected(written, script, statement.node, table, tuple(columns))
    except ValueError:
        raise written.error("want one list of columns, and one condition", "projection") from None
    except RecursionError:
        raise written.error("this is nested too deeply", "projection") from None


def _projected(
    written: Written, script: Script, insert: exp.Expr, table: str, columns: tuple[Column, ...]
) -> Projected:  # fmt: skip
    query = query_of(script, insert)
    if query.args.get("joins") or query.args.get("group") or query.args.get("having"):
        raise script.error("JOIN, GROUP BY and HAVING are not possible in a transform", query)
    _, alias = source_of(script, query)
    used = tuple(name for name in written.metadata if _names(query, name) and name not in {c.name for c in columns})
    whole = (*columns, *(written.metadata[name] for name in used))
    t = translator(script, table, {column.name: column for column in whole}, {}, alias)
    items = _items(written, t, query, columns)
    where = query.args.get("where")
    if where is not None:
        _inline(where, items, {column.name for column in whole})
    key = _key(written, items)
    found = tuple(_column(written, t, node, name, key) for name, node in items.items())
    query.set("expressions", [_named(written, node, name) for name, node in items.items()])
    place = written.document.place_of((*written.path, "projection"))
    source = Declared(Table(table, whole, place=place), place, {}, {}, ())
    sink = Declared(Table(table, found, key, place=place), place, {}, {}, ())
    return Projected(found, key, select(script, insert, query, alias, source, sink), used)


def _names(query: exp.Expr, name: str) -> bool:
    return any(part.name == name for part in query.find_all(exp.Identifier))


def _items(
    written: Written, t: Translator, query: exp.Select, columns: Sequence[Column]
) -> dict[str, exp.Expr]:  # fmt: skip
    """The expressions by the names of their columns; `*` is the table's own columns."""
    found: dict[str, exp.Expr] = {}
    for node in query.expressions:
        inner = node.this if isinstance(node, exp.Alias) else node
        if isinstance(inner, exp.Star):
            for column in columns:
                inner = exp.Column(this=exp.to_identifier(column.name, quoted=True).update_positions(node))
                found[column.name] = _placed(inner, node)
            continue
        if not isinstance(node, exp.Alias | exp.Column):
            raise t.error("an expression needs a name: <expression> AS <name>", node)
        name = node.alias_or_name
        if name in written.metadata and isinstance(node, exp.Alias):
            raise t.error(f"the name {name} is that of metadata; choose another", node)
        if name.lower() in HIDDEN:
            raise t.error(f"column {name}: this name is used inside pipelines; choose another", node)
        found[name] = inner
    return found


def _placed(node: exp.Column, where: exp.Expr) -> exp.Column:
    node.meta.update({key: value for key, value in where.meta.items() if key in {"line", "col", "start", "end"}})
    return node


def _inline(where: exp.Expr, items: Mapping[str, exp.Expr], known: set[str]) -> None:
    """Write out the computed columns that a condition names and the table does not have."""
    for column in list(where.find_all(exp.Column)):
        name = column.name
        if not column.table and name not in known and name in items:
            column.replace(exp.Paren(this=items[name].copy()))


def _key(written: Written, items: Mapping[str, exp.Expr]) -> tuple[str, ...]:
    if written.key is None:
        missing = [name for name in written.source_key if name not in items]
        if missing:
            raise written.error(
                f"the projection leaves out {', '.join(missing)} of the primary key: keep it, or say primary-keys",
                "projection",
            )
        return written.source_key
    for name in written.key:
        if name not in items:
            known = ", ".join(items)
            raise written.error(f"primary-keys: no column {name}; known: {known}", "primary-keys")
    return written.key


def _column(written: Written, t: Translator, node: exp.Expr, name: str, key: tuple[str, ...]) -> Column:
    typed = t.translate(node)
    if not isinstance(typed.type, LogicalType):
        raise t.error(f"column {name}: {shown(typed.type)} is no type of a column; use CAST", node)
    plain = t.plain(node) if isinstance(node, exp.Column) else None
    kind = LogicalType("VARCHAR") if name in written.texts else written.stored(typed.type)
    return Column(
        name, replace(kind, nullable=name not in key), comment=plain.comment if plain is not None else None
    )  # fmt: skip


def _named(written: Written, node: exp.Expr, name: str) -> exp.Expr:
    """The expression under its name, as a text where the target wants one."""
    inner = node.copy()
    if name in written.texts:
        inner = exp.Cast(this=inner, to=exp.DataType.build("TEXT"))
    return exp.Alias(this=inner, alias=exp.to_identifier(name, quoted=True))


class ProjectionTransform:
    """A transform of CDC rows that can follow its table: `following` gives the same over other columns."""

    def __init__(self, written: Written, table: str, projected: Projected) -> None:
        self._written, self._table = written, table
        self.projected = projected
        selection = projected.selection
        self._sql = SqlTransform(
            selection.projections, "source", selection.where, projected.schema, key=projected.key
        )  # fmt: skip

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the rows it gives out."""
        return self.projected.columns

    def following(self, columns: Sequence[Column]) -> "ProjectionTransform":
        """The same transform over rows of these columns; those of the table's key are NOT NULL, and metadata is passed
        over.

        Raises:
            PlanError: an expression cannot do without a column that is gone, or of another type by now.
        """
        own = [column for column in columns if column.kind == "physical"]
        key = tuple(column.name for column in own if not column.type.nullable)
        written = replace(self._written, source_key=key)
        try:
            return ProjectionTransform(written, self._table, project(written, self._table, own))
        except ConfigError as error:
            raise PlanError(str(error)) from error

    def apply(self, rows: pa.Table) -> Decoded:
        """Rows of `columns`, as `SqlTransform.apply`."""
        return self._sql.apply(rows)
