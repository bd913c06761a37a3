"""Values of flags that no command can use: exit code 2, one sentence on stderr, nothing new on the disk, for every flag
of every command, with values that hypothesis makes up."""

import argparse
import contextlib
import io
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from part_loader import load_script

# part, module, function that builds the parser (in inputs.py or generate_inputs.py), words that must be there
COMMANDS = {
    "part1 train": ("part1", "train", "inputs.build_parser", []),
    "part1 generate": ("part1", "generate", "inputs.build_generate_parser", []),
    "part2 train": ("part2", "train", "inputs.build_parser", []),
    "part2 generate": ("part2", "generate", "inputs.build_generate_parser", []),
    "part3 train": ("part3", "train", "inputs.build_parser", []),
    "part3 generate": ("part3", "generate", "generate_inputs.build_generate_parser", []),
    "part3 export": ("part3", "export", "generate_inputs.build_export_parser", ["--output_dir", "out"]),
    "report codes": ("part2", "codes", None, ["--checkpoint", "nowhere"]),
    "report likelihood": ("part1", "likelihood", None, ["--checkpoint", "nowhere"]),
    "report language": ("part3", "language", None, ["--checkpoint", "nowhere"]),
    "report initialisation": ("part2", "initialisation", None, ["--data_dir", "nowhere"]),
    "report first_steps": ("part1", "first_steps", None, ["--data_dir", "nowhere"]),
    "report reproduce": ("part1", "reproduce", None, ["nothing"]),
}
PATHS = {"data_dir", "log_dir", "output_dir", "resume", "checkpoint", "txt_file", "use_pretrained"}
WORDS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=30)


def is_number(kind, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def bad_values(action: argparse.Action) -> st.SearchStrategy[str] | None:
    """Texts that no machine can take for this flag; None for a flag that takes any text."""
    if action.nargs == 0:
        return WORDS  # a switch takes none
    if action.choices is not None:
        return WORDS.filter(lambda text: text not in action.choices)
    if action.type is int:
        numbers = st.integers(max_value=-1) | st.integers(min_value=10**10) | st.just(10**30)
        return numbers.map(str) | WORDS.filter(lambda text: not is_number(int, text))
    if action.type is float:
        numbers = st.floats(max_value=-1e-300).map(repr) | st.sampled_from(["nan", "inf", "-inf", "1e999"])
        return numbers | WORDS.filter(lambda text: not is_number(float, text))
    if action.dest == "devices":
        numbers = st.integers(max_value=0) | st.integers(min_value=10_000)
        return numbers.map(str) | WORDS.filter(lambda text: not is_number(int, text) and text != "auto")
    if action.dest in PATHS:
        return st.sampled_from(["", "~nobody_here/x"])
    return None


@pytest.fixture(params=COMMANDS)
def command(request, repository, tmp_path, monkeypatch):
    """Main function of a command, which must not come to its work, its parser, and the words that it needs."""
    part, name, parser, words = COMMANDS[request.param]
    part = request.getfixturevalue(part)
    module = getattr(part, name) if parser else load_script(repository / "report" / f"{name}.py")
    monkeypatch.chdir(tmp_path)
    with part.imported():
        if parser is None:
            parser = module.build_parser()
        else:
            inputs, function = parser.split(".")
            parser = getattr(getattr(part, inputs), function)()
        yield getattr(module, "cli", module.main), parser, words


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_values_that_no_command_takes(command, tmp_path, data):
    main, parser, words = command
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    action = data.draw(st.sampled_from([action for action in actions if bad_values(action) is not None]))
    value = data.draw(bad_values(action))
    flag = action.option_strings[0]
    if action.nargs == 2:
        argv = [flag, value, "1"]
    elif action.nargs == "+":
        argv = [flag, value]
    else:
        argv = [f"{flag}={value}"]
    before = sorted(os.listdir(tmp_path))
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*words, *argv])
        except SystemExit as stop:
            code = stop.code
    sentence = stderr.getvalue()
    assert code == 2, (argv, sentence)
    assert sentence.count("\n") == 1 and sentence.startswith(parser.prog + ": error: "), (argv, sentence)
    assert flag in sentence, (argv, sentence)
    assert sorted(os.listdir(tmp_path)) == before
