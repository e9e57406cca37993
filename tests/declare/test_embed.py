"""EMBED(text) in a SELECT: which column becomes a vector, its options by SET, and what is refused where."""

import pytest

from tests.declare.scripts import SINK_OPTIONS, SOURCE, compiled, one, place_of_mark
from vector_assets.declare import compile_script
from vector_assets.engine.core import HIDDEN
from vector_assets.engine.errors import ConfigError
from vector_assets.transforms.embedding import EmbeddingTransform

URL = "SET 'vector-assets.embedding.url' = 'http://127.0.0.1:9/v1';\n"
MODEL = "SET 'vector-assets.embedding.model' = 'm';\n"
SINK = f"CREATE TABLE dst (id BIGINT NOT NULL, v ARRAY<FLOAT>, name STRING) WITH {SINK_OPTIONS};\n"
EMBEDDED = "INSERT INTO dst SELECT id, EMBED(CONCAT(name, ' car')) AS v, name FROM src;\n"
TABLES = SOURCE + SINK


def test_embed_is_a_stage_behind_the_select_and_part_of_the_plan() -> None:
    pipeline = one(URL + MODEL + TABLES + EMBEDDED)
    *_, embedding = pipeline.transforms
    assert isinstance(embedding, EmbeddingTransform)
    assert [str(field.type) for field in embedding.input] == ["int64", "string", "string"]
    assert [str(field.type) for field in pipeline.schema] == ["int64", "list<item: float>", "string"]
    assert """EMBED(("name" || ' car')) AS "v\"""" in pipeline.transform_text
    assert pipeline.embedding.shown()["model"] == "m"
    assert not HIDDEN & set(pipeline.schema.names)
    assert pipeline.settings.max_rows == 10_000


def test_a_setting_of_the_user_wins_over_embed_s_smaller_batches() -> None:
    rows = "SET 'vector-assets.batch.max-rows' = '20000';\n"
    assert one(URL + MODEL + rows + TABLES + EMBEDDED).settings.max_rows == 20_000


def test_another_model_is_another_code_version() -> None:
    first, second = (one(URL + MODEL.replace("'m'", name) + TABLES + EMBEDDED) for name in ("'a'", "'b'"))
    assert first.fingerprint != second.fingerprint


def test_the_key_is_a_secret_and_shown_nowhere() -> None:
    key = "SET 'vector-assets.embedding.api-key' = '${secret_values.model_key}';\n"
    (pipeline,) = compile_script(URL + MODEL + key + TABLES + EMBEDDED, "cars.sql", secrets=lambda _: "sk-hidden")
    assert pipeline.embedding.api_key.get_secret_value() == "sk-hidden"
    assert "sk-hidden" not in f"{pipeline}{pipeline.embedding.shown()}"
    with pytest.raises(ConfigError, match="api-key': secret 'model_key' is not set"):
        one(URL + MODEL + key + TABLES + EMBEDDED)
    url = URL.replace("http://127.0.0.1:9/v1", "${secret_values.model_url}")
    assert compiled(url + MODEL + key + TABLES + EMBEDDED, offline=True)


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        (TABLES + "INSERT INTO dst SELECT id, §EMBED(name), name FROM src;", "EMBED: option 'url' is required; .*SET"),
        (
            URL + "SET 'vector-assets.embedding.model' = §'';\n" + TABLES + EMBEDDED,
            "option 'model' has the value '', which is refused",
        ),
        (
            "SET §'vector-assets.embedding.urls' = 'x';\n" + TABLES + EMBEDDED,
            "unknown setting 'vector-assets.embedding.urls'.*did you mean|nearest|vector-assets.embedding.url",
        ),
        (
            URL + MODEL + TABLES + "INSERT INTO dst SELECT id, §EMBED(name, 'm'), name FROM src;",
            "EMBED takes 1 argument",
        ),
        (URL + MODEL + TABLES + "INSERT INTO dst SELECT id, EMBED(§price), name FROM src;", "EMBED wants a string"),
        (
            URL + MODEL + TABLES + "INSERT INTO dst SELECT id, COALESCE(§EMBED(name), NULL), name FROM src;",
            "EMBED is only possible as a whole column",
        ),
        (
            URL + MODEL + TABLES + "INSERT INTO dst (id, name) SELECT id, §EMBED(name) FROM src;",
            "column name of table dst is VARCHAR.*gives ARRAY<FLOAT>|column name of table dst is STRING.*ARRAY<FLOAT>",
        ),
        (
            URL + MODEL + TABLES + "INSERT INTO dst SELECT id, NULL, name FROM src WHERE §EMBED(name) IS NULL;",
            "EMBED is only possible as a whole column",
        ),
        (
            "SET 'vector-assets.embedding.model' = §'m';\n"
            + TABLES
            + "INSERT INTO dst SELECT id, NULL, name FROM src;",
            "has no effect: no SELECT has EMBED",
        ),
        (
            URL + MODEL + "SET 'vector-assets.embedding.batch-size' = §'0';\n" + TABLES + EMBEDDED,
            "option 'batch-size' has the value '0', which is refused",
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(marked, message) -> None:
    text, place = place_of_mark(marked)
    with pytest.raises(ConfigError, match=message) as caught:
        compiled(text)
    assert str(caught.value).startswith(f"cars.sql:{place}: ")
