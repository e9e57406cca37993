"""SHOW and DESC: what exists, as text."""

import re
import time

from vector_assets.local.maxcompute.catalog import DEFAULT_SCHEMA, VIEW, Catalog, Column, Table
from vector_assets.local.maxcompute.names import Scope, parts_of
from vector_assets.local.maxcompute.refusal import invalid

OWNER = "ALIYUN$local"
_SHOW = re.compile(r"^\s*SHOW\s+(?P<what>CREATE\s+TABLE|\w+)\s*(?P<rest>.*)$", re.I | re.S)
_DESC = re.compile(
    r"^\s*DESC(?:RIBE)?\s+(?P<extended>EXTENDED\s+)?(?P<rest>\S+)\s*(?P<partition>PARTITION\s*\(.*\))?\s*$", re.I
)
_WIDTH = 84


def show(statement: str, scope: Scope) -> str | None:
    """The answer of a SHOW or DESC; None when it is another statement.

    Raises:
        Refusal: what it names does not exist.
    """
    found = _DESC.match(statement)
    if found:
        return _describe(scope.table(parts_of(found["rest"])), found["partition"], extended=bool(found["extended"]))
    found = _SHOW.match(statement)
    if not found:
        return None
    what, rest = found["what"].upper(), re.sub(r"^(IN|FROM)\s+", "", found["rest"].strip(), flags=re.I)
    if re.fullmatch(r"CREATE\s+TABLE", what):
        return creation(scope.table(parts_of(rest)))
    match what:
        case "TABLES":
            return _tables(scope, rest)
        case "PARTITIONS":
            table = scope.table(parts_of(rest.split()[0] if rest else ""))
            return "\n".join(table.spec(values) for values in sorted(table.extents) if values)
        case "SCHEMAS" | "DATABASES":
            return _schemas(scope.catalog, parts_of(rest)[0] if rest else scope.project)
    raise invalid(f"SHOW {what} is not supported here; known: TABLES, PARTITIONS, SCHEMAS, CREATE TABLE")


def _tables(scope: Scope, rest: str) -> str:
    name, _, pattern = rest.partition(" ") if not rest.upper().startswith("LIKE") else ("", "", rest)
    project, schema = scope.project, scope.schema
    match parts_of(name):
        case [only]:
            project, schema = (project, only) if scope.has_schemas else (only, DEFAULT_SCHEMA)
        case [first, second]:
            project, schema = first, second
    wanted = re.sub(r"^LIKE\s+", "", pattern.strip(), flags=re.I).strip("'\"")
    fits = re.compile(re.escape(wanted).replace(r"\*", ".*").replace("%", ".*") or ".*", re.I)
    scope.catalog.schema(project, schema)
    return "\n".join(
        f"{OWNER}:{table.name}" for table in scope.catalog.tables_of(project, schema) if fits.fullmatch(table.name)
    )


def _schemas(catalog: Catalog, project: str) -> str:
    catalog.project(project)
    return "\n".join(
        sorted(each["name"] for each in catalog.schemas.values() if each["project"].lower() == project.lower())
    )


def creation(table: Table) -> str:
    """The CREATE statement that makes the table again."""
    if table.kind == VIEW:
        return f"CREATE VIEW IF NOT EXISTS {table.full_name} AS {table.view_text}"
    lines = [_definition(column) for column in table.columns]
    if table.primary_key:
        lines.append(f"PRIMARY KEY({', '.join(f'`{name}`' for name in table.primary_key)})")
    text = f"CREATE TABLE IF NOT EXISTS {table.full_name}({', '.join(lines)})"
    if table.comment:
        text += f" COMMENT {_literal(table.comment)}"
    if table.partition_columns:
        text += f" PARTITIONED BY ({', '.join(_definition(column) for column in table.partition_columns)})"
    if table.properties:
        listed = ", ".join(f"{_literal(name)}={_literal(value)}" for name, value in table.properties.items())
        text += f" TBLPROPERTIES ({listed})"
    return text + (f" LIFECYCLE {table.lifecycle}" if table.lifecycle > 0 else "") + ";"


def _definition(column: Column) -> str:
    null = "" if column.nullable else " NOT NULL"
    return f"`{column.name}` {str(column.type).upper()}{null}" + (
        f" COMMENT {_literal(column.comment)}" if column.comment else ""
    )


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _describe(table: Table, partition: str | None, *, extended: bool) -> str:
    if partition:
        extent = table.extent(table.values(re.sub(r"^PARTITION\s*\(|\)$", "", partition, flags=re.I)))
        lines = [f"PartitionSize: {extent.size}", *_times(extent.created, extent.ddl, extent.modified)]
        return _box([lines])
    size = sum(extent.size for extent in table.extents.values())
    head = [f"Owner: {OWNER} | Project: {table.project}"]
    if table.schema != DEFAULT_SCHEMA:
        head.append(f"Schema: {table.schema}")
    head.append(f"TableComment: {table.comment}")
    head += _times(table.created, table.ddl, table.modified)
    if table.lifecycle > 0:
        head.append(f"Lifecycle: {table.lifecycle}")
    kind = (
        f"InternalTable: YES | Size: {size}"
        if table.kind != VIEW
        else f"VirtualView: YES | ViewText: {table.view_text}"
    )
    sections = [head, [kind], ["Native Columns:"], [_described(column) for column in table.columns]]
    if table.partition_columns:
        sections += [["Partition Columns:"], [_described(column) for column in table.partition_columns]]
    if extended:
        info = [f"TableID: {table.id}", f"Transactional: {str(table.is_transactional).lower()}"]
        info += [f"{name}: {value}" for name, value in table.properties.items()]
        if table.primary_key:
            info.append(f"Primarykey: [{', '.join(table.primary_key)}]")
        sections += [["Extended Info:"], info]
    return _box(sections)


def _times(created: float, ddl: float, modified: float) -> list[str]:
    shown = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each)) for each in (created, ddl, modified)]
    return [f"CreateTime: {shown[0]}", f"LastDDLTime: {shown[1]}", f"LastModifiedTime: {shown[2]}"]


def _described(column: Column) -> str:
    return f"{column.name:<16}| {column.type!s:<12}| {'' if column.nullable else 'NOT NULL':<8} | {column.comment}"


def _box(sections: list[list[str]]) -> str:
    rule = "+" + "-" * (_WIDTH - 2) + "+"
    lines = [rule]
    for section in sections:
        lines += [f"| {line:<{_WIDTH - 4}} |" for line in section] + [rule]
    return "\n".join(lines)
