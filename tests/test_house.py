"""The repository around the parts: installation lists, make targets, and what the READMEs say."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)$")
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([0-9.]+)$")
# Modules whose package has another name.
PACKAGES = {
    "pytorch_lightning": "pytorch-lightning",
    "lightning_fabric": "pytorch-lightning",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
}
# Packages that a required one always brings along.
BROUGHT_ALONG = {"pillow": "matplotlib", "torchmetrics": "pytorch-lightning"}


def lines_of(path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def requirements(repository) -> dict[str, str]:
    """Lowest version of each package that the requirement files name."""
    files = [repository / folder / "requirements.txt" for folder in (".", "tests", "tests/benchmarks")]
    matches = [(line, REQUIREMENT.match(line)) for file in files for line in lines_of(file)]
    assert all(match for _, match in matches), [line for line, match in matches if not match]
    return {match[1].lower(): match[2] for _, match in matches}


def pins(repository) -> dict[str, str]:
    matches = [(line, PIN.match(line)) for line in lines_of(repository / "constraints.txt")]
    assert all(match for _, match in matches), [line for line, match in matches if not match]
    return {match[1].lower(): match[2] for _, match in matches}


def version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def test_every_requirement_is_pinned_within_its_range(repository):
    pinned = pins(repository)
    for package, least in requirements(repository).items():
        assert package in pinned, f"{package} has no version in constraints.txt"
        assert version(pinned[package]) >= version(least), package


def test_conda_takes_its_packages_from_the_same_files(repository):
    """Besides Python itself, environment.yml may name files of the repository alone, and has to name them all."""
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [re.split("[=<>]", name)[0] for name in conda] == ["python", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-r requirements.txt", "-r tests/requirements.txt"]}
    makefile, readme = (repository / "Makefile").read_text(), (repository / "README.md").read_text()
    for file in ("constraints.txt", "requirements.txt", "tests/requirements.txt"):
        assert (repository / file).is_file()
        assert file in makefile and file in readme


def test_what_the_code_imports_is_required(repository):
    """Third-party modules of the parts, of the report and of the tests, against the requirement files."""
    required = requirements(repository)
    for file in [*repository.glob("part*/*.py"), *repository.glob("report/*.py"), *repository.glob("tests/**/*.py")]:
        if "solutions" in file.parts:  # of others, to be graded
            continue
        folders = [file.parent, repository / "tests"]
        if file.parent.name in ("benchmarks", "report"):  # they put the part that they measure on the import path
            folders += repository.glob("part?")
        own = {path.stem for folder in folders for path in folder.glob("*.py")} | {"course", "mutant"}
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                package = PACKAGES.get(name, name).lower()
                assert BROUGHT_ALONG.get(package, package) in required, f"{file} imports {name}"


def test_ruff_knows_the_repository_s_own_modules(repository):
    """It sorts the modules of these folders below the packages."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    tracked = [file.parent for file in repository.glob("tests/**/*.py") if "solutions" not in file.parts]
    folders = {folder.relative_to(repository).as_posix() for folder in tracked if not (folder / "__init__.py").exists()}
    assert set(settings["tool"]["ruff"]["src"]) == folders | {"part1", "part2", "part3", "report"}


def test_what_several_parts_need_is_the_same_file(repository):
    """The parts import nothing of one another, so that each has a copy."""
    everywhere = ("cli.py", "download.py", "event_files.py", "gpu.py", "processes.py", "run_files.py", "streams.py")
    shared = dict.fromkeys(everywhere, ("part1", "part2", "part3"))
    shared |= {"mnist_files.py": ("part1", "part2"), "lightning_files.py": ("part1", "part3")}
    for name, parts in shared.items():
        first, *others = (repository / part / name for part in parts)
        assert all(first.read_bytes() == other.read_bytes() for other in others), name


def test_no_part_imports_torch_distributions(repository):
    """The assignment forbids it."""
    for file in repository.glob("part*/*.py"):
        assert "torch.distributions" not in file.read_text(), file


def test_make_help_lists_every_target(repository):
    command = ["make", "--no-print-directory", "help"]  # the suite itself may have been started by make
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)[1].split()
    lines = [line.split(maxsplit=2) for line in listed.splitlines()]
    assert [line[1] for line in lines] and {line[1] for line in lines} == set(phony)
    assert all(len(line) == 3 for line in lines), "each target is explained"


@pytest.mark.parametrize(("script", "flag"), [("train", "--importance_samples"), ("train_pl", "--importance_samples"),
                                              ("generate", "--num_samples")])  # fmt: skip
