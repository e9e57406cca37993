"""The options of the sink: every name, default and refusal."""

from datetime import timedelta

import pytest

from vector_assets.engine.core import Merge
from vector_assets.engine.errors import ConfigError
from vector_assets.sinks.adbpg_options import AdbPgOptions

NEEDED = {
    "connector": "adbpg-nightly-1.13",
    "url": "jdbc:postgresql://gp-1.example.com:5432/adbpg_test",
    "tablename": "car_info",
    "username": "loader",
    "password": "geheim",
}


def parse(**given):
    return AdbPgOptions.parse({**NEEDED, **{k.replace("__", "."): v for k, v in given.items()}}, "connector adbpg")


def test_the_defaults_are_the_connectors():
    shown = parse().shown()
    assert {name: value for name, value in shown.items() if name not in NEEDED} == {
        "targetschema": "public",
        "batchsize": "3000",
        "batchwritetimeoutms": "10000",
        "connectionmaxactive": "20",
        "maxretrytimes": "2",
        "retrywaittime": "200",
        "writemode": "1",
        "conflictmode": "ignore",
        "exceptionmode": "ignore",
        "casesensitive": "0",
    }


def test_every_option_of_the_connectors_table_has_its_effect():
    options = parse(
        targetschema="vector_test", batchsize="500", batchwritetimeoutms="1500", connectionmaxactive="7",
        maxretrytimes="5", retrywaittime="300", writemode="0", conflictmode="update", exceptionmode="strict",
        casesensitive="1", vector__dimensions="feature:10,other:3",
    )  # fmt: skip
    assert options.target() == "adbpg://gp-1.example.com:5432/adbpg_test/vector_test.car_info"
    assert (options.wire.flush_rows, timedelta(seconds=options.wire.linger_seconds)) == (500, timedelta(seconds=1.5))
    assert (options.retry.retries, options.retry.wait_seconds) == (5, 0.3)
    assert options.max_connections == 7
    assert options.merge is Merge.LAST
    assert options.is_case_sensitive
    assert options.declared_dimensions == {"feature": 10, "other": 3}


@pytest.mark.parametrize("name", sorted(NEEDED.keys() - {"connector"}))
def test_what_is_needed_is_asked_for(name):
    with pytest.raises(ConfigError, match=f"option '{name}' is required"):
        AdbPgOptions.parse({key: value for key, value in NEEDED.items() if key != name}, "connector adbpg")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connector", "kafka"),
        ("writemode", "3"),
        ("writemode", "copy"),
        ("conflictmode", "replace"),
        ("conflictmode", "IGNORE"),
        ("exceptionmode", "skip"),
        ("casesensitive", "2"),
        ("casesensitive", "true"),
        ("batchsize", "0"),
        ("batchsize", "many"),
        ("batchwritetimeoutms", "-1"),
        ("connectionmaxactive", "0"),
        ("maxretrytimes", "-1"),
        ("retrywaittime", "2 s"),
        ("vector.dimensions", "10"),
        ("vector.dimensions", "feature:0"),
        ("vector.dimensions", "feature:1,feature:2"),
        ("tablename", ""),
        ("url", "jdbc:mysql://h/db"),
        ("url", "jdbc:postgresql://h"),
        ("url", "jdbc:postgresql:///db"),
        ("url", "jdbc:postgresql://h:port/db"),
        ("url", "jdbc:postgresql://h:70000/db"),
        ("url", "jdbc:postgresql://a,b/db"),
        ("url", "jdbc:postgresql://[::1/db"),
        ("url", "jdbc:postgresql://h/db?sslmode=maybe"),
        ("url", "jdbc:postgresql://h/db?prepareThreshold=0"),
    ],
)
def test_any_other_value_is_an_error_that_shows_it(name, value):
    with pytest.raises(ConfigError) as caught:
        parse(**{name.replace(".", "__"): value})
    assert f"option '{name}' has the value '{value}', which is refused: " in str(caught.value)


def test_an_unknown_option_is_an_error_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"unknown option 'batch.size'.*known options: batchsize"):
        parse(batch__size="1")
    with pytest.raises(ConfigError, match=r"did you mean 'writemode'"):
        parse(writeMode="1")


def test_an_unknown_url_parameter_is_an_error_with_the_known_ones():
    with pytest.raises(ConfigError, match="'stringtype' is not supported; known parameters: sslmode, sslrootcert"):
        parse(url="jdbc:postgresql://h/db?stringtype=unspecified")


@pytest.mark.parametrize("conflictmode", ["ignore", "strict"])
def test_upserts_and_a_mode_that_forbids_updates_contradict_each_other(conflictmode):
    with pytest.raises(ConfigError, match=f"'conflictmode' = '{conflictmode}' forbids it"):
        parse(writemode="2", conflictmode=conflictmode)
    assert parse(writemode="2").shown()["conflictmode"] == "upsert"


@pytest.mark.parametrize(
    "url",
    [
        "jdbc:postgresql://loader:geheim@h/db",
        "postgresql://loader:geheim@h:1/db?sslmode=require",
        "jdbc:postgresql://h/db?user=loader&password=geheim",
        "jdbc:postgresql://h/db?sslpassword=geheim",
        "jdbc:postgresql://h/db?a=1&PASSWORD=geheim",
        "jdbc:postgresql://loader:ge@heim@[::1/db",
    ],
)
def test_credentials_in_the_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        parse(url=url)
    assert "heim" not in str(caught.value)


def test_secrets_are_never_shown():
    options = parse()
    assert "geheim" not in f"{options!r} {options} {options.shown()} {options.login!r} {options.target()}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("jdbc:postgresql://Host/db", "host:5432/db"),
        ("postgresql://host:6543/db?sslmode=disable", "host:6543/db"),
        ("jdbc:postgresql://[::1]:1/d%20b", "[::1]:1/d b"),
    ],
)
def test_addresses_are_read_from_jdbc_and_libpq_urls(url, expected):
    assert str(parse(url=url).address) == expected


def test_tls_parameters_reach_the_driver():
    url = "jdbc:postgresql://h/db?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem"
    arguments = parse(url=url).login.arguments("x")
    assert {name: value for name, value in arguments.items() if name.startswith("ssl")} == {
        "sslmode": "verify-full", "sslrootcert": "/ca.pem", "sslcert": "/c.pem", "sslkey": "/k.pem",
    }  # fmt: skip


def test_one_table_is_one_target_in_whatever_case_it_is_written():
    assert parse(tablename="Car_Info").target() == parse().target()
    assert parse(tablename="Car_Info", casesensitive="1").target() != parse(casesensitive="1").target()
