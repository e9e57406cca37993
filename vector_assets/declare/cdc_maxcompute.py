"""The `maxcompute` sink of CDC pipelines: a database is a schema of the project, or nothing where schemas are off."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from vector_assets.clients.maxcompute import MaxCompute
from vector_assets.declare.cdc_names import Place as Target
from vector_assets.declare.cdc_sinks import MAXCOMPUTE, CdcSink, TableEnd
from vector_assets.declare.flink_options import Written, parse
from vector_assets.declare.yaml_text import Document
from vector_assets.engine.errors import ConfigError
from vector_assets.sinks.maxcompute import MaxComputeSink
from vector_assets.sinks.maxcompute_cdc import MaxComputeCdcOptions, stored_type


class _Asked:
    """Whom `parse` makes options for."""

    def __init__(self, options: MaxComputeCdcOptions) -> None:
        self.options = options


class MaxComputeCdc(CdcSink):
    """Tables that the first run makes: Delta tables where there is a primary key."""

    type = MAXCOMPUTE
    stored = staticmethod(stored_type)
    texts_partition = True

    def __init__(self, document: Document, written: Written) -> None:
        self._document, self._written = document, written
        self.options = self._parsed({})

    def _parsed(self, more: Mapping[str, str]) -> MaxComputeCdcOptions:
        written = self._written
        given = Written({**written.values, **more}, written.places, written.hidden, written.unknown)
        options: MaxComputeCdcOptions = parse(_Asked, given, "sink maxcompute")
        return options

    def ask(self) -> dict[str, Any]:
        """Whether the project has schemas."""
        login = self.options.of_table(None, "none", is_keyed=False)
        with closing(MaxCompute.of(login)) as service:
            return {"schemas": service.has_schemas()}

    def has_databases(self, facts: Mapping[str, Any]) -> bool:
        """True where the project's schemas are on."""
        return bool(facts.get("schemas"))

    def end(
        self, target: Target, facts: Mapping[str, Any], *, is_keyed: bool, partition: tuple[str, ...],
        more: Mapping[str, str],
    ) -> TableEnd:  # fmt: skip
        """The sink of a table; its database is a schema, or left out where schemas are off."""
        for name in more:
            if name != "buckets-num":
                raise ConfigError(
                    f"table-options: {name!r} is no option of a single table; known: buckets-num, comment",
                    self._document.place_of(("transform",)),
                )
        options = self._parsed(more)
        schema = target.database if self.has_databases(facts) else None
        made = options.of_table(schema, target.table, is_keyed=is_keyed, partition=partition)
        reports = options.reports() if is_keyed else (*options.reports(), *options.keyless_reports())
        return TableEnd("odps", MaxComputeSink, made, reports)
