"""The benchmarks: implementations are measured alternately, counts are right, baselines train the same model."""

import importlib
import io
import json
import math
import os
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture
def load(repository, monkeypatch):
    """Imports a module of tests/benchmarks afresh, and among the modules of the part that is active."""
    monkeypatch.syspath_prepend(str(repository / "tests" / "benchmarks"))
    loaded = []

    def load(name: str):
        sys.modules.pop(name, None)
        loaded.append(name)
        return importlib.import_module(name)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


# ------------------------------------------------------------------------------------------------------------ runner

SCRIPT = """
import sys
sys.path.insert(0, {benchmarks!r})
import runner

def setup(name):
    def implementation(args):
        def measure(seed, steps):
            print("noise")
            with open({log!r}, "a") as log:
                log.write(f"{{name}}{{seed}}:{{steps}} ")
            if name == "c":
                raise SystemExit(3)
            return {{"seconds": float(seed)}}
        return measure
    return implementation

args = runner.build_parser("", 7).parse_args()
runner.serve({{name: setup(name) for name in "abc"}}, args)
"""


@pytest.fixture
def script(repository, tmp_path):
    file, log = tmp_path / "script.py", tmp_path / "log"
    file.write_text(SCRIPT.format(benchmarks=str(repository / "tests" / "benchmarks"), log=str(log)))
    return str(file), log


def test_implementations_alternate_and_the_warm_up_does_not_count(load, script, capfd):
    runner = load("runner")
    file, log = script
    found = runner.run_benchmark(file, ["a", "b"], Namespace(data_dir="", rounds=2, steps=7))
    assert log.read_text().split() == ["a0:3", "b0:3", "b1:7", "a1:7", "a2:7", "b2:7"]
    assert {name: [result["seconds"] for result in results] for name, results in found.items()} == {
        "a": [1, 2],
        "b": [1, 2],
    }
    assert all(result["peak_mib"] > 1 for results in found.values() for result in results)


def test_an_implementation_whose_process_ends_is_named(load, script):
    runner = load("runner")
    with pytest.raises(runner.BenchmarkError, match="implementation c ended"):
        runner.run_benchmark(script[0], ["a", "c"], Namespace(data_dir="", rounds=1, steps=7))


