"""The grader: what a solution does to its process costs only the criterion that called it; reports are right."""

import ast
import json
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from course.gaps import FUNCTIONS
from course.judge import load_criteria
from course.points import POINTS, QUESTIONS
from course.submission import find

TESTS = Path(__file__).resolve().parents[1]
SOLUTIONS = sorted(TESTS.glob("mutants/solutions/*/"))
CRITERIA = {
    "part1_toy.py": '''
from course.criterion import Failure, Remark, criterion, expect

@criterion("1.7")
def honest(part):
    """The neighbour."""
    expect(part.utils.answer() == 42, "the answer is wrong", given="the question", expected=42, got=part.utils.answer())

@criterion("1.8")
def hostile(part):
    """What the folder's hostile.py does."""
    part.hostile.run()

@criterion("1.9")
def remarkable(part):
    """A remark."""
    raise Remark("nothing is lost")
''',
    "points_part1.py": """
POINTS_PART1 = {"1.7": {"honest": 9, "by hand": 3}, "1.8": {"hostile": 3}, "1.9": {"remarkable": 4}}
""",
}
LIGHTNING_1 = """
import pytorch_lightning as pl
import torch
SEEN = []
class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()
    def validation_step(self, batch, batch_idx):
        return self.layer(batch).mean()
    def training_epoch_end(self, outputs):
        SEEN.append(torch.stack([output["loss"] for output in outputs]).shape)
    def validation_epoch_end(self, outputs):
        SEEN.append(torch.stack(outputs).shape)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
class Callback(pl.Callback):
    def on_epoch_end(self, trainer, pl_module):
        SEEN.append("callback")
def run():
    trainer = pl.Trainer(gpus=1, progress_bar_refresh_rate=0, weights_summary=None, max_epochs=1, logger=False,
                         checkpoint_callback=False, callbacks=[Callback()], num_sanity_val_steps=0)
    loader = torch.utils.data.DataLoader(torch.ones(6, 2), batch_size=2)
    trainer.fit(Model(), loader, loader)
    assert [3] in [list(seen) for seen in SEEN] and len(SEEN) == 3, SEEN
"""
# What hostile.py contains, and what is said of it; None where it is no mistake.
HOSTILE = {
    "exit_at_import": ("import os\nos._exit(0)", "(exit code 0) while part1/hostile.py is being imported"),
    "sys_exit_at_import": ("import sys\nsys.exit(0)", "hostile.py calls sys.exit(0) when it is imported"),
    "error_at_import": ("raise ValueError('no')", "hostile.py cannot be imported: ValueError: no"),
    "syntax_error": ("def run(:", "hostile.py cannot be imported: SyntaxError"),
    "skip_at_import": ("import pytest\npytest.skip('x', allow_module_level=True)", "cannot be imported: Skipped: x"),
    "input_at_import": ("input()", "cannot be imported: EOFError"),
    "missing_package": (
        "import no_such_package\ndef run(): assert no_such_package.f(1) > 0",
        "(the code imports no_such_package, not installed here: a stand-in took its place)",
    ),
    "unused_package": ("from no_such_package.part import f as g\n@g\ndef run(): assert True", None),
    "tried_package": ("try: import no_such_package\nexcept ImportError: no = True\ndef run(): assert no", None),
    "no_function": ("", "part1/hostile.py has no function run"),
    "exit": ("import os\ndef run(): os._exit(0)", "ended the whole process (exit code 0)"),
    "sys_exit": ("import sys\ndef run(): sys.exit(3)", "part1/hostile.py, line 2 calls sys.exit(3)"),
    "crash": ("import ctypes\ndef run(): ctypes.string_at(0)", "a segmentation fault"),
    "endless": ("def run():\n    while True: pass", "did not end within 6 seconds"),
    "kills_its_group": ("import os\ndef run(): os.kill(0, 9)", "ended by a kill"),
    "kills_its_parent": (
        "import os, time\ndef run():\n    os.kill(os.getppid(), 9)\n    time.sleep(60)",
        "killed its process",
    ),
    "many_processes": (
        "import subprocess\ndef run():\n    for _ in range(200):\n"
        "        subprocess.Popen(['sleep', '54321'], start_new_session=True)\n    while True: pass",
        "started more than 64 processes",
    ),
    "memory": ("import torch\nkept = []\ndef run():\n    while True: kept.append(torch.ones(2**24))", "memory"),
    "forged": (
        'import os\ndef run():\n    for fd in range(3, 64):\n        try: os.write(fd, b\'{"token": "", "result": '
        '{"status": "passed", "hint": ""}}\\n\')\n        except OSError: pass\n    os._exit(0)',
        "ended the whole process",
    ),
    "forks": ("import os\ndef run():\n    if os.fork(): os._exit(0)", "ended the whole process"),
    "gpu": ("import torch\ndef run(): torch.ones(1).cuda()", "part1/hostile.py, line 2 asks for a GPU"),
    "assertion": (
        "def run():\n    assert 1 > 2, 'small'",
        "part1/hostile.py, line 2: `assert 1 > 2, 'small'` does not hold",
    ),
    "prints": ("print('x' * 100_000)\ndef run(): print('y' * 100_000)", None),
    "leaves_a_process": ("import os\ndef run(): os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '54321')", None),
    "writes": ("import pathlib\npathlib.Path(__file__).with_name('new').touch()\ndef run(): open('x', 'w')", None),
    "missing_plots": ("import seaborn as sns, flash_attn\nsns.set()\ndef run(): sns.heatmap([1]).set(title='x')", None),
    "lightning": (
        "import lightning as L, pytorch_lightning as pl\nfrom lightning.pytorch.callbacks import ModelCheckpoint\n"
        "from pytorch_lightning.callbacks import ModelCheckpoint as Other\n"
        "def run(): assert ModelCheckpoint is Other and L.Trainer is pl.Trainer and L.Fabric",
        None,
    ),
    "lightning_1": (LIGHTNING_1, None),
}  # fmt: skip


