"""What every test may use: services as plugins, their versions in the header, their skips in the summary."""

import os
from pathlib import Path

import hypothesis
import pytest

# a loaded machine is no failure: neither a slow example nor a slow generation of examples
hypothesis.settings.register_profile("loaded", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("loaded")

pytest_plugins = [
    "tests.fix_services",
    "tests.fix_proxy",
    "tests.fix_tls",
    "tests.fix_kafka",
    "tests.fix_postgres",
    "tests.fix_registry",
    "tests.fix_milvus",
    "tests.fix_maxcompute",
    "tests.fix_mysql",
    "tests.fix_s3",
    "tests.fix_iceberg_catalogs",
    "tests.fix_spark",
    "tests.fix_embeddings",
    "tests.fix_opensearch",
]
"""In the order of their own imports: pytest registers a plugin before anybody imports it."""

_SERVICE_FIXTURES = frozenset(
    {"kafka", "own_kafka", "postgres", "own_postgres", "postgres_ledger", "registry", "own_registry"}
    | {"milvus", "own_milvus", "milvus_235"}
    | {"mysql", "own_mysql", "mysql_service"}
    | {"maxcompute", "maxcompute_server", "own_maxcompute"}
    | {"s3", "spark"}
    | {"embeddings", "embeddings_server", "own_embeddings"}
    | {"opensearch", "opensearch_server", "own_opensearch"}
)

FOLDER = Path(__file__).parent
LONGEST = (
    "e2e/test_demo.py",
    "faults/test_captures.py",
    "e2e/test_maxcompute_partitions.py",
    "e2e/test_dagster_server.py",
    "faults/test_opensearch.py",
    "faults/test_changes.py",
    "sources/test_kafka.py",
    "faults/test_groups.py",
    "local/test_opensearch.py",
    "e2e/test_dagster_commands.py",
    "sinks/test_milvus_235.py",
    "local/test_spark.py",
    "sinks/test_iceberg_catalogs.py",
    "cli/test_job_switch.py",
    "faults/test_disk_full.py",
    "faults/test_outages.py",
    "local/test_services.py",
)
"""Files that take half a minute or more, longest first: begun at the end they would leave the other worker idle."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="twenty seeds of the long random fault mix instead of one")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the shell (`make test` sets DAGSTER_HOME) reach no test; what tests start, starts quickly."""
    for name in [name for name in os.environ if name == "DAGSTER_HOME" or name.startswith("VECTOR_ASSETS_")]:
        del os.environ[name]
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        # hundreds of processes would compile all of Dagster each
        os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
    # servers that live for seconds are not worth the second compiler: OpenSearch is up in half the time
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; what takes a service is marked so, whether its author thought of it or not."""
    order = {FOLDER / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    for item in items:
        if not _SERVICE_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("service")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("skipped")
    skipped = sum("service" in getattr(report, "keywords", ()) for report in reports)
    terminalreporter.write_line(f"service tests skipped: {skipped}", red=skipped > 0)
    if terminalreporter.config.getoption("--soak"):
        _report_soak(terminalreporter)


def _report_soak(terminalreporter: pytest.TerminalReporter) -> None:
    """A table for docs/soak.md: what each seed did and what was found in the end."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for report in reports for name, value in report.user_properties if name == "soak"]
    names = list(dict.fromkeys(name for row in rows for name in row))
    for line in (names, ["---"] * len(names), *([str(row.get(name, 0)) for name in names] for row in rows)):
        terminalreporter.write_line(f"| {' | '.join(line)} |")
