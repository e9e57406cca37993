"""WITH options: secrets, stand-ins, connector names, and what a pipeline shows of them."""

import pytest

from tests.declare.scripts import INSERT, SINK, SOURCE, WORKING, compiled, no_secret, one
from vector_assets.declare import compile_script
from vector_assets.declare.flink_options import registry_name
from vector_assets.engine import env, registry
from vector_assets.engine.errors import ConfigError
from vector_assets.formats import FORMATS
from vector_assets.sinks import SINKS
from vector_assets.sources import SOURCES

SECRET = "hunter2hunter2"
ALL_SECRET = (
    WORKING.replace("'127.0.0.1:9092'", "'${secret_values.brokers}'")
    .replace("'jdbc:postgresql://127.0.0.1:5432/test'", "'${secret_values.adbpg_url}'")
    .replace("'me'", "'${secret_values.user}'")
    .replace("'pw'", "'${secret_values.password}'")
    .replace("'tablename' = 'cars'", "'tablename' = '${secret_values.table}', 'batchsize' = '${secret_values.size}'")
)


def test_secret_may_be_a_part_of_a_value() -> None:
    script = WORKING.replace(
        "//127.0.0.1:5432/test", "//${secret_values.host}:${secret_values.port}/${secret_values.host}"
    )
    (pipeline,) = compile_script(script, "cars.sql", secrets={"host": "db", "port": "77"}.__getitem__)
    assert pipeline.target == "adbpg://db:77/db/public.cars"


def test_value_of_a_secret_is_never_read_as_a_variable() -> None:
    script = WORKING.replace("'cars'", "'${secret_values.a}${secret_values.b}'", 2)
    secrets = {"a": "x", "b": "y", "c": "z"}
    assert compile_script(script, "cars.sql", secrets=secrets.__getitem__)[0].target.endswith("public.xy")
    tricky = {"a": "${secret_values.b}", "b": "<b>"}
    found = compile_script(
        WORKING.replace("'pw'", "'${secret_values.a}${secret_values.b}'"), "c.sql", secrets=tricky.__getitem__
    )
    assert found[0].sink_options.model_dump()["password"].get_secret_value() == "${secret_values.b}<b>"


def test_null_literal_may_look_like_a_placeholder() -> None:
    pipeline = one(WORKING.replace("'format' = 'csv'", "'format' = 'csv', 'csv.null-literal' = '<null>'"))
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown()["csv.null-literal"] == "<null>"


def test_secrets_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    script = WORKING.replace("'cars'", "'${secret_values.the-table}'", 2)
    monkeypatch.setenv(env.secret_variable("the-table"), "vans")
    (pipeline,) = compile_script(script, "cars.sql")
    assert pipeline.target.endswith("public.vans")


def test_missing_secret_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("VECTOR_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv(env.secret_variable("password"), raising=False)
    with pytest.raises(ConfigError, match=r"^cars.sql:21:17: .*VECTOR_ASSETS_SECRET_PASSWORD"):
        compile_script(WORKING.replace("'pw'", "'${secret_values.password}'"), "cars.sql")


def test_offline_needs_no_secret_whatever_the_option_s_shape() -> None:
    (pipeline,) = compiled(ALL_SECRET, offline=True)
    assert pipeline.target.startswith("adbpg://secret_adbpg_url:5432/secret_adbpg_url/")


def test_offline_takes_the_secrets_there_are() -> None:
    def only_the_table(name: str) -> str:
        return "vans" if name == "table" else no_secret(name)

    (pipeline,) = compile_script(ALL_SECRET, "cars.sql", secrets=only_the_table, offline=True)
    assert pipeline.target.endswith("public.vans")


def test_offline_still_checks_the_other_options() -> None:
    with pytest.raises(ConfigError, match="unknown option 'tablenam'"):
        compiled(ALL_SECRET.replace("'tablename'", "'tablenam'"), offline=True)


def test_secrets_are_in_nothing_a_pipeline_shows() -> None:
    script = WORKING.replace("'pw'", "'${secret_values.x}'").replace(
        "'format' = 'csv'",
        "'format' = 'csv', 'properties.security.protocol' = 'SASL_PLAINTEXT', 'properties.sasl.mechanism' = 'PLAIN', "
        "'properties.sasl.jaas.config' = 'org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="me" password="${secret_values.x}";\'',
    )
    (pipeline,) = compile_script(script, "cars.sql", secrets=lambda _: SECRET)
    shown = (
        repr(pipeline),
        str(pipeline.open_source),
        str(pipeline.open_sink),
        str(pipeline.source_options.shown()),
        str(pipeline.sink_options.shown()),
        str(pipeline.reports),
    )
    assert not [text for text in shown if SECRET in text]


def test_error_of_a_connector_never_shows_a_secret() -> None:
    script = WORKING.replace("'jdbc:postgresql://127.0.0.1:5432/test'", "'${secret_values.x}'")
    with pytest.raises(ConfigError) as caught:
        compile_script(script, "cars.sql", secrets=lambda _: f"mysql://root:{SECRET}@127.0.0.1")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("spelled", ["adbpg", "adbpg-nightly-1.13", "adbpg-1.17"])
def test_every_version_of_the_adbpg_connector_is_one_connector(spelled: str) -> None:
    assert registry_name(spelled) == "adbpg"
    pipeline = one(WORKING.replace("'adbpg'", f"'{spelled}'"))
    assert pipeline.sink_connector == "adbpg"


@pytest.mark.parametrize("spelled", ["kafka", "adbpgx", "upsert-kafka", "my-adbpg-1"])
def test_other_names_stay_as_they_are(spelled: str) -> None:
    assert registry_name(spelled) == spelled


def test_format_s_options_reach_the_format_and_the_rest_the_connector() -> None:
    pipeline = one(WORKING.replace("'format' = 'csv'", "'format' = 'csv', 'csv.field-delimiter' = '\\t'"))
    assert pipeline.format_options is not None
    assert pipeline.format_options.shown()["csv.field-delimiter"] == "\t"
    assert "csv.field-delimiter" not in pipeline.source_options.shown()
    assert pipeline.source_options.shown()["format"] == "csv"


def test_nothing_is_opened_by_compiling() -> None:
    unreachable = WORKING.replace("127.0.0.1:9092", "broker.invalid:1").replace("127.0.0.1:5432", "db.invalid:1")
    assert one(unreachable).target == "adbpg://db.invalid:1/test/public.cars"


def test_registries_name_classes_that_exist() -> None:
    for role, known in (("source", SOURCES), ("sink", SINKS), ("format", FORMATS)):
        for name in known:
            assert isinstance(registry.load(known, role, name), type)


def test_one_script_may_hold_several_pipelines_under_their_own_names() -> None:
    other = SINK.replace("dst", "vans").replace("'cars'", "'vans'")
    script = (
        f"{SOURCE}{SINK}{other}{INSERT}SET 'pipeline.name' = 'vans';\nINSERT INTO vans SELECT id, name, price FROM src;"
    )
    first, second = compiled(script)
    assert (first.name, second.name) == ("cars", "vans")
    assert (first.place.line, second.place.line) == (30, 32)
    assert first.settings.name is None


def test_fingerprint_changes_with_the_meaning_only() -> None:
    plain = one(WORKING)
    assert one(f"-- a comment\n\n{WORKING}").fingerprint == plain.fingerprint
    assert one(WORKING.replace("price FROM", "price + 1 FROM")).fingerprint != plain.fingerprint
    assert one(WORKING.replace("'pw'", "'other'")).fingerprint == plain.fingerprint
