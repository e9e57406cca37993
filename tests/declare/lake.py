"""Lake jobs as YAML for tests: a whole one, and the same with some lines changed."""

from pathlib import Path

from vector_assets.declare import load_file, load_folder
from vector_assets.engine.pipeline import Pipeline

SOURCE = """\
datasource:
  name: shop
  description: Orders of the shop
  brokers: [kafka-1:9092, kafka-2:9092]
  topic: orders
  message_format: json
  properties:
    security.protocol: SASL_SSL
    sasl.mechanism: PLAIN
    sasl.jaas.config: ${secret_values.shop_jaas}
"""
GROUP = "resource_group: {name: lake, max_units: 48}\n"
JOB = """\
job:
  name: orders
  description: Every order
  source: shop
  destination:
    type: managed
    storage: lake
    format: iceberg
    database: shop
    table: orders
  json_layers: 2
  columns:
    - {field: id, type: BIGINT}
    - {field: device.os, name: os, type: STRING}
    - {field: lines, type: JSON}
  start: begin_cursor
  commit_interval: 5 min
"""
OWN = JOB.replace("type: managed\n    storage: lake", "type: path\n    path: /data/orders")


def secret(name: str) -> str:
    """Every secret is set."""
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="me" password="s3cret";'
    return login if name == "shop_jaas" else f"value-of-{name}"


def folder(path: Path, **files: str) -> Path:
    """A folder of YAML files, by their names without the ending."""
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text)
    return path


def compiled(path: Path, job: str = JOB, *others: str) -> Pipeline:
    """The pipeline of one job, in a file with its data source and whatever else is given."""
    file = folder(path, job="---\n".join([SOURCE, *others, job])) / "job.yaml"
    (pipeline,) = load_file(file, secrets=secret)
    return pipeline


def jobs(path: Path, **files: str) -> tuple[Pipeline, ...]:
    """The pipelines of a folder of files, with the data source in one of its own."""
    return load_folder(folder(path, a_source=SOURCE, **files), secrets=secret).pipelines
