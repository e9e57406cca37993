"""The XML and CSV by which a client asks about a job."""

import csv
import datetime as dt
import io
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pyarrow as pa

from vector_assets.local.maxcompute.http import Reply, Request, date, element, json_reply, xml_reply
from vector_assets.local.maxcompute.instances import TERMINATED, Instance, Instances
from vector_assets.local.maxcompute.refusal import invalid
from vector_assets.local.maxcompute.show import OWNER

_PAGE = 1000
_MOST_ROWS = 10_000
"""As many rows as the service gives without the tunnel."""


def answer(instances: Instances, instance: Instance, request: Request) -> Reply:
    """What a client asks about a job.

    Raises:
        Refusal: the job cannot be stopped.
    """
    query = request.query
    if request.method == "PUT":
        if request.xml().findtext("Status") != TERMINATED:
            raise invalid("an instance can only be set to Terminated")
        instances.stop(instance)
        return Reply()
    headers = {"x-odps-owner": OWNER, "x-odps-start-time": date(instance.started)}
    if instance.ended:
        headers["x-odps-end-time"] = date(instance.ended)
    if "result" in query:
        return xml_reply(_result(instances, instance), headers)
    if "taskstatus" in query:
        return xml_reply(element("Instance", element("Tasks", _task(instance)), Status=instance.status), headers)
    if "source" in query:
        return xml_reply(_source(instance), headers)
    if "instanceprogress" in query:
        return xml_reply(_progress(instance), headers)
    if query.keys() & {"instancesummary", "detail", "instancequeueinginfo", "cached", "instancedetail", "summary"}:
        return json_reply({}, headers=headers)
    return xml_reply(element("Instance", Status=instance.status), headers)


def listing(instances: list[Instance], request: Request) -> Reply:
    """The jobs of a project, those of a status and from a time on if the request says so, a page at a time."""
    status = request.query.get("status", "").lower()
    first, _, last = request.query.get("daterange", "").partition(":")
    chosen = [
        each
        for each in instances
        if status in {"", each.status.lower()}
        and (not first or each.started >= int(first))
        and (not last or each.started < int(last))
    ]
    start = request.number("marker", 0)
    page = chosen[start : start + max(1, min(request.number("maxitems", _PAGE), _PAGE))]
    shown = [
        element(
            "Instance",
            Name=each.id,
            Owner=OWNER,
            StartTime=date(each.started),
            EndTime=date(each.ended),
            Status=each.status,
        )
        for each in page
    ]
    rest = start + len(page)
    return xml_reply(element("Instances", *shown, Marker=rest if rest < len(chosen) else "", MaxItems=len(shown)))


def _task(instance: Instance) -> ET.Element:
    root = element("Task", Name=instance.task, StartTime=date(instance.started), Status=instance.outcome)
    root.set("Type", "SQL")
    if instance.ended:
        ET.SubElement(root, "EndTime").text = date(instance.ended)
    return root


def _progress(instance: Instance) -> ET.Element:
    return element("Progress", element("Stages"), Status=instance.status)


def _source(instance: Instance) -> ET.Element:
    given = [element("Property", Name=name, Value=value) for name, value in instance.properties.items()]
    config = element("Config", *given)
    task = element("SQL", config, Name=instance.task, Query=instance.query)
    return element("Job", element("Tasks", task), element("DAG"), Name=instance.id, Priority=instance.priority)


def _result(instances: Instances, instance: Instance) -> ET.Element:
    task = _task(instance)
    text = instance.text
    if instance.has_rows:
        rows = instances.rows(instance)
        text = csv_text(rows.slice(0, _MOST_ROWS))
        kinds = instances.kinds(rows)
        columns = [{"Name": name, "Type": str(kind)} for name, kind in zip(rows.column_names, kinds, strict=True)]
        descriptor = {"IsSelect": True, "SelectResultStatus": "OK", "Schema": {"Columns": columns}}
        ET.SubElement(task, "ResultDescriptor").text = orjson.dumps(descriptor).decode()
    result = ET.SubElement(task, "Result")
    result.set("Format", "csv" if instance.has_rows else "text")
    result.text = text
    return element("Instance", element("Tasks", task), Status=instance.status)


def csv_text(rows: pa.Table) -> str:
    """Rows as CSV with a head line; NULL is \\N."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in zip(*(column.to_pylist() for column in _readable(rows).columns), strict=True):
        writer.writerow([_shown(value) for value in row])
    return out.getvalue()


def _readable(rows: pa.Table) -> pa.Table:
    """Nanoseconds as text: Python's own times have none."""
    for place, part in enumerate(rows.schema):
        if pa.types.is_timestamp(part.type) and part.type.unit == "ns":
            rows = rows.set_column(place, part.name, rows.column(place).cast(pa.string()))
    return rows


def _shown(value: Any) -> str:
    match value:
        case None:
            return "\\N"
        case bool():
            return str(value).lower()
        case dt.datetime():
            return value.isoformat(sep=" ", timespec="milliseconds" if value.microsecond else "seconds")
        case bytes():
            return value.decode(errors="replace")
        case list() | dict():
            return orjson.dumps(value, default=str).decode()
    return str(value)
