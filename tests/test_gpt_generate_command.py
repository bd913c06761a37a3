"""Texts from a GPT: `generate.py` as a command."""

import io
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from gpt_models import byte_pairs, small_gpt

pytestmark = pytest.mark.usefixtures("no_network")

RULE = "\n" + "-" * 80 + "\n"
LETTERS = "\nabcde"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------------ command

TEXT = "the cat sat on the mat.\n" * 17


@pytest.fixture(scope="module")
def trained(_parts, tmp_path_factory) -> Path:
    """Directory of a short training; its name is version_0."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    with _parts["part3"].imported() as part3:
        part3.train.train(
            Namespace(
                txt_file=str(folder / "text.txt"), model_type="gpt-nano", block_size=7, train_batch_size=5, max_steps=3,
                generate_every_n_steps=100, generate_batch_size=1, log_dir=str(folder / "logs"),
            )
        )  # fmt: skip
    return folder / "logs" / "lightning_logs" / "version_0"


@pytest.fixture
def command(part3, capsys, monkeypatch):
    """Runs `generate.py` and returns what it prints, text by text."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def run(*argv: str) -> list[str]:
        capsys.readouterr()
        assert part3.generate.main(list(argv)) == 0
        output = capsys.readouterr()
        assert output.err == ""
        *texts, rest = output.out.split(RULE)
        assert rest == ""
        return texts

    return run


@pytest.fixture
def fails(part3, capsys):
    """Runs `generate.py` and returns its one line of error."""

    def run(*argv: str) -> str:
        try:
            code = part3.generate.main(list(argv))
        except SystemExit as stop:
            code = stop.code
        output = capsys.readouterr()
        assert code == 2
        assert output.out == ""
        assert output.err.startswith("generate.py: error: ") and output.err.count("\n") == 1, output.err
        return output.err

    return run


def test_a_run_goes_by_several_names(part3, trained, command, tmp_path):
    """The same model, also as transformers' folder."""
    part3.export.main(["--checkpoint", str(trained), "--output_dir", str(tmp_path / "exported")])
    places = [
        [str(trained)],
        [str(trained / "checkpoints" / "best.ckpt")],
        ["version_0", "--log_dir", str(trained.parents[1])],
        ["newest", "--log_dir", str(trained.parents[1])],
        [str(tmp_path / "exported")],
    ]
    first, *others = [command("--checkpoint", *place, "--prompt", "the", "--n_steps", "13") for place in places]
    assert len(first) == 10, "by default"
    assert all(len(text) == 16 and text.startswith("the") for text in first)
    assert all(texts == first for texts in others)


