"""What a Flink CDC YAML file says, part by part; everything but expressions and the sink."""

from vector_assets.declare.cdc_form import MySqlCaptureOptions, PipelineForm
from vector_assets.declare.cdc_kafka import kafka_reading
from vector_assets.declare.cdc_reading import MySqlReading, Reading, check_options
from vector_assets.declare.cdc_sinks import options_at
from vector_assets.declare.flink_options import Secrets, fill_texts
from vector_assets.declare.lake_form import read
from vector_assets.declare.yaml_text import Document, unknown_key
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest
from vector_assets.sources.mysql_options import MySqlCdcOptions

KEYS = ("source", "sink", "route", "transform", "pipeline")
"""What a document of a CDC pipeline consists of."""
_SETTING = "vector-assets."
_OF_FORM = frozenset({"vector-assets.keyless-changes"})
_OWN = frozenset({"connector", "database-name", "table-name", "vector-assets.only-tables"})
_REFUSED = {
    "user-defined-function": "functions of Java are not possible here",
    "model": "a model is not built here: EMBED of Flink SQL scripts makes vectors",
}


def check_keys(document: Document) -> None:
    """Make sure that the document is of the parts of a CDC pipeline.

    Raises:
        ConfigError: a key is unknown, or one is missing.
    """
    for key in document.names():
        if key not in KEYS:
            raise unknown_key(document, (key,), list(KEYS), "CDC pipeline")
    for key in ("source", "sink"):
        if key not in document.names():
            raise ConfigError(f"CDC pipeline: key {key!r} is required", document.place)


def items(document: Document, key: str) -> range:
    """Numbers of the items of a list.

    Raises:
        ConfigError: it is no list.
    """
    value = document.value((key,))
    if value is not None and not isinstance(value, list):
        raise document.error(f"{key}: want a list (- source-table: ...)", (key,))
    return range(len(value or ()))


def pipeline_form(document: Document) -> tuple[PipelineForm, dict[str, str], dict[str, Place]]:
    """What `pipeline:` says: the form, and the settings of pipelines with their places."""
    if document.value(("pipeline",)) is None:
        return PipelineForm.model_validate({}), {}, {}
    for name, why in _REFUSED.items():
        if document.value(("pipeline", name)) is not None:
            raise ConfigError(f"pipeline: {name}: {why}", document.place_of_key(("pipeline", name)))
    value = document.value(("pipeline",))
    names = [name for name in value if name.startswith(_SETTING)] if isinstance(value, dict) else []
    settings = {name: str(value[name]) for name in names if name not in _OF_FORM}
    places = {name: document.place_of(("pipeline", name)) for name in settings}
    return read(PipelineForm, document, ("pipeline",), "pipeline", passed_over=list(settings)), settings, places


def reading_of(document: Document, secrets: Secrets, *, offline: bool) -> Reading:
    """What `source:` says.

    Raises:
        ConfigError: at the option that is wrong.
    """
    texts = options_at(document, "source")
    kind = texts.get("type")
    if kind is None:
        raise ConfigError("source: key 'type' is required", document.place_of_key(("source",)))
    if kind == "kafka":
        return kafka_reading(document, texts, secrets, offline=offline)
    if kind != "mysql":
        known = ["kafka", "mysql"]
        what = f"source: unknown type {kind!r}{nearest(kind, known)}; known: {', '.join(known)}"
        raise document.error(what, ("source", "type"))
    places = {name: document.place_of(("source", name)) for name in texts}
    own = [*MySqlCaptureOptions.known()]
    mysql = [name for name in MySqlCdcOptions.known() if name not in _OWN]
    check_options(document, "mysql", texts, [*own, *mysql])
    mine = fill_texts({name: texts[name] for name in texts if name in own}, places, secrets, offline=offline)
    at = document.place_of(("source",))
    form = MySqlCaptureOptions.parse(mine.values, "source mysql", {"connector": at, **places})
    places |= dict.fromkeys(_OWN, at)
    rest = {name: text for name, text in texts.items() if name not in own}
    return MySqlReading(document, form, rest, places, secrets, offline=offline)
