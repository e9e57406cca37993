"""CREATE TABLE: columns, key, watermark and options of one declared table."""

from dataclasses import dataclass

from sqlglot import exp

from vector_assets.declare import flink_types as types
from vector_assets.declare.flink_expressions import check, translator
from vector_assets.declare.flink_script import Script, Statement, hint
from vector_assets.declare.flink_tokens import MetadataColumnConstraint, Watermark
from vector_assets.declare.flink_translator import PROCTIME, Typed
from vector_assets.engine.core import HIDDEN
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.schema import Column, LogicalType, Table


@dataclass(frozen=True, slots=True)
class Declared:
    """A table as the script declares it; the options' values still hold their `${secret_values.x}`."""

    table: Table
    place: Place
    options: dict[str, exp.Property]
    computed: dict[str, Typed]
    reports: tuple[str, ...]

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name


def declare(script: Script, statement: Statement) -> Declared:
    """The table of a CREATE TABLE statement.

    Raises:
        ConfigError: at the column, the key, the watermark or the option that is wrong.
    """
    schema = statement.node.this
    elements = schema.expressions
    definitions = [element for element in elements if isinstance(element, exp.ColumnDef)]
    _check_names(script, definitions)
    key = _key(script, elements)
    key_names = [part.name for part in key]
    stored = {d.name: _stored_column(script, d, key_names) for d in definitions if d.args.get("kind")}
    computed: dict[str, Typed] = {}
    checks = []
    columns = []
    for definition in definitions:
        column = stored.get(definition.name)
        if column is None:
            column, typed, node = _computed_column(script, schema.this.name, definition, stored)
            computed[column.name] = typed
            if typed is not PROCTIME:
                checks.append((f"SELECT {typed.sql} FROM source", node))
        columns.append(column)
    if checks:
        check(script, Table(schema.this.name, tuple(stored.values())).schema, checks)
    by_name = {column.name: column for column in columns}
    for part in key:
        _check_key(script, part, by_name)
    table = Table(
        name=schema.this.name,
        columns=tuple(columns),
        primary_key=tuple(key_names),
        comment=_comment(statement),
        place=script.place(schema.this),
        partitioned_by=_partitions(script, statement.node, by_name),
    )
    reports = tuple(_watermarks(script, elements, table, by_name))
    return Declared(table, script.place(schema.this), _options(script, statement.node), computed, reports)


def _comment(statement: Statement) -> str | None:
    written = statement.node.find(exp.SchemaCommentProperty)
    return (written.name if written else statement.description) or None


def _options(script: Script, create: exp.Expr) -> dict[str, exp.Property]:
    options: dict[str, exp.Property] = {}
    for option in create.args["properties"].expressions:
        if type(option) is exp.Property:
            if option.name in options:
                raise script.error(f"option {option.name!r} is given twice", option.this)
            options[option.name] = option
    return options


def _check_names(script: Script, definitions: list[exp.ColumnDef]) -> None:
    seen: dict[str, str] = {}
    for definition in definitions:
        name = definition.name
        if name.lower() in seen:
            other = seen[name.lower()]
            why = "" if other == name else f" as {other} (upper and lower case count as the same)"
            raise script.error(f"column {name} is declared twice{why}", definition.this)
        if name.lower() in HIDDEN:
            raise script.error(f"column {name}: this name is used inside pipelines; choose another", definition.this)
        seen[name.lower()] = name


def _constraints(definition: exp.ColumnDef) -> dict[type[exp.Expr], exp.Expr]:
    return {type(constraint.kind): constraint.kind for constraint in definition.args.get("constraints") or []}


def _text(node: exp.Expr | None) -> str | None:
    return node.name if node is not None else None