def write(folder: Path, **files: str) -> Path:
    """A folder with these Python files, `/` in a name written as `__`."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def grade(commands):
    """What `grade.py` prints."""

    def graded(*args: object, expected: int = 0, **job: object) -> str:
        result = commands("tests", "grade.py", *args, **job)
        assert result.code == expected, result.output
        return result.output

    return graded


@pytest.fixture(scope="module")
def toy_criteria(tmp_path_factory):
    folder = tmp_path_factory.mktemp("criteria")
    for name, text in CRITERIA.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def graded(grade, toy_criteria, tmp_path_factory):
    """Results of all hostile solutions by name, and the folder with the reports."""
    root = tmp_path_factory.mktemp("class")
    for name, (text, _) in HOSTILE.items():
        own = {"utils": "def answer(): return 42", "train_pl": "", "hostile": text}
        own |= dict.fromkeys(("conftest", "sitecustomize", "usercustomize"), "raise SystemExit(1)")
        write(root / name / "part1", **own)
        (root / name / "part1" / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    before = sorted(root.rglob("*"))
    files = [f"--{kind}={root.with_name('report')}.{kind}" for kind in ("json", "junit", "html")]
    folders = [root / name for name in HOSTILE]
    flags = ("--criteria", toy_criteria, "--timeout", 6, "--memory", 1, "--jobs", 2)
    grade(*folders, *flags, *files)
    assert sorted(root.rglob("*")) == before, "nothing is written into a solution"
    solutions = json.loads(root.with_name("report.json").read_text())["solutions"]
    return {solution["name"]: solution for solution in solutions}, root.with_name("report")


def criteria_of(solution: dict) -> dict[str, dict]:
    return {one["name"]: one for question in solution["questions"] for one in question["criteria"]}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_costs_only_itself(graded, name):
    found, said = criteria_of(graded[0][name]), HOSTILE[name][1]
    assert found["honest"]["status"] == "passed"
    assert found["remarkable"]["status"] == "remark"
    assert found["hostile"]["status"] == ("passed" if said is None else "failed"), found["hostile"]["hint"]
    assert (said or "") in found["hostile"]["hint"]
    assert "\n" not in found["hostile"]["hint"]
    assert graded[0][name]["reached"] == (9 + 3 + 4 if said is None else 9 + 4)


def test_no_process_is_left(graded):
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.is_file()]
    assert not [line for line in lines if b"54321" in line]


def test_junit(graded):
    solutions, report = graded
    root = ElementTree.parse(f"{report}.junit").getroot()
    assert [suite.get("name") for suite in root] == list(solutions)
    suite = root[list(solutions).index("gpu")]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    failed = [case for case in suite if case.find("failure") is not None]
    assert [(case.get("classname"), case.get("name")) for case in failed] == [("question 1.8", "hostile")]


def test_html(graded):
    solutions, report = graded
    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)

    text = Path(f"{report}.html").read_text()
    Reader().feed(text)
    assert tags.count("tr") == 1 + len(solutions)
    assert tags.count("details") == sum(said is not None for _, said in HOSTILE.values()) + len(solutions)
    assert "<b>nothing is lost</b>" in text and "<small>A remark</small>" in text
    assert "assert 1 &gt; 2" in text


def test_a_wrong_answer(grade, tmp_path, toy_criteria):
    """Also: Gradescope's file, a part two levels deeper with another name, parts that are missing."""
    write(tmp_path / "in", a__b__vae__utils="def answer(): return 41", a__b__vae__cnn_encoder_decoder="")
    flags = ("--criteria", toy_criteria, "--gradescope", tmp_path / "results.json")
    lines = grade(tmp_path / "in", *flags).splitlines()
    assert lines[0] == "in: edition 2023, 4 of 16 points that tests can give"
    assert next(line.split()[:5] for line in lines if "1.7" in line) == ["1.7", "9", "0", "3", "the"]
    assert [line.strip() for line in lines if "part" in line][-2:] == ["part2: not found", "part3: not found"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["score"] == 4
    assert [test["score"] for test in results["tests"]] == [0, 0, 4]
    assert [test["max_score"] for test in results["tests"]] == [9, 3, 4]
    assert results["tests"][0]["output"] == "the answer is wrong; given: the question; expected: 42; got: 41"
    assert "question 1.7: 3 points by hand" in results["output"]


def test_a_part_that_is_named(grade, tmp_path, toy_criteria):
    write(tmp_path / "anything", utils="def answer(): return 42")
    said = grade("--part1", tmp_path / "anything", "--criteria", toy_criteria, "--only", "honest")
    assert "9 of 9 points" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "name the folder"),
        (["nowhere"], "there is no folder or zip file nowhere"),
        ([TESTS, "--jobs", "0"], "--jobs must be positive"),
        ([TESTS.parent, "--json", "nowhere/x.json"], "nothing can be written there"),
        ([TESTS.parent, "--edition", "1999"], "invalid choice"),
        (["{empty}", "{empty}", "--gradescope", "x"], "name one folder"),
    ],
)
def test_bad_usage_is_one_sentence(grade, tmp_path, args, said):
    args = [tmp_path if arg == "{empty}" else arg for arg in args]
    error = grade(*args, expected=2)
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "edition"),
    [
        ({"part1__train_pl": "x = VAE()"}, "2023"),
        ({"part1__train_pl": "Trainer(gpus=1, progress_bar_refresh_rate=1)"}, "2021"),
        ({"part1__train_pl": "Trainer(gpus=1)", "part2__models": "", "part2__train": ""}, "2022"),
        ({"part1__train_pl": "", "part3__gpt": "config.n_layer"}, "2023"),
        ({"part1__train_pl": "", "part3__gpt": "if config.abs_emb:"}, "2024"),
        ({"part3__gpt": "", "part3__cfg": ""}, "2024"),
    ],
)
def test_the_edition(tmp_path, files, edition):
    assert find(write(tmp_path, **files)).edition == edition


