"""The suite's loader: parts in isolation."""

import sys

import pytest

from part_loader import Part


@pytest.fixture
def submission(tmp_path):
    """Two parts with modules of equal names; the second imports its own inside a function."""
    files = {
        "part1/utils.py": "NAME = 'utils of part 1'",
        "part1/train.py": "from utils import NAME",
        "part2/utils.py": "NAME = 'utils of part 2'",
        "part2/train.py": "def name():\n    from utils import NAME\n    return NAME",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_each_part_imports_its_own_modules(submission):
    for part in ("part1", "part2"):
        with Part(submission / part).imported() as loaded:
            assert f"utils of part {part[-1]}" == loaded.utils.NAME
    with Part(submission / "part1").imported() as loaded:
        assert loaded.train.NAME == "utils of part 1"


def test_imports_inside_functions(submission):
    with Part(submission / "part2").imported() as loaded:
        assert loaded.train.name() == "utils of part 2"


def test_nothing_is_left_behind(submission):
    path, modules = list(sys.path), set(sys.modules)
    sentinel = sys.modules["utils"] = type(sys)("utils")
    try:
        with Part(submission / "part2").imported() as loaded:
            assert loaded.utils is not sentinel
        assert sys.modules["utils"] is sentinel
    finally:
        del sys.modules["utils"]
    assert sys.path == path
    assert set(sys.modules) == modules


def test_modules_are_imported_once(submission):
    part = Part(submission / "part1")
    with part.imported():
        first = part.utils
    with part.imported():
        assert part.utils is first


def test_a_module_that_is_missing(submission):
    with Part(submission / "part1").imported() as loaded, pytest.raises(AttributeError, match="has no module absent"):
        _ = loaded.absent
