"""Addresses to what answers them."""

from pathlib import Path

from vector_assets.local.maxcompute import console, results, tunnel, wire
from vector_assets.local.maxcompute.admin import Admin
from vector_assets.local.maxcompute.auth import Keys
from vector_assets.local.maxcompute.catalog import DEFAULT_SCHEMA, Catalog, Column, Table
from vector_assets.local.maxcompute.download import Downloads, Snapshots
from vector_assets.local.maxcompute.faults import Faults
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.instances import Instance, Instances
from vector_assets.local.maxcompute.metadata import Metadata, columns_json
from vector_assets.local.maxcompute.names import NAMESPACE_FLAG, Scope
from vector_assets.local.maxcompute.preview import Previews
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.rows import Rows
from vector_assets.local.maxcompute.sessions import Sessions
from vector_assets.local.maxcompute.sql import Sql
from vector_assets.local.maxcompute.storage_api import Storage
from vector_assets.local.maxcompute.store import Store
from vector_assets.local.maxcompute.stream import Streams
from vector_assets.local.maxcompute.upload import Uploads
from vector_assets.local.maxcompute.upsert import Upserts

_LIMITED_ROWS = 10_000


class Api:
    """Everything the server answers, without the web server."""

    def __init__(self, folder: Path, address: str, access_id: str, secret: str, project: str) -> None:
        self.address = address
        self.store = Store(folder)
        self.catalog = Catalog(self.store)
        if project.lower() not in self.catalog.projects:
            self.catalog.add_project(project, schemas=False)
        rows = Rows(self.store, self.catalog)
        self.faults = Faults()
        sessions = Sessions(self.store)
        self._keys = Keys(self.store, access_id, secret)
        self._instances = Instances(self.store, Sql(self.store, self.catalog, rows))
        self._metadata = Metadata(self.store, self.catalog)
        snapshots = Snapshots(self.store, rows)
        self._downloads = Downloads(self.store, sessions, snapshots)
        self._uploads = Uploads(self.store, self.catalog, rows, sessions)
        self._previews = Previews(rows)
        self._streams = Streams(self.store, self.catalog, rows, sessions, address)
        self._upserts = Upserts(self.store, self.catalog, rows, sessions, address)
        self._storage = Storage(self.store, self.catalog, rows, sessions, snapshots)
        self._console = console.Console(self.catalog, rows, self._instances)
        self._admin = Admin(secret, self.catalog, self._keys, sessions, self.faults)

    def answer(self, request: Request) -> Reply:
        """What a request gives.

        Raises:
            Refusal: anything but success.
        """
        match request.path:
            case () | ("console", *_):
                return self._console.page(request)
            case ("local", *rest):
                return self._admin.answer(tuple(rest), request)
        self._keys.check(request)
        match request.path:
            case ("tenants",):
                return self._tenant(request)
            case ("logview", "host"):
                raise Refusal(404, "NoSuchObject", "there is no log view here")
            case ("projects",):
                return self._metadata.projects(request)
            case ("api", "storage", "v1", "projects", project, "schemas", schema, "tables", name, *rest):
                return self._storage.answer(self.catalog.table(project, schema, name), tuple(rest), request)
            case ("projects", project, *rest):
                self.catalog.project(project)
                return self._of_project(project, tuple(rest), request)
        raise _nothing(request)

    def _tenant(self, request: Request) -> Reply:
        name = request.query.get("curr_project", "")
        has_schemas = bool(name) and bool(self.catalog.project(name)["schemas"])
        parameters = {NAMESPACE_FLAG: str(has_schemas).lower()}
        return json_reply({"Name": "local", "TenantId": "local", "TenantState": "NORMAL", "Parameters": parameters})

    def _of_project(self, project: str, rest: tuple[str, ...], request: Request) -> Reply:
        schema = request.query.get("curr_schema") or DEFAULT_SCHEMA
        match rest:
            case ("tables", name, *tail):
                return self._of_table(self.catalog.table(project, schema, name), tuple(tail), request)
            case ("schemas", schema, "tables", name, *tail):
                return self._of_table(self.catalog.table(project, schema, name), tuple(tail), request)
            case ("tunnel",):
                return tunnel.service(request, self.address)
            case ("logs",):
                return Reply()
            case ("instances",):
                return self._submit(project, schema, request)
            case ("instances", number):
                return self._of_instance(self._instances.find(project, number), request)
        return self._of_metadata(project, schema, rest, request)

    def _of_metadata(self, project: str, schema: str, rest: tuple[str, ...], request: Request) -> Reply:
        match rest:
            case () if request.method == "PUT":
                return self._metadata.set_properties(project, request)
            case ():
                return self._metadata.project(project)
            case ("schemas",):
                return self._metadata.schemas(project, request)
            case ("schemas", name):
                return self._metadata.schema(project, name, request)
            case ("tables",):
                return self._metadata.tables(project, schema, request)
        raise _nothing(request)

    def _of_table(self, table: Table, tail: tuple[str, ...], request: Request) -> Reply:
        match tail:
            case ():
                return self._of_whole_table(table, request)
            case ("preview",) if request.method == "GET":
                return self._previews.arrow(table, request)
            case ("streams",):
                return self._streams.answer(table, request)
            case ("upserts",):
                return self._upserts.answer(table, request)
        raise _nothing(request)

    def _of_whole_table(self, table: Table, request: Request) -> Reply:
        query = request.query
        match request.method:
            case "GET" if "data" in query and "downloadid" not in query:
                return self._previews.text(table, request)
            case "GET" if "downloadid" in query:
                answer = self._downloads.data if "data" in query else self._downloads.show
                return answer(table, query["downloadid"], request)
            case "GET" if "uploadid" in query:
                return self._uploads.show(table, query["uploadid"], request)
            case "GET":
                return self._metadata.table(table, request)
            case "POST" if "downloads" in query:
                return self._downloads.open(table, request)
            case "POST" if "uploads" in query:
                return self._uploads.open(table, request)
            case "POST" if "uploadid" in query:
                return self._uploads.commit(table, query["uploadid"], request)
            case "PUT" if "uploadid" in query:
                return self._uploads.put(table, query["uploadid"], request)
        raise _nothing(request)

    def _submit(self, project: str, schema: str, request: Request) -> Reply:
        if request.method == "GET":
            return results.listing(self._instances.of_project(project), request)
        instance = self._instances.submit(request, Scope(self.catalog, project, schema))
        place = f"http://{self.address}/projects/{project}/instances/{instance.id}"
        return Reply(status=201, headers={"Location": place})

    def _of_instance(self, instance: Instance, request: Request) -> Reply:
        """A job, or its rows by the instance tunnel, where it is its own session."""
        query = request.query
        if not query.keys() & {"downloads", "downloadid"}:
            return results.answer(self._instances, instance, request)
        rows = self._instances.rows(instance)
        if "instance_tunnel_limit_enabled" in query:
            rows = rows.slice(0, _LIMITED_ROWS)
        kinds = self._instances.kinds(rows)
        columns = [Column(name, kind) for name, kind in zip(rows.column_names, kinds, strict=True)]
        if "data" not in query:
            schema = {"columns": columns_json(columns), "partitionKeys": []}
            return json_reply(
                {
                    "DownloadID": instance.id,
                    "Status": "normal",
                    "RecordCount": len(rows),
                    "Schema": schema,
                    "QuotaName": tunnel.quota_of(request),
                }
            )
        if query.get("columns"):
            names = query["columns"].split(",")
            columns = [column for column in columns if column.name in names]
            rows = rows.select([column.name for column in columns])
        start, count = wire.row_range(request, len(rows))
        return wire.outgoing(rows.slice(start, count), columns, request, splits_stamps=True)


def _nothing(request: Request) -> Refusal:
    return Refusal(405, "MethodNotAllowed", f"{request.method} {request.target.partition('?')[0]} is not served here")
