"""The repository around the parts: installation lists, make targets, and what the READMEs say."""

import ast
import functools
import json
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
BROUGHT_ALONG = {"pillow": "matplotlib"}


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
        folders = [file.parent, repository / "tests"]
        if file.parent.name in ("benchmarks", "report"):  # they put the part that they measure on the import path
            folders += repository.glob("part?")
        own = {path.stem for folder in folders for path in folder.glob("*.py")}
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                package = PACKAGES.get(name, name).lower()
                assert BROUGHT_ALONG.get(package, package) in required, f"{file} imports {name}"


def test_ruff_knows_the_repository_s_own_modules(repository):
    """They are sorted below the packages, also where they are imported into another folder."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    folders = ("part*", "report", "tests", "tests/benchmarks")
    files = [file for folder in folders for file in repository.glob(f"{folder}/*.py")]
    own = {file.stem for file in files if not file.stem.startswith("test_")}
    assert own == set(settings["tool"]["ruff"]["lint"]["isort"]["known-first-party"])


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


def test_help_answers_without_importing_torch(repository):
    """`train.py --help` is to answer at once."""
    code = (
        "import sys; sys.path.insert(0, 'part1'); sys.argv = ['train.py', '--help']\n"
        "import train\n"
        "try: train.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--importance_samples" in done.stdout


# ----------------------------------------------------------------------------------------------------------- README


def table(repository) -> list[dict[str, str]]:
    """Rows of the README's table of questions; a question's number stands before its title."""
    lines = (repository / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Question"))
    header, _, *rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[start:] if "|" in line
    ]
    return [
        {**dict(zip(header, row, strict=True)), "Question": row[0].split()[0]} for row in rows if row[0][:1].isdigit()
    ]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell) + re.findall(r"\]\(([^)]+)\)", cell)


def test_the_table_has_every_coding_question_with_its_points(repository):
    points = {row["Question"]: int(row["Points"]) for row in table(repository)}
    assert points == {"1.7": 12, "1.8": 3, "1.9": 4, "2.4": 3, "2.5": 6, "2.6": 4, "2.7": 2, "3.2": 4, "3.3": 3}


def test_files_functions_figures_and_tests_of_the_table_exist(repository):
    named = 0
    for row in table(repository):
        for cell in ("Code", "Figure", "Test"):
            for name in names_in(row[cell]):
                file, _, function = name.partition(":")
                assert (repository / file).is_file(), f"question {row['Question']}: {name}"
                if function:
                    assert function in definitions(repository / file), f"question {row['Question']}: {name}"
                named += 1
    assert named > 0


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
def test_commands_of_the_table_have_flags_that_exist(repository, request, part):
    modules = request.getfixturevalue(part)
    commands = [
        command
        for row in table(repository)
        for command in re.findall(rf"`python {part}/train\.py([^`]*)`", row["Command"])
    ]
    assert commands
    for command in commands:
        modules.inputs.build_parser().parse_args(command.split())


def test_versions_in_the_readme_are_the_pinned_ones(repository):
    """Another version of torch would be replaced, by one that brings the CUDA libraries."""
    found = re.findall(r"\b([\w-]+)==([0-9.]+)", (repository / "README.md").read_text())
    assert {package for package, _ in found} == {"torch", "torchvision"}
    assert dict(found).items() <= pins(repository).items()


@pytest.mark.parametrize("readme", ["README.md", "part1/README.md"])
def test_numbers_of_the_readme_are_those_of_the_results(repository, readme):
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


@pytest.mark.parametrize("readme", ["README.md", "part1/README.md", "part2/README.md", "part3/README.md"])
def test_paths_in_a_readme_exist(repository, readme):
    text = (repository / readme).read_text()
    folder = (repository / readme).parent
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (folder / target).exists(), f"{readme} links to {target}"
    for path in re.findall(r"`((?:part\d|tests|report)/[\w/.-]+\.(?:py|md|job|yml|txt))", text):
        assert (repository / path).exists(), f"{readme} names {path}"
