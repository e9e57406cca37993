import pytest

from vector_assets.engine.errors import ConfigError
from vector_assets.formats.csv import CsvOptions


def parse(**options: str) -> CsvOptions:
    return CsvOptions.parse({f"csv.{name.replace('_', '-')}": value for name, value in options.items()}, "format csv")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("|", "|"),
        (r"\t", "\t"),
        ("\t", "\t"),
        (r"\u0001", "\x01"),
        (r"\uu00a6", "\u00a6"),
        (r"\1", "\x01"),
        (r"\\", "\\"),
        (r"\|", "|"),
        (" ", " "),
        ("\u00a6", "\u00a6"),
    ],
)
def test_the_delimiter_is_read_with_java_escapes(written: str, meant: str) -> None:
    assert parse(field_delimiter=written).field_delimiter == meant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field_delimiter": "||"}, r"'csv.field-delimiter' has the value '\|\|'.*exactly one character"),
        ({"field_delimiter": ""}, "exactly one character"),
        ({"field_delimiter": "\\"}, "exactly one character"),
        ({"field_delimiter": "\U0001f600"}, "exactly one character"),
        ({"field_delimiter": r"\n"}, "a line end cannot be"),
        ({"quote_character": "''"}, "'csv.quote-character'.*exactly one character"),
        ({"escape_character": r"\t"}, "'csv.escape-character'.*exactly one character"),
        ({"array_element_delimiter": ""}, "'csv.array-element-delimiter'.*exactly one character"),
        ({"disable_quote_character": "yes"}, "want true or false"),
        ({"quote_character": '"', "disable_quote_character": "true"}, "want one of them"),
        ({"field_delimiter": '"'}, "csv.field-delimiter and csv.quote-character are the same"),
        ({"field_delimiter": "\\\\", "escape_character": "\\"}, "csv.field-delimiter and csv.escape-character are"),
        ({"null_litteral": "x"}, r"unknown option 'csv.null_litteral'|did you mean 'csv.null-literal'"),
        ({"write_bigdecimal_in_scientific_notation": "true"}, "unknown option"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_csv_cannot_honour_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(**options)


def test_quotes_off_and_a_quote_delimiter_go_together() -> None:
    assert parse(disable_quote_character="true", field_delimiter='"').dialect().quote is None


def test_defaults_are_flinks() -> None:
    assert parse().shown() == {
        "csv.field-delimiter": ",",
        "csv.quote-character": '"',
        "csv.disable-quote-character": "False",
        "csv.allow-comments": "False",
        "csv.ignore-parse-errors": "False",
        "csv.array-element-delimiter": ";",
    }