def test_help_answers_without_importing_torch(repository, script, flag):
    """`train.py --help` is to answer at once."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--help']\n"
        f"try: runpy.run_path('part1/{script}.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert flag in done.stdout


@pytest.mark.parametrize("command", ["-m part1.train", "-m part1.train_pl", "-P part1/train.py", "-m part1.generate"])
def test_ways_to_start_a_script(repository, command):
    """As a module from the repository's folder, and where Python leaves the script's folder off the import path."""
    words = [sys.executable, *command.split(), "--seed", "-1"]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--seed must be" in done.stderr and done.stderr.count("\n") == 1, done.stderr


# ------------------------------------------------------------------------------------------------------- installation


@pytest.fixture
def planned(repository, tmp_path):
    """Commands that make would run with an environment in which a build of PyTorch ("" for none) was installed."""

    def planned(installed: str, *arguments: str) -> list[str]:
        venv = tmp_path / f"venv{installed}"
        venv.mkdir(exist_ok=True)
        if installed:
            (venv / ".installed").write_text(f"{installed}\n")
        command = ["make", "--dry-run", "--no-print-directory", f"VENV={venv}", *arguments]
        outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "TORCH")}
        done = subprocess.run(command, cwd=repository, env=outside, capture_output=True, text=True, check=True)
        return done.stdout.replace(str(venv), "VENV").splitlines()

    return planned


def installations(commands: list[str]) -> list[str]:
    """What pip is asked for, after the flags that all calls share."""
    return [line.split("-c constraints.txt ")[1] for line in commands if "-m pip install" in line]


CPU_WHEELS = "--no-deps --index-url https://download.pytorch.org/whl/cpu torch torchvision"


@pytest.mark.parametrize("target", ["demo", "test", "train-part3"])
def test_torch_cpu_installs_the_cpu_wheels_before_the_rest(planned, target):
    tests = ["-r tests/requirements.txt"] if target == "test" else []
    assert installations(planned("", target, "TORCH=cpu")) == [CPU_WHEELS, "-r requirements.txt", *tests]
    assert installations(planned("", target)) == ["-r requirements.txt", *tests]


def test_an_installed_build_of_torch_stays_until_another_one_is_asked_for(planned):
    for arguments in ([], ["TORCH=cpu"]):
        assert not installations(planned("cpu", "demo", *arguments))
    switch = planned("cuda", "demo", "TORCH=cpu")
    assert installations(switch) == [CPU_WHEELS, "-r requirements.txt"]
    assert any(line.split() == ["python3", "-m", "venv", "--clear", "VENV"] for line in switch)
    assert "echo cpu > VENV/.installed" in switch
    assert installations(planned("cpu", "demo", "TORCH=cuda")) == ["-r requirements.txt"]


def test_an_unknown_build_of_torch_is_refused(repository):
    done = subprocess.run(["make", "-n", "demo", "TORCH=gpu"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give TORCH=cpu or TORCH=cuda" in done.stderr


# ----------------------------------------------------------------------------------------------------------- README

READMES = ["README.md", "part1/README.md", "part2/README.md", "part3/README.md", "tests/benchmarks/README.md"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def as_read(cell: str) -> str:
    """A cell as a reader sees it: without the targets of links, tags and backquotes."""
    return re.sub(r"<[^>]+>|`", " ", re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", cell))


def table(repository) -> list[dict[str, str]]:
    """Rows of the README's table of questions, whose first cells are a number, a title and the points."""
    lines = (repository / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Question"))
    header, _, *rows = [cells(line) for line in lines[start : lines.index("", start)]]
    return [dict(zip([as_read(name).split()[0] for name in header], row, strict=True)) for row in rows]


def test_the_table_has_every_coding_question_with_its_points(repository):
    found = [re.fullmatch(r"([\d.]+) .+ \((\d+)\)", row["Question"]) for row in table(repository)]
    points = {match[1]: int(match[2]) for match in found}
    assert points == {"1.7": 12, "1.8": 3, "1.9": 4, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2, "3.2": 4, "3.3": 3}


def test_the_table_fits_a_page(repository):
    """At most five columns, and at most twelve words in a cell."""
    for row in table(repository):
        assert len(row) <= 5
        assert all(len(as_read(cell).split()) <= 12 for cell in row.values()), row


def test_the_first_screen_has_four_pictures_with_links(repository):
    text = (repository / "README.md").read_text().split("```")[0]
    assert len(re.findall(r'<a href="[^"]+"><img src="report/[^"]+" height="\d+" alt="[^"]+"></a>', text)) == 4


def test_files_functions_pictures_and_tests_of_the_table_exist(repository):
    for row in table(repository):
        functions = re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", row["Code"])
        assert functions, f"question {row['Question']} names no code"
        for function, file in functions:
            assert function in definitions(repository / file), f"question {row['Question']}: {function} in {file}"
        shown = re.findall(r"\]\(([^)]+)\)", row["Picture,"])
        assert len(shown) == 2 and shown[1].startswith("tests/"), f"question {row['Question']}: a picture and a test"
        assert all((repository / file).is_file() for file in shown), shown
        assert "report/results/" in row["Result"], f"question {row['Question']} has no number"


def definitions(file) -> set[str]:
    """Functions and classes of a module, methods as Class.method."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("part", ["part1", "part2", "part3"])
def test_commands_of_the_readmes_have_flags_that_exist(repository, request, part):
    parser = request.getfixturevalue(part).inputs.build_parser()
    in_table = [
        match for row in table(repository) for match in re.findall(rf"`python {part}/train\.py([^`]*)`", row["Command"])
    ]
    text = (repository / part / "README.md").read_text()
    blocks = re.findall(r"^python train\.py([^#\n]*)", text, re.MULTILINE)
    jobs = re.findall(r"^sbatch .*?train\.job([^#\n]*)", text, re.MULTILINE)
    assert in_table and blocks and jobs
    for flags in [*in_table, *blocks, *jobs]:
        parser.parse_args(flags.split())


@pytest.mark.parametrize("part", ["part1", "part2", "part3"])
def test_the_notebook_lines_call_what_exists(repository, request, part):
    """Six lines: they import a function of the part, call it with flags of the part, and show a picture."""
    text = (repository / part / "README.md").read_text()
    code = re.search(r"## Notebook\n.*?```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(code.splitlines()) <= 6
    tree = ast.parse(code)
    module, function = next(
        (node.module, node.names[0].name) for node in tree.body
        if isinstance(node, ast.ImportFrom) and (repository / part / f"{node.module}.py").exists()
    )  # fmt: skip
    assert function in definitions(repository / part / f"{module}.py")
    call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Namespace")
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    parser = request.getfixturevalue(part).inputs.build_parser()
    for name, value in given.items():
        assert getattr(parser.parse_args([f"--{name}", str(value)]), name) == value
    shown = next(node for node in tree.body if ast.unparse(node).startswith("Image("))
    assert given["log_dir"] in ast.unparse(shown)


def test_pip_commands_of_the_readme_keep_to_the_tested_versions(repository):
    """Another version of torch would be replaced, by one that brings the CUDA libraries."""
    commands = re.findall(r"^\.venv/bin/pip install .*$", (repository / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert all(" -c constraints.txt " in command for command in commands)
    assert " torch torchvision " in commands[0]
    assert {"torch", "torchvision"} <= pins(repository).keys()


@pytest.mark.parametrize("readme", [*READMES, "tests/FAULTS.md"])
def test_numbers_of_a_readme_are_those_of_the_results(repository, readme):
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


@pytest.mark.parametrize("readme", [*READMES, "tests/FAULTS.md"])
def test_paths_in_a_readme_exist(repository, readme):
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


@pytest.mark.parametrize("part", ["part1", "part2", "part3"])
def test_the_files_that_a_part_lists_are_its_files(repository, part):
    text = (repository / part / "README.md").read_text().split("## Files")[1].split("\n## ")[0]
    listed = {
        name for row in text.splitlines() if row.startswith("|") for name in re.findall(r"`(\w+\.py)`", cells(row)[0])
    }
    assert listed == {file.name for file in (repository / part).glob("*.py")}


def test_the_tests_that_the_page_of_faults_names_exist(repository):
    """Rows name a file and parts of the names of tests in it: `test_faults_x.py`: `one`, `another`*."""
    tests = "".join(file.read_text() for file in (repository / "tests").glob("test_*.py"))
    rows = [cells(line) for line in (repository / "tests" / "FAULTS.md").read_text().splitlines() if "test_" in line]
    names = [name for *_, cell in rows if cell.startswith("`test_") for name in re.findall(r"`(\w+)\*?`", cell)]
    assert len(names) > 50
    assert [name for name in names if not re.search(rf"def test_\w*{name}", tests)] == []
