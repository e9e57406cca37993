"""Scripts for tests: a small one that compiles, and a mark that says where an error has to be."""

from vector_assets.declare import compile_script
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline

MARK = "§"
"""Stands directly before the character that an error has to name; it is taken out before compiling."""

SOURCE = """CREATE TABLE src (
  id BIGINT NOT NULL,
  name STRING,
  price INT,
  weight DOUBLE,
  cost DECIMAL(10, 2),
  at TIMESTAMP(3),
  tags ARRAY<STRING>
) WITH (
  'connector' = 'kafka',
  'topic' = 'cars',
  'properties.bootstrap.servers' = '127.0.0.1:9092',
  'format' = 'csv',
  'scan.startup.mode' = 'earliest-offset'
);
"""
SINK_OPTIONS = """(
  'connector' = 'adbpg',
  'url' = 'jdbc:postgresql://127.0.0.1:5432/test',
  'tablename' = 'cars',
  'username' = 'me',
  'password' = 'pw'
)"""
SINK = f"CREATE TABLE dst (id BIGINT NOT NULL, name STRING, price INT) WITH {SINK_OPTIONS};\n"
INSERT = "INSERT INTO dst SELECT id, name, price FROM src;\n"
WORKING = SOURCE + SINK + INSERT


def compiled(text: str, file: str = "cars.sql", *, offline: bool = False) -> list[Pipeline]:
    """The pipelines of a script that knows no secrets."""
    return compile_script(text, file, secrets=no_secret, offline=offline)


def one(text: str) -> Pipeline:
    """The only pipeline of a script."""
    (pipeline,) = compiled(text)
    return pipeline


def no_secret(name: str) -> str:
    """A store without secrets."""
    raise ConfigError(f"secret {name!r} is not set")


def place_of_mark(marked: str) -> tuple[str, str]:
    """The script without its mark, and `line:column` of the mark."""
    before, found, after = marked.partition(MARK)
    assert found, "the script has no mark"
    line = before.count("\n") + 1
    return before + after, f"{line}:{len(before) - before.rfind(chr(10))}"
