"""The benchmarks: implementations are measured alternately, counts are right, baselines train the same model."""

import importlib
import json
import math
import os
import subprocess
import sys
from argparse import Namespace

import pytest
import torch


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
sys.path[:0] = [{benchmarks!r}, {part!r}]
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

args = runner.build_parser("", "", 7).parse_args()
raise SystemExit(runner.main({{name: setup(name) for name in "abc"}}, None, args))
"""


@pytest.fixture
def script(repository, tmp_path):
    file, log = tmp_path / "script.py", tmp_path / "log"
    benchmarks, part = str(repository / "tests/benchmarks"), str(repository / "part1")
    file.write_text(SCRIPT.format(benchmarks=benchmarks, part=part, log=str(log)))
    return str(file), log


@pytest.mark.slow
def test_implementations_alternate(part1, load, script):
    runner = load("runner")
    file, log = script
    found = runner.run_benchmark(file, ["a", "b"], Namespace(data_dir="data", rounds=2, steps=7))
    assert log.read_text().split() == ["a0:3", "b0:3", "b1:7", "a1:7", "a2:7", "b2:7"]
    assert all([result["seconds"] for result in results] == [1, 2] for results in found.values())
    assert all(result["peak_mib"] > 1 for results in found.values() for result in results)
    with pytest.raises(part1.run.InputError, match="implementation c ended"):
        runner.run_benchmark(file, ["a", "c"], Namespace(data_dir="data", rounds=2, steps=7))


def test_ratios_compare_results_of_the_same_round(part1, load):
    ours, theirs = ([{"seconds": value} for value in values] for values in ((1, 2, 8), (2, 2, 2)))
    assert load("runner").ratios(ours, theirs) == {"median": 1, "min": 0.5, "max": 4}


# ------------------------------------------------------------------------------------------------------------ limits


def test_limits(load):
    a, b = torch.randn(5, 7), torch.randn(7, 11)
    assert load("limits").count(lambda: a.T.T @ b) == {"flops": 2 * 5 * 7 * 11, "bytes": 4 * (5 * 7 + 7 * 11 + 5 * 11)}
    limit = load("limits").measure_limits(0, 0)
    assert limit["flops_per_second"] > 1e9 and limit["bytes_per_second"] > 1e8


# --------------------------------------------------------------------------------------------------------- baselines


def test_plain_vae(part1, load):
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


def test_plain_aae(part2, load):
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


def test_plain_gpt(part3, load):
    config = part3.gpt.GPT.get_default_config()
    config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.block_size = 2, 3, 33, 17, 11
    model = part3.gpt.GPT(config).eval()
    plain = load("baseline_gpt").PlainGPT(config).eval()
    plain.load_state_dict(model.state_dict())
    idx = torch.randint(17, (2, 7))
    torch.testing.assert_close(plain(idx), model(idx))
    assert torch.equal(plain.generate(idx, 13), model.generate(idx, 13))


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["ours", "baseline"])
@pytest.mark.parametrize("name", ["part1", "part2", "part3_training"])
def test_a_measurement(request, load, fake_mnist, monkeypatch, name, implementation):
    """Two steps of what the parts set up, and of the plain pipeline."""
    part = request.getfixturevalue(name[:5])
    for module in ("runner", "limits"):
        load(module)
    bench = load(f"bench_{name}")
    if name == "part3_training":  # `--txt_file pydoc` needs no download
        monkeypatch.setattr(bench, "load_text", lambda *_: part.dataset.load_text("pydoc", None)[:20_000])
    measure = getattr(bench, implementation)(Namespace(data_dir=str(fake_mnist), train_batch_size=8))
    found = measure(0, 2)
    assert found["seconds"] > 0 and math.isfinite(found["loss"])
    if implementation == "ours":
        assert found["counted"]["flops"] > 1e9


# ------------------------------------------------------------------------------------------------------------ results


def test_committed_results_compare_equal_trainings(repository):
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
            assert tokens[implementation]["equal"] == tokens[implementation]["compared"] > 0, f"{file}"


# ------------------------------------------------------------------------------------------------------ on a GPU


@pytest.mark.parametrize("call", ["bench", "runs"])
def test_commands_of_a_gpu_session_exist(request, load, repository, call):
    """Each benchmark once, and trainings with flags that there are."""
    done = subprocess.run(["bash", "tests/benchmarks/gpu_session.sh", call], cwd=repository, capture_output=True,
                          text=True, check=True, env={**os.environ, "DRY_RUN": "1"})  # fmt: skip
    commands = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("+ ")]
    if call == "bench":
        request.getfixturevalue("part1")
        parser = load("runner").build_parser("bench.py", "A benchmark.", steps=3)
        assert all(parser.parse_args(words[1:]).rounds == 3 for words in commands)
        files = {f"tests/benchmarks/{file.name}" for file in (repository / "tests/benchmarks").glob("bench_*.py")}
        assert {words[0] for words in commands} == files
    for words in sorted(commands) if call == "runs" else []:  # one part after the other
        request.getfixturevalue(words[0].split("/")[0]).args.parse_args(words[1:])
