"""A topic of orders, a data source that names it, and jobs into both formats, for tests of the command line."""

import json
from pathlib import Path

ORDERS = [
    {"id": number, "total": number * 1.5, "device": {"os": "linux", "brand": f"b{number}"}, "tags": [1, 2]}
    for number in range(30)
]
JOBS = """\
job:
  name: orders
  source: shop
  destination: {{database: shop, table: orders}}
  json_layers: 2
  columns:
    - {{field: id, type: BIGINT}}
    - {{field: total, type: DOUBLE}}
    - {{field: device.os, name: os, type: STRING}}
  ignore: [device.brand, tags]
  partition_by: [{{log_time: day}}]
---
job:
  name: archived
  source: shop
  destination: {{type: path, format: paimon, path: {path}, database: shop, table: archived}}
  json_layers: 2
  columns:
    - {{field: id, type: BIGINT}}
    - {{field: device, type: JSON}}
  ignore: [total, tags]
  partition_by: [{{log_time: day}}]
"""


def produce(kafka, topic: str) -> None:
    """30 orders over 3 partitions and a message that is none."""
    kafka.produce(topic, [json.dumps(order) for order in ORDERS], partition=[number % 3 for number in range(30)])
    kafka.produce(topic, ['{"id":lag}'], partition=0)


DATABASE = """\
CREATE EXTERNAL DATABASE shop WITH DBPROPERTIES (
  catalog = paimon, adb.paimon.warehouse = {path}, LOCATION = {path}/shop.db/
)
"""


def write(cli, home: Path, topic: str, *, jobs: bool) -> None:
    """The data source `shop`, and with `jobs` one into Iceberg and one into Paimon, whose database is declared."""
    (home / "pipelines" / "shop.yaml").write_text(
        f"datasource:\n  name: shop\n  brokers: ${{secret_values.shop_kafka}}\n  topic: {topic}\n"
    )
    if jobs:
        declare_database(cli, home)
        (home / "pipelines" / "jobs.yaml").write_text(JOBS.format(path=home / "paimon"))


def declare_database(cli, home: Path) -> None:
    """The Paimon database `shop` in the folder `paimon`."""
    (home / "paimon" / "shop.db").mkdir(parents=True)
    (home / "database.sql").write_text(DATABASE.format(path=home / "paimon"))
    assert cli("target", "create", str(home / "database.sql")).code == 0
