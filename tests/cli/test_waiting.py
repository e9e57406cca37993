"""`run` and `status` over a MaxCompute table that is still being written: they say what waits, and why."""

import pytest

from tests.faults.visits import VisitJob

pytestmark = pytest.mark.service

TOLD = "ds=20180906 still being written: it changed "


@pytest.fixture
def visits(tmp_path, maxcompute, postgres, monkeypatch):
    """A pipeline whose partitions are complete after an hour; use it before `cli`, whose folder it shares."""
    made = VisitJob(tmp_path, maxcompute, postgres, quiet="1 h")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_run_and_status_say_which_partitions_wait_and_why(visits, cli):
    visits.table.add("20180905", ids=range(3))
    visits.table.add("20180906", ids=range(3, 5))
    done = cli("run", "visits")
    assert done.code == 0, done.err
    assert TOLD in done.err
    assert "; 1 others are not read either" in done.err
    assert "still being written" not in done.out
    shown = cli("status", "visits").out
    assert TOLD in next(line for line in shown.splitlines() if line.startswith("waiting"))
    (found,) = cli("status", "--json").json["pipelines"]
    assert found["waiting"].startswith(TOLD)
    visits.write(quiet="0 s")
    done = cli("run", "visits")
    assert "still being written" not in done.err
    assert visits.ids() == list(range(5))
    (found,) = cli("status", "--json").json["pipelines"]
    assert found["waiting"] is None


def test_the_time_that_an_import_takes_is_not_the_source_s_silence(visits, cli, monkeypatch):
    from vector_assets.cli import survey
    from vector_assets.clients.maxcompute import MaxCompute

    import_client = MaxCompute.import_client

    def slowly(service):
        import time

        time.sleep(survey.ANSWER_SECONDS + 0.5)
        import_client(service)

    monkeypatch.setattr(MaxCompute, "import_client", slowly)
    visits.table.add("20180905", ids=range(3))
    (found,) = cli("status", "--json").json["pipelines"]
    assert found["lag_error"] is None
    assert found["lag"] == 0
