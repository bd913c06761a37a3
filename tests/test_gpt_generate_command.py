"""Texts from a GPT: the function `generate`, and `generate.py` as a command."""

import io
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from gpt_models import byte_pairs, chain_model, small_gpt

LETTERS = "\nabcde"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def letters(part3):
    """A model of six characters, and its vocabulary."""
    return small_gpt(part3, vocab_size=6), part3.vocabulary.Characters(LETTERS)


@pytest.fixture
def bytes_vocabulary(part3):
    return part3.vocabulary.BytePairs(Tokenizer.from_str(byte_pairs()))


# ------------------------------------------------------------------------------------------------------- the function


def test_texts_begin_with_the_prompt_and_have_the_length_asked_for(part3, letters):
    model, vocabulary = letters
    for prompt, count, steps in (("ab", 3, 7), ("e\nd", 1, 19), ("abcde" * 5, 2, 5), ("c", 5, 0)):
        texts = part3.generate.generate(model, "gpt-nano", prompt, count, steps, vocabulary=vocabulary, verbose=False)
        assert len(texts) == count
        assert all(text.startswith(prompt) and len(text) == len(prompt) + steps for text in texts)


def test_sampled_texts_differ_and_the_generator_decides_them(part3, letters):
    model, vocabulary = letters

    def draw(seed):
        return part3.generate.generate(model, "gpt-nano", "ab", 5, 23, vocabulary=vocabulary, verbose=False,
                                       generator=seeded(seed), temperature=2.0)  # fmt: skip

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) == 5


def test_greedy_texts_are_the_tokens_of_the_model(part3, letters):
    model, vocabulary = letters
    texts = part3.generate.generate(model, "gpt-nano", "bad", 3, 17, False, vocabulary=vocabulary, verbose=False)
    tokens = model.generate(torch.tensor([[2, 1, 4]]), 17)[0].tolist()
    assert texts == ["".join(LETTERS[token] for token in tokens)] * 3


def test_an_empty_prompt_begins_a_text(part3, letters, bytes_vocabulary):
    """After a line break for characters, and after END_OF_TEXT, which is one token, for GPT-2; neither is shown."""
    model, vocabulary = letters
    arguments = (5, 11, True, None, 2.0, "cpu", False)
    texts = part3.generate.generate(model, "gpt-nano", "", *arguments, vocabulary=vocabulary, generator=seeded(3))
    after = part3.generate.generate(model, "gpt-nano", "\n", *arguments, vocabulary=vocabulary, generator=seeded(3))
    assert [f"\n{text}" for text in texts] == after

    tokens = bytes_vocabulary.encode("<|endoftext|>the")
    assert tokens[0] == 0 and len(tokens) > 1
    chain = chain_model(part3, tokens, vocab_size=283)
    texts = part3.generate.generate(
        chain, "gpt2", "", 2, len(tokens) - 1, False, vocabulary=bytes_vocabulary, verbose=False
    )
    assert texts == ["the", "the"]


def test_texts_are_printed_unless_it_is_quiet(part3, letters, capsys):
    model, vocabulary = letters
    texts = part3.generate.generate(model, "gpt-nano", "ab", 3, 7, vocabulary=vocabulary)
    assert capsys.readouterr().out == "".join(f"{text}\n{'-' * 80}\n" for text in texts)
    part3.generate.generate(model, "gpt-nano", "ab", 3, 7, vocabulary=vocabulary, verbose=False)
    assert capsys.readouterr().out == ""


def test_the_vocabulary_of_a_folder_is_found(part3, tmp_path, letters):
    model, vocabulary = letters
    part3.pretrained.save(model, tmp_path, vocabulary)
    texts = part3.generate.generate(model, tmp_path, "bad", 1, 17, False, verbose=False)
    assert texts == part3.generate.generate(model, "", "bad", 1, 17, False, vocabulary=vocabulary, verbose=False)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(part3, letters, training):
    model, vocabulary = letters
    model.train(training)

    def fail(piece):
        assert not model.training
        raise RuntimeError("the terminal is gone")

    for stop in ((), ("a", "b", "c")):
        part3.generate.generate(model, "", "ab", 2, 7, vocabulary=vocabulary, verbose=False, stop=stop)
        assert model.training == training
    with pytest.raises(RuntimeError, match="terminal") as caught:
        part3.generate.generate(model, "", "ab", 2, 7, vocabulary=vocabulary, verbose=False, show=fail)
    assert model.training == training
    assert len(caught.traceback) > 1, "what the error keeps alive does not delay it"


