"""GPT-2's published weights: find or download the files, load them into a model, and save a model in the same format.

The format is that of the library transformers: `config.json` with the sizes, `model.safetensors` with the weights
(those of linear layers transposed), and `tokenizer.json`.
"""

import argparse
import json
import os
import re
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hub import download_from_hub, first_line
from inputs import PUBLISHED, InputError
from vocabulary import Characters, Vocabulary, read_vocabulary

REPOSITORIES = {name: f"openai-community/{name}" for name in PUBLISHED}
TRANSPOSED = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
BUFFERS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$")  # causal masks that older files hold
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Keys of config.json with the values that GPT-2 has; any other value describes another model.
EXPECTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "add_cross_attention": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
}


def load(model_class: type, model_type: str | Path, dtype: torch.dtype = torch.float32):
    """Implements `GPT.from_pretrained`.

    The model is created without memory for its weights. The tensors of the file are then read one at a time, so that
    the weights are never in memory twice.
    """
    config_file, weights_file = locate(model_type, "config.json"), locate(model_type, "model.safetensors")
    config = read_config(config_file)
    names = tensor_names(weights_file)
    if config.n_layer > len(names):
        raise InputError(f"{weights_file} has {len(names)} tensors, too few for the n_layer {config.n_layer} in "
                         f"{config_file}: the two files do not belong together")  # fmt: skip
    try:
        with torch.device("meta"), _Undrawn():
            model = model_class(config)
    except (ValueError, RuntimeError, TypeError) as error:  # the latter two for sizes that no tensor has
        raise InputError(f"{config_file} contradicts itself ({first_line(error)}): get it again") from error
    if config.tie_weights and "lm_head.weight" in names:
        if "transformer.wte.weight" in names:
            _check_tied(weights_file, names)
        # transformers takes either name for the shared weight.
        head = names.pop("lm_head.weight")
        names.setdefault("transformer.wte.weight", head)
    wanted = dict(model.named_parameters())  # with the shared weight once, under the name of the embedding
    if missing := sorted(wanted.keys() - names.keys()):
        raise InputError(f"{weights_file} lacks {_some(missing)}: it is not a complete GPT-2 of the sizes in "
                         f"{config_file}; get it again")  # fmt: skip
    if unknown := sorted(names.keys() - wanted.keys()):
        raise InputError(f"{weights_file} has {_some(unknown)}, which a GPT-2 of the sizes in {config_file} does not: "
                         "give the folder of such a model")  # fmt: skip
    state = {}
    for name, parameter in wanted.items():
        tensor = _read(weights_file, names[name])
        if TRANSPOSED.search(name):
            tensor = tensor.t()
        if tensor.shape != parameter.shape:
            raise InputError(
                f"{weights_file}: {names[name]} makes a {list(tensor.shape)} of what must be {list(parameter.shape)} "
                f"by the sizes in {config_file}: the two files do not belong together"
            )
        # Copied, since a tensor from the file would keep the whole file in memory.
        state[name] = _empty(name, tensor.shape, dtype).copy_(tensor)
    if config.tie_weights:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.lm_head.weight = model.transformer.wte.weight
    model.requires_grad_()
    return model.eval()


