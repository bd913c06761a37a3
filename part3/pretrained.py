"""GPT-2's published weights: find or download the files, load them into a model, and save a model in the same format.

The format is that of the library transformers: `config.json` with the sizes, `model.safetensors` with the weights
(those of linear layers transposed), and `tokenizer.json`.
"""

import argparse
import json
import re
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from args import PUBLISHED
from dataset import innermost_cause
from run import InputError, atomic_write
from vocabulary import Characters, Vocabulary, read_vocabulary

REPOSITORIES = {name: f"openai-community/{name}" for name in PUBLISHED}
TRANSPOSED = re.compile(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
BUFFERS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)$")  # causal masks that older files hold
# The sizes in a GPT's config, and their names in config.json.
CONFIG_KEYS = {"n_layer": "n_layer", "n_head": "n_head", "n_embd": "n_embd", "vocab_size": "vocab_size",
               "block_size": "n_positions"}  # fmt: skip
RATES = {"embd_pdrop": 0.1, "resid_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5}  # and their defaults
# Keys of config.json with the values that GPT-2 has; any other value describes another model.
EXPECTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "add_cross_attention": (False,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_attn_weights": (True,),
}


def load(model_class: type, model_type: str | Path, dtype: torch.dtype = torch.float32):
    """Implements `GPT.from_pretrained`. The model is created without memory for its weights, and the file's tensors are
    read one at a time, so that the weights are never in memory twice."""
    config_file, weights_file = locate(model_type, "config.json"), locate(model_type, "model.safetensors")
    config, names = read_config(config_file), tensor_names(weights_file)
    together = f"{weights_file} and {config_file} do not belong together"
    if config.n_layer > len(names):
        raise InputError(f"{together}: {len(names)} tensors are too few for n_layer {config.n_layer}")
    try:
        with torch.device("meta"), _Undrawn():
            model = model_class(config)
    except (ValueError, RuntimeError, TypeError) as error:  # the latter two for sizes that no tensor has
        raise InputError(f"{config_file} contradicts itself ({innermost_cause(error)}): get it again") from error
    if config.tie_weights and "lm_head.weight" in names:  # transformers takes either name for the shared weight
        head = names.pop("lm_head.weight")
        wte = names.setdefault("transformer.wte.weight", head)
        if not torch.equal(_read(weights_file, head), _read(weights_file, wte)):
            raise InputError(f"{weights_file}: lm_head.weight differs from wte.weight, but config.json ties them: set "
                             "its tie_word_embeddings to false")  # fmt: skip
    wanted = dict(model.named_parameters())  # with the shared weight once, under the name of the embedding
    if odd := sorted(wanted.keys() ^ names.keys()):
        raise InputError(f"{together}: {len(odd)} weights are in one of them alone, as {odd[0]}")
    state = {}
    for name, parameter in wanted.items():
        tensor = _read(weights_file, names[name])
        if TRANSPOSED.search(name):
            tensor = tensor.t()
        if tensor.shape != parameter.shape:
            raise InputError(f"{together}: {names[name]} has the shape {list(tensor.shape)} in the one, and "
                             f"{list(parameter.shape)} in the other")  # fmt: skip
        # Copied, since a tensor from the file would keep the whole file in memory.
        state[name] = _empty(name, tensor.shape, dtype).copy_(tensor)
    if config.tie_weights:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    model.load_state_dict(state, assign=True)
    if config.tie_weights:
        model.lm_head.weight = model.transformer.wte.weight
    return model.requires_grad_().eval()


def _empty(name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Memory for a weight. Float32 matrices lie there column by column, as those of linear layers do in the files: a
    CPU multiplies them with a single vector faster than row by row. With 16 bits, row by row is faster."""
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
    """Path of one of a model's files, which is downloaded if necessary. Raises InputError if it cannot be had.

    A published name means the published model even if a folder has the same name; for the folder, give `./gpt2` or a
    `Path`.
    """
    if isinstance(model_type, str) and model_type in REPOSITORIES:
        return download(REPOSITORIES[model_type], filename)
    folder = Path(model_type).expanduser()
    if not folder.is_dir():
        raise InputError(f"{model_type} is neither a folder nor a published model: give the path of a folder, or one "
                         f"of {', '.join(REPOSITORIES)}")  # fmt: skip
    if not (folder / filename).is_file():
        raise InputError(f"{folder} has no {filename}: give a folder with config.json, model.safetensors and a "
                         "tokenizer")  # fmt: skip
    return folder / filename


def download(repository: str, filename: str) -> Path:
    """Path of a file of the Hugging Face hub in the cache of huggingface_hub, downloaded if it is not there. Raises
    InputError with the reason why it cannot be had."""
    import huggingface_hub  # here, since most runs download nothing

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename))
    except Exception as error:  # those of the hub, its HTTP client and the disk have no other base in common
        raise InputError(f"{filename} of {repository} is not in {huggingface_hub.constants.HF_HUB_CACHE} and cannot be "
                         f"downloaded ({innermost_cause(error)}): connect to the network, set HF_ENDPOINT to a mirror, "
                         "unset HF_HUB_OFFLINE, or give the folder of a model") from error  # fmt: skip


def read_config(path: Path) -> argparse.Namespace:
    """The config of a GPT from a `config.json`. Raises InputError if it is damaged, or of another model than GPT-2."""
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
    config = argparse.Namespace(model_type=None, tie_weights=content.get("tie_word_embeddings", True))
    for ours, theirs in CONFIG_KEYS.items():
        if type(value := content.get(theirs)) is not int or value < 1:
            raise InputError(f"{path}: {theirs} must be a whole number of at least 1, not {value!r}: get it again")
        setattr(config, ours, value)
    for name, default in RATES.items():
        if type(value := content.get(name, default)) not in (int, float) or not 0 <= value <= 1:
            raise InputError(f"{path}: {name} must be a number from 0 to 1, not {value!r}: get it again")
        setattr(config, name, value)
    if content.get("n_inner") not in (None, 4 * config.n_embd):
        raise InputError(f"{path} asks for n_inner {content['n_inner']}, which in GPT-2 is four times n_embd: give "
                         "another model")  # fmt: skip
    return config


def tensor_names(path: Path) -> dict[str, str]:
    """Dictionary from the parameter names of `GPT` to the tensor names in a file; masks are left out. Raises InputError
    if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            theirs = [name for name in file.keys() if not BUFFERS.match(name)]  # noqa: SIM118 (it is no dictionary)
    except Exception as error:  # damage shows in many ways
        raise InputError(f"{path} is truncated or no safetensors file ({innermost_cause(error)}): get it again") \
            from error  # fmt: skip
    # The published files leave out the prefix that transformers writes.
    return {name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}": name for name in theirs}


def _read(path: Path, name: str) -> Tensor:
    """One tensor. The file is opened for each tensor, because what was read stays in memory while it is open."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
    except Exception as error:  # damage shows in many ways
        raise InputError(f"{path} is damaged ({innermost_cause(error)}): remove it and get it again") from error
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {name} holds {tensor.dtype} where weights are floating point: get it again")
    return tensor


def load_vocabulary(model_type: str | Path) -> Vocabulary:
    """The vocabulary of a published model, or of one in a folder. Raises InputError if it cannot be had."""
    if isinstance(model_type, str) and model_type in REPOSITORIES:
        return read_vocabulary(locate(model_type, "tokenizer.json").parent)
    return read_vocabulary(Path(model_type).expanduser())


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
        **{theirs: getattr(config, ours) for ours, theirs in CONFIG_KEYS.items()},
        **{name: getattr(config, name, default) for name, default in RATES.items()},
        "n_inner": None,
        "n_ctx": config.block_size,
        "activation_function": "gelu_new",
        "tie_word_embeddings": tied,
        "bos_token_id": end,
        "eos_token_id": end,
    }
    tensors = {}
    for name, tensor in model.named_parameters():  # a shared weight comes once
        tensor = tensor.detach().cpu()
        tensors[name] = (tensor.t() if TRANSPOSED.search(name) else tensor).contiguous()
    files = {"model.safetensors": safetensors.torch.save(tensors, metadata={"format": "pt"}),
             "config.json": json.dumps(content, indent=2) + "\n"}  # fmt: skip
    if vocabulary is not None:
        files["tokenizer.json"] = vocabulary.to_json()
    if isinstance(vocabulary, Characters):
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        files["tokenizer_config.json"] = json.dumps(kind, indent=2) + "\n"
    for name, text in files.items():
        atomic_write(folder / name, text)
