"""SET statements of AutoETL scripts: what they say beside the options of MySQL, the search cluster and the model."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Flag, Options

MYSQL, SEARCH, EMBEDDING = "mysql.", "search.", "embedding."
PREFIXES = (MYSQL, SEARCH, EMBEDDING)
"""Before options of the `mysql-cdc` source, of the `opensearch-2` sink, and of EMBED."""


class AutoEtlSettings(Options):
    """Settings of the script itself."""

    requests: Flag = Field(default=False, alias="autoetl.requests")
    """`true`: links that MySQL clients ask for by `CALL dbms_etl.sync_by_map(...)` on this server belong to the script
    as well; one script a server."""
    mode: Literal["server", "client"] = Field("server", alias="embedding.mode")
    """Who makes the vectors: `server`, the index's ingest pipeline; or `client`, this pipeline, by the model that
    `embedding.url` and `embedding.model` name, past an ingest pipeline of the index that would make the same fields
    and nothing else."""
    fields: str | None = Field(None, alias="embedding.field-map")
    """For `client`: text fields and the vector fields made of them, `my_text:my_vector`, separated by commas."""


def field_map(settings: AutoEtlSettings, places: Mapping[str, Place], place: Place) -> dict[str, str]:
    """The vector field of each text field.

    Raises:
        ConfigError: at the setting that is malformed, or at the CALL when it is missing.
    """
    if settings.fields is None:
        raise ConfigError("'embedding.mode' = 'client' needs SET 'embedding.field-map' = 'my_text:my_vector'", place)
    found: dict[str, str] = {}
    for part in settings.fields.split(","):
        text, colon, vector = (each.strip() for each in part.partition(":"))
        if not (text and colon and vector) or text in found or vector in found.values():
            what = f"embedding.field-map: want text:vector for each, separated by commas; found {part.strip()!r}"
            raise ConfigError(what, places["embedding.field-map"])
        found[text] = vector
    return found
