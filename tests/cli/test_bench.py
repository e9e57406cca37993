"""`bench` finds the checkout's benchmarks and hands them their own options; `services` without a start."""

import sys

import pytest

from vector_assets.cli import bench
from vector_assets.local.services import SERVICES

SCRIPT = '''"""`vector-assets bench two-words`: how fast nothing is."""

def main(argv: list[str]) -> int:
    print("called with", argv)
    return 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of benchmarks under a name that no other test imports."""
    made = tmp_path / "checkout" / "bench_of_a_test"
    made.mkdir(parents=True)
    (made / "two_words.py").write_text(SCRIPT)
    (made / "helping.py").write_text("X = 1\n")
    monkeypatch.setattr(bench, "FOLDER", made)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made


def test_benchmarks_are_listed_with_what_they_measure(cli, folder):
    done = cli("bench")
    assert done.code == 0
    assert done.out.splitlines()[1].split(maxsplit=1) == ["two-words", "how fast nothing is."]
    assert "helping" not in done.out


def test_a_benchmark_gets_its_own_options_and_gives_the_exit_code(cli, folder):
    done = cli("bench", "two-words", "--rows", "5", "--json", "--help")
    assert done.code == 3
    assert done.out == "called with ['--rows', '5', '--json', '--help']\n"


def test_without_a_checkout_the_reason_is_given(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "FOLDER", tmp_path / "none")
    done = cli("bench", "kafka-adbpg")
    assert done.code == 1
    assert "they come with the repository" in done.err


def test_the_repository_s_own_benchmarks_are_found(cli):
    assert {"kafka-adbpg", "kafka-milvus", "adbpg-latency"} <= {
        line.split()[0] for line in cli("bench").out.splitlines()
    }


def test_services_that_never_ran_are_down(cli):
    rows = cli("services", "status", "--json").json["services"]
    assert {row["name"]: row["state"] for row in rows} == dict.fromkeys(SERVICES, "down")
    assert set(rows[0]) == {"name", "state", "version", "address", "pid", "data_dir", "log"}
    assert cli("services", "down", "--json").json["services"][0]["state"] == "down"
    assert cli("services", "status", "kafka").out.splitlines()[1].split()[:2] == ["kafka", "down"]
