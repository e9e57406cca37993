"""Which table a name in a statement or request means."""

import re
from dataclasses import dataclass, field

from sqlglot import exp

from vector_assets.local.maxcompute.catalog import DEFAULT_SCHEMA, Catalog, Table
from vector_assets.local.maxcompute.refusal import Refusal, invalid, missing_table

_PART = re.compile(r"`((?:[^`]|``)+)`|([^`.\s]+)")
NAMESPACE_FLAG = "odps.namespace.schema"
"""The hint by which a statement says whether `a.b` is schema.table (true) or project.table."""


@dataclass
class Scope:
    """Where names are looked up: the request's project, schema and hints."""

    catalog: Catalog
    project: str
    schema: str = DEFAULT_SCHEMA
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def has_schemas(self) -> bool:
        """True when names have three tiers."""
        flag = self.settings.get(NAMESPACE_FLAG)
        if flag is not None:
            return str(flag).lower() == "true"
        return bool(self.catalog.project(self.project)["schemas"])

    def place(self, parts: list[str]) -> tuple[str, str, str]:
        """Project, schema and name of a dotted name.

        Raises:
            Refusal: it has too many parts.
        """
        match parts:
            case [name]:
                return self.project, self.schema, name
            case [first, name]:
                is_schema = f"{self.project}.{first}".lower() in self.catalog.schemas
                if self.has_schemas and (is_schema or first.lower() not in self.catalog.projects):
                    return self.project, first, name
                return first, DEFAULT_SCHEMA, name
            case [project, schema, name]:
                return project, schema, name
        raise invalid(f"{'.'.join(parts)} is no table name")

    def table(self, parts: list[str]) -> Table:
        """The table of a dotted name.

        Raises:
            Refusal: there is none.
        """
        try:
            return self.catalog.table(*self.place(parts))
        except Refusal as refusal:
            if refusal.code == "NoSuchObject":
                raise missing_table(".".join(parts)) from refusal
            raise

    def schema_place(self, parts: list[str]) -> tuple[str, str]:
        """Project and name of a schema."""
        return (parts[0], parts[1]) if len(parts) > 1 else (self.project, parts[0])


def parts_of(name: str) -> list[str]:
    """The parts of a dotted name, quoted or not."""
    return [(quoted or plain).replace("``", "`") for quoted, plain in _PART.findall(name)]


def parts_of_node(table: exp.Table) -> list[str]:
    """The parts of a parsed name."""
    return [part.name for part in table.parts]