@pytest.mark.parametrize(
    "bench, arguments, message",
    [
        ("part1", ["--rounds", "0"], "bench_part1.py: error: --rounds must be at least 2, not 0"),
        ("part3_training", ["--steps", "0"], "bench_part3_training.py: error: --steps must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(repository, bench, arguments, message):
    command = [sys.executable, f"tests/benchmarks/bench_{bench}.py", *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_text_that_is_not_there(part3, load, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is downloaded
    with pytest.raises(part3.inputs.InputError, match=r"text/tiny_shakespeare.txt does not exist"):
        load("bench_part3_training").prepare(Namespace(data_dir=str(tmp_path), train_batch_size=2), 0, 2)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_file_that_is_no_result_is_refused_before_measuring(load, tmp_path, monkeypatch, capsys, content):
    runner, file = load("runner"), tmp_path / "bench.json"
    file.write_text(content)
    monkeypatch.setattr(sys, "argv", ["bench_part1.py", "--output", str(file)])
    with pytest.raises(SystemExit) as stop:
        runner.parse(runner.build_parser("A benchmark.", steps=3))
    assert stop.value.code == 2
    assert f"--output {file} is not a JSON file of results" in capsys.readouterr().err
    assert file.read_text() == content


def test_an_input_error_of_a_part_ends_the_process_with_its_message(load, monkeypatch, capfd):
    class InputError(Exception):
        pass

    def implementation(args):
        raise InputError("MNIST is not in here")

    monkeypatch.setattr(sys, "stdin", io.StringIO("0 3\n"))
    with pytest.raises(SystemExit) as stop:
        load("runner").serve({"a": implementation}, Namespace(worker="a"))
    assert stop.value.code == 2
    assert capfd.readouterr().err == "MNIST is not in here\n"


def results(key: str, *values: float) -> list[dict]:
    return [{key: value} for value in values]


def test_ratios_compare_results_of_the_same_round(load):
    found = load("runner").ratios(results("seconds", 1, 2, 8), results("seconds", 2, 2, 2))
    assert found == {"median": 1, "min": 0.5, "max": 4}


@pytest.mark.parametrize("theirs, expected", [((1.15, 1.25, 1.2), True), ((1.35, 1.45, 1.4), False)])
def test_losses_agree_where_they_differ_by_less_than_their_seeds(load, theirs, expected):
    found = load("runner").agree(results("loss", 1.0, 1.2, 1.1), results("loss", *theirs))
    assert found["ours"] == pytest.approx(1.1) and found["theirs"] == pytest.approx(theirs[2])
    assert found["range_over_seeds"] == pytest.approx(0.2)
    assert found["agree"] is expected


def test_a_section_joins_those_of_the_same_device_alone(load, tmp_path):
    runner, file = load("runner"), tmp_path / "bench.json"
    runner.write(file, "part1", {"x": 1})
    runner.write(file, "part2", {"x": 2})
    both = json.loads(file.read_text())
    assert (both["part1"]["x"], both["part2"]["x"]) == (1, 2)
    assert both["part1"]["versions"]["torch"] == torch.__version__.split("+")[0]
    file.write_text(json.dumps({**both, "device": "another one"}))
    runner.write(file, "part2", {"x": 3})
    found = json.loads(file.read_text())
    assert "part1" not in found and found["part2"]["x"] == 3 and found["device"] == both["device"]


def test_a_whole_run_has_its_peak_memory_and_has_to_succeed(load):
    runner = load("runner")
    mib = 150
    found = runner.run_whole([sys.executable, "-c", f"import time; x = b'1' * ({mib} << 20); time.sleep(0.2)"])
    assert mib < found["peak_mib"] < mib + 100 and found["seconds"] > 0
    with pytest.raises(subprocess.CalledProcessError):
        runner.run_whole([sys.executable, "-c", "raise SystemExit(3)"])


# ------------------------------------------------------------------------------------------------------------ limits


def test_counts_of_a_matrix_product(load):
    a, b = torch.randn(5, 7), torch.randn(7, 11)
    assert load("limits").count(lambda: a.T.T @ b) == {"flops": 2 * 5 * 7 * 11, "bytes": 4 * (5 * 7 + 7 * 11 + 5 * 11)}


def test_a_copy_reads_its_source_and_writes_its_target(load):
    a, b = torch.ones(13), torch.zeros(13)
    assert load("limits").count(lambda: b.copy_(a)) == {"flops": 0, "bytes": 2 * 4 * 13}


def test_shares_of_the_limits(load):
    limit = {"flops_per_second": {"median": 100}, "bytes_per_second": {"median": 40}}
    found = load("limits").shares({"flops": 50, "bytes": 20}, 2.0, limit)
    assert (found["percent_of_flops"], found["percent_of_bytes"]) == (25, 25)


def test_the_limit_is_not_below_what_another_product_reaches(load):
    limit = load("limits").measure_limits(0, 0)
    assert limit["flops_per_second"] > 1e9 and limit["bytes_per_second"] > 1e8


def test_operations_of_a_token_are_those_that_a_model_takes(part3, load):
    """A small GPT in the place of the large one, whose matrix products PyTorch counts."""
    bench = load("bench_part3_generation")
    config = part3.gpt.GPT.get_default_config()
    config.n_layer, config.n_head, config.n_embd = 3, 2, 48
    config.vocab_size, config.block_size, config.tie_weights, config.fused_attention = 5003, 1024, True, False
    model = part3.gpt.GPT(config).eval()
    context = bench.PROMPT + bench.NEW_TOKENS // 2
    stream = model.stream(torch.zeros(1, context - 1, dtype=torch.long), 2)
    next(stream)
    with FlopCounterMode(display=False) as counter:
        next(stream)
    parameters = sum(p.numel() for p in model.parameters())
    found = bench.cost_of_token(parameters, 16, n_layer=3, n_embd=48)
    assert found["flops"] == pytest.approx(counter.get_total_flops(), rel=0.02)
    weights = parameters - 1024 * 48
    assert found["bytes"] == pytest.approx(2 * weights + 2 * 2 * 3 * 48 * context)


# --------------------------------------------------------------------------------------------------------- baselines


def test_the_plain_vae_has_the_same_losses_and_gradients(part1, load):
    plain = load("baseline_vae").PlainVAE(num_filters=3, z_dim=5, lr=1e-3)
    model = part1.train_pl.VAE(num_filters=3, z_dim=5, lr=1e-3)
    model.load_state_dict(plain.state_dict())
    imgs = torch.randint(0, 16, (7, 1, 28, 28))
    results = []
    for candidate in (model, plain):
        torch.manual_seed(3)
        losses = candidate(imgs)
        losses[2].backward()
        results.append((torch.stack(losses).detach(), candidate.encoder.net[0].weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_plain_aae_has_the_same_losses(part2, load):
    plain = load("baseline_aae").PlainAAE(z_dim=5)
    model = part2.models.AdversarialAE(z_dim=5)
    model.load_state_dict(plain.state_dict())
    x = torch.rand(7, 1, 28, 28) * 2 - 1
    recon_x, z = model(x)
    for method, other, arguments in (
        (model.get_loss_autoencoder, plain.loss_autoencoder, (x, recon_x, z, 0.9)),
        (model.get_loss_discriminator, plain.loss_discriminator, (z.detach(),)),
    ):
        values = []
        for loss in (method, other):
            torch.manual_seed(3)
            values.append({name: value.item() for name, value in loss(*arguments)[1].items()})
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_the_plain_gpt_has_the_same_logits_and_tokens(part3, load):
    config = part3.gpt.GPT.get_default_config()
    config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.block_size = 2, 3, 33, 17, 11
    model = part3.gpt.GPT(config).eval()
    plain = load("baseline_gpt").PlainGPT(config).eval()
    plain.load_state_dict(model.state_dict())
    idx = torch.randint(17, (2, 7))
    torch.testing.assert_close(plain(idx), model(idx))
    assert torch.equal(plain.generate(idx, 13), model.generate(idx, 13))


def test_the_plain_windows_of_a_text_are_those_of_the_dataset(part3, load):
    text = "to be or not to be"
    dataset = part3.dataset.TextDataset(None, None, 5, text=text)
    plain = load("baseline_gpt").Characters(text, dataset.string_to_index, 5)
    assert len(plain) == len(dataset)
    for ours, theirs in zip(map(dataset.__getitem__, range(len(dataset))), map(plain.__getitem__, range(len(plain))),
                            strict=True):  # fmt: skip
        assert torch.equal(torch.stack(ours), torch.stack(theirs))


def test_validation_loss_of_a_model_that_guesses(part3, load):
    bench = load("bench_part3_training")
    dataset = part3.dataset.TextDataset(None, None, 4, text="abcdefgh" * 5)
    guess = torch.nn.Module()
    guess.forward = lambda idx: torch.zeros(*idx.shape, dataset.vocab_size)
    assert bench.loss_of(guess, dataset) == pytest.approx(math.log(8))
    sure = torch.nn.Module()
    sure.forward = lambda idx: 50.0 * F.one_hot((idx + 1) % 8, 8).float()
    assert bench.loss_of(sure, dataset) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("implementation", ["ours", "baseline"])
@pytest.mark.parametrize("name", ["part1", "part2"])
def test_a_measurement_on_images(request, load, fake_mnist, name, implementation):
    """Two steps of what the parts set up, and of the plain pipeline."""
    request.getfixturevalue(name)
    measure = getattr(load(f"bench_{name}"), implementation)(Namespace(data_dir=str(fake_mnist)))
    found = measure(0, 2)
    assert found["seconds"] > 0 and math.isfinite(found["loss"])
    if implementation == "ours":
        assert found["counted"]["flops"] > 1e9


@pytest.mark.parametrize("implementation", ["ours", "baseline"])
def test_a_measurement_on_text(part3, load, tmp_path, monkeypatch, implementation):
    """Random letters in the place of Shakespeare's, about which nothing can be learnt."""
    bench = load("bench_part3_training")
    text = "".join(chr(97 + number) for number in torch.randint(26, (3000,)).tolist())
    monkeypatch.setattr(part3.training_run, "load_text", lambda *args: text)
    monkeypatch.setattr(part3.callbacks.GenerateCallback, "sample_and_save", lambda *args: None)  # takes the longest
    measure = getattr(bench, implementation)(Namespace(data_dir=str(tmp_path), train_batch_size=2))
    found = measure(0, 2)
    assert found["tokens_per_second"] > 0
    assert found["loss"] == pytest.approx(math.log(26), abs=0.5)
    if implementation == "ours":
        assert found["counted"]["flops"] > 1e9


# ------------------------------------------------------------------------------------------------------------ results


def test_committed_results_are_complete_and_compare_equal_trainings(repository):
    """Trainings must agree in their losses, and generations in their tokens."""
    files = list((repository / "report" / "results").glob("bench_*.json"))
    assert files
    for file in files:
        found = json.loads(file.read_text())
        assert file.stem == f"bench_{found['device_class']}"
        for section in ("part1", "part2", "part3_training"):
            assert found[section]["losses_baseline"]["agree"], f"{file}, {section}"
        tokens = found["part3_generation"]["equal_tokens"]
        for implementation in ("baseline", "transformers"):
            assert tokens[implementation]["equal"] == tokens[implementation]["compared"] > 0, (
                f"{file}, {implementation}"
            )


@pytest.mark.parametrize("readme, heading", [("README.md", "## Speed"), ("tests/benchmarks/README.md", "## Results")])
def test_a_readme_has_a_column_for_each_device_that_was_measured(repository, readme, heading):
    section = (repository / readme).read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    gpus = [file for file in (repository / "report" / "results").glob("bench_*.json") if file.stem != "bench_cpu"]
    for row in rows[2:]:
        cells = row.strip("|").split("|")[1:]
        assert "report/results/bench_cpu.json#" in cells[0], row
        assert len(cells) == 1 + len(gpus), row
        for cell, file in zip(cells[1:], sorted(gpus), strict=True):
            assert f"report/results/{file.name}#" in cell, row
    if not gpus:
        assert "Nothing was timed on a GPU" in section


def test_the_front_page_has_the_eight_speeds_that_a_user_asks_for(repository):
    rows = (repository / "README.md").read_text().split("## Speed\n")[1].split("\n## ")[0].splitlines()
    assert 0 < len([row for row in rows if row.startswith("|")]) - 2 <= 8


# ------------------------------------------------------------------------------------------------------------- on a GPU


def gpu_commands(repository, call: str) -> list[list[str]]:
    """The words of the commands that a call of `gpu_session.sh` would run."""
    done = subprocess.run(["bash", "tests/benchmarks/gpu_session.sh", call], cwd=repository, capture_output=True,
                          text=True, env={**os.environ, "DRY_RUN": "1"})  # fmt: skip
    assert done.returncode == (2 if call == "nothing" else 0)
    return [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("+ ")]


def test_the_benchmarks_of_a_gpu_are_those_that_there_are(load, repository):
    commands, parser = gpu_commands(repository, "bench"), load("runner").build_parser("A benchmark.", steps=3)
    assert {words[0] for words in commands} == {
        file.relative_to(repository).as_posix() for file in (repository / "tests" / "benchmarks").glob("bench_*.py")
    }
    assert all(parser.parse_args(words[1:]).rounds == 3 for words in commands)
    assert not gpu_commands(repository, "nothing")


@pytest.mark.parametrize("name", ["part1", "part2", "part3"])
def test_the_trainings_on_a_gpu_have_flags_that_there_are(request, repository, name):
    part, commands = request.getfixturevalue(name), gpu_commands(repository, "runs")
    seeds = [part.inputs.parse_args(words[1:]).seed for words in commands if words[0] == f"{name}/train.py"]
    assert seeds == [42, 1, 2] + [0] * (name == "part3")
