"""`maintain`: what it does to a lake table, and what it says to a target that is none."""

from tests.defs.test_maintenance import SCRIPT


def test_all_tasks_run_in_order_or_one_of_them(home, cli):
    (home / "pipelines" / "numbers.sql").write_text(SCRIPT.format(settings=""))
    assert cli("run", "numbers", "--json").json["counts"]["written"] == 300
    done = cli("maintain", "numbers", "--json").json
    assert [task["task"] for task in done["tasks"]] == ["compact", "expire", "orphans"]
    assert done["tasks"][0]["files_after"] == 2
    shown = cli("maintain", "numbers", "--task", "compact")
    assert shown.out.split("\n")[1].split()[:3] == ["compact", "2", "2"]
    assert cli("reconcile", "numbers").code == 0


def test_a_target_that_needs_none_is_named(home, cli):
    text = SCRIPT.format(settings="")
    text = text[: text.index("PARTITIONED BY")] + "WITH ('connector' = 'blackhole');" + text[text.index("\nINSERT") :]
    (home / "pipelines" / "numbers.sql").write_text(text)
    done = cli("maintain", "numbers")
    assert done.code == 1
    assert "needs no maintenance" in done.err
