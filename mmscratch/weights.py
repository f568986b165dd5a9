"""Pretrained weights: loading those that fit, and reading those of transformers and torchvision."""

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .engine.runs import refuse_bomb
from .engine.safetensors import parse_json, read_safetensors, refuse_pointer
from .text import END_OF_TEXT, SPECIALS, ByteLevelBPE
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import VGG, MobileNetV2, ResNet, VisionTransformer

State = dict[str, Tensor]

# A pattern for their full name -> our name; None drops the tensor.
GPT2 = {
    r"wte\.weight": "embedding.words.weight",
    r"wpe\.weight": "embedding.positions.weight",
    r"h\.(\d+)\.ln_(\d)\.(\w+)": r"blocks.\1.norm\2.\3",
    r"h\.(\d+)\.attn\.c_attn\.(\w+)": r"blocks.\1.self_attn.in_proj_\2",
    r"h\.(\d+)\.attn\.c_proj\.(\w+)": r"blocks.\1.self_attn.out_proj.\2",
    r"h\.(\d+)\.mlp\.c_fc\.(\w+)": r"blocks.\1.linear1.\2",
    r"h\.(\d+)\.mlp\.c_proj\.(\w+)": r"blocks.\1.linear2.\2",
    r"ln_f\.(\w+)": r"norm.\1",
    r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight": None,
}
BERT = {
    r"embeddings\.word_embeddings\.weight": "embedding.words.weight",
    r"embeddings\.position_embeddings\.weight": "embedding.positions.weight",
    r"embeddings\.token_type_embeddings\.weight": "token_types",
    r"embeddings\.LayerNorm\.(\w+)": r"norm.\1",
    r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.(\w+)": r"blocks.\1.self_attn.\2_\3",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)": r"blocks.\1.self_attn.out_proj.\2",
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(\w+)": r"blocks.\1.norm1.\2",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)": r"blocks.\1.linear1.\2",
    r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)": r"blocks.\1.linear2.\2",
    r"encoder\.layer\.(\d+)\.output\.LayerNorm\.(\w+)": r"blocks.\1.norm2.\2",
    r"embeddings\.position_ids|(pooler|cls|classifier|qa_outputs)\..*": None,
}
TORCHVISION_VIT = {
    r"class_token|conv_proj\.\w+": r"\g<0>",
    r"encoder\.pos_embedding": "positions",
    r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.(\w+)": r"blocks.\1.norm\2.\3",
    r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.(.+)": r"blocks.\1.self_attn.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)": r"blocks.\1.linear1.\2",
    r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)": r"blocks.\1.linear2.\2",
    r"encoder\.ln\.(\w+)": r"norm.\1",
    r"heads\.head\.(\w+)": r"head.\1",
}
WHISPER = {
    r"conv[12]\.\w+": r"\g<0>",
    r"layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)": r"blocks.\1.self_attn.\2_\3",
    r"layers\.(\d+)\.self_attn\.out_proj\.(\w+)": r"blocks.\1.self_attn.out_proj.\2",
    r"layers\.(\d+)\.self_attn_layer_norm\.(\w+)": r"blocks.\1.norm1.\2",
    r"layers\.(\d+)\.fc([12])\.(\w+)": r"blocks.\1.linear\2.\3",
    r"layers\.(\d+)\.final_layer_norm\.(\w+)": r"blocks.\1.norm2.\2",
    r"layer_norm\.(\w+)": r"norm.\1",
    r"embed_positions\.weight|decoder\..*|proj_out\.weight": None,
}

# The keys in config.json of our constructors' first parameters.
MAX_LAYERS = 1000  # of a model to be loaded
SIZE_KEYS = {
    "gpt2": ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions"),
    "bert": (
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "max_position_embeddings",
    ),
}
# The values that our classes support, for keys that they have no parameter for.
SUPPORTED = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    "bert": {
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "pad_token_id": (0,),
    },
}
BASE = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
LARGE = {"num_layers": 24, "num_heads": 16, "hidden_dim": 1024, "mlp_dim": 4096}
TORCHVISION = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in ResNet.STAGES},
    **{f"vgg{depth}": partial(VGG, depth) for depth in VGG.CONVOLUTIONS},
    **{f"vgg{depth}_bn": partial(VGG, depth, batch_norm=True) for depth in VGG.CONVOLUTIONS},
    "mobilenet_v2": MobileNetV2,
    **{f"vit_b_{patch}": partial(VisionTransformer, 224, patch, **BASE) for patch in (16, 32)},
    **{f"vit_l_{patch}": partial(VisionTransformer, 224, patch, **LARGE) for patch in (16, 32)},
}


