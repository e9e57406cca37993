"""A place for AutoETL's tests: settings, secrets, an index that embeds (or does not), and the commands."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tests.clients.test_opensearch_setup import YAML
from vector_assets.cli import app

SETTINGS = """
SET 'mysql.hostname' = '${secret_values.mysql_host}';
SET 'mysql.port' = '${secret_values.mysql_port}';
SET 'mysql.username' = '${secret_values.mysql_user}';
SET 'mysql.password' = '${secret_values.mysql_password}';
SET 'search.hosts' = '${secret_values.search_url}';
"""
CLIENT = """
SET 'embedding.mode' = 'client';
SET 'embedding.field-map' = 'my_text:my_vector';
SET 'embedding.url' = '${secret_values.embeddings_url}';
SET 'embedding.api-key' = '${secret_values.embeddings_key}';
SET 'embedding.model' = 'text-embedding-v4';
SET 'embedding.dimensions' = '1024';
"""
PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "my_text": {"type": "text"},
    "number": {"type": "integer"},
    "my_vector": {"type": "knn_vector", "dimension": 1024, "method": {"engine": "faiss", "name": "hnsw"}},
}


def environment(folder: Path, mysql: Any, opensearch: Any, embeddings: Any) -> dict[str, str]:
    """Home, pipelines and secrets; the folder of pipelines is made."""
    (folder / "pipelines").mkdir(exist_ok=True)
    secrets = {
        "mysql_host": "127.0.0.1", "mysql_port": mysql.service.port, "mysql_user": mysql.service.user,
        "mysql_password": mysql.service.password, "search_url": opensearch.url, "embeddings_url": embeddings.url,
        "embeddings_key": embeddings.api_key,
    }  # fmt: skip
    return {
        "VECTOR_ASSETS_HOME": str(folder / "home"),
        "VECTOR_ASSETS_PIPELINES": str(folder / "pipelines"),
        **{f"VECTOR_ASSETS_SECRET_{name.upper()}": str(value) for name, value in secrets.items()},
    }


def embedding_index(folder: Path, opensearch: Any, embeddings: Any) -> str:
    """An index whose ingest pipeline makes `my_vector` of `my_text`; its name."""
    index = opensearch.name()
    text = YAML.format(
        hosts=opensearch.url, trusted="^http://127.0.0.1:[0-9]+/.*$", group="", scheme="http", index=index,
        endpoint=embeddings.url.removeprefix("http://").removesuffix("/v1"), key=embeddings.api_key, dimension=1024,
    )  # fmt: skip
    text = text.replace("text_to_vec_pipeline", f"pipeline_{index}")
    text = text.replace("my_text: {type: text}", "my_text: {type: text}\n    number: {type: integer}")
    (folder / "search.yaml").write_text(text)
    # a node that has much to do fails its first connector ("Fetching master key timed out"); a set-up goes on
    for _ in range(5):
        done = CliRunner().invoke(app, ["search-setup", str(folder / "search.yaml")])
        if done.exit_code == 0:
            return index
        assert "master key" in done.output, done.output
    raise AssertionError(done.output)


def run(*arguments: str) -> str:
    """A command that does what it should; what it writes."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def call(index: str, fields: dict[str, str], *keys: str) -> str:
    """The CALL that fills fields of an index; each key is `database.table.column`."""
    listed = ",".join(f"{index}.{field}({column})" for field, column in fields.items())
    joined = ",".join(f"{index}.id={key}" for key in keys)
    return f"CALL dbms_etl.sync_by_map('search', '{listed}', '{joined}', '', '');\n"
