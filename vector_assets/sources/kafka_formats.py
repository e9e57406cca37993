"""Which formats read a Kafka record's key and value, and which columns are whose, as Flink SQL spells it."""

from abc import ABC
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import SourceOptions


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class KeyValueFormats(SourceOptions, ABC):
    """Options that say how keys and values are decoded; the formats' own options are not among them."""

    key_from_primary_key: ClassVar[bool] = False
    """The key's columns are those of the PRIMARY KEY, so there is no `key.fields`."""

    format: str | None = None
    """Format of the records' values, its options spelled `<format>.*`; or `value.format`."""
    value_format: str | None = Field(None, alias="value.format")
    """Format of the records' values, its options spelled `value.<format>.*`; or `format`."""
    key_format: str | None = Field(None, alias="key.format")
    """Format of the records' keys, its options spelled `key.<format>.*`; without it keys are not decoded."""
    key_fields: str | None = Field(None, alias="key.fields")
    """Columns that the key holds, separated by `;`; required with `key.format`."""
    key_fields_prefix: str | None = Field(None, alias="key.fields-prefix")
    """What the names of the key's columns begin with in the table, but not in the key; wants EXCEPT_KEY."""
    value_fields_include: Annotated[Literal["ALL", "EXCEPT_KEY"], BeforeValidator(_upper)] = Field(
        "ALL", alias="value.fields-include"
    )
    """`ALL`: the value holds every column, the key's too, and is where they are read; `EXCEPT_KEY`: the key's columns
    are in the key only."""

    @classmethod
    def parse(cls, raw: Mapping[str, str], owner: str, places: Mapping[str, Place] | None = None) -> Self:
        """As the base, with errors between these options at one of them."""
        options = super().parse(raw, owner, places)
        found = options._contradiction()
        if found is not None:
            name, reason = found
            known = places or {}
            raise ConfigError(f"{owner}: {reason}", known.get(name) or known.get("connector"))
        return options

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The names in `key.fields`."""
        return tuple(name.strip() for name in (self.key_fields or "").split(";") if name.strip())

    def shown(self) -> dict[str, str]:
        """Every option as users spell it; what only matters with keys where they are decoded."""
        shown = super().shown()
        if self.key_format is None:
            shown.pop("value.fields-include")
        return shown

    def _contradiction(self) -> tuple[str, str] | None:
        """The option to blame and the reason, when they do not fit together."""
        if self.format is not None and self.value_format is not None:
            return "value.format", "options 'format' and 'value.format' mean the same; want one of them"
        if self.format is None and self.value_format is None:
            return "connector", "option 'format' is required (or 'value.format')"
        if self.key_fields_prefix and self.value_fields_include == "ALL":
            return "key.fields-prefix", (
                "option 'key.fields-prefix' wants 'value.fields-include' = 'EXCEPT_KEY', found 'ALL':"
                " the value would hold the key's columns under names that the table does not have"
            )
        if self.key_from_primary_key:
            return None
        if self.key_format is None:
            given = next((name for name, value in self._key_options() if value), None)
            return (given, f"option {given!r} has a meaning only with 'key.format'") if given else None
        if not self.key_columns:
            name = "key.fields" if self.key_fields is not None else "key.format"
            return name, f"'key.format' = '{self.key_format}' wants the key's columns in option 'key.fields'"
        return None

    def _key_options(self) -> tuple[tuple[str, str | None], ...]:
        return ("key.fields", self.key_fields), ("key.fields-prefix", self.key_fields_prefix)
