"""The suite's loader: parts in isolation, and one readable line where a module is broken."""

import sys
from argparse import Namespace

import pytest

from gpt_models import new_gpt
from part_loader import Part


@pytest.fixture
def submission(tmp_path):
    """Two parts with modules of equal names; the second imports its own inside a function."""
    files = {
        "part1/utils.py": "NAME = 'utils of part 1'",
        "part1/train.py": "from utils import NAME",
        "part2/utils.py": "NAME = 'utils of part 2'",
        "part2/train.py": "def name():\n    from utils import NAME\n    return NAME",
        "part2/broken.py": "import no_such_package",
        "part2/leaves.py": "import sys\nsys.exit('usage: leaves')",
        "part2/wrong.py": "def f(:",
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


def test_imports_inside_functions_find_the_part_s_modules_too(submission):
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            "broken.py cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("leaves", "leaves.py calls sys.exit('usage: leaves') when it is imported"),
        ("wrong", "wrong.py cannot be imported: SyntaxError"),
        ("absent", "absent.py does not exist"),
    ],
)
def test_a_broken_module_is_one_line(submission, name, message):
    with Part(submission / "part2").imported() as loaded:
        for _ in range(2):
            with pytest.raises(pytest.fail.Exception) as caught:
                getattr(loaded, name)
            assert message in str(caught.value)
            assert "\n" not in str(caught.value)
        assert loaded.utils.NAME == "utils of part 2", "the other modules are not concerned"


def test_a_small_gpt_is_made_where_the_default_config_names_a_type():
    """As a solution may have it, which then refuses sizes beside the type."""

    class GPT:
        def __init__(self, config):
            assert (config.model_type is None) != (config.n_layer is None)
            self.config = config

        @staticmethod
        def get_default_config():
            return Namespace(model_type="gpt", n_layer=None)

    model = new_gpt(Namespace(gpt=Namespace(GPT=GPT)), n_layer=3)
    assert model.config.n_layer == 3
