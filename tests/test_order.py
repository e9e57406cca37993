"""The suite's own order."""

from tests.conftest import FOLDER, LONGEST


def test_the_files_that_come_first_are_there():
    assert [name for name in LONGEST if not (FOLDER / name).is_file()] == []
