"""`vector-assets bench group-by`: Kafka CSV records added up by key, beside the same records passed through.

Both runs read the same topic into a sink that keeps nothing, with archive and ledger; one after the other, in turn.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.kafka_adbpg import PeakMemory, drain, make_topic
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.archive import Archive
from vector_assets.engine.group_files import GroupFiles
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.session import Books, Session
from vector_assets.local import services

SCRIPT = """
SET 'pipeline.name' = 'bench_{name}';
CREATE TABLE records (id INT, market_time TIMESTAMP, color VARCHAR(10), price INT, feature STRING) WITH (
  'connector' = 'kafka', 'properties.bootstrap.servers' = '{brokers}', 'topic' = '{topic}', 'format' = 'csv',
  'csv.field-delimiter' = '\\t', 'scan.startup.mode' = 'earliest-offset');
CREATE TABLE nowhere (grp INT, n BIGINT, total BIGINT, newest TIMESTAMP) WITH ('connector' = 'blackhole');
INSERT INTO nowhere SELECT {select};
"""
SELECTS = {
    "plain": "MOD(id, {groups}), id, id, market_time FROM records",
    "grouped": "MOD(id, {groups}), COUNT(*), SUM(CAST(id AS BIGINT)), MAX(market_time) FROM records"
    " GROUP BY MOD(id, {groups})",
}


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    parser = argparse.ArgumentParser(prog="vector-assets bench group-by", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2, help="how often each of the two is run; the best counts")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    services.up(["kafka"])
    topic = make_topic(env.secret("kafka_bootstrap_servers"), arguments)
    found: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for name, select in SELECTS.items():
            figures = _measured(name, select.format(groups=arguments.groups), topic, arguments.rows)
            if name not in found or figures["rows_per_s"] > found[name]["rows_per_s"]:
                found[name] = figures
    ratio = round(found["grouped"]["rows_per_s"] / found["plain"]["rows_per_s"], 2)
    figures = {"rows": arguments.rows, "groups": arguments.groups, **found, "ratio": ratio}
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _measured(name: str, select: str, topic: str, rows: int) -> dict[str, float]:
    script = SCRIPT.format(name=name, brokers=env.secret("kafka_bootstrap_servers"), topic=topic, select=select)
    (pipeline,) = flink_sql.compile_script(script, "bench.sql")
    with tempfile.TemporaryDirectory() as folder:
        books = Books(Ledger(Path(folder) / "ledger.db"), Archive(Path(folder) / "archive"))
        with PeakMemory() as peak, Session(pipeline, books) as session:
            figures = drain(session, rows)
        files = GroupFiles(books.ledger, books.archive, pipeline.name, pipeline.target).all()
        books.close()
    return {**figures, "peak_rss_mb": peak.mb, "state_bytes": sum(each.file.bytes for each in files)}