def _stored_column(script: Script, definition: exp.ColumnDef, key: list[str]) -> Column:
    marks = _constraints(definition)
    kind = definition.args["kind"]
    try:
        logical = types.logical_type(kind)
    except ConfigError as error:
        raise script.error(f"column {definition.name}: {error.message}", kind) from None
    metadata = marks.get(MetadataColumnConstraint)
    comment = marks.get(exp.CommentColumnConstraint)
    return Column(
        name=definition.name,
        type=types.not_null(logical) if definition.name in key else logical,
        kind="physical" if metadata is None else "metadata",
        metadata_key=None if metadata is None else _text(metadata.args.get("this")) or definition.name,
        comment=_text(comment.this) if comment else None,
        place=script.place(definition.this),
    )


def _computed_column(
    script: Script, table: str, definition: exp.ColumnDef, stored: dict[str, Column]
) -> tuple[Column, Typed, exp.Expr]:
    marks = _constraints(definition)
    node = marks[exp.ComputedColumnConstraint].this
    is_clock = isinstance(node, exp.Anonymous) and node.name.upper() == "PROCTIME" and not node.expressions
    typed = PROCTIME if is_clock else translator(script, table, stored).translate(node)
    if not isinstance(typed.type, LogicalType):
        raise script.error(
            f"column {definition.name}: {types.shown(typed.type)} is no type of a column; use CAST", node
        )
    comment = marks.get(exp.CommentColumnConstraint)
    column = Column(
        name=definition.name,
        type=typed.type,
        kind="computed",
        expression=script.source(node),
        comment=_text(comment.this) if comment else None,
        place=script.place(definition.this),
    )
    return column, typed, node


def _key(script: Script, elements: list[exp.Expr]) -> list[exp.Expr]:
    keys: list[tuple[exp.Expr, list[exp.Expr]]] = []
    for element in elements:
        if isinstance(element, exp.PrimaryKey):
            keys.append((element, element.expressions))
        elif isinstance(element, exp.ColumnDef):
            mark = _constraints(element).get(exp.PrimaryKeyColumnConstraint)
            if mark is not None:
                keys.append((mark, [element.this]))
    if len(keys) > 1:
        raise script.error("PRIMARY KEY is given twice", keys[1][0])
    return keys[0][1] if keys else []


def _check_key(script: Script, part: exp.Expr, columns: dict[str, Column]) -> None:
    column = columns.get(part.name)
    if column is None:
        known = ", ".join(columns)
        raise script.error(f"PRIMARY KEY: no column {part.name}{hint(part.name, columns)}; known: {known}", part)
    if column.kind != "physical":
        raise script.error(f"PRIMARY KEY: column {part.name} is {column.kind}; a key has physical columns", part)


def _partitions(script: Script, create: exp.Expr, columns: dict[str, Column]) -> tuple[str, ...]:
    written = create.find(exp.PartitionedByProperty)
    names: list[str] = []
    for part in written.this.expressions if written is not None else ():
        if part.name not in columns:
            known = ", ".join(columns)
            raise script.error(f"PARTITIONED BY: no column {part.name}{hint(part.name, columns)}; known: {known}", part)
        if part.name in names:
            raise script.error(f"PARTITIONED BY: column {part.name} is named twice", part)
        names.append(part.name)
    return tuple(names)


def _watermarks(script: Script, elements: list[exp.Expr], table: Table, columns: dict[str, Column]) -> list[str]:
    reports: list[str] = []
    for element in elements:
        if not isinstance(element, Watermark):
            continue
        if reports:
            raise script.error("WATERMARK is given twice", element)
        column = columns.get(element.name)
        if column is None:
            known = ", ".join(columns)
            name = element.name
            raise script.error(f"WATERMARK: no column {name}{hint(name, columns)}; known: {known}", element.this)
        if column.type.name not in types.TIMESTAMPS:
            found = types.shown(column.type)
            raise script.error(f"WATERMARK: column {column.name} is {found}, want a TIMESTAMP", element.this)
        typed = translator(script, table.name, columns).translate(element.expression)
        if not typed.has(*types.TIMESTAMPS):
            raise script.error(f"WATERMARK: want a TIMESTAMP, found {types.shown(typed.type)}", element.expression)
        reports.append(
            f"{script.place(element)}: WATERMARK FOR {column.name} of table {table.name} has no effect: "
            "records are transformed one by one, in no window"
        )
    return reports
