"""`vector-assets bench replay`: archived records applied again: the no-op, and the rewrite by today's script.

A day of the seed's stream is `--rows 5000000`.
"""

import json
import sys
import time
from collections.abc import Iterable

from bench.kafka_adbpg import PeakMemory
from bench.landed import Landed, landed, parser
from vector_assets.engine.rewrite import Selection, rewrite
from vector_assets.engine.run import Outcome, Runner


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = parser("replay", __doc__).parse_args(argv)
    figures: dict[str, object] = {"rows": arguments.rows}
    for conflict in ("update", "ignore"):
        with landed(arguments.rows, conflict) as made, PeakMemory() as peak:
            figures[conflict] = {
                "no_op": _timed(Runner(made.session).replay()),
                "rewrite": _rewritten(made, arguments.rows),
                "peak_rss_mb": peak.mb,
            }
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _rewritten(made: Landed, rows: int) -> dict[str, object]:
    with made.changed("SELECT * FROM", "SELECT id, market_time, color, price + 1, feature FROM") as session:
        figures = _timed(rewrite(Runner(session), Selection()))
    ((wrong,),) = made.admin.execute(
        "SELECT count(*) FROM vector_test.car_info WHERE price <> id % 90000 + 1"
    ).fetchall()
    ((found,),) = made.admin.execute("SELECT count(*) FROM vector_test.car_info").fetchall()
    if wrong or found != rows:
        raise SystemExit(f"bench: {wrong} rows were not rewritten, {found} of {rows} are there")
    return figures


def _timed(outcomes: Iterable[Outcome]) -> dict[str, object]:
    began, cpu = time.monotonic(), time.process_time()
    records = sum(outcome.batch.counts.records for outcome in outcomes)
    seconds = time.monotonic() - began
    return {
        "records": records,
        "rows_per_s": round(records / seconds),
        "wall_s": round(seconds, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }
