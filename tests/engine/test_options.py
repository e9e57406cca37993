from datetime import timedelta
from typing import ClassVar, Literal

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Duration, MemorySize, Options, parse_duration, parse_size

DURATIONS = {
    "200": timedelta(milliseconds=200), "200ms": timedelta(milliseconds=200), "200 ms": timedelta(milliseconds=200),
    " 3s ": timedelta(seconds=3), "3 SECONDS": timedelta(seconds=3), "1.5 s": timedelta(seconds=1.5),
    "5 min": timedelta(minutes=5), "5m": timedelta(minutes=5), "2 h": timedelta(hours=2), "1 day": timedelta(days=1),
    "7 us": timedelta(microseconds=7), "7 µs": timedelta(microseconds=7), "2000 ns": timedelta(microseconds=2),
    "0": timedelta(0),
}  # fmt: skip
SIZES = {
    "0": 0, "1024": 1024, "64 MB": 64 << 20, "64mb": 64 << 20, "64 m": 64 << 20, "64MiB": 64 << 20,
    "64 mebibytes": 64 << 20, "1.5 kb": 1536, "2g": 2 << 30, "1 tb": 1 << 40, "10 bytes": 10, "10b": 10,
    "9007199254740993": 9007199254740993,
}  # fmt: skip


@pytest.mark.parametrize("text", DURATIONS)
def test_a_duration_is_read_as_flink_spells_it(text: str) -> None:
    assert parse_duration(text) == DURATIONS[text]
    assert parse_duration(DURATIONS[text]) is DURATIONS[text]


@pytest.mark.parametrize("text", ["", "s", "-1s", "3 weeks", "3 s 4 ms", "1e3 s", "٣ s", "9" * 400, "99999999999 days"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="want a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_read_as_flink_spells_it(text: str) -> None:
    assert parse_size(text) == SIZES[text]
    assert parse_size(SIZES[text]) == SIZES[text]


@pytest.mark.parametrize("text", ["", "MB", "-1", "1 pb", "1,5 mb", "64 MB MB", "true"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="want a size"):
        parse_size(text)


class ShopOptions(Options):
    """Options with every kind of field."""

    pass_through: ClassVar[tuple[str, ...]] = ("properties.",)

    url: str = Field(alias="url", pattern="^shop://")
    """Where the shop is."""
    password: SecretStr | None = Field(None, alias="pass.word", min_length=3)
    rows: int = Field(200, alias="sink.buffer-flush.max-rows", ge=1)
    linger: Duration = Field(timedelta(seconds=1), alias="sink.linger")
    memory: MemorySize = Field(1 << 20, alias="memory")
    mode: Literal["fast", "safe"] = "safe"
    properties: dict[str, str] = Field(default_factory=dict, alias="properties.")

    @field_validator("url")
    @classmethod
    def _short(cls, text: str) -> str:
        if len(text) > 60:
            raise ValueError("too long")
        return text

    @model_validator(mode="after")
    def _consistent(self) -> "ShopOptions":
        if self.mode == "fast" and self.rows == 1:
            raise ValueError("mode 'fast' wants more than 1 row")
        return self


def parse(**raw: str) -> ShopOptions:
    return ShopOptions.parse({"url": "shop://a", **raw}, "connector shop")


def refusal(raw: dict[str, str], places: dict[str, Place] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        ShopOptions.parse({"url": "shop://a", **raw}, "connector shop", places)
    return caught.value


def test_the_vendor_spelling_comes_in_and_typed_values_go_out() -> None:
    options = parse(**{"sink.buffer-flush.max-rows": "7", "sink.linger": "3s", "memory": "64 MB", "mode": "fast"})
    assert (options.rows, options.linger, options.memory, options.mode) == (7, timedelta(seconds=3), 64 << 20, "fast")


def test_defaults_hold_for_what_is_not_said() -> None:
    options = parse()
    assert (options.rows, options.password, options.properties) == (200, None, {})


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse().rows = 3  # type: ignore[misc]


def test_prefixed_options_reach_the_client_as_they_are() -> None:
    options = parse(**{"properties.fetch.min": "1", "properties.group.id": "g"})
    assert options.properties == {"fetch.min": "1", "group.id": "g"}


def test_an_unknown_option_names_the_known_ones_and_the_nearest() -> None:
    error = refusal({"sink.buffer-flush.max-row": "7"}, {"sink.buffer-flush.max-row": Place("a.sql", 3, 5)})
    assert str(error).startswith("a.sql:3:5: connector shop: unknown option 'sink.buffer-flush.max-row'")
    assert "(did you mean 'sink.buffer-flush.max-rows'?)" in str(error)
    for name in ShopOptions.known():
        assert name in str(error)


def test_the_python_name_is_not_an_option() -> None:
    assert "unknown option 'rows'" in str(refusal({"rows": "7"}))


REFUSED = {
    "number": ({"sink.buffer-flush.max-rows": "many"}, "'sink.buffer-flush.max-rows' has the value 'many'"),
    "bound": ({"sink.buffer-flush.max-rows": "0"}, "greater than or equal to 1"),
    "duration": ({"sink.linger": "3 weeks"}, "want a duration such as '200 ms', '3s', '5 min', found '3 weeks'"),
    "endless duration": ({"sink.linger": "9" * 40 + " days"}, "want a duration of at most"),
    "size": ({"memory": "lots"}, "want a size such as"),
    "choice": ({"mode": "faster"}, "'fast' or 'safe'"),
    "own rule": ({"url": "shop://" + "a" * 80}, "too long"),
    "together": ({"mode": "fast", "sink.buffer-flush.max-rows": "1"}, "mode 'fast' wants more than 1 row"),
}


@pytest.mark.parametrize(("raw", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_named_with_what_was_wanted(raw: dict[str, str], reason: str) -> None:
    error = refusal(raw)
    assert str(error).startswith("connector shop: ")
    assert reason in str(error)
    assert "Value error" not in str(error)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^connector shop: option 'url' is required$"):
        ShopOptions.parse({}, "connector shop")


def test_a_wrong_value_is_reported_where_it_stands_and_a_missing_one_at_the_connector() -> None:
    places = {"mode": Place("a.sql", 4, 2), "connector": Place("a.sql", 2, 2)}
    assert refusal({"mode": "x"}, places).place == Place("a.sql", 4, 2)
    with pytest.raises(ConfigError) as caught:
        ShopOptions.parse({}, "connector shop", places)
    assert caught.value.place == Place("a.sql", 2, 2)


def test_a_secret_is_in_no_message() -> None:
    assert str(refusal({"pass.word": "xy"})).startswith(
        "connector shop: option 'pass.word' has a value that is refused"
    )
    assert "xy" not in str(refusal({"pass.word": "xy"}))
    assert "hunter2" not in repr(parse(**{"pass.word": "hunter2"}))
    assert "hunter2" not in str(parse(**{"pass.word": "hunter2"}).shown())


@pytest.mark.parametrize(
    "url",
    ["jdbc://user:hunter2@host/db", "jdbc://host/db?user=u&password=hunter2&ssl=1", "jdbc://host?PASSWORD=hunter2"],
)
def test_a_credential_inside_another_option_is_in_no_message(url: str) -> None:
    error = refusal({"url": url})
    assert "hunter2" not in str(error)
    assert "host" in str(error)


def test_all_options_are_shown_as_users_spell_them() -> None:
    shown = parse(**{"pass.word": "hunter2", "properties.a": "b"}).shown()
    assert shown["url"] == "shop://a"
    assert shown["sink.buffer-flush.max-rows"] == "200"
    assert shown["pass.word"] == "**********"
    assert "password" not in shown


def test_every_field_can_be_documented_by_the_line_after_it() -> None:
    assert ShopOptions.model_fields["url"].description == "Where the shop is."
