"""Plain pages to look at what the server holds; they change nothing."""

import html
from collections.abc import Iterable, Sequence
from urllib.parse import quote

import pyarrow as pa

from vector_assets.local.maxcompute.catalog import VIEW, Catalog, Table
from vector_assets.local.maxcompute.http import Reply, Request, date
from vector_assets.local.maxcompute.instances import Instances
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.show import creation

_SHOWN_ROWS = 50
_LONGEST = 200
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;"
    "vertical-align:top}th{background:#f3f3f3}pre{background:#f7f7f7;padding:1em;white-space:pre-wrap}"
    ".none{color:#999}nav{margin-bottom:1em}"
)


class Console:
    """`/console`, then project, then schema and table, then a partition."""

    def __init__(self, catalog: Catalog, rows: Rows, instances: Instances) -> None:
        self._catalog = catalog
        self._rows = rows
        self._instances = instances

    def page(self, request: Request) -> Reply:
        """The page of a path below `/console`.

        Raises:
            Refusal: what it names does not exist, or it is no GET.
        """
        if request.method != "GET":
            raise Refusal(405, "MethodNotAllowed", "the console only shows")
        match request.path[1:]:
            case ():
                return self._projects()
            case (project,):
                return self._project(project)
            case (project, schema, name):
                return self._table(self._catalog.table(project, schema, name), None)
            case (project, schema, name, spec):
                table = self._catalog.table(project, schema, name)
                return self._table(table, table.values(spec))
        raise Refusal(404, "NoSuchObject", "no such page")

    def _projects(self) -> Reply:
        rows = [
            [_link(body["name"], body["name"]), "yes" if body["schemas"] else "no", _count(self._catalog, body["name"])]
            for body in self._catalog.projects.values()
        ]
        return _page("Projects", [], [_grid(["project", "three tiers", "tables"], rows)])

    def _project(self, project: str) -> Reply:
        self._catalog.project(project)
        tables = [table for key, table in sorted(self._catalog.tables.items()) if key[0] == project.lower()]
        rows = [
            [
                table.schema,
                _link(table.name, table.project, table.schema, table.name),
                "view" if table.kind == VIEW else "Delta table" if table.is_delta else "table",
                str(len(table.extents) if table.partition_columns else "-"),
                str(sum(extent.rows for extent in table.extents.values())),
                date(table.modified),
            ]
            for table in tables
        ]
        jobs = [
            [
                each.id,
                each.outcome,
                date(each.started),
                _text(each.query),
                _text(each.text if each.outcome == "Failed" else ""),
            ]
            for each in self._instances.of_project(project)[:_SHOWN_ROWS]
        ]
        parts = [
            _grid(["schema", "table", "kind", "partitions", "rows", "modified"], rows),
            "<h2>Latest instances</h2>",
        ]
        parts.append(_grid(["instance", "outcome", "started", "statement", "error"], jobs))
        return _page(project, [], parts)

    def _table(self, table: Table, values: tuple[str, ...] | None) -> Reply:
        title = table.full_name if values is None else f"{table.full_name} {table.spec(values)}"
        parts = []
        if values is None:
            parts.append(f"<pre>{html.escape(creation(table))}</pre>")
            if table.partition_columns:
                parts.append(_grid(["partition", "rows", "bytes", "modified"], self._partitions(table)))
        elif values not in table.extents:
            table.extent(values)
        found = self._rows.head(table, values or (), _SHOWN_ROWS)
        parts.append(f"<h2>The first {len(found)} rows</h2>")
        parts.append(_grid(found.column_names, _cells(found)))
        return _page(title, [_link(table.project, table.project)], parts)

    def _partitions(self, table: Table) -> list[list[str]]:
        place = (table.project, table.schema, table.name)
        return [
            [
                _link(table.spec(values), *place, table.spec(values).replace("/", ",")),
                str(extent.rows),
                str(extent.size),
                date(extent.modified),
            ]
            for values, extent in sorted(table.extents.items())
        ]


def _count(catalog: Catalog, project: str) -> str:
    return str(sum(key[0] == project.lower() for key in catalog.tables))


def _cells(rows: pa.Table) -> list[list[str]]:
    return [
        [_text(str(value)) if value is not None else '<span class="none">NULL</span>' for value in row]
        for row in zip(*(column.to_pylist() for column in rows.columns), strict=True)
    ]


def _text(text: str) -> str:
    return html.escape(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def _link(label: str, *parts: str) -> str:
    return f'<a href="/console/{"/".join(quote(part, safe="") for part in parts)}">{html.escape(label)}</a>'


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are HTML already."""
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _page(title: str, links: list[str], parts: list[str]) -> Reply:
    crumbs = " / ".join(['<a href="/console">MaxCompute</a>', *links])
    name = html.escape(title)
    body = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<nav>{crumbs}</nav><h1>{name}</h1>{''.join(parts)}</html>"
    )
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Reply(body.encode(), headers=policy, media="text/html; charset=utf-8")
