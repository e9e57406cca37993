"""Reconcile, explain, rewrite and edited dead letters by command, over real Kafka and PostgreSQL."""

import json

import pytest

from tests.cli.test_operate import TOO_LONG
from tests.faults.car import record

pytestmark = pytest.mark.service


def reconciled(cli, *options: str):
    done = cli("reconcile", "cars", "--json", *options)
    return done.code, json.loads(done.out)


@pytest.fixture
def landed(job, cli):
    """Sixty rows in the target and two dead letters."""
    job.produce(range(60))
    job.produce_raw([TOO_LONG, b"nonsense"])
    assert cli("run", "cars").code == 0
    return job


def test_a_right_target_is_right_in_full_and_by_sample(landed, cli):
    code, found = reconciled(cli)
    assert (code, found["counts"], found["expected_rows"], found["target_rows"]) == (0, {}, 60, 60), found
    code, found = reconciled(cli, "--sample", "10")
    assert (code, found["counts"]) == (0, {})
    assert 10 <= found["sampled"] <= 20
    shown = cli("reconcile", "cars").out
    assert "60 rows expected, 60 in the target" in shown
    assert shown.rstrip().endswith("right")


@pytest.mark.parametrize(
    ("statement", "kind", "columns"),
    [
        ("DELETE FROM vector_test.car_info WHERE id = 7", "missing", []),
        ("UPDATE vector_test.car_info SET feature[1] = 7.25 WHERE id = 7", "altered", ["feature"]),
        ("UPDATE vector_test.car_info SET color = NULL, price = 1 WHERE id = 7", "altered", ["color", "price"]),
    ],
    ids=["removed", "one dimension", "two columns"],
)
def test_a_row_that_somebody_changed_is_named_with_its_offset(landed, cli, statement, kind, columns):
    landed.execute(statement)
    code, found = reconciled(cli)
    assert (code, found["counts"]) == (1, {kind: 1})
    (finding,) = found["findings"]
    assert (finding["key"], finding["columns"]) == ({"id": 7}, columns)
    assert finding["origin"]["split"].endswith("/1")
    assert finding["origin"]["offset"] == 3
    code, found = reconciled(cli, "--sample", "1000")
    assert (code, found["counts"]) == (1, {kind: 1})
    assert "id=7" in cli("reconcile", "cars").out


def test_rows_of_others_are_foreign_unless_they_are_allowed(landed, cli):
    landed.execute("INSERT INTO vector_test.car_info (id) VALUES (1000)")
    code, found = reconciled(cli)
    assert (code, found["counts"]) == (1, {"foreign": 1})
    assert found["findings"][0]["key"] == {"id": 1000}
    assert reconciled(cli, "--foreign-ok")[0] == 0


def test_a_changed_script_is_told_from_damage_and_a_rewrite_mends_it(landed, cli):
    script = landed.folder / "pipelines" / "cars.sql"
    script.write_text(
        script.read_text().replace(
            "SELECT * FROM car_records", "SELECT id, market_time, color, price * 2, feature FROM car_records"
        )
    )
    code, found = reconciled(cli)
    # nought doubled is nought
    assert (code, found["counts"]) == (1, {"other_code": 59})
    assert "replay cars --rewrite" in cli("reconcile", "cars").out
    done = cli("replay", "cars", "--rewrite", "--json").json
    assert (done["counts"]["records"], done["counts"]["written"], done["counts"]["superseded"]) == (60, 60, 0)
    assert landed.rows("id, price")[:3] == [(0, 0), (1, 2), (2, 4)]
    assert reconciled(cli)[0] == 0
    assert cli("replay", "cars", "--rewrite", "--json").json["batches"]["applied"] == 0
    assert cli("run", "cars").code == 0
    assert cli("replay", "cars", "--json").json["counts"]["written"] == 0
    # an empty target is filled again, rewrites in their turn
    landed.execute("CREATE TABLE fresh (LIKE vector_test.car_info INCLUDING ALL); DROP TABLE vector_test.car_info")
    landed.execute("ALTER TABLE fresh SET SCHEMA vector_test; ALTER TABLE vector_test.fresh RENAME TO car_info")
    cli("reset", "cars", "--adopt-target", "--yes")
    assert cli("replay", "cars").code == 0
    assert landed.rows("id, price")[:3] == [(0, 0), (1, 2), (2, 4)]


@pytest.mark.parametrize("options", [("--from-hour", "2026-03-01-14:00"), ("--again",)], ids=" ".join)
def test_options_of_a_rewrite_need_it(job, cli, options):
    assert cli("replay", "cars", *options).code == 2


def test_an_hour_without_batches_rewrites_nothing(landed, cli):
    done = cli("replay", "cars", "--rewrite", "--to-hour", "2026-01-01-00:00", "--json").json
    assert done["batches"]["applied"] == 0
    assert cli("replay", "cars", "--rewrite", "--to-hour", "yesterday").code == 1


def story(cli, offset: str):
    (found,) = cli("explain", "cars", "--offset", offset, "--json").json
    return found


