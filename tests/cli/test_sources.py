"""`sources`: data sources are YAML that is written whole, comments and order kept."""

from pathlib import Path

import pytest

from tests.declare.lake import JOB, SOURCE


def write(home: Path, **files: str) -> None:
    for name, text in files.items():
        (home / "pipelines" / f"{name}.yaml").write_text(text)


def read(home: Path, name: str) -> str:
    return (home / "pipelines" / f"{name}.yaml").read_text()


def test_a_source_is_created_listed_and_shown(cli, home):
    jaas = "sasl.jaas.config=${secret_values.jaas}"
    made = cli(
        "sources", "create", "shop", "--brokers", "k:9092", "--topic", "orders", "--description", "Orders: all",
        "--property", "security.protocol=SASL_SSL", "--property", "sasl.mechanism=PLAIN", "--property", jaas, "--json",
    )  # fmt: skip
    assert made.json["name"] == "shop"
    assert read(home, "shop").splitlines() == [
        "datasource:", "  name: shop", "  type: kafka", "  description: 'Orders: all'", "  brokers: k:9092",
        "  topic: orders", "  message_format: json", "  properties:", "    security.protocol: SASL_SSL",
        "    sasl.mechanism: PLAIN", "    sasl.jaas.config: '${secret_values.jaas}'",
    ]  # fmt: skip
    (listed,) = cli("sources", "list", "--json").json["sources"]
    assert (listed["name"], listed["topic"], listed["jobs"]) == ("shop", "orders", [])
    assert cli("sources", "show", "shop", "--json").json["properties"]["sasl.jaas.config"] == "${secret_values.jaas}"
    assert "${secret_values.jaas}" in cli("sources", "show", "shop").out
    assert "orders" in cli("sources", "list").out


def test_a_name_that_is_left_out_is_type_and_time_and_is_kept(cli, home):
    name = cli("sources", "create", "--brokers", "k:9092", "--topic", "t", "--json").json["name"]
    assert name.startswith("kafka_2")
    assert f"name: {name}" in read(home, name)
    again = cli("sources", "create", "--brokers", "k:9092", "--topic", "t", "--json").json["name"]
    assert again != name


def test_a_source_may_be_added_to_a_file(cli, home):
    write(home, all=SOURCE)
    file = str(home / "pipelines" / "all.yaml")
    assert cli("sources", "create", "two", "--brokers", "k:9092", "--topic", "t", "--file", file).code == 0
    assert [each["name"] for each in cli("sources", "list", "--json").json["sources"]] == ["shop", "two"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop", "--brokers", "k:9092", "--topic", "t"], "data source shop is there already"),
        (["1st", "--brokers", "k:9092", "--topic", "t"], "want letters, digits"),
        (["b", "--brokers", "k:9092", "--topic", "t", "--message-format", "csv"], "only JSON-formatted messages"),
        (["b", "--brokers", "k:9092", "--topic", "a b"], "option 'topic' has the value 'a b'"),
        (["b", "--brokers", "k:9092", "--topic", "t", "--property", "sasl.password=x"], "does not belong into a file"),
        (["b", "--brokers", "k:9092", "--topic", "t", "--property", "secuity.protocol=SSL"], "did you mean"),
        (
            ["b", "--brokers", "k:9092", "--topic", "t", "--file", "/tmp/elsewhere.yaml"],
            "want a .yaml file in the folder",
        ),
    ],
    ids=["name taken", "name", "format", "topic", "plain secret", "property", "file elsewhere"],
)
def test_a_wrong_source_is_refused_and_nothing_written(cli, home, arguments, said):
    write(home, shop=SOURCE)
    done = cli("sources", "create", *arguments)
    assert done.code == 1
    assert said in done.err
    assert [file.name for file in (home / "pipelines").iterdir()] == ["shop.yaml"]


def test_editing_changes_name_and_description_only_and_jobs_follow(cli, home):
    write(home, shop=f"# where orders come from\n{SOURCE}", orders=JOB.replace("source: shop", "source: shop  # ours"))
    before = read(home, "shop")
    assert cli("sources", "edit", "shop", "--description", "All orders").code == 0
    assert read(home, "shop") == before.replace("Orders of the shop", "All orders")
    assert cli("sources", "edit", "shop", "--name", "store").code == 0
    assert "source: store  # ours" in read(home, "orders")
    assert "# where orders come from\ndatasource:\n  name: store\n" in read(home, "shop")
    assert cli("sources", "show", "store", "--json").json["jobs"] == ["orders"]
    assert cli("sources", "edit", "store", "--topic", "other").code == 2
    assert cli("sources", "edit", "store").code == 2


def test_a_source_that_a_job_uses_is_not_deleted(cli, home):
    write(home, all=f"{SOURCE}---\n{JOB}")
    done = cli("sources", "delete", "shop", "--yes")
    assert done.code == 1
    assert "data source shop is read by orders (pipelines/all.yaml:12:1): delete that job first" in done.err
    assert cli("sources", "show", "shop").code == 0


def test_a_source_without_jobs_is_deleted_and_only_it(cli, home):
    write(
        home,
        all=f"{SOURCE}---\n{SOURCE.replace('name: shop', 'name: two')}",
        alone=SOURCE.replace("name: shop", "name: x"),
    )
    assert cli("sources", "delete", "shop", answer="n\n").code == 1
    assert cli("sources", "delete", "shop", "--yes", "--json").json == {"deleted": "shop"}
    assert [each["name"] for each in cli("sources", "list", "--json").json["sources"]] == ["two", "x"]
    assert cli("sources", "delete", "x", "--yes").code == 0
    assert not (home / "pipelines" / "alone.yaml").exists()


def test_an_unknown_source_is_named_with_the_nearest(cli, home):
    write(home, shop=SOURCE)
    assert "unknown datasource 'shp' (did you mean 'shop'?)" in cli("sources", "show", "shp").err
