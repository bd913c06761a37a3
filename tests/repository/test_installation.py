"""Installation: what is required and pinned, and what make installs; rules about the parts' files."""

import ast
import os
import re
import subprocess
import sys

import pytest
import yaml

PARTS = ("part1", "part2", "part3")
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


def test_requirements_are_pinned(repository):
    pinned = pins(repository)
    for package, least in requirements(repository).items():
        assert package in pinned, f"{package} has no version in constraints.txt"
        assert version(pinned[package]) >= version(least), package


def test_conda(repository):
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
    files = [file for folder in ("part?", "report", "tests/**") for file in repository.glob(f"{folder}/*.py")]
    files = [file for file in files if "solutions" not in file.parts]  # of others, to be graded
    own = {file.stem for file in files} | {"course"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names} - own - sys.stdlib_module_names:
                package = PACKAGES.get(name, name).lower()
                assert BROUGHT_ALONG.get(package, package) in required, f"{file} imports {name}"


def test_run_py_is_the_same_in_all_parts(repository):
    """The parts import nothing of one another; this file alone is a copy."""
    names = [{file.name: file.read_bytes() for file in (repository / part).glob("*.py")} for part in PARTS]
    same = {name for files in names for others in names if files is not others
            for name in files.keys() & others.keys() if files[name] == others[name]}  # fmt: skip
    assert same == {"run.py"}
    assert len({files["run.py"] for files in names}) == 1


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
def test_torch_cpu(planned, target):
    tests = ["-r tests/requirements.txt"] if target == "test" else []
    assert installations(planned("", target, "TORCH=cpu")) == [CPU_WHEELS, "-r requirements.txt", *tests]
    assert installations(planned("", target)) == ["-r requirements.txt", *tests]