@pytest.mark.parametrize(
    "arguments",
    [{"num_samples": 0}, {"n_steps": -1}, {"temperature": -0.5}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}],
)
def test_arguments_out_of_range(part3, letters, arguments):
    model, vocabulary = letters
    with pytest.raises(ValueError, match=r"must|num_samples"):
        part3.generate.generate(model, "", "ab", vocabulary=vocabulary, verbose=False, **arguments)


def test_an_unknown_character_is_named(part3, letters):
    model, vocabulary = letters
    with pytest.raises(part3.inputs.InputError, match="'é'"):
        part3.generate.generate(model, "", "abéd", vocabulary=vocabulary, verbose=False)


# ---------------------------------------------------------------------------------------------------------------- stop


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ([], "klmnopqrst"),
        (["p"], "klmno"),
        (["nop"], "klm"),
        (["k"], ""),
        (["rs", "mn"], "kl"),
        (["p", "nop"], "klm"),
        (["ijk"], "klmnopqrst"),  # in the prompt and beyond it, but not in what was added
        (["j"], "klmnopqrst"),  # in the prompt alone
        (["stu"], "klmnopqrst"),  # it would have come later
        (["t"], "klmnopqrs"),
    ],
)
def test_a_text_ends_before_a_stop_string(part3, stop, expected):
    """A model that says the alphabet."""
    alphabet = "".join(map(chr, range(ord("a"), ord("z") + 1)))
    vocabulary = part3.vocabulary.Characters(alphabet)
    model = chain_model(part3, list(range(26)), vocab_size=26)
    texts = part3.generate.generate(model, "", "hij", 2, 10, False, vocabulary=vocabulary, verbose=False, stop=stop)
    assert texts == ["hij" + expected] * 2


def test_generation_ends_with_the_last_text(part3):
    vocabulary = part3.vocabulary.Characters("abcdefghijklm")
    model = chain_model(part3, list(range(13)), vocab_size=13)
    steps = []
    model.transformer.ln_f.register_forward_hook(lambda *args: steps.append(1))
    part3.generate.generate(model, "", "a", 1, 11, False, vocabulary=vocabulary, verbose=False, stop=["ef"])
    assert len(steps) == 5, "b, c, d, e, f"


def test_a_stop_string_across_the_borders_of_tokens(part3, bytes_vocabulary):
    """It begins within one token and ends within another one."""
    tokens = bytes_vocabulary.encode("x the cat")
    pieces = [bytes_vocabulary.decode([token]) for token in tokens]
    assert pieces[:3] == ["x", " the", " cat"]
    model = chain_model(part3, tokens, vocab_size=283)
    for stop, expected in (("he c", "x t"), ("e ca", "x th"), ("at", "x the c"), ("x", "x the cat")):
        texts = part3.generate.generate(
            model, "", "x", 1, len(tokens) - 1, False, vocabulary=bytes_vocabulary, verbose=False, stop=[stop]
        )
        assert texts == [expected]


def test_each_of_many_texts_stops_by_itself(part3, letters):
    """The same draws with and without stop strings. One row's text does not depend on how long the others take."""
    model, vocabulary = letters
    stop = ["bcd", "c", "ea", "a\nb"]

    def draw(stop):
        return part3.generate.generate(model, "", "a", 101, 29, vocabulary=vocabulary, verbose=False, stop=stop,
                                       generator=seeded(5), temperature=9.0)  # fmt: skip

    def until_a_stop(text):
        for end in range(len(text) + 1):
            places = [text[:end].index(string) for string in stop if string in text[:end]]
            if places:
                return text[: min(places)]
        return text

    whole = [text[1:] for text in draw([])]
    expected = [until_a_stop(text) for text in whole]
    assert any(text[len(shorter) - 1 :].startswith("bcd") for text, shorter in zip(whole, expected, strict=True)), (
        "where c ends a text, one that goes on would have bcd"
    )
    assert [text[1:] for text in draw(stop)] == expected


# ---------------------------------------------------------------------------------------------------------------- show

RULE = "\n" + "-" * 80 + "\n"