class IncompatibleKeys(NamedTuple):
    """Names in a model and a state dict that do not match."""

    missing: list[str]  # only in the model
    unexpected: list[str]  # only in the state dict
    mismatched: list[str]  # in both, with other shapes; the shapes are given

    def __str__(self) -> str:
        kinds = []
        for kind, names in zip(("missing", "unexpected", "of another shape"), self):
            if names:
                kinds.append(f"{kind}: {shorten(names)}")
        return "; ".join(kinds) or "all fits"


def shorten(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def load_matching(model: nn.Module, state: State) -> IncompatibleKeys:
    """Load the tensors whose names and shapes match the model's; return the names that do not.

    The tensors are copied into the model's own parameters, which an optimizer may know; `state` does
    not change. The rest of the model stays as it is. A mismatched tensor is listed with the shape in the state
    dict and then the model's: "1.weight (3, 2), here (2, 3)".
    """
    ours = model.state_dict()
    matching = {}
    mismatched = []
    for name in ours:
        if name not in state:
            continue
        if state[name].shape == ours[name].shape:
            matching[name] = state[name]
        else:
            shapes = f"{tuple(state[name].shape)}, here {tuple(ours[name].shape)}"
            mismatched.append(f"{name} {shapes}")
    model.load_state_dict(matching, strict=False)
    missing = [name for name in ours if name not in state]
    unexpected = [name for name in state if name not in ours]
    return IncompatibleKeys(missing, unexpected, mismatched)


def transfer_embedding_rows(
    old: Tensor, old_words: Sequence[str], new: Tensor, new_words: Sequence[str]
) -> Tensor:
    """A copy of `new` (V', …), but with the rows of `old` (V, …) for words of both vocabularies.

    The copy has the dtype of `new`; neither tensor is changed. No word needs to be in both.
    """
    index = {word: i for i, word in enumerate(old_words)}
    common = [(i, index[word]) for i, word in enumerate(new_words) if word in index]
    rows, old_rows = torch.tensor(common, dtype=torch.long).reshape(-1, 2).T
    new = new.clone()
    new[rows] = old[old_rows].to(new)
    return new


def read_weights(path: str | Path) -> State:
    """The tensors in a .safetensors or torch.save file, by name, on the CPU; no code in it is run.

    Many checkpoints hold them under "state_dict" or "model": they are taken from there. What
    torch.compile and DistributedDataParallel put in front of all names is taken off.
    Raises FileNotFoundError or ValueError, in one line, if the file is missing or damaged, or
    holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Put a .safetensors or torch.save file there"
        )
    if path.suffix == ".safetensors":
        return _without_wrapper(read_safetensors(path), path)
    refuse_bomb(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, and advises to run the code in it
        refuse_pointer(path)
        reason = getattr(error, "strerror", None)
        reason = reason or "it is damaged, or holds more than tensors and plain values"
        raise ValueError(
            f"{path}: {reason}. Copy it again, or save only the model's state_dict()"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not _is_state_dict(state):
        raise ValueError(
            f"{path}: not a dict of tensors by name. Save only the model's state_dict()"
        )
    return _without_wrapper(dict(state), path)


def _without_wrapper(state: State, path: Path) -> State:
    """Take "_orig_mod." (a compiled model) and "module." (a parallel one) off all names."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state):
            print(f"{path}: all names begin with {prefix!r}, which is taken off", file=sys.stderr)
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_state_dict(state: object) -> bool:
    """Whether this is a dict of tensors by name."""
    if not isinstance(state, dict):
        return False
    return all(isinstance(name, str) and isinstance(x, Tensor) for name, x in state.items())


def load_folder(folder: str | Path) -> TransformerDecoder | TransformerEncoder:
    """A folder of transformers' save_pretrained -> our model, in float32 and eval mode.

    The "model_type" in config.json decides: "gpt2" becomes a `TransformerDecoder` with
    fusion="prefix" (with `Memory.empty`, it is GPT-2's language model), and "bert" a
    `TransformerEncoder`. See `from_gpt2` and `from_bert` for the tensors that are dropped. The
    weights are in model.safetensors or pytorch_model.bin, or in several files with an index.

    Raises FileNotFoundError or ValueError, in one line, if a file is missing or damaged, if
    config.json asks for something that our classes do not compute, or if the weights do not fit.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Put it there, with model.safetensors or pytorch_model.bin"
        )
    try:
        config = parse_json(path.read_bytes())
        _check_size(folder, config)
        model, convert = _build(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    state = _read_folder(folder)
    try:
        return _fill(model, convert(state))
    except (KeyError, IndexError, RuntimeError) as error:  # in `from_bert`, which joins tensors
        reason = f"missing, or of another shape: {str(error).splitlines()[0]}"
    except ValueError as error:
        reason = error
    raise ValueError(f"{folder}: the weights do not fit config.json: {reason}")


GPT2_FILES = "config.json, model.safetensors, vocab.json and merges.txt"
GPT2_ADDRESS = "https://huggingface.co/openai-community/gpt2"


def gpt2_settings(folder: Path) -> tuple[dict, int]:
    """The settings of a decoder that is the GPT-2 in a folder, and its width.

    Raises FileNotFoundError or ValueError, in one line that says what is missing or wrong.
    """
    for name in ("config.json", "vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            advice = f"put {GPT2_FILES} there, from {GPT2_ADDRESS}"
            raise FileNotFoundError(f"{folder / name}: no such file; {advice}")
    path = folder / "config.json"
    try:
        config = parse_json(path.read_bytes())
        if config.get("model_type") != "gpt2":
            raise ValueError(f'"model_type" is {config.get("model_type")!r:.50}, not "gpt2"')
        _check_size(folder, config)
        with torch.device("meta"):  # only its sizes are asked for
            decoder, _ = _build(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    settings = {
        "name": "transformer",
        "num_heads": decoder.blocks[0].self_attn.num_heads,
        "num_layers": len(decoder.blocks),
        "max_length": decoder.embedding.positions.num_embeddings,
        "fusion": "prefix",
    }
    return settings, decoder.embed_dim


def gpt2_vocabulary(folder: Path) -> ByteLevelBPE:
    """The vocabulary in vocab.json and merges.txt. Raises ValueError, in one line, if it is wrong."""
    path = folder / "vocab.json"
    try:
        numbers = parse_json(path.read_bytes())
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError("its numbers are not 0, 1, 2, …")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("merges.txt has a line that is not two tokens")
        return ByteLevelBPE(sorted(numbers, key=numbers.__getitem__), pairs)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not GPT-2's vocabulary: {error}. Copy it again") from None


def gpt2_decoder_state(folder: Path) -> State:
    """The weights of a `TransformerDecoder` whose words are those of `gpt2_vocabulary`.

    The four specials get the vector of "<|endoftext|>", with which GPT-2 starts and ends texts.
    """
    state = load_folder(folder).state_dict()
    numbers = parse_json((folder / "vocab.json").read_bytes())
    rows = state["embedding.words.weight"]  # (GPT-2's tokens, D)
    end = numbers[END_OF_TEXT]
    others = [number for number in sorted(numbers.values()) if number != end]
    state["embedding.words.weight"] = rows[[end] * len(SPECIALS) + others]
    return state


def _check_size(folder: Path, config: dict) -> None:
    """Raise ValueError if a model of these sizes is larger than the files of weights: it is not built.

    A block has at least 12 width² weights, and a weight at least one byte.
    """
    kind = config.get("model_type")
    sizes = [config.get(key) for key in SIZE_KEYS[kind]] if kind in ("gpt2", "bert") else []
    if not sizes or not all(type(size) is int and size > 0 for size in sizes):
        return  # `_build` says what is wrong
    vocab_size, width, _, num_layers, num_positions = sizes
    needed = (vocab_size + num_positions) * width + 12 * num_layers * width**2
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    there = sum(file.stat().st_size for file in files)
    if num_layers > MAX_LAYERS or (files and needed > there):
        raise ValueError(
            f"its sizes are those of {needed:,} weights in {num_layers:,} layers, and the files of "
            f"weights have {there:,} bytes"
        )


def _build(config: dict) -> tuple[nn.Module, Callable[[State], State]]:
    """The model for a config.json, and the function that renames its weights.

    Raises ValueError if our classes do not compute such a model.
    """
    kind = config.get("model_type")
    if kind not in ("gpt2", "bert"):
        raise ValueError(f'"model_type" is {kind!r:.50}; only "gpt2" and "bert" can be loaded')
    if "n_ctx" in config:
        config.setdefault("n_positions", config["n_ctx"])  # its older name
    sizes = [config.get(key) for key in SIZE_KEYS[kind]]
    for key, size in zip(SIZE_KEYS[kind], sizes):
        if type(size) is not int or size < 1:
            raise ValueError(f'"{key}" is {size!r:.50}, not a whole number above 0')
    mlp_dim = 4 * sizes[1]
    supported = SUPPORTED[kind] | {"n_inner": (None, mlp_dim), "intermediate_size": (mlp_dim,)}
    for key, values in supported.items():
        if key in config and config[key] not in values:
            choices = " or ".join(map(repr, values))
            raise ValueError(f'"{key}" is {config[key]!r:.50}; ours can only be {choices}')
    norm_eps = config.get("layer_norm_eps", 1e-12)
    if not isinstance(norm_eps, float):
        raise ValueError(f'"layer_norm_eps" is {norm_eps!r:.50}, not a number such as 1e-12')
    if kind == "gpt2":
        return TransformerDecoder(*sizes, fusion="prefix"), from_gpt2
    return TransformerEncoder(*sizes, pre_norm=False, norm_eps=norm_eps), from_bert


def _read_folder(folder: Path) -> State:
    """The weights in a folder, from one file, or from the files that an index lists."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        path = folder / name
        index = folder / f"{name}.index.json"
        if path.is_file():
            return read_weights(path)
        if index.is_file():
            state = {}
            for file in _files_in(index):
                state |= read_weights(folder / file)
            return state
    raise FileNotFoundError(
        f"{folder}: no weights. Put model.safetensors or pytorch_model.bin there"
    )


def _files_in(index: Path) -> list[str]:
    """The names of the files that an index lists; raises ValueError for any outside its folder."""
    try:
        files = set(parse_json(index.read_bytes())["weight_map"].values())
        if any(not re.fullmatch(r"\w[\w.-]*", file) for file in files):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: not an index of files in this folder. Copy it again") from None
    return sorted(files)


def load_torchvision(
    name: str, file: str | Path | None = None
) -> ResNet | VGG | MobileNetV2 | VisionTransformer:
    """Our model, in eval mode, with torchvision's weights of that name, trained on ImageNet.

    `name` is one of `TORCHVISION`: resnet18, mobilenet_v2, vit_b_32, … Without a `file`, the weights
    are those in torch.hub's folder, and torchvision downloads them there the first time.
    The model has a classifier if the file has one.
    Raises ValueError for an unknown name, and for a file that is damaged or of another model;
    FileNotFoundError if `file` is missing; OSError if the download fails, saying which file to put
    where. All have a message of one line.
    """
    if name not in TORCHVISION:
        raise ValueError(f"no model {name!r}: choose one of {', '.join(TORCHVISION)}")
    if file is None:
        file = _download(name)
    state = read_weights(file)
    try:
        if name.startswith("vit"):
            state = from_torchvision_vit(state)
        has_classifier = any(key.startswith(("fc.", "classifier.", "head.")) for key in state)
        model = TORCHVISION[name](num_classes=1000 if has_classifier else None)
        return _fill(model, state)
    except ValueError as error:
        raise ValueError(f"{file}: not the weights of {name}: {error}") from None


def _download(name: str) -> Path:
    """The file with torchvision's weights of that name, in torch.hub's folder."""
    weights = _published(name)
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if not file.is_file():
        try:
            weights.get_state_dict(check_hash=True, progress=False, weights_only=True)
        except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
            raise OSError(
                f"{name} cannot be downloaded: {error}. Put {weights.url} into {file.parent}"
            ) from None
    return file


def _published(name: str):
    """Torchvision's description of a model's weights. Only here is torchvision imported."""
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:  # RuntimeError: compiled for another torch
        raise ValueError(
            f"{name} needs torchvision, which cannot be imported ({error}): "
            f"install the torchvision that is built for torch {torch.__version__}"
        ) from None
    return torchvision.models.get_model_weights(name).DEFAULT


def _fill(model: nn.Module, state: State) -> nn.Module:
    """The model with all of these weights, in eval mode; raises ValueError, listing mismatches."""
    incompatible = load_matching(model, state)
    missing = []
    for name in incompatible.missing:
        if not name.endswith("num_batches_tracked"):  # older files do not have it
            missing.append(name)
    incompatible = incompatible._replace(missing=missing)
    if any(incompatible):
        raise ValueError(str(incompatible))
    return model.eval()


def rename(state: State, names: dict[str, str | None], prefix: str = "") -> State:
    """The same tensors under our names; `names` is a table like `GPT2`, without the `prefix`.

    Raises ValueError, listing the names that are not in the table: the file of another model is
    never loaded in part.
    """
    renamed = {}
    unknown = []
    for name, tensor in state.items():
        name = name.removeprefix(prefix)
        for pattern, our_name in names.items():
            if re.fullmatch(pattern, name):
                if our_name is not None:
                    renamed[re.sub(pattern, our_name, name)] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"these weights are of another kind of model: this one has no {shorten(unknown)}"
        )
    return renamed