def test_parts_are_recognised_by_their_files(tmp_path):
    write(tmp_path, s__one__train_pl="", s__two__models="", s__two__train="", s__deep__three__gpt="")
    write(tmp_path, s__lightning_logs__four__gpt="", s__venv__five__gpt="")
    parts = {part: folder.relative_to(tmp_path) for part, folder in find(tmp_path).parts.items()}
    assert parts == {"part1": Path("s/one"), "part2": Path("s/two"), "part3": Path("s/deep/three")}


def test_points_are_the_assignments():
    criteria = load_criteria()
    for question, weights in POINTS.items():
        assert sum(weights.values()) == pytest.approx(QUESTIONS[question]), question
        names = {name for name, one in criteria.items() if one.question == question}
        assert set(weights) - {"by hand"} <= names, f"question {question} weighs criteria that it has not"


GAPS = {
    "raise NotImplementedError": "sample is not implemented (part1/hostile.py, line 2)",
    "raise": "sample is not implemented (part1/hostile.py, line 2)",
    "pass": "sample is not implemented (part1/hostile.py, line 2)",
    '"Draws."\n    x, y = None, None\n    return x, y': "sample is not implemented (part1/hostile.py, line 4)",
    "assert run\n    z = None\n    return {'z': z}": "sample is not implemented (part1/hostile.py, line 4)",
    "pass\n    return x_samples": "sample is not implemented (part1/hostile.py, line 3)",
    "for x in (): y = x\n    return y": "sample is not implemented: it gives y no value (part1/hostile.py, line 3)",
    "...": "sample is not implemented (part1/hostile.py, line 2)",
    "y = ...\n    return y.view(3)": "sample is not implemented (part1/hostile.py, line 3 works with `...`)",
    "return 2 * logging_dict": "sample is not implemented: it gives logging_dict no value (part1/hostile.py, line 2)",
    "x = [None]\n    return x[0].y": "part1/hostile.py, line 3 (`return x[0].y`) works with None: is what it uses",
}