def shown(part3, *args, **kwargs) -> tuple[list[str], list[str]]:
    """Pieces that were shown, without the rule after them, and the texts."""
    pieces = []
    texts = part3.generate.generate(*args, verbose=False, show=pieces.append, **kwargs)
    assert pieces.pop() == RULE
    return [piece for piece in pieces if piece], texts


def test_the_first_text_is_shown_as_it_comes(part3, letters):
    model, vocabulary = letters
    pieces, texts = shown(part3, model, "", "ab", 3, 7, vocabulary=vocabulary)
    assert "".join(pieces) == texts[0]
    assert pieces[0] == f"ab{texts[0][2]}" and [len(piece) for piece in pieces[1:]] == [1] * 6


def test_no_half_character_is_shown(part3, bytes_vocabulary):
    """Of characters of one to four bytes, each token being one byte."""
    text = "xé€b😀中y"
    tokens = bytes_vocabulary.encode(text)
    assert len(tokens) == 1 + 2 + 3 + 1 + 4 + 3 + 1
    pieces, texts = shown(part3, chain_model(part3, tokens, 283, block_size=17), "", "x", 1, len(tokens) - 1, False,
                          vocabulary=bytes_vocabulary)  # fmt: skip
    assert texts == [text]
    assert pieces == ["x", "é", "€", "b", "😀", "中", "y"]


def test_what_is_shown_is_the_text_also_where_bytes_make_no_character(part3, bytes_vocabulary):
    """Random bytes, of which many are no UTF-8."""
    model = small_gpt(part3, vocab_size=283)
    broken = 0
    for seed in range(11):
        pieces, texts = shown(part3, model, "", "the", 2, 23, top_k=None, vocabulary=bytes_vocabulary, temperature=5.0,
                              generator=seeded(seed), stop=["a", "t "])  # fmt: skip
        assert "".join(pieces) == texts[0]
        assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])
        broken += "\ufffd" in texts[0]
    assert broken > 3, "else it shows nothing"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("né", ["xm"]),  # what begins like the stop string is held back, also while é is half there
        ("mné€", ["x"]),
        ("nk", ["xm", "né", "€", "s", "t"]),
        ("mnés", ["x", "mné€", "s", "t"]),
        ("tu", ["xm", "n", "é", "€", "s", "t"]),  # the end of the text shows that it does not come
    ],
)
def test_no_part_of_a_stop_string_is_shown(part3, bytes_vocabulary, stop, expected):
    tokens = bytes_vocabulary.encode("xmné€st")
    assert len(tokens) == 10
    model = chain_model(part3, tokens, 283)
    pieces, texts = shown(part3, model, "", "x", 1, 9, False, vocabulary=bytes_vocabulary, stop=[stop])
    assert pieces == expected
    assert texts == ["".join(expected)]


# ------------------------------------------------------------------------------------------------------------ command

TEXT = "the cat sat on the mat.\n" * 17


@pytest.fixture(scope="module")
def trained(_parts, tmp_path_factory) -> Path:
    """Folder of a short training; its name is version_0."""
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


def test_characters_that_the_output_lacks_are_replaced(part3, monkeypatch):
    """As in a file on Windows, whose encoding has few."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii"))
    monkeypatch.setattr(part3.generate, "run", lambda args: print("a naïve text", flush=True))
    assert part3.generate.main([]) == 0
    assert output.getvalue().split(b"\n")[0].rstrip() == b"a na?ve text"


def test_number_formats(part3, trained, command):
    """Greedy texts in the format asked for; the weights are those of the run, rounded."""
    args = part3.generate.build_parser().parse_args(["--checkpoint", str(trained), "--dtype", "bfloat16"])
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
    assert "name a run's folder" in fails("--log_dir", str(tmp_path), "--checkpoint", run)


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
    assert "name a run's folder" in fails("--checkpoint", str(tmp_path / "version_0"))


@pytest.mark.parametrize(
    ("script", "flag"), [("generate", "--top_p"), ("train", "--txt_file"), ("export", "--output_dir")]
)
def test_help_answers_without_importing_torch(part3, script, flag):
    code = (
        f"import sys; sys.path.insert(0, {str(part3.folder)!r}); sys.argv = ['{script}.py', '--help']\n"
        f"import {script}\n"
        f"try: {script}.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'tokenizers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert flag in done.stdout
