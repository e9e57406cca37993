"""`target create` takes a CREATE EXTERNAL DATABASE, checks it and notes it."""

from tests.sinks.test_paimon_database import requirements, statement, warehouse  # noqa: F401  (fixtures)


def test_target_create_checks_and_notes_it(statement, cli, home, warehouse):  # noqa: F811
    file = home / "db.sql"
    file.write_text(statement)
    planned = cli("target", "create", str(file), "--dry-run")
    assert planned.code == 0, planned.err
    assert not (home / "home" / "databases").exists()
    made = cli("target", "create", str(file), "--json").json
    assert made == {
        "dry_run": False, "database": "kafka_paimon_external_db", "made": True,
        "location": f"{warehouse}/kafka_paimon_external_db.db",
    }  # fmt: skip
    assert cli("target", "create", str(file), "--json").json["made"] is False
    file.write_text(statement.replace("EXTERNAL ", ""))
    refused = cli("target", "create", str(file))
    assert refused.code == 1
    assert "must be an external database" in refused.err