def test_a_record_is_followed_to_its_row_or_to_the_reason_why_there_is_none(landed, cli):
    good = story(cli, "1:3")
    assert (good["status"], good["rows"][0]["fate"], good["rows"][0]["row"]["id"]) == ("rows", "written", 7)
    rejected = story(cli, "0:30")
    assert (rejected["status"], rejected["letters"][0][1]) == ("rejected", "open")
    assert "16 characters" in rejected["detail"]
    assert story(cli, "0:500")["status"] == "not_read"
    landed.produce_raw([record(7, price=99)], partition=0)
    cli("run", "cars")
    conflict = story(cli, "0:32")["rows"][0]
    assert (conflict["fate"], conflict["by"]["origin"]["offset"]) == ("conflict", 3)
    landed.execute("DELETE FROM vector_test.car_info WHERE id = 8")
    assert story(cli, "0:4")["rows"][0]["fate"] == "absent"
    landed.execute("UPDATE vector_test.car_info SET price = -1 WHERE id = 9")
    altered = story(cli, "1:4")["rows"][0]
    assert (altered["fate"], altered["row"]["price"]) == ("altered", -1)
    assert "conflict" in cli("explain", "cars", "--offset", "0:32").out
    landed.produce_raw([record(300 + n) for n in range(5)], partition=0)
    cli("reset", "cars", "--to", "latest", "--yes")
    assert story(cli, "0:35")["status"] == "skipped"


def test_overwritten_and_compacted_records_name_what_they_gave_way_to(job, cli):
    job.write(conflictmode="update")
    job.produce_raw([record(1, price=1), record(1, price=2)], partition=0)
    cli("run", "cars")
    job.produce_raw([record(1, price=3)], partition=0)
    cli("run", "cars")
    fates = [story(cli, f"0:{offset}")["rows"][0] for offset in range(3)]
    assert [fate["fate"] for fate in fates] == ["superseded", "overwritten", "written"]
    assert fates[0]["by"]["origin"]["offset"] == 2


def test_a_row_is_followed_back_to_its_records(landed, cli):
    found = cli("explain", "cars", "--key", '{"id": 7}', "--json").json
    assert found["row"]["id"] == 7
    (change,) = found["changes"]
    assert (change["origin"]["offset"], change["kind"], change["is_owner"]) == (3, "upsert", True)
    assert "changes, newest first" in cli("explain", "cars", "--key", '{"id": 7}').out
    assert cli("explain", "cars", "--key", '{"id": 7000}', "--json").json["changes"] == []


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--key", '{"nr": 1}'), 1, "wanted id"),
        (("--key", '{"id": "x"}'), 1, "key column id"),
        (("--key", "7"), 2, "an object"),
        (("--offset", "x"), 2, "PARTITION:OFFSET"),
        (("--offset", "9:1"), 1, "no split named '9'"),
        ((), 2, "either --offset"),
    ],
    ids=str,
)
def test_a_question_that_has_no_answer_says_what_is_wanted(landed, cli, options, code, said):
    done = cli("explain", "cars", *options)
    assert done.code == code
    assert said in " ".join(done.err.replace("│", " ").split())


def test_an_edited_letter_lands_and_its_original_is_kept(landed, cli):
    (letter,) = [x["id"] for x in cli("dead-letters", "list", "--json").json["dead_letters"] if x["stage"] == "write"]
    refused = cli("dead-letters", "edit", "cars", str(letter), "--set-value", "nonsense", answer="n\n")
    assert refused.code == 1
    assert "still rejected: decode" in refused.out
    value = record(200).decode()
    kept = cli("dead-letters", "edit", "cars", str(letter), "--set-value", "nonsense", "--yes", "--json").json
    assert (kept["edit"], kept["error"] is None) == (1, False)
    file = landed.folder / "value.csv"
    file.write_text(value)
    kept = cli("dead-letters", "edit", "cars", str(letter), "--value-file", str(file), "--yes", "--json").json
    assert (kept["edit"], kept["error"]) == (2, None)
    same = cli("dead-letters", "edit", "cars", str(letter), "--set-value", value, "--yes")
    assert "the value is the same" in same.err
    shown = cli("dead-letters", "show", str(letter), "--json").json
    assert (shown["value"]["text"], shown["edited"]["text"]) == (TOO_LONG.decode(), value)
    assert "open, edited (2)" in cli("dead-letters", "list").out
    assert cli("dead-letters", "replay", "cars", "--id", str(letter), "--json").json["counts"]["written"] == 1
    assert landed.rows()[-1] == 200
    assert "only an open one" in cli("dead-letters", "edit", "cars", str(letter), "--set-value", "x", "--yes").err
    assert reconciled(cli)[0] == 0
    assert story(cli, "0:30")["rows"][0]["fate"] == "written"


def test_a_letter_is_edited_in_the_editor(landed, cli, monkeypatch):
    (letter,) = [x["id"] for x in cli("dead-letters", "list", "--json").json["dead_letters"] if x["stage"] == "write"]
    monkeypatch.setenv("EDITOR", "sed -i s/ultramarine.blue/blue/")
    monkeypatch.delenv("VISUAL", raising=False)
    kept = cli("dead-letters", "edit", "cars", str(letter), "--yes", "--json").json
    assert kept["error"] is None
    assert cli("dead-letters", "show", str(letter), "--json").json["edited"]["text"] == (
        TOO_LONG.decode().replace("ultramarine blue", "blue")
    )
    monkeypatch.setenv("EDITOR", "true")
    assert "the editor saved nothing" in cli("dead-letters", "edit", "cars", str(letter), "--yes").err