def test_a_folder_named_like_a_published_model(part3, trained, command, tmp_path, monkeypatch):
    part3.export.main(["--checkpoint", str(trained), "--output_dir", str(tmp_path / "gpt2")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    (text,) = command("--checkpoint", "gpt2", "--prompt", "the", "--greedy")
    assert text.startswith("the")


def test_prompts_of_unequal_length(trained, command):
    prompts = ["t", "the cat sat", "", "on the mat.\nthe cat sat on the mat.\n"]
    argv = [word for prompt in prompts for word in ("--prompt", prompt)]
    texts = command("--checkpoint", str(trained), *argv, "--num_samples", "3", "--n_steps", "11")
    assert len(texts) == 12
    for i, text in enumerate(texts):
        prompt = prompts[i // 3]
        assert text.startswith(prompt) and len(text) == len(prompt) + 11


@pytest.mark.parametrize("flags", [["--greedy"], ["--temperature", "0"], ["--greedy", "--temperature", "3"]])
def test_greedy_gives_one_text_which_is_the_models_own(part3, trained, command, flags):
    texts = command("--checkpoint", str(trained), "--prompt", "a", "--prompt", "the", "--n_steps", "9", *flags)
    model, vocabulary, _ = part3.run_folder.load_gpt(trained / "checkpoints" / "best.ckpt")
    assert texts == [
        vocabulary.decode(model.generate(torch.tensor([vocabulary.encode(prompt)]), 9)[0].tolist())
        for prompt in ("a", "the")
    ]


def test_one_most_probable_token_is_greedy(trained, command):
    argv = ["--checkpoint", str(trained), "--prompt", "the", "--n_steps", "9"]
    assert command(*argv, "--top_k", "1", "--num_samples", "2") == command(*argv, "--greedy") * 2
    assert command(*argv, "--top_p", "1e-9", "--num_samples", "2") == command(*argv, "--greedy") * 2


def test_the_seed_decides_the_texts(trained, command):
    argv = ["--checkpoint", str(trained), "--prompt", "the", "--num_samples", "3"]
    torch.manual_seed(1)
    first = command(*argv, "--seed", "7")
    torch.manual_seed(2)
    assert command(*argv, "--seed", "7") == first != command(*argv, "--seed", "8")
    assert command(*argv) == command(*argv, "--seed", "0")


def test_texts_end_before_stop_strings(trained, command):
    argv = ["--checkpoint", str(trained), "--prompt", "the", "--num_samples", "7", "--n_steps", "31"]
    texts = command(*argv, "--stop", "a", "--stop", " t")
    assert all("a" not in text[3:] and " t" not in text[3:] for text in texts)
    whole = command(*argv)
    assert all(text.startswith(shorter) for text, shorter in zip(whole, texts, strict=True))
    assert any(len(shorter) < 34 for shorter in texts)


def test_characters_that_the_output_lacks_are_escaped(part3, monkeypatch):
    """As in a file on Windows, whose encoding has few."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    monkeypatch.setattr(part3.generate, "run", lambda args: print("a naïve text", flush=True))
    assert part3.generate.main([]) == 0
    assert output.getvalue().split(b"\n")[0].rstrip() == rb"a na\xefve text"


def test_number_formats(part3, trained, command):
    """Greedy texts in the format asked for; the weights are those of the run, rounded."""
    args = part3.generate_inputs.parse_generate_args(["--checkpoint", str(trained), "--dtype", "bfloat16"])
    model, _ = part3.generate.load_model(args)
    reference, vocabulary, _ = part3.run_folder.load_gpt(trained / "checkpoints" / "best.ckpt")
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
    (text,) = command("--checkpoint", str(trained), "--prompt", "the", "--n_steps", "9", "--dtype", "bfloat16",
                      "--greedy")  # fmt: skip
    tokens = reference.bfloat16().generate(torch.tensor([vocabulary.encode("the")]), 9)
    assert text == vocabulary.decode(tokens[0].tolist())


def test_tokens_are_shown_as_they_come_on_a_terminal(trained, command, monkeypatch):
    argv = ["--checkpoint", str(trained), "--prompt", "the", "--num_samples", "3", "--n_steps", "9"]
    expected = command(*argv)
    pieces = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    write = sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", lambda text: (pieces.append(text), write(text))[1])
    assert command(*argv) == expected
    assert "the" not in pieces and len([piece for piece in pieces if len(piece) == 1]) >= 8


# ------------------------------------------------------------------------------------------------------------- errors


def test_an_unknown_character_is_named_before_anything_is_generated(trained, fails):
    error = fails("--checkpoint", str(trained), "--prompt", "the", "--prompt", "the c\u00e4t", "--n_steps", "5")
    assert "'ä'" in error


@pytest.mark.parametrize("run", ["newest", "version_7", "/nowhere/at/all"])
def test_no_such_run(fails, tmp_path, run):
    assert "name a run directory" in fails("--log_dir", str(tmp_path), "--checkpoint", run)


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, torch.zeros(3), [1, 2], {"state_dict": {}}])
def test_a_checkpoint_of_something_else(fails, tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    assert "not a checkpoint of this GPT" in fails("--checkpoint", str(tmp_path / "x.ckpt"))


def test_a_checkpoint_of_another_model(fails, trained, tmp_path):
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    for name, changed in (
        ("weights", {**checkpoint, "state_dict": {"layer.weight": torch.zeros(3, 5)}}),
        ("config", {**checkpoint, "gpt_config": {"n_layer": 3}}),
        ("shapes", {**checkpoint, "gpt_config": {**checkpoint["gpt_config"], "n_embd": 51}}),
    ):
        torch.save(changed, tmp_path / f"{name}.ckpt")
        assert "another model" in fails("--checkpoint", str(tmp_path / f"{name}.ckpt")), name


@pytest.mark.parametrize("content", [b"", b"half", b"PK\x03\x04 a broken archive"])
def test_a_damaged_checkpoint(fails, tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    assert "damaged or no checkpoint" in fails("--checkpoint", str(tmp_path / "x.ckpt"))


def test_a_checkpoint_that_would_run_code(fails, tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harm",)

    torch.save({"state_dict": Harmful()}, tmp_path / "x.ckpt")
    assert "damaged or no checkpoint" in fails("--checkpoint", str(tmp_path / "x.ckpt"))
    assert not (tmp_path / "harm").exists()


def test_a_folder_without_a_tokenizer_or_with_another_ones(part3, fails, tmp_path):
    small_gpt(part3, vocab_size=6).save_pretrained(tmp_path)
    assert f"{tmp_path} has no tokenizer" in fails("--checkpoint", str(tmp_path))
    (tmp_path / "tokenizer.json").write_text(byte_pairs(), encoding="utf-8")
    error = fails("--checkpoint", str(tmp_path))
    assert "283 tokens" in error and " 6:" in error


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--num_samples", "0"), ("--n_steps", "0"), ("--n_steps", "-3"), ("--top_k", "-1"), ("--seed", "-1"),
        ("--seed", str(2**32)), ("--temperature", "-1"), ("--temperature", "nan"), ("--temperature", "inf"),
        ("--top_p", "0"), ("--top_p", "1.01"), ("--top_p", "nan"), ("--stop", ""),
    ],
)  # fmt: skip
def test_values_that_make_no_sense(fails, trained, flag, value):
    assert flag in fails("--checkpoint", str(trained), f"{flag}={value}")


@pytest.mark.parametrize(
    "argv", [["--n_steps", "many"], ["--model_type", "gpt-nano"], ["--dtype", "int8"], ["--colour"], ["--top_k", "2.5"]]
)
def test_values_that_cannot_be_parsed(fails, argv):
    assert argv[0] in fails(*argv)


def test_either_a_published_model_or_a_checkpoint(fails, trained):
    assert "not allowed with" in fails("--model_type", "gpt2-medium", "--checkpoint", str(trained))


def test_an_interrupted_checkpoint_folder(fails, trained, tmp_path):
    """A run that was stopped before its first checkpoint."""
    shutil.copytree(trained, tmp_path / "version_0", ignore=shutil.ignore_patterns("checkpoints"))
    assert "name a run directory" in fails("--checkpoint", str(tmp_path / "version_0"))
