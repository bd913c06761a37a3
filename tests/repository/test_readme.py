"""What the READMEs say: numbers are those of the results, links lead somewhere, commands exist."""

import ast
import functools
import json
import re
import shlex
import subprocess
from argparse import Namespace

import pytest

PARTS = ("part1", "part2", "part3")
READMES = ["README.md", *(f"{part}/README.md" for part in PARTS), "tests/benchmarks/README.md", "tests/FAULTS.md"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(repository) -> list[dict[str, str]]:
    """Rows of the README's table of questions."""
    lines = (repository / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Question"))
    header, _, *rows = [cells(line) for line in lines[start : lines.index("", start)]]
    return [dict(zip([re.match(r"\w+", name)[0] for name in header], row, strict=True)) for row in rows]


def definitions(file) -> set[str]:
    """Functions and classes of a module, methods as Class.method."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def test_every_coding_question_with_its_points(repository):
    found = [re.fullmatch(r"([\d.]+) .+ \((\d+)\)", row["Question"]) for row in table(repository)]
    points = {match[1]: int(match[2]) for match in found}
    assert points == {"1.7": 12, "1.8": 3, "1.9": 4, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2, "3.2": 4, "3.3": 3}


def test_functions_of_the_table_exist(repository):
    for row in table(repository):
        functions = re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", row["Code"])
        assert functions, f"question {row['Question']} names no code"
        for function, file in functions:
            assert function in definitions(repository / file), f"question {row['Question']}: {function} in {file}"


@pytest.mark.parametrize("readme", READMES[:-1])
def test_numbers_are_those_of_the_results(repository, readme):
    """A number that is a link to an entry of a result, `[0.51](report/results/vae_z20/summary.json#test_bpd)`, or to
    one within others, `#part1.step.seconds`."""
    path = repository / readme
    links = re.findall(r"\[([0-9.,]+)\]\(([./]*report/results/[^)#]+)#([\w.]+)\)", path.read_text())
    assert links
    for text, file, key in links:
        result = json.loads((path.parent / file).read_text())
        value = functools.reduce(lambda entry, name: entry[name], key.split("."), result)
        decimals = len(text.partition(".")[2])
        assert float(text.replace(",", "")) == round(value, decimals), f"{file} {key}: {value}"


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(repository, readme):
    text = (repository / readme).read_text()
    folder = (repository / readme).parent
    links = re.findall(r"\]\((?!https?:)([^)]+)", text) + re.findall(r'(?:href|src)="(?!https?:)([^"]+)"', text)
    for target, _, anchor in (link.partition("#") for link in links):
        file = folder / target if target else repository / readme
        assert file.exists(), f"{readme} links to {target}"
        if file.suffix == ".md" and anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], f"{readme}: {target}#{anchor}"
    for path in re.findall(r"`((?:part\d|tests|report)/[\w/.-]+\.(?:py|md|job|yml|txt))", text):
        assert (repository / path).exists(), f"{readme} names {path}"


@pytest.mark.parametrize("name", PARTS)
def test_commands_have_flags_that_exist(repository, request, name):
    args, text = request.getfixturevalue(name).args, (repository / name / "README.md").read_text()
    in_table = re.findall(rf"`python {name}/train\.py([^`]*)`", (repository / "README.md").read_text())
    blocks = re.findall(r"^python train\.py([^#\n]*)", text, re.MULTILINE)
    jobs = re.findall(r"^sbatch .*?train\.job([^#\n]*)", text, re.MULTILINE)
    drawing = re.findall(r"^python generate\.py([^#\n]*)", text, re.MULTILINE)
    assert in_table and blocks and jobs and drawing
    for flags in (*in_table, *blocks, *jobs):
        args.parse_args(shlex.split(flags))
    for flags in drawing:
        args.build_generate_parser().parse_given(shlex.split(flags))


@pytest.mark.parametrize("readme", READMES)
def test_make_targets_exist(repository, readme):
    listed = subprocess.run(["make", "--no-print-directory", "help"], cwd=repository, capture_output=True, text=True)
    targets = {line.split()[1] for line in listed.stdout.splitlines()}
    named = set(
        re.findall(r"(?:^|`)(?:DATA_DIR=\w+ )?make ([a-z0-9-]+)", (repository / readme).read_text(), re.MULTILINE)
    )
    assert "train-part1" in targets and named <= targets


@pytest.mark.parametrize("name", PARTS)
def test_notebook_lines(repository, request, name):
    """They import a function of the part, call it with flags of the part, and show a picture of the run."""
    text = (repository / name / "README.md").read_text()
    tree = ast.parse(re.search(r"## Notebook\n.*?```python\n(.*?)```", text, re.DOTALL)[1])
    module, function = next(
        (node.module, node.names[0].name) for node in tree.body
        if isinstance(node, ast.ImportFrom) and (repository / name / f"{node.module}.py").exists()
    )  # fmt: skip
    assert function in definitions(repository / name / f"{module}.py")
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Namespace")
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    parsed = request.getfixturevalue(name).args.build_parser().given_flags(Namespace(**given))
    parsed["log_dir"] = given["log_dir"]  # made absolute
    assert parsed == given
    assert given["log_dir"] in next(ast.unparse(node) for node in tree.body if ast.unparse(node).startswith("Image("))


def test_tests_that_the_page_of_faults_names_exist(repository):
    """Files as `test_x.py` or `faults/test_x.py`, functions as `test_y`."""
    text, files = (repository / "tests" / "FAULTS.md").read_text(), list((repository / "tests").glob("**/test_*.py"))
    code = "".join(file.read_text() for file in files)
    paths = {file.relative_to(repository / "tests").as_posix() for file in files}
    for name in set(re.findall(r"`((?:\w+/)*test_\w+(?:\.py)?)`", text)):
        if name.endswith(".py"):
            assert any(path == name or path.endswith(f"/{name}") for path in paths), name
        else:
            assert f"def {name}(" in code, name