def test_a_gap_is_called_so(grade, tmp_path, toy_criteria):
    for number, body in enumerate(GAPS):
        text = f"def sample():\n    {body}\ndef run(): sample()"
        write(tmp_path / str(number), part1__hostile=text, part1__train_pl="")
    report = tmp_path / "results.json"
    folders = [tmp_path / str(number) for number in range(len(GAPS))]
    grade(*folders, "--criteria", toy_criteria, "--only", "hostile", "--json", report)
    solutions = json.loads(report.read_text())["solutions"]
    for solution, said in zip(solutions, GAPS.values(), strict=True):
        assert said in criteria_of(solution)["hostile"]["hint"]


def test_what_a_platform_hands_over(grade, tmp_path, toy_criteria):
    """Zip files, folders of equal names, all files in one folder, notebooks, a folder that cannot be read, nothing."""
    right = {"utils": "def answer(): return 42", "train_pl": ""}
    write(tmp_path / "ann lee é" / "submission" / "part1", **right)
    write(tmp_path / "bob" / "submission" / "deep" / "er", **right)
    shutil.make_archive(tmp_path / "cleo", "zip", write(tmp_path / "z" / "__MACOSX", **right).parent, "__MACOSX")
    shutil.make_archive(tmp_path / "dan", "zip", write(tmp_path / "y", p__part1__utils=right["utils"]))
    flat = {"cnn_encoder_decoder": "", "models": "class AdversarialAE: ...", "train": "", "gpt": ""}
    write(tmp_path / "eve", **{**right, **flat})
    (tmp_path / "fay").mkdir()
    (tmp_path / "fay" / "part1.ipynb").write_text("{}")
    (tmp_path / "gus.zip").write_text("no archive")
    names = ["ann lee é/submission", "bob/submission", "cleo.zip", "dan.zip", "eve", "fay", "gus.zip"]
    flags = ("--criteria", toy_criteria, "--only", "honest", "--json", tmp_path / "r.json")
    grade(*(tmp_path / name for name in names), *flags)
    found = json.loads((tmp_path / "r.json").read_text())["solutions"]
    assert [one["name"] for one in found] == [name.removesuffix(".zip") for name in names]
    assert [one["reached"] for one in found] == [9, 9, 0, 9, 9, 0, 0]
    assert list(found[4]["parts"]) == ["part1", "part2", "part3"]
    assert "notebooks" in found[5]["notes"][0] and "no files" in found[6]["notes"][0]