def _empty(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for a weight. Float32 matrices are stored column by column, as the files store those of linear layers:
    a CPU multiplies them with a single vector, as generation does, faster than row by row. With 16 bits, row by row is
    faster."""
    if len(shape) == 2 and dtype == torch.float32 and not name.endswith("wpe.weight"):
        return torch.empty(shape[::-1], dtype=dtype).t()
    return torch.empty(shape, dtype=dtype)


class _Undrawn(TorchFunctionMode):
    """Skips the drawing of initial weights. For weights without memory, PyTorch would load its compiler to draw them,
    which takes seconds and more memory than drawing the weights of the smallest GPT-2."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.__name__ == "normal_":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def locate(model_type: str | Path, filename: str) -> Path:
    """Path of one of a model's files, which is downloaded if necessary.

    A published name means the published model even if a folder has the same name; for the folder, give `./gpt2` or a
    `Path`.

    Raises:
        InputError: the file does not exist, or cannot be downloaded or read.
    """
    if _is_published(model_type):
        path = download_from_hub(REPOSITORIES[model_type], filename)
    else:
        folder = Path(model_type).expanduser()
        if not os.path.isdir(folder):
            raise _no_such_place(model_type)
        path = folder / filename
        if not path.is_file() and (folder / f"{filename}.index.json").exists():
            raise InputError(f"{folder} has its weights in several files: join them with transformers' "
                             "save_pretrained(folder, max_shard_size='100GB')")  # fmt: skip
        if not path.is_file():
            raise InputError(f"{folder} has no {filename}: give a folder with config.json, model.safetensors and "
                             "a tokenizer")  # fmt: skip
    try:
        with open(path, "rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): change its permissions") from error
    if pointer:
        way_out = "run `git lfs pull` where it came from"
        if _is_published(model_type):
            way_out = "remove it, and set HF_ENDPOINT to a server that has the files themselves"
        raise InputError(f"{path} is a Git LFS pointer and not the file itself: {way_out}")
    return path


def _is_published(model_type: str | Path) -> bool:
    return isinstance(model_type, str) and model_type in REPOSITORIES


def _no_such_place(model_type: str | Path) -> InputError:
    return InputError(f"{model_type} is neither a folder nor a published model: give the path of a folder, or one of "
                      f"{', '.join(REPOSITORIES)}")  # fmt: skip


def read_config(path: Path) -> argparse.Namespace:
    """The config of a GPT from a `config.json`.

    Raises:
        InputError: the file is damaged, or describes another model than GPT-2.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model_type = content["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged or no config of a model: get it again") from error
    if model_type != "gpt2":
        raise InputError(f"{path} is of a model of type {model_type}, not gpt2: give the folder of a GPT-2")
    for name, values in EXPECTED.items():
        if (value := content.get(name, values[0])) not in values:
            raise InputError(f"{path} asks for {name} {value}, which this GPT-2 does not have: give another model")
    try:
        config = argparse.Namespace(
            model_type=None,
            n_layer=content["n_layer"],
            n_head=content["n_head"],
            n_embd=content["n_embd"],
            vocab_size=content["vocab_size"],
            block_size=content["n_positions"],
            embd_pdrop=content.get("embd_pdrop", 0.1),
            resid_pdrop=content.get("resid_pdrop", 0.1),
            attn_pdrop=content.get("attn_pdrop", 0.1),
            layer_norm_epsilon=content.get("layer_norm_epsilon", 1e-5),
            tie_weights=content.get("tie_word_embeddings", True),
        )
    except KeyError as error:
        raise InputError(f"{path} lacks {error.args[0]}: get it again") from error
    for name, value in vars(config).items():
        whole = name in ("n_layer", "n_head", "n_embd", "vocab_size", "block_size")
        if whole and not (type(value) is int and value > 0):
            name = {"block_size": "n_positions"}.get(name, name)
            raise InputError(f"{path}: {name} must be a whole number of at least 1, not {value!r}: get it again")
        if name.endswith(("_pdrop", "_epsilon")) and not (type(value) in (int, float) and 0 <= value <= 1):
            raise InputError(f"{path}: {name} must be a number from 0 to 1, not {value!r}: get it again")
    if content.get("n_inner") not in (None, 4 * config.n_embd):
        raise InputError(f"{path} asks for n_inner {content['n_inner']}, which in GPT-2 is four times n_embd: give "
                         "another model")  # fmt: skip
    return config


def tensor_names(path: Path) -> dict[str, str]:
    """Dictionary from the parameter names of `GPT` to the tensor names in a file; masks are left out.

    Raises:
        InputError: the file is truncated or otherwise damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            theirs = [name for name in file.keys() if not BUFFERS.match(name)]  # noqa: SIM118 (it is no dictionary)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is truncated or no safetensors file ({first_line(error)}): remove it and get it again"
        ) from error
    # The published files leave out the prefix that transformers writes.
    return {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": name for name in theirs}


def _read(path: Path, name: str) -> Tensor:
    """One tensor. The file is opened for each tensor, because what was read stays in memory while it is open."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({first_line(error)}): remove it and get it again") from error
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} holds {tensor.dtype} where weights are floating point: remove the file and "
                         "get it again")  # fmt: skip
    return tensor


def _check_tied(path: Path, names: dict[str, str]) -> None:
    if not torch.equal(_read(path, names["lm_head.weight"]), _read(path, names["transformer.wte.weight"])):
        raise InputError(f"{path}: lm_head.weight differs from wte.weight, but config.json ties them: set its "
                         "tie_word_embeddings to false")  # fmt: skip


def _some(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def load_vocabulary(model_type: str | Path) -> Vocabulary:
    """The vocabulary of a published model, or of one in a folder.

    Raises:
        InputError: it cannot be found, downloaded or read.
    """
    if _is_published(model_type):
        return read_vocabulary(locate(model_type, "tokenizer.json").parent)
    folder = Path(model_type).expanduser()
    if not os.path.isdir(folder):
        raise _no_such_place(model_type)
    return read_vocabulary(folder)


def load_with_vocabulary(model_class: type, model_type: str | Path, dtype: torch.dtype = torch.float32):
    """A model of `model_class`, as from `GPT.from_pretrained`, and the vocabulary that belongs to it.

    Raises:
        InputError: they cannot be found, downloaded or read, or do not belong together.
    """
    vocabulary = load_vocabulary(
        model_type
    )  # first: it is small, so that a missing one is noticed before a large download
    model = load(model_class, model_type, dtype)
    check_fits(model_type, model, vocabulary)
    return model, vocabulary


def check_fits(model_type: str | Path, model, vocabulary: Vocabulary) -> None:
    """Raises InputError if a vocabulary does not belong to a model. A byte-pair vocabulary may have fewer tokens than
    the model, because embeddings are sometimes padded."""
    fits = vocabulary.vocab_size == model.config.vocab_size
    if not fits and (isinstance(vocabulary, Characters) or vocabulary.vocab_size > model.config.vocab_size):
        raise InputError(f"the tokenizer of {model_type} has {vocabulary.vocab_size} tokens, but its model "
                         f"{model.config.vocab_size}: give a folder whose files belong together")  # fmt: skip


def save(model, folder: Path, vocabulary: Vocabulary | None = None) -> None:
    """Implements `GPT.save_pretrained`. With a vocabulary, it also writes `tokenizer.json`; for characters, also
    `tokenizer_config.json`, without which transformers would treat them as GPT-2's byte pairs."""
    config = model.config
    tied = model.lm_head.weight is model.transformer.wte.weight
    end = config.vocab_size - 1 if not isinstance(vocabulary, Characters) and config.vocab_size == 50257 else None
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": config.vocab_size,
        "activation_function": "gelu_new",
        "embd_pdrop": config.embd_pdrop,
        "resid_pdrop": config.resid_pdrop,
        "attn_pdrop": config.attn_pdrop,
        "layer_norm_epsilon": getattr(config, "layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    tensors = {}
    for name, tensor in model.named_parameters():  # a shared weight comes once
        tensor = tensor.detach().cpu()
        tensors[name] = (tensor.t() if TRANSPOSED.search(name) else tensor).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"config.json": json.dumps(content, indent=2) + "\n"}
    if vocabulary is not None:
        texts["tokenizer.json"] = vocabulary.to_json()
    if isinstance(vocabulary, Characters):
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        texts["tokenizer_config.json"] = json.dumps(kind, indent=2) + "\n"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as directory:  # all files, or none
        save_file(tensors, Path(directory, "model.safetensors"), metadata={"format": "pt"})
        for name, text in texts.items():
            Path(directory, name).write_text(text, encoding="utf-8")
        for file in Path(directory).iterdir():
            os.replace(file, folder / file.name)
