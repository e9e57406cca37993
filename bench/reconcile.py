"""`vector-assets bench reconcile`: every row of the table against the archive, then with four rows spoilt.

The limit in the same run is a bare binary COPY of the table to nowhere.
"""

import json
import sys
import time

from bench.kafka_adbpg import PeakMemory
from bench.landed import Landed, landed, parser
from vector_assets.engine.reconcile import Reconciliation, reconcile
from vector_assets.engine.sample import reconcile_sample


def main(argv: list[str]) -> int:
    """Run the benchmark; its figures go to standard output."""
    arguments = parser("reconcile", __doc__).parse_args(argv)
    with landed(arguments.rows) as made:
        copied = _copied(made)
        with PeakMemory() as peak:
            cpu = time.process_time()
            right = reconcile(made.session)
            cpu = time.process_time() - cpu
        if not right.is_right():
            raise SystemExit(f"bench: {right.counts} in a table that nobody touched: {right.findings}")
        sampled = reconcile_sample(made.session, 1000)
        victims = _spoil(made, arguments.rows)
        spoilt = reconcile(made.session)
        if spoilt.counts != {"altered": 1, "missing": 1, "doubled": 1, "foreign": 1}:
            raise SystemExit(f"bench: found {spoilt.counts}")
    figures = {
        "rows": arguments.rows,
        "seconds": right.seconds,
        "seconds_per_million": round(right.seconds * 1e6 / arguments.rows, 2),
        "cpu_s": round(cpu, 2),
        "peak_rss_mb": peak.mb,
        "seconds_of_sample_1000": sampled.seconds,
        "seconds_of_bare_copy": copied,
        "seconds_with_four_spoilt": spoilt.seconds,
        "spoilt": victims,
        "found": _found(spoilt),
    }
    sys.stdout.write(json.dumps(figures, indent=None if arguments.json else 2) + "\n")
    return 0


def _copied(made: Landed) -> float:
    began = time.monotonic()
    with made.admin.cursor().copy("COPY vector_test.car_info TO STDOUT (FORMAT BINARY)") as copy:
        for _ in copy:
            pass
    return round(time.monotonic() - began, 2)


def _spoil(made: Landed, rows: int) -> dict[str, int]:
    removed, altered, doubled = rows // 3, rows // 2, rows // 5
    made.admin.execute("DELETE FROM vector_test.car_info WHERE id = %s", [removed])
    made.admin.execute("UPDATE vector_test.car_info SET feature[10] = 0.5 WHERE id = %s", [altered])
    made.admin.execute("ALTER TABLE vector_test.car_info DROP CONSTRAINT car_info_pkey")
    made.admin.execute("INSERT INTO vector_test.car_info SELECT * FROM vector_test.car_info WHERE id = %s", [doubled])
    made.admin.execute("INSERT INTO vector_test.car_info (id) VALUES (-1)")
    return {"missing": removed, "altered": altered, "doubled": doubled, "foreign": -1}


def _found(spoilt: Reconciliation) -> dict[str, object]:
    return {
        finding.kind: {"key": finding.key, "offset": finding.origin.offset if finding.origin else None}
        for finding in spoilt.findings
    }
