"""A CDC pipeline as YAML for tests, with tables as if they had been found."""

from vector_assets.declare.cdc_job import Capture
from vector_assets.declare.yaml_text import Document
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.schema import Column, LogicalType

SOURCE = """source:
  type: mysql
  hostname: 127.0.0.1
  port: 3306
  username: reader
  password: secret
  tables: shop.\\.*
"""
KAFKA = """source:
  type: kafka
  properties.bootstrap.servers: 127.0.0.1:1
  topic: changes
  scan.startup.mode: earliest-offset
"""
BLACKHOLE = "sink:\n  type: blackhole\n"
MAXCOMPUTE = """sink:
  type: maxcompute
  access-id: me
  access-key: secret
  endpoint: http://127.0.0.1:1
  project: p
"""


def table(name: str = "shop.orders", *columns: str, key: tuple[str, ...] = ("id",), **more: object) -> CapturedTable:
    """A table; columns are `name TYPE`, an id, a name and a price unless told otherwise."""
    kinds = {"INT": LogicalType("INT"), "STRING": LogicalType("VARCHAR"), "CHAR": LogicalType("CHAR", 5)}
    listed = columns or ("id INT", "name STRING", "price INT")
    made = tuple(Column(text.split()[0], kinds[text.split()[1]]) for text in listed)
    return CapturedTable(name, made, key, **more)  # type: ignore[arg-type]


def capture(*blocks: str, file: str = "shop.yaml") -> Capture:
    """A file of these blocks; a MySQL source and a sink that keeps nothing unless they are among them."""
    text = "\n".join(blocks)
    for key, block in (("sink:", BLACKHOLE), ("source:", SOURCE)):
        if not text.startswith(key) and f"\n{key}" not in text:
            text = f"{block}{text}"
    (document,) = Document.all_of(text, file)
    return Capture(document)


def pipelines(*blocks: str, tables: tuple[CapturedTable, ...] = ()) -> dict[str, Pipeline]:
    """Its pipelines by name."""
    return {each.name: each for each in capture(*blocks).pipelines(tables or (table(),))}
