"""The MySQL resource lists tables and asks questions, and says clearly what is wrong."""

import dagster as dg
import pytest

from tests.fix_mysql import on_both_servers
from vector_assets.defs.resources import MySqlResource
from vector_assets.engine.errors import ConfigError, PlanError, UnavailableError

pytestmark = pytest.mark.service
pytest_generate_tests = on_both_servers


@pytest.fixture
def resource(mysql):
    service = mysql.service
    return MySqlResource(host="127.0.0.1", port=service.port, user=service.user, password=service.password)


def test_tables_are_listed_with_columns_and_keys(mysql, resource):
    mysql.sql("CREATE TABLE orders_1 (a VARCHAR(9), id INT, n INT, PRIMARY KEY (a, id))")
    mysql.sql("CREATE TABLE orders_2 (id INT NOT NULL UNIQUE, n INT)")
    mysql.sql("CREATE TABLE others (n INT)")
    found = resource.tables(mysql.database, r"orders_\d")
    assert found.select(["database", "table", "columns", "key"]).to_pylist() == [
        {"database": mysql.database, "table": "orders_1", "columns": ["a", "id", "n"], "key": ["a", "id"]},
        {"database": mysql.database, "table": "orders_2", "columns": ["id", "n"], "key": ["id"]},
    ]
    assert str(found.schema.field("rows").type) == "int64"
    assert resource.tables(mysql.database, "nothing").num_rows == 0


def test_an_asset_asks_with_values(mysql, resource):
    mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, s VARCHAR(9))")
    mysql.sql("INSERT INTO t VALUES (1, 'ä'), (2, '100%%')")

    @dg.asset
    def names(mysql: MySqlResource) -> list[str]:
        statement = f"SELECT s FROM {database}.t WHERE id >= %s ORDER BY id"
        return [str(row[0]) for row in mysql.rows(statement, (1,))]

    database = mysql.database
    run = dg.materialize([names], resources={"mysql": resource})
    assert run.output_for_node("names") == ["ä", "100%%"]
    assert resource.rows(f"SELECT COUNT(*) FROM {mysql.database}.t WHERE s LIKE '100%'") == [(1,)]


def test_what_is_wrong_is_an_error_of_the_engine_without_the_password(mysql, resource):
    with pytest.raises(PlanError, match="nowhere"):
        resource.rows(f"SELECT * FROM {mysql.database}.nowhere")
    wrong = {"host": "127.0.0.1", "port": mysql.service.port, "user": mysql.service.user, "password": "hidden"}
    with pytest.raises(ConfigError, match="Access denied") as caught:
        MySqlResource(**wrong).tables(".*", ".*")
    assert "hidden" not in str(caught.value) + repr(MySqlResource(**wrong))
    with pytest.raises(UnavailableError):
        MySqlResource(**{**wrong, "port": 1}).rows("SELECT 1")
