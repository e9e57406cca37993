"""Projects, schemas, tables and partitions as the client asks for them."""

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from vector_assets.local.maxcompute.catalog import DEFAULT_SCHEMA, VIEW, Catalog, Column, Extent, Table
from vector_assets.local.maxcompute.http import Reply, Request, date, element, xml_reply
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.show import OWNER
from vector_assets.local.maxcompute.store import Store

_PAGE = 1000


def columns_json(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Columns as the client's schema parser reads them."""
    return [
        {
            "name": column.name,
            "type": str(column.type),
            "comment": column.comment,
            "label": "",
            "isNullable": column.nullable,
        }
        for column in columns
    ]


def schema_json(table: Table) -> dict[str, Any]:
    """The schema of a tunnel session."""
    return {"columns": columns_json(table.columns), "partitionKeys": columns_json(table.partition_columns)}


class Metadata:
    """Answers about what exists. Changes are SQL, except for schemas."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog

    def projects(self, request: Request) -> Reply:
        """All projects."""
        shown = [_project(body) for body in self._catalog.projects.values()]
        return xml_reply(element("Projects", *shown, Marker="", MaxItems=len(shown)))

    def project(self, name: str) -> Reply:
        """One project."""
        body = self._catalog.project(name)
        stamp = date(body["created"])
        headers = {"x-odps-owner": OWNER, "x-odps-creation-time": stamp, "Last-Modified": stamp}
        return xml_reply(_project(body), headers)

    def set_properties(self, name: str, request: Request) -> Reply:
        """Change a project's properties."""
        body = self._catalog.project(name)
        for each in request.xml().iterfind(".//Property"):
            body["properties"][each.findtext("Name") or ""] = each.findtext("Value") or ""
        self._store.put("project", name.lower(), body)
        return Reply()

    def schemas(self, project: str, request: Request) -> Reply:
        """List or make schemas."""
        if request.method == "POST":
            root = request.xml()
            with self._store.writing():
                self._catalog.add_schema(project, root.findtext("Name") or "", root.findtext("Comment") or "")
            return Reply(status=201)
        self._catalog.project(project)
        found = [body for body in self._catalog.schemas.values() if body["project"].lower() == project.lower()]
        prefix = request.query.get("name", "").lower()
        names = [body["name"] for body in found if body["name"].lower().startswith(prefix)]
        chosen, marker = _page(sorted(names), request)
        shown = [element("Schema", Name=name, Owner=OWNER) for name in chosen]
        return xml_reply(element("Schemas", *shown, Marker=marker, MaxItems=_PAGE))

    def schema(self, project: str, name: str, request: Request) -> Reply:
        """One schema."""
        body = self._catalog.schema(project, name)
        if request.method == "DELETE":
            with self._store.writing():
                self._catalog.drop_schema(project, name)
            return Reply(status=204)
        headers = {
            "x-odps-owner": OWNER,
            "x-odps-creation-time": date(body["created"]),
            "Last-Modified": date(body["modified"]),
        }
        root = element("Schema", Name=body["name"], Project=body["project"], Owner=OWNER, Comment=body["comment"])
        return xml_reply(root, headers)

    def tables(self, project: str, schema: str, request: Request) -> Reply:
        """The tables of a schema, by name."""
        self._catalog.schema(project, schema)
        prefix, kind = request.query.get("name", "").lower(), request.query.get("type", "").upper()
        owner = request.query.get("owner", "")
        found = {
            table.name: table
            for table in self._catalog.tables_of(project, schema)
            if table.name.lower().startswith(prefix) and kind in {"", table.kind} and owner in {"", OWNER}
        }
        chosen, marker = _page(sorted(found), request)
        if "extended" in request.query:
            shown = [_table(found[name], extended=True) for name in chosen]
        else:
            shown = [element("Table", Name=name, Owner=OWNER, Type=found[name].kind) for name in chosen]
        return xml_reply(element("Tables", *shown, Marker=marker, MaxItems=_PAGE))

    def table(self, table: Table, request: Request) -> Reply:
        """A table, its partitions, or one partition.

        Raises:
            Refusal: the partition does not exist.
        """
        query = request.query
        if "partitions" in query:
            return self._partitions(table, request)
        if "partition" in query:
            extent = table.extent(table.values(query["partition"]))
            if not table.partition_columns:
                raise invalid(f"table {table.full_name} has no partitions")
            return xml_reply(_partition(extent, extended="extended" in query))
        headers = {"x-odps-owner": OWNER, "x-odps-creation-time": date(table.created)}
        headers["Last-Modified"] = date(table.modified)
        return xml_reply(_table(table, extended="extended" in query), headers)

    def _partitions(self, table: Table, request: Request) -> Reply:
        if not table.partition_columns:
            raise Refusal(400, "InvalidArgument", f"ODPS-0130071: {table.full_name} is not a partitioned table")
        given = request.query.get("partition", "")
        first = table.values(given) if given else ()
        found = {table.spec(key): table.extents[key] for key in sorted(table.extents) if key[: len(first)] == first}
        names = list(found)
        if "reverse" in request.query:
            names.reverse()
        chosen, marker = _page(names, request)
        shown = [_listed(table, found[name]) for name in chosen]
        return xml_reply(element("Partitions", *shown, Marker=marker, MaxItems=_PAGE))


def _page(names: list[str], request: Request) -> tuple[list[str], str]:
    """The names after the request's marker, and the marker of the next page."""
    marker = request.query.get("marker", "")
    start = names.index(marker) + 1 if marker in names else 0
    most = max(1, min(request.number("maxitems", _PAGE), _PAGE))
    chosen = names[start : start + most]
    return chosen, chosen[-1] if chosen and start + most < len(names) else ""


def _project(body: dict[str, Any]) -> ET.Element:
    properties = {"odps.schema.model.enabled": str(body["schemas"]).lower(), **body["properties"]}
    listed = [element("Property", Name=name, Value=value) for name, value in properties.items()]
    root = element("Project", Name=body["name"], Owner=OWNER, State="AVAILABLE", Comment="", Type="managed")
    root.extend([element("Properties", *listed), element("ExtendedProperties")])
    return root


def _table(table: Table, *, extended: bool) -> ET.Element:
    root = element(
        "Table",
        Name=table.name,
        TableId=f"{table.id:032x}",
        Schema=orjson.dumps(_table_json(table, extended=extended)).decode(),
        Comment=table.comment,
        Owner=OWNER,
        Project=table.project,
        TableLabel="",
        CreationTime=date(table.created),
        LastModifiedTime=date(table.modified),
        Type=table.kind,
    )
    if table.schema != DEFAULT_SCHEMA:
        ET.SubElement(root, "SchemaName").text = table.schema
    root.set("format", "Json")
    return root


def _table_json(table: Table, *, extended: bool) -> dict[str, Any]:
    size = sum(extent.size for extent in table.extents.values())
    found: dict[str, Any] = {
        **schema_json(table),
        "comment": table.comment,
        "owner": OWNER,
        "createTime": int(table.created),
        "lastModifiedTime": int(table.modified),
        "lastDDLTime": int(table.ddl),
        "lastAccessTime": int(table.modified),
        "isVirtualView": table.kind == VIEW,
        "isExternal": False,
        "viewText": table.view_text,
        "viewExpandedText": table.view_text,
        "lifecycle": table.lifecycle,
        "size": size,
        "recordNum": sum(extent.rows for extent in table.extents.values()),
        "tableLabel": "",
        "shardExist": False,
        "hubLifecycle": -1,
        "cryptoAlgo": "",
    }
    if extended:
        reserved = {
            **table.properties,
            "schema_version": str(table.schema_version),
            "Transactional": str(table.is_transactional).lower(),
            "PrimaryKey": table.primary_key,
        }
        found |= {
            "IsArchived": False,
            "PhysicalSize": size,
            "FileNum": sum(extent.rows > 0 for extent in table.extents.values()),
            "Reserved": orjson.dumps(reserved).decode(),
        }
    return found


def _listed(table: Table, extent: Extent) -> ET.Element:
    columns = [
        ET.Element("Column", Name=c.name, Value=v) for c, v in zip(table.partition_columns, extent.values, strict=True)
    ]
    return element(
        "Partition",
        *columns,
        CreationTime=int(extent.created),
        LastDDLTime=int(extent.ddl),
        LastModifiedTime=int(extent.modified),
        PartitionSize=extent.size,
        PartitionRecordCount=extent.rows,
    )


def _partition(extent: Extent, *, extended: bool) -> ET.Element:
    if extended:
        # only these: the client asks for the others by themselves
        found: dict[str, Any] = {
            "IsArchived": False,
            "IsExstore": False,
            "LifeCycle": -1,
            "PhysicalSize": extent.size,
            "FileNum": int(extent.rows > 0),
            "Reserved": "{}",
        }
        return element("Partition", Schema=orjson.dumps(found).decode())
    found = {
        "createTime": int(extent.created),
        "lastDDLTime": int(extent.ddl),
        "lastModifiedTime": int(extent.modified),
        "lastAccessTime": int(extent.modified),
        "partitionSize": extent.size,
        "partitionRecordNum": extent.rows,
    }
    return element("Partition", Schema=orjson.dumps(found).decode())
