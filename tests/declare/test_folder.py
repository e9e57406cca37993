"""Folders of declarations: every bad file is named, and no two pipelines share a name or a target."""

from pathlib import Path

import pytest

from tests.declare.scripts import WORKING, no_secret
from vector_assets.declare import Declarations, collect_folder, load_file, load_folder
from vector_assets.engine.errors import ConfigError

OTHER = WORKING.replace("'cars'", "'vans'")
NAMED = f"SET 'pipeline.name' = 'cars';\n{OTHER}"


def folder(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def loaded(path: Path) -> Declarations:
    return load_folder(path, secrets=no_secret)


def test_every_script_is_loaded_in_the_order_of_its_name(tmp_path: Path) -> None:
    folder(
        tmp_path,
        {"b.sql": WORKING, "a.sql": OTHER, "notes.md": "x", "data.csv": "x", ".hidden.sql": "x", "_draft.sql": "x"},
    )
    assert [pipeline.name for pipeline in loaded(tmp_path).pipelines] == ["a", "b"]


def test_folders_below_are_loaded_too(tmp_path: Path) -> None:
    folder(tmp_path, {"search/cars.sql": WORKING, ".git/vans.sql": "x", "_old/x.sql": "x"})
    assert [pipeline.name for pipeline in loaded(tmp_path).pipelines] == ["cars"]


def test_empty_folder_has_no_pipelines(tmp_path: Path) -> None:
    assert loaded(tmp_path) == Declarations(())


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder of declarations at .*/nowhere"):
        loaded(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.sql": WORKING, "b.sql": WORKING}, r"b.sql:23:1: target adbpg://.*/public.cars is taken by .*a.sql:23:1"),
        ({"cars.sql": WORKING, "vans.sql": NAMED}, r"vans.sql:24:1: pipeline name cars is taken by .*cars.sql:23:1"),
        ({"cars.sql": WORKING, "x/Cars.sql": OTHER}, r"Cars.sql:23:1: pipeline name Cars is taken by .*cars.sql:23:1"),
    ],
    ids=["target", "name", "name in another case"],
)
def test_two_files_with_one_name_or_target_are_refused_naming_both(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(folder(tmp_path, files))


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    folder(tmp_path, {"a.sql": "SELECT 1", "b.sql": WORKING, "c.yaml": "source:", "d.sql": WORKING + "oops"})
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head == "3 declarations are wrong:"
    assert [line.partition("sql:")[0].rpartition("/")[2].partition("yaml:")[0] for line in lines] == ["a.", "c.", "d."]


def test_collecting_keeps_the_good_files_beside_the_errors(tmp_path: Path) -> None:
    found = collect_folder(folder(tmp_path, {"a.sql": "SELECT 1", "b.sql": WORKING}), secrets=no_secret)
    assert [pipeline.name for pipeline in found.pipelines] == ["b"]
    (error,) = found.errors
    assert error.place is not None
    assert error.place.file.endswith("a.sql")
    with pytest.raises(ConfigError, match=r"a.sql:1:1: SELECT is not supported"):
        found.checked()


@pytest.mark.parametrize("ending", ["yaml", "yml"])
def test_half_a_cdc_pipeline_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ConfigError, match="CDC pipeline: key 'sink' is required"):
        loaded(folder(tmp_path, {f"job.{ending}": "source:"}))


def test_file_of_another_kind_is_no_declaration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a declaration; known endings: .sql"):
        load_file(folder(tmp_path, {"x.txt": ""}) / "x.txt")


def test_file_is_named_relative_to_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path, {"pipelines/cars.sql": "oops"}))
    with pytest.raises(ConfigError, match=r"^pipelines/cars.sql:1:1: "):
        load_file(Path("pipelines/cars.sql"))


def test_file_that_is_no_text_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "cars.sql").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cars.sql:1:1: cannot be read: "):
        loaded(tmp_path)


def test_byte_order_mark_and_windows_line_ends_make_no_difference(tmp_path: Path) -> None:
    (tmp_path / "cars.sql").write_bytes(b"\xef\xbb\xbf" + WORKING.replace("\n", "\r\n").encode())
    (pipeline,) = loaded(tmp_path).pipelines
    assert (pipeline.place.line, pipeline.place.column) == (23, 1)
    assert pipeline.source_table.columns[1].place == type(pipeline.place)(pipeline.place.file, 3, 3)


def test_offline_loads_without_any_secret(tmp_path: Path) -> None:
    folder(tmp_path, {"cars.sql": WORKING.replace("'pw'", "'${secret_values.nobody_has_this}'")})
    assert len(load_folder(tmp_path, secrets=no_secret, offline=True).pipelines) == 1
    assert len(collect_folder(tmp_path, secrets=no_secret).errors) == 1
