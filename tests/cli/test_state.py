"""`state`, `reset` and the other commands over a GROUP BY, as a person uses them; records come from datagen."""

import pytest

SCRIPT = """
SET 'vector-assets.batch.max-rows' = '500';
CREATE TABLE src (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '2000',
  'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '2000');
CREATE TABLE dst (cid BIGINT, n BIGINT) WITH ('connector' = '{sink}');
INSERT INTO dst SELECT MOD(id, 4), COUNT(*) FROM src WHERE id > {least} GROUP BY MOD(id, 4);
"""


@pytest.fixture
def counts(home):
    def write(sink: str = "blackhole", least: int = 0) -> None:
        (home / "pipelines" / "counts.sql").write_text(SCRIPT.format(sink=sink, least=least))

    write()
    return write


def test_changes_are_shown_with_their_kinds(counts, cli):
    counts("print")
    done = cli("run", "counts")
    assert done.code == 0, done.err
    assert {"+I[0, 125]", "-U[0, 125]", "+U[0, 250]", "+U[3, 500]"} <= set(done.out.splitlines())


def test_the_groups_are_shown_checked_and_made_again(counts, cli, home):
    assert cli("run", "counts").code == 0
    shown = cli("state", "show", "counts", "--json").json
    assert (shown["groups"], shown["after_batch"], shown["made_by_this_script"]) == (4, 4, True)
    assert cli("state", "check", "counts", "--json").json["is_right"]
    counts(least=1000)
    again = cli("reset", "counts", "--to", "earliest", "--yes")
    assert again.code == 1
    assert "--drop-state begins" in again.err
    assert not cli("state", "show", "counts", "--json").json["made_by_this_script"]
    refused = cli("state", "check", "counts")
    assert refused.code == 1
    assert "STATE_LOST: counts: the script's GROUP BY, WHERE or aggregates" in refused.err
    rebuilt = cli("state", "rebuild", "counts", "--yes", "--json").json
    assert rebuilt == {"pipeline": "counts", "after_batch": 4, "groups": 4, "batches_counted": 4, "rejected": 0}
    assert cli("state", "check", "counts").code == 0
    assert cli("ledger", "check", "counts", "--deep").code == 0


def test_a_reset_that_drops_the_groups_counts_everything_once(counts, cli):
    counts("print")
    assert cli("run", "counts").code == 0
    done = cli("reset", "counts", "--to", "earliest", "--drop-state", "--yes")
    assert done.code == 0, done.err
    assert "its groups begin anew" in done.out
    assert "+U[3, 500]" in cli("run", "counts").out
    again = cli("reset", "counts", "--to", "earliest", "--keep-state", "--yes")
    assert "records read again are counted again" in again.out
    assert "+U[3, 1000]" in cli("run", "counts").out
    assert cli("reset", "counts", "--to", "earliest", "--keep-state", "--drop-state").code == 2


def test_a_missing_file_is_found_by_the_books_check(counts, cli, home):
    assert cli("run", "counts").code == 0
    (file, *_) = (home / "home" / "archive").rglob("*.groups.*.parquet")
    file.unlink()
    done = cli("ledger", "check", "counts")
    assert done.code == 1
    assert f"{file.name} is missing" in done.out


def test_a_rewrite_is_refused_and_says_what_to_do(counts, cli):
    assert cli("run", "counts").code == 0
    done = cli("replay", "counts", "--rewrite")
    assert done.code == 1
    assert "cannot be rewritten by itself" in done.err


def test_preview_and_plan_tell_of_the_groups(counts, cli):
    found = cli("preview", "counts", "--from", "earliest", "--records", "8")
    assert found.code == 0, found.err
    assert "handed to the target                     4" in found.out
    plan = cli("plan", "pipelines/counts.sql", "--offline")
    assert "GROUP BY MOD(id, 4)" in plan.out
    assert "COUNT(*)" in plan.out


def test_a_pipeline_without_groups_keeps_no_state(home, cli):
    text = SCRIPT.format(sink="blackhole", least=0)
    text = text.partition("INSERT")[0] + "INSERT INTO dst SELECT id, id FROM src;"
    (home / "pipelines" / "plain.sql").write_text(text)
    done = cli("state", "show", "plain")
    assert done.code == 1
    assert "plain keeps no state: it has no GROUP BY" in done.err