def from_gpt2(state: State) -> State:
    """The state dict of transformers' GPT2Model or GPT2LMHeadModel -> a `TransformerDecoder`'s.

        decoder = TransformerDecoder(vocab_size, n_embd, n_head, n_layer, n_positions, "prefix")
        decoder.load_state_dict(from_gpt2(read_weights("model.safetensors")))

    The sizes are those in GPT-2's config.json; `load_folder` reads them and does all of this.
    GPT-2's linear layers hold their matrices transposed. The causal mask, `attn.bias` in old files,
    is dropped, and so is `lm_head`, which is the token embedding again.
    """
    ours = rename(state, GPT2, "transformer.")
    for name, x in ours.items():
        if name.startswith("blocks.") and x.dim() == 2:
            ours[name] = x.T
    return ours


def from_bert(state: State) -> State:
    """The state dict of transformers' BertModel, or one around it -> a `TransformerEncoder`'s.

        encoder = TransformerEncoder(
            vocab_size, hidden_size, num_attention_heads, num_hidden_layers,
            max_position_embeddings, pre_norm=False, norm_eps=1e-12,
        )
        encoder.load_state_dict(from_bert(read_weights("model.safetensors")))

    The sizes are those in BERT's config.json; `load_folder` reads them and does all of this. The
    three projections of attention are joined into one. Our encoder reads one sentence at a time:
    BERT's token-type vector for the first of two sentences is added to every position; the one for
    the second is dropped, and so are the pooler and the heads for single tasks.
    """
    current = {}
    for name, x in state.items():
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")  # names in the oldest files
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        current[name] = x
    ours = rename(current, BERT, "bert.")
    positions = "embedding.positions.weight"
    token_type = ours.pop("token_types")[0]  # (D,)
    if token_type.shape != ours[positions].shape[1:]:
        raise ValueError(
            f"a vector for token types is {tuple(token_type.shape)}, not as wide as the others"
        )
    ours[positions] = ours[positions] + token_type  # (N, D)
    for query in [name for name in ours if "query" in name]:
        parts = [ours.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        ours[query.replace("query", "in_proj")] = torch.cat(parts)  # (3D, D), or biases (3D,)
    return ours


def from_torchvision_vit(state: State) -> State:
    """The state dict of torchvision's vit_b_16, vit_l_32, … -> a `VisionTransformer`'s.

        model = VisionTransformer(224, 16, **BASE)
        model.load_state_dict(from_torchvision_vit(read_weights("vit_b_16-c867db91.pth")))

    `load_torchvision` does both. Nothing is dropped. The published files and torchvision's code
    name the two linear layers of a block differently; both names are accepted.
    """
    return rename(state, TORCHVISION_VIT)


def from_whisper(state: State) -> State:
    """The state dict of transformers' WhisperModel, or one around it -> an `AudioEncoder`'s.

        encoder = AudioEncoder(
            d_model, num_mel_bins, encoder_attention_heads, encoder_layers, max_source_positions
        )
        encoder.load_state_dict(from_whisper(read_weights("model.safetensors")))

    The sizes are those in Whisper's config.json. The three projections of attention are joined into
    one; Whisper's keys have no bias, so ours gets zeros. Its decoder is dropped, and so are the
    positions, which are the same sinusoids. Its sounds are not scaled as `spectrogram` scales them:
    they are (max(x, max(x) - 8) + 4) / 4, where x is `log_mel` at 16 kHz.
    """
    encoder = {}
    for name, x in state.items():
        encoder[name.removeprefix("model.").removeprefix("encoder.")] = x
    ours = rename(encoder, WHISPER)
    for query in [name for name in ours if name.endswith("q_bias")]:
        ours[query.replace("q_bias", "k_bias")] = torch.zeros_like(ours[query])
    for query in [name for name in ours if ".q_" in name]:
        parts = [ours.pop(query.replace(".q_", f".{part}_")) for part in "qkv"]
        ours[query.replace(".q_", ".in_proj_")] = torch.cat(parts)  # (3D, D), or biases (3D,)
    return ours
