"""Format avro-confluent: a byte 0, the id of the writer's schema in a schema registry, and the value it wrote."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from vector_assets.clients.schema_registry import (
    DEFAULT_TIMEOUT_SECONDS,
    RegistrySettings,
    SchemaRegistry,
    UnknownSchemaError,
    split_url,
)
from vector_assets.engine.core import Decoded
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Table
from vector_assets.formats.avro import AvroRows, Piece, pieces
from vector_assets.formats.avro_cursor import Ints
from vector_assets.formats.avro_nodes import Node
from vector_assets.formats.avro_resolve import check
from vector_assets.formats.avro_schema import Avro, of_table, parse

PREFIX = "avro-confluent."
_HEADER_BYTES = 5
_SECRET = re.compile(r"password|user[.-]?info|token|secret|key", re.IGNORECASE)
_OLD = ("url", "subject", "schema")
"""Options that Flink also takes as `schema-registry.<name>`, as it called them before 1.13."""

_SAME_AS = {
    "basic.auth.credentials.source": "basic_source",
    "basic.auth.user.info": "user_info",
    "bearer.auth.credentials.source": "bearer_source",
    "bearer.auth.token": "token",
    "schema.registry.ssl.keystore.location": "keystore",
    "schema.registry.ssl.keystore.password": "keystore_password",
    "schema.registry.ssl.truststore.location": "truststore",
    "schema.registry.ssl.truststore.password": "truststore_password",
}
_TIMEOUTS = ("http.connect.timeout.ms", "http.read.timeout.ms")


class Addresses(SecretStr):
    """Addresses of a registry, shown without the credentials that may be in them."""

    def _display(self) -> str:
        return re.sub(r"(?<=//)[^/@\s,]+(?=@)", "***", self.get_secret_value())


def _hidden(values: object) -> object:
    if not isinstance(values, Mapping):
        return values
    known = [*_SAME_AS, *_TIMEOUTS]
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"unknown property {name!r}; known: {', '.join(known)}")
        if name in _TIMEOUTS and not (value.isascii() and value.isdigit() and 0 < int(value) < 86_400_000):
            raise ValueError(f"{name}: want milliseconds, at least 1")
    return {name: SecretStr(value) if _SECRET.search(name) else value for name, value in values.items()}


def _source(*known: str, refused: str) -> BeforeValidator:
    def checked(value: object) -> object:
        if value not in known:
            raise ValueError(f"known: {', '.join(known)}; {refused}")
        return value

    return BeforeValidator(checked)


BasicSource = Annotated[str, _source("USER_INFO", "URL", refused="SASL_INHERIT is not supported: write USER_INFO")]
BearerSource = Annotated[str, _source("STATIC_TOKEN", refused="tokens from an identity provider are not supported")]


def _split(given: Addresses) -> list[tuple[str, str | None]]:
    return [split_url(each) for each in given.get_secret_value().split(",") if each.strip()]


class ConfluentOptions(Options):
    """Flink's options of the avro-confluent format."""

    pass_through: ClassVar[tuple[str, ...]] = ("avro-confluent.properties.",)

    idle: ClassVar[Mapping[str, str]] = {
        "avro-confluent.subject": "it says where a sink registers its schema, and records that are read name theirs"
    }

    basic_source: BasicSource | None = Field(None, alias="avro-confluent.basic-auth.credentials-source")
    """`USER_INFO` (from `basic-auth.user-info`) or `URL` (from the address, `https://user:password@host`)."""
    url: Addresses = Field(alias="avro-confluent.url")
    """Address of the schema registry; several with commas between them are tried in order. Required."""
    schema_: str | None = Field(None, alias="avro-confluent.schema")
    """The reader's Avro schema as JSON, a record with a field for each column: for its defaults and aliases. Without
    it the schema is derived from the columns."""
    subject: str | None = Field(None, alias="avro-confluent.subject")
    """Where a sink registers its schema; without effect on records that are read, which name their schema's id."""
    truststore: Path | None = Field(None, alias="avro-confluent.ssl.truststore.location")
    """PEM file of the authorities to trust for https (Java's own stores are refused, with the command to convert)."""
    truststore_password: SecretStr | None = Field(None, alias="avro-confluent.ssl.truststore.password")
    """Refused: a PEM file of certificates has no password."""
    keystore: Path | None = Field(None, alias="avro-confluent.ssl.keystore.location")
    """PEM file with our certificate and its key."""
    keystore_password: SecretStr | None = Field(None, alias="avro-confluent.ssl.keystore.password")
    """Password of the key in `ssl.keystore.location`."""
    user_info: SecretStr | None = Field(None, alias="avro-confluent.basic-auth.user-info")
    """`user:password`; needs `basic-auth.credentials-source` = `USER_INFO`."""
    bearer_source: BearerSource | None = Field(None, alias="avro-confluent.bearer-auth.credentials-source")
    """`STATIC_TOKEN`."""
    token: SecretStr | None = Field(None, alias="avro-confluent.bearer-auth.token")
    """The token; needs `bearer-auth.credentials-source` = `STATIC_TOKEN`."""
    properties: Annotated[dict[str, str | SecretStr], BeforeValidator(_hidden)] = Field(
        default_factory=dict, alias="avro-confluent.properties."
    )
    """Properties of the registry's Java client: the options above in its spelling, and `http.connect.timeout.ms` and
    `http.read.timeout.ms` (10000 each). An option above wins over its property."""

    @classmethod
    def parse(cls, raw: Mapping[str, str], owner: str, places: Mapping[str, Place] | None = None) -> Self:
        """As the base; the spellings of Flink 1.12 are read as today's."""
        values, where = dict(raw), dict(places or {})
        for name in _OLD:
            old, new = f"{PREFIX}schema-registry.{name}", f"{PREFIX}{name}"
            if old in values and new in values:
                raise ConfigError(f"{owner}: {old!r} and {new!r} are the same option; want one of them", where.get(old))
            if old in values:
                values[new] = values.pop(old)
                where |= {new: where[old]} if old in where else {}
        return super().parse(values, owner, where)

    @field_validator("url")
    @classmethod
    def _is_address(cls, given: Addresses, info: ValidationInfo) -> Addresses:
        """Checked at this option, after where credentials come from."""
        split = _split(given)
        if not split:
            raise ValueError("it is empty")
        held = {user for _, user in split if user}
        if bool(held) != (info.data.get("basic_source") == "URL") or len(held) > 1:
            raise ValueError(
                "credentials in the address (one for all) and 'basic-auth.credentials-source' = 'URL' need each other"
            )
        return given

    @field_validator("user_info")
    @classmethod
    def _is_user_info(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and ":" not in given.get_secret_value():
            raise ValueError("want user:password")
        return given

    @model_validator(mode="before")
    @classmethod
    def _with_properties(cls, values: Any) -> Any:
        """Properties that are an option's other spelling fill that option where it is not set."""
        given = values.get(f"{PREFIX}properties.", {}) if isinstance(values, dict) else {}
        aliases = {field: cls.model_fields[field].alias for field in _SAME_AS.values()}
        filled = {aliases[field]: given[name] for name, field in _SAME_AS.items() if name in given}
        return {**filled, **values} if filled else values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.truststore_password is not None:
            raise ValueError(
                "'ssl.truststore.password' goes with a store of Java's own kind; convert it to PEM: "
                "openssl pkcs12 -in store.p12 -nodes -out store.pem"
            )
        if self.keystore_password is not None and self.keystore is None:
            raise ValueError("'ssl.keystore.password' needs 'ssl.keystore.location'")
        if (self.user_info is not None) != (self.basic_source == "USER_INFO"):
            raise ValueError("'basic-auth.user-info' and 'basic-auth.credentials-source' = 'USER_INFO' need each other")
        if (self.token is not None) != (self.bearer_source == "STATIC_TOKEN"):
            raise ValueError(
                "'bearer-auth.token' and 'bearer-auth.credentials-source' = 'STATIC_TOKEN' need each other"
            )
        if self.basic_source and self.bearer_source:
            raise ValueError("basic-auth and bearer-auth exclude each other")
        return self

    def settings(self) -> RegistrySettings:
        """How to reach the registry."""
        split = _split(self.url)
        held = next((user for _, user in split if user), None)
        user_info = SecretStr(held) if held else self.user_info
        connect, read = (
            float(str(self.properties.get(name, DEFAULT_TIMEOUT_SECONDS * 1000))) / 1000 for name in _TIMEOUTS
        )
        urls = tuple(url for url, _ in split)
        files = (self.truststore, self.keystore, self.keystore_password)
        return RegistrySettings(urls, user_info, self.token, *files, connect, read)


class ConfluentDecoder:
    """Raw avro-confluent records to rows of the table's physical columns; all are inserts. Threads may share it."""

    def __init__(self, options: ConfluentOptions, table: Table) -> None:
        """Refuse tables that the format cannot fill; the registry is asked when the first record comes.

        Raises:
            ConfigError: a type that Avro has no place for, or a given schema that is none or not the table's.
        """
        self._rows = AvroRows(table, "avro-confluent")
        # the writer's schema says what its timestamps are, so every precision can be read
        self._reader = of_table(table, "format avro-confluent", legacy=False)
        if options.schema_ is not None:
            self._reader = parse(options.schema_, "format avro-confluent: option 'avro-confluent.schema'")
            check(self._reader, self._rows.wanted, "format avro-confluent: 'avro-confluent.schema'")
        self._rows.plan(self._reader, self._reader)
        self._registry = SchemaRegistry(options.settings())
        self._plans: dict[int, Node] = {}

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records.

        Raises:
            UnavailableError: the registry does not answer.
            TransientError: the registry cannot answer now.
            ConfigError: the registry refuses us.
        """
        unknown: dict[int, str] = {}
        return self._rows.joined(part for piece in pieces(raw) for part in self._parts(piece, unknown))

    def _parts(self, piece: Piece, unknown: dict[int, str]) -> Iterator[Decoded]:
        sizes = piece.ends - piece.starts
        short = (sizes < _HEADER_BYTES) & ~piece.null
        magic = piece.data[piece.starts]
        other = (magic != 0) & ~short & ~piece.null
        refused = (
            (piece.null, "a null value, wanted a record"),
            (short, f"fewer than {_HEADER_BYTES} bytes, wanted a byte 0 and the id of a schema"),
            (other, "the first byte is not 0: not written with a schema registry"),
        )
        for flags, reason in refused:
            if flags.any():
                yield self._rows.refused(piece, np.flatnonzero(flags), reason)
        good = np.flatnonzero(~(piece.null | short | other))
        ids = np.ndarray((len(piece.data) - 4,), ">i4", buffer=piece.data, offset=1, strides=(1,))[piece.starts[good]]
        for number in np.unique(ids).tolist():
            yield self._group(piece, number, good[ids == number], unknown)

    def _group(self, piece: Piece, number: int, which: Ints, unknown: dict[int, str]) -> Decoded:
        """The records of one schema id."""
        if number not in self._plans and number not in unknown:
            try:
                self._plans[number] = self._rows.plan(self._writer(number), self._reader)
            except UnknownSchemaError as error:
                unknown[number] = str(error)
        if number in unknown:
            return self._rows.refused(piece, which, unknown[number])
        return self._rows.read(piece, self._plans[number], which, _HEADER_BYTES)

    def _writer(self, number: int) -> Avro:
        """The schema of this id.

        Raises:
            UnknownSchemaError: there is none, or it is no Avro schema.
        """
        found = self._registry.schema(number)
        if found.kind != "AVRO":
            raise UnknownSchemaError(f"schema id {number} is of type {found.kind}, wanted AVRO")
        try:
            return parse(found.text, f"schema id {number}", found.references)
        except ConfigError as error:
            raise UnknownSchemaError(error.message) from None
