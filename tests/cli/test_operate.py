"""What operators do by hand: `reset` and `dead-letters`; shown, confirmed, recorded."""

import base64

import pytest

from tests.faults.car import record

LETTER_KEYS = {
    "id", "pipeline", "target", "batch", "origin_batch", "split", "offset", "timestamp", "stage", "error", "state",
    "attempt", "edit", "replayed_by", "code_version", "created",
}  # fmt: skip
TOO_LONG = b"200\t2026-03-01 12:00:00\tultramarine blue\t1\t{1,2,3}"
UNREADABLE = b"201\t2026-03-01 12:00:00\tgr\xfcn\t\x1b[31m\t{1,2,3}"


def status(cli):
    return cli("status", "cars", "--json").json["pipelines"][0]


def test_a_reset_is_shown_confirmed_and_recorded(job, cli):
    job.produce(range(60))
    cli("run", "cars")
    refused = cli("reset", "cars", "--to", "earliest", answer="n\n")
    assert refused.code == 1
    table = [line.split()[-2:] for line in refused.out.splitlines()[:3]]
    assert table == [["from", "to"], ["30", "0"], ["30", "0"]]
    assert "not confirmed: nothing was changed" in refused.err
    assert cli("reset", "cars", "--to", "earliest").code == 1  # nobody answers
    assert status(cli)["lag"] == 0
    moved = cli("reset", "cars", "--to", "0:10,1:20", "--reason", "bad deploy", answer="y\n")
    assert moved.code == 0, moved.err
    after = status(cli)
    assert after["lag"] == 30
    assert [event["what"] for event in after["events"]] == ["reset"]
    assert "bad deploy" in after["events"][0]["detail"]
    assert cli("run", "cars", "--json").json["counts"]["conflicts"] == 30
    job.assert_settled(range(60))


def test_a_reset_to_where_it_stands_changes_nothing(job, cli):
    job.produce(range(60))
    cli("reset", "cars", "--to", "earliest", "--yes")
    done = cli("reset", "cars", "--to", "earliest")
    assert done.code == 0
    assert "nothing to change" in done.out


def test_a_start_option_changed_under_a_position_is_reported(job, cli):
    job.produce(range(60))
    cli("run", "cars")
    script = job.folder / "pipelines" / "cars.sql"
    script.write_text(script.read_text().replace("earliest-offset", "latest-offset"))
    done = cli("run", "cars", "--json")
    assert done.json["batches"]["applied"] == 0
    assert "the start option is now latest-offset but the pipeline started with earliest-offset" in done.err


def test_a_new_target_is_adopted_and_filled_again(job, cli):
    job.produce(range(60))
    cli("run", "cars")
    job.execute("CREATE TABLE fresh (LIKE vector_test.car_info INCLUDING ALL); DROP TABLE vector_test.car_info")
    job.execute("ALTER TABLE fresh SET SCHEMA vector_test; ALTER TABLE vector_test.fresh RENAME TO car_info")
    done = cli("run", "cars")
    assert done.code == 1
    assert "TARGET_REPLACED" in done.err
    assert cli("reset", "cars", "--adopt-target", answer="n\n").code == 1
    assert cli("reset", "cars", "--adopt-target", "--yes", "--reason", "rebuilt").code == 0
    assert cli("replay", "cars", "--json").json["counts"]["written"] == 60
    job.assert_settled(range(60))
    assert status(cli)["events"][0]["what"] == "adopt-target"


@pytest.fixture
def letters(job, cli):
    """Sixty rows landed, two records rejected: one by the target, one by the format; their ids."""
    job.produce(range(60))
    job.produce_raw([TOO_LONG, UNREADABLE])
    assert cli("run", "cars").code == 0
    found = cli("dead-letters", "list", "cars", "--json").json["dead_letters"]
    return {letter["stage"]: letter["id"] for letter in found}


def test_letters_are_listed_by_pipeline_state_and_page(letters, cli):
    done = cli("dead-letters", "list", "--json").json
    assert [set(letter) for letter in done["dead_letters"]] == [LETTER_KEYS] * 2
    assert done["next"] is None
    page = cli("dead-letters", "list", "--limit", "1", "--json").json
    assert page["next"] == page["dead_letters"][0]["id"]
    assert len(cli("dead-letters", "list", "--after", str(page["next"]), "--json").json["dead_letters"]) == 1
    assert cli("dead-letters", "list", "--state", "replayed", "--json").json["dead_letters"] == []
    shown = cli("dead-letters", "list", "cars").out
    assert "16 characters" in shown
    assert "@" in shown


def test_a_letter_is_shown_with_its_bytes_and_commands_no_terminal(letters, cli):
    found = cli("dead-letters", "show", str(letters["decode"]), "--json").json
    assert base64.b64decode(found["value"]["base64"]) == UNREADABLE
    assert found["value"]["text"] is None
    shown = cli("dead-letters", "show", str(letters["decode"])).out
    assert "\x1b" not in shown
    assert "gr\\xfcn\\t\\x1b[31m" in shown
    assert "67 72 fc 6e" in shown


def test_a_mended_letter_lands_once(letters, job, cli):
    trial = cli("dead-letters", "replay", "cars", "--all", "--dry-run", "--json").json["dead_letters"]
    assert {each["id"]: each["error"] is None for each in trial} == {letters["write"]: True, letters["decode"]: False}
    assert len(job.rows()) == 60
    job.execute("ALTER TABLE vector_test.car_info ALTER color TYPE varchar(20)")
    script = job.folder / "pipelines" / "cars.sql"
    script.write_text(script.read_text().replace("VARCHAR(10)", "VARCHAR(20)"))
    done = cli("dead-letters", "replay", "cars", "--all", "--json").json
    assert (done["counts"]["records"], done["counts"]["written"], done["counts"]["rejected"]) == (2, 1, 1)
    assert job.rows() == [*range(60), 200]
    (left,) = cli("dead-letters", "list", "cars", "--json").json["dead_letters"]
    assert (left["stage"], left["attempt"], left["offset"]) == ("decode", 2, 31)
    again = cli("dead-letters", "replay", "cars", "--id", str(letters["write"]))
    assert again.code == 1
    assert f"not an open dead letter of this pipeline: {letters['write']}" in again.err
    assert job.rows() == [*range(60), 200]


def test_purged_bytes_are_gone_and_the_place_stays(letters, cli):
    assert cli("dead-letters", "purge", "cars", "--state", "open", answer="n\n").code == 1
    gone = str(letters["decode"])
    assert cli("dead-letters", "purge", "cars", "--id", gone, "--yes").code == 0
    found = cli("dead-letters", "show", gone, "--json").json
    assert (found["state"], found["value"], found["error"] != "") == ("purged", None, True)
    assert len(cli("dead-letters", "list", "--json").json["dead_letters"]) == 1
    assert [event["what"] for event in status(cli)["events"]] == ["purge"]
    assert cli("dead-letters", "purge", "cars", "--id", "999", "--yes").code == 1


def test_nothing_to_replay_is_no_error(job, cli):
    job.produce_raw([record(1)])
    cli("run", "cars")
    done = cli("dead-letters", "replay", "cars", "--all")
    assert done.code == 0
    assert "nothing to do" in done.out
