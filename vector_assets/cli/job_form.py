"""A lake job's YAML made of command-line options, and its columns inferred from live messages."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vector_assets.cli.output import usage
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from vector_assets.declare.lake_form import DataSource
    from vector_assets.declare.lake_shelf import Item, Shelf
    from vector_assets.formats.lake_fields import LakeField
    from vector_assets.formats.lake_infer import Inferred


@dataclass(slots=True)
class Mapping:
    """What is to be changed of the inferred fields: by path, new names, types, fields more and fields less."""

    renamed: dict[str, str] = field(default_factory=dict)
    retyped: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def applied(self, fields: "tuple[LakeField, ...]") -> "tuple[LakeField, ...]":
        """The fields as they are to be.

        Raises:
            ConfigError: a field is not there, or is there already.
        """
        from vector_assets.formats.lake_fields import parse_path, path_text, plain_name

        found = {path_text(each.path): each for each in fields}
        for path in (*self.renamed, *self.retyped, *self.removed):
            if path not in found:
                raise ConfigError(f"no field {path!r}; known: {', '.join(found)}")
        for path, name in self.renamed.items():
            found[path] = replace(found[path], name=name)
        for path, text in self.retyped.items():
            found[path] = _typed(found[path], text)
        for path in self.removed:
            del found[path]
        for path, text in self.added.items():
            if path in found:
                raise ConfigError(f"field {path!r} is there already")
            found[path] = _typed(_field(parse_path(path), plain_name(parse_path(path))), text)
        return tuple(found.values())


def _field(path: tuple[str, ...], name: str) -> "LakeField":
    from vector_assets.formats.lake_fields import LakeField

    return LakeField(path, name)


def _typed(each: "LakeField", text: str) -> "LakeField":
    from vector_assets.declare.flink_type_text import type_of
    from vector_assets.formats.lake_fields import JSON, STRING

    if text.upper() == JSON:
        return replace(each, type=STRING, json=True)
    return replace(each, type=type_of(text), json=False)


def partition_keys(texts: list[str] | None) -> list[dict[str, Any]]:
    """`log_time:day`, `column` and `column:16` (buckets) as items of `partition_by`."""
    found: list[dict[str, Any]] = []
    for text in texts or ():
        name, _, rest = text.partition(":")
        if name == "log_time":
            found.append({"log_time": rest})
        elif rest and not rest.isdigit():
            usage(f"--partition-by: want log_time:day, COLUMN or COLUMN:BUCKETS, found {text!r}")
        else:
            found.append({"column": name} | ({"bucket": rest} if rest else {}))
    return found


def job_text(values: dict[str, Any]) -> str:
    """A `job:` document with a key a line; keys without a value are left out."""
    from vector_assets.declare.yaml_edit import flow

    lines = ["job:"]
    for key, value in values.items():
        if isinstance(value, dict) and key == "destination":
            lines += [f"  {key}:", *(f"    {name}: {flow(item)}" for name, item in value.items() if item)]
        elif isinstance(value, list) and value:
            lines += [f"  {key}:", *(f"    - {flow(item)}" for item in value)]
        elif value not in (None, "", [], {}):
            lines.append(f"  {key}: {flow(value)}")
    return "\n".join([*lines, ""])


def sample(source: "DataSource", shelf: "Shelf", job: "Item | None", count: int) -> "pa.Table":
    """The newest messages of a data source, as raw records.

    Raises:
        ConfigError: there are none to learn from.
        TransientError: the broker does not answer.
    """
    import pyarrow as pa

    from vector_assets.declare.lake_job import kafka_options
    from vector_assets.engine import env
    from vector_assets.engine.core import RAW_SCHEMA
    from vector_assets.engine.preview import newest
    from vector_assets.engine.schema import Table

    if job is not None:
        form, document, path = shelf.source_of(job)
    else:
        document, path, form = shelf.find("datasource", source.name).document, ("datasource",), source
    start = {"scan.startup.mode": "earliest-offset"}
    make, options = kafka_options(form, document, path, start, env.secret, offline=False)
    reader = make(options, Table(form.name, ()))
    try:
        found, _ = newest(reader, RAW_SCHEMA, count)
    finally:
        reader.close()
    if found.num_rows == 0:
        raise ConfigError(
            f"topic {form.topic} of data source {form.name} holds no messages to infer columns from: send some first,"
            " or write columns: by hand"
        )
    assert isinstance(found, pa.Table)
    return found


def infer(records: "pa.Table", layers: int, *, times: bool, taken: list[str]) -> "Inferred":
    """Fields of raw records; `taken` are names of columns that the job has besides.

    Raises:
        ConfigError: none of the records is a JSON object.
    """
    from vector_assets.formats.lake_infer import infer as inferred

    found = inferred(records.column("value").combine_chunks(), layers, times=times, taken=taken)
    if not found.good:
        first = found.bad[0].reason if found.bad else "none"
        raise ConfigError(f"none of {records.num_rows} sample messages is a JSON object; the first: {first}")
    return found


def column_lines(fields: "tuple[LakeField, ...]", inferred: "Inferred | None") -> list[str]:
    """Items of `columns:`, each with what was seen as a comment."""
    from vector_assets.declare.lake_form import FieldMapping
    from vector_assets.declare.yaml_edit import flow

    seen = {each.path: str(each) for each in inferred.evidence} if inferred else {}
    items = [(flow(FieldMapping.of(each)), seen.get(each.path)) for each in fields]
    width = max((len(item) for item, _ in items), default=0)
    return [f"- {item.ljust(width)}  # {why}" if why else f"- {item}" for item, why in items]
