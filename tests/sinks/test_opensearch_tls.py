"""OpenSearch behind TLS and a login: what is sent, what is refused, and that no credential is told."""

import pytest

from tests.fix_tls import PASSWORD, USER
from tests.sinks.contract import SCHEMA, Feed, car
from vector_assets.clients.opensearch_wanted import Connection
from vector_assets.engine.errors import ConfigError

pytestmark = pytest.mark.service


@pytest.fixture
def end(cars_index, tls_end):
    made = tls_end(cars_index.server.url)
    cars_index.url = made.url
    return made


def options(end, **changes):
    return {"username": USER, "password": PASSWORD, "connection__ca___file": end.ca_file} | changes


def test_rows_arrive_through_tls_with_a_login(cars_index, end):
    sink = cars_index.sink(**options(end))
    receipt = Feed(sink).apply(*(car(number) for number in range(2500)))
    assert receipt.counts.written == 2500
    assert sink.count() == 2500
    assert end.refused == 0
    assert PASSWORD not in sink.options.shown()


@pytest.mark.parametrize(
    "changes",
    [{"password": "wrong-one"}, {"username": "somebody"}],
    ids=["password", "user"],
)
def test_a_wrong_login_is_refused_at_once_and_not_told(cars_index, end, changes):
    with pytest.raises(ConfigError, match="refuses the credentials") as caught:
        cars_index.sink(**options(end, **changes))
    assert "wrong-one" not in str(caught.value)
    assert end.refused == 1


def test_no_login_is_refused(cars_index, end):
    with pytest.raises(ConfigError, match="refuses the credentials"):
        cars_index.sink(connection__ca___file=end.ca_file)


def test_a_certificate_that_nobody_signed_is_refused_unless_it_is_allowed(cars_index, end):
    login = {"username": USER, "password": PASSWORD}
    with pytest.raises(ConfigError, match="TLS failed"):
        cars_index.sink(**login)
    sink = cars_index.sink(None, allow___insecure="true", **login)
    sink.prepare(SCHEMA, ("id",))
    Feed(sink).apply(car(1))
    assert set(cars_index.documents()) == {"1"}


def test_the_file_of_a_set_up_takes_the_same_login(cars_index, end):
    from contextlib import closing

    from vector_assets.clients.opensearch import connect

    given = {"hosts": end.url, "username": USER, "password": PASSWORD, "ca_file": str(end.ca_file)}
    with closing(connect(Connection.model_validate(given).login, "opensearch")) as client:
        assert client.ask("GET", "/")["version"]["number"] == "2.19.1"