def test_a_class_keeps_its_results(grade, tmp_path, toy_criteria):
    """Results are written before they are printed, and one file that cannot be written costs no other."""
    write(tmp_path / "one" / "part1", utils="def answer(): return 42")
    flags = ("--criteria", toy_criteria, "--only", "honest")
    output = grade(tmp_path / "one", *flags, "--json", tmp_path / "a", "--html", "/dev/full", expected=2)
    assert "cannot write /dev/full (No space left on device)" in output and "9 of 9 points" in output
    grade(tmp_path / "one", *flags, "--json", tmp_path / "b", stdout="unread")
    for file in (tmp_path / "a", tmp_path / "b"):
        assert json.loads(file.read_text())["solutions"][0]["reached"] == 9


NETWORKS = {"CNNEncoder", "CNNDecoder", "ConvEncoder", "ConvDecoder", "Discriminator"}
HANDED_OUT = {"NewGELU", "Block", "GPT"}


def emptied(folder: Path, target: Path, body: str) -> Path:
    """A copy of a solution whose functions that students write have this body."""
    shutil.copytree(folder, target)
    for file in target.glob("part*/*.py"):
        tree = ast.parse(file.read_text())
        for owner in ast.walk(tree):
            name = getattr(owner, "name", "")
            for node in getattr(owner, "body", []) if isinstance(owner, (ast.Module, ast.ClassDef)) else []:
                if not isinstance(node, ast.FunctionDef) or (node.name == "forward" and name in HANDED_OUT):
                    continue
                if node.name in FUNCTIONS - {"configure_optimizers"}:
                    node.body = ast.parse(body).body
                elif node.name == "__init__" and name in NETWORKS:
                    node.body = ast.parse(f"super().__init__()\n{body}").body
                elif node.name == "main":
                    node.body = [ast.parse("raise NotImplementedError").body[0]]
        file.write_text(ast.unparse(tree))
    return target


@pytest.mark.slow
@pytest.mark.parametrize("body", ["raise NotImplementedError", "pass", "...", "return None", "raise ValueError('no')"])
@pytest.mark.parametrize("name", ["template_2023", "template_2024", "edition_2021"])
def test_no_points_for_nothing(grade, tmp_path, name, body):
    emptied(TESTS / "mutants/solutions" / name, tmp_path / "bare", body)
    grade(tmp_path / "bare", "--json", tmp_path / "results.json")
    (solution,) = json.loads((tmp_path / "results.json").read_text())["solutions"]
    assert not [one["name"] for one in criteria_of(solution).values() if one["points"] and one["status"] == "passed"]
    assert solution["reached"] == 0


@pytest.mark.slow
def test_no_points_for_files_that_cannot_be_read(grade, tmp_path):
    target = emptied(TESTS / "mutants/solutions/template_2023", tmp_path / "bare", "pass")
    for file in target.glob("part*/*.py"):
        file.write_text(f"import torch\n{file.read_text()}\nclass (:\n")
    grade(target, "--json", tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["solutions"][0]["reached"] == 0


def test_the_list_of_criteria(grade, toy_criteria):
    lines = grade("--list", "--criteria", toy_criteria).splitlines()
    assert [line.split()[:3] for line in lines if "honest" in line] == [["1.7", "9", "honest"]]
    assert ["1.7", "3", "by", "hand"] in [line.split() for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("folder", [TESTS.parent, *SOLUTIONS], ids=lambda folder: folder.name)
def test_full_marks(grade, tmp_path, folder):
    """This repository, and the right solutions in the template's shape, in other styles and of other editions."""
    grade(folder, "--json", tmp_path / "results.json")
    (solution,) = json.loads((tmp_path / "results.json").read_text())["solutions"]
    assert not [one for one in criteria_of(solution).values() if one["status"] == "failed"]
