"""`ledger check`, `ledger rebuild` and `retention` as a person uses them."""

import pytest

DAY_MS = 86_400_000


@pytest.fixture
def landed(job, cli):
    job.produce(range(200))
    job.produce_raw([b"cut"])
    assert cli("run", "cars").code == 0
    return job


def test_sound_books_are_said_to_be_so(landed, cli):
    done = cli("ledger", "check", "cars", "--deep")
    assert done.code == 0
    assert "nothing is wrong" in done.out
    found = cli("ledger", "check", "--json").json
    assert found["findings"] == []
    assert found["files"] == 2 * found["batches"]


def test_what_is_wrong_is_shown_with_its_batch(landed, cli):
    with landed.open() as session:
        session.ledger.store.change("UPDATE dead_letters SET seq = 1, origin_seq = 1")
        file = session.ledger.batches("cars")[1].archive
    (landed.folder / "home" / "archive" / file.path).unlink()
    done = cli("ledger", "check", "cars")
    assert done.code == 1
    assert f"{file.path} is missing" in done.out
    assert "0 of its records were rejected, 1 are dead letters" in done.out
    assert cli("ledger", "check", "care").err.startswith("error: unknown pipeline 'care' (did you mean 'cars'?)")


def test_a_lost_ledger_is_named_shown_confirmed_and_rebuilt(landed, cli):
    for file in (landed.folder / "home").glob("ledger.db*"):
        file.unlink()
    refused = cli("run", "cars")
    assert refused.code == 1
    assert "`vector-assets ledger rebuild cars`" in refused.err
    shown = cli("ledger", "rebuild", "cars", answer="n\n")
    assert shown.code == 1
    assert "not confirmed: nothing was changed" in shown.err
    assert "operators' events" in shown.out
    done = cli("ledger", "rebuild", "cars", "--yes")
    assert done.code == 0, done.err
    assert "dead letters found again: 1" in done.out
    assert cli("ledger", "check", "cars", "--deep").code == 0
    again = cli("ledger", "rebuild", "cars")
    assert again.code == 0
    assert "nothing to do" in again.out
    assert [event["what"] for event in cli("status", "cars", "--json").json["pipelines"][0]["events"]] == [
        "ledger-rebuild"
    ]
    landed.assert_settled(range(200))


def test_retention_is_shown_first_and_applied_when_told(landed, cli):
    assert cli("retention", "--json").json["pipelines"][0]["keeps"] is None
    landed.write(settings="SET 'vector-assets.retention.ledger' = '30 d';")
    with landed.open() as session:
        session.ledger.store.change("UPDATE batches SET done_ms = done_ms - ? WHERE seq <= 2", (31 * DAY_MS,))
    before = cli("status", "cars", "--json").json["pipelines"][0]
    shown = cli("retention", "cars")
    assert "ledger 30 days" in shown.out
    assert "Nothing went yet" in shown.out
    done = cli("retention", "cars", "--apply", "--json").json
    assert done["pipelines"][0]["folding"] == [1, 2]
    after = cli("status", "cars", "--json").json["pipelines"][0]
    assert (after["totals"], after["batches"], after["position"]) == (
        before["totals"], before["batches"], before["position"]
    )  # fmt: skip
    refused = cli("replay", "cars", "--from-batch", "2")
    assert refused.code == 1
    assert "batches up to 2" in refused.err
    assert "are expired" in refused.err


def test_a_plan_makes_no_ledger_on_a_server(job, cli, postgres_ledger, monkeypatch):
    from vector_assets.engine.store import is_there

    monkeypatch.setenv("VECTOR_ASSETS_LEDGER", postgres_ledger)
    assert cli("plan", "cars").code == 0
    assert not is_there(postgres_ledger)
    job.produce(range(10))
    assert cli("run", "cars").code == 0
    assert is_there(postgres_ledger)
    assert cli("plan", "cars", "--json").json["pipelines"][0]["online"]["source"]["position"] is not None
