"""Weights that were trained before: what of them fits a model, and how those of other projects are read and named."""

import json
import math
import os
import re
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .images import torchvision
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import VGG, ResNet, VisionTransformer

State = dict[str, Tensor]

# What a .safetensors file calls the types of numbers.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MOST_HEADER = 100_000_000  # bytes; a longer header is refused, as the reference implementation does

# What a whole name of theirs matches -> our name; None drops it.
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

# Keys of config.json that give our constructors' first arguments: words, width, heads, layers, positions.
SIZES = {
    "gpt2": ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions"),
    "bert": ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings"),
}
# Keys for which our classes have no setting -> the values that they are made for, which also hold if the key is left out.
FIXED = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names of one function
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
BASE, LARGE = (12, 12, 768, 3072), (24, 16, 1024, 4096)  # layers, heads, width, that of the blocks' small network
TORCHVISION = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in ResNet.STAGES},
    **{f"vgg{depth}": partial(VGG, depth) for depth in VGG.CONVOLUTIONS},
    **{f"vgg{depth}_bn": partial(VGG, depth, batch_norm=True) for depth in VGG.CONVOLUTIONS},
    **{f"vit_b_{patch}": partial(VisionTransformer, 224, patch, *BASE) for patch in (16, 32)},
    **{f"vit_l_{patch}": partial(VisionTransformer, 224, patch, *LARGE) for patch in (16, 32)},
}


class Misfits(NamedTuple):
    """What of a state dict did not fit a model, by name, each with a reason."""

    missing: list[str]  # in the state dict
    unexpected: list[str]  # by the model
    other_shape: list[str]

    def __str__(self) -> str:
        kinds = zip(("missing", "unexpected", "of another shape"), self)
        return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds if names) or "all fits"


def load_fitting(model: nn.Module, state: State) -> Misfits:
    """Load what has the same name and shape in both, leave the rest of the model as it is, and say what did not fit."""
    ours = model.state_dict()
    common = [name for name in ours if name in state]
    fitting = {name: state[name] for name in common if state[name].shape == ours[name].shape}
    model.load_state_dict(fitting, strict=False)
    shapes = [f"{name} {tuple(state[name].shape)}, here {tuple(ours[name].shape)}" for name in common if name not in fitting]
    return Misfits([name for name in ours if name not in state], [name for name in state if name not in ours], shapes)


def keep_rows(old: Tensor, old_words: Sequence[str], new: Tensor, new_words: Sequence[str]) -> Tensor:
    """For another vocabulary: `new` (V', …), but for words that both know with the rows of `old` (V, …)."""
    index = {word: i for i, word in enumerate(old_words)}
    known = [(i, index[word]) for i, word in enumerate(new_words) if word in index]
    rows, from_rows = torch.tensor(known, dtype=torch.long).reshape(-1, 2).T
    new = new.clone()
    new[rows] = old[from_rows].to(new)
    return new


def read_weights(path: str | Path) -> State:
    """The tensors of a file by name, on the CPU: of a .safetensors file, or of one that torch.save wrote. Nothing in it
    is executed.

    If they lie under "state_dict" or "model", as in many checkpoints, they are taken from there.
    Raises FileNotFoundError or ValueError, in one line, where the file is not there, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Put weights there that safetensors or torch.save wrote")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, and advises to execute what is in it
        reason = getattr(error, "strerror", None) or "it is damaged, or holds more than tensors and plain values"
        raise ValueError(f"{path}: {reason}. Copy it again, or save only the model's state_dict()") from None
    for name in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(x, str) and isinstance(state[x], Tensor) for x in state):
        raise ValueError(f"{path}: not a dict of tensors by name. Save the model's state_dict()")
    return dict(state)


def read_safetensors(path: str | Path) -> State:
    """The tensors of a .safetensors file by name; each has memory of its own. The format:

        length of the header (8 bytes, little-endian) | header (JSON) | data
        header = {name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}, in bytes of the data

    and a name "__metadata__" for some text. The tensors fill the data, side by side, without overlap or gaps.
    Raises ValueError, in one line, where anything in it is otherwise, before any memory is taken for a tensor.
    Source: https://github.com/huggingface/safetensors, which checks the same.
    """
    state = {}
    with open(path, "rb") as file:
        try:
            for name, stored in _read_header(file):
                data = torch.empty(stored.end - stored.begin, dtype=torch.uint8)
                if file.readinto(data.numpy()) < len(data):
                    raise ValueError("it became shorter while it was read")
                state[name] = data.view(stored.dtype).view(stored.shape)
        except ValueError as error:
            raise ValueError(f"{path}: not a whole .safetensors file: {error}. Copy or download it again") from None
    return state


class _Stored(NamedTuple):
    """Where a tensor lies in the data of a .safetensors file, and what it is."""

    begin: int
    end: int
    dtype: torch.dtype
    shape: list[int]


def _read_header(file) -> list[tuple[str, _Stored]]:
    """The tensors of an open .safetensors file, in the order in which they follow; raises ValueError if they do not."""
    size, first = os.fstat(file.fileno()).st_size, file.read(8)
    length, rest = int.from_bytes(first, "little"), size - 8
    if len(first) < 8:
        raise ValueError(f"of {size} bytes, it cannot even hold the length of its header")
    if length > min(rest, MOST_HEADER):
        raise ValueError(f"its header should have {length:,} bytes, of {rest:,} that follow and at most {MOST_HEADER:,}")
    header = _parse_json(file.read(length))
    text = header.pop("__metadata__", {})
    if not isinstance(text, dict) or not all(isinstance(value, str) for value in text.values()):
        raise ValueError("its __metadata__ is not text by name")
    tensors = sorted(((name, _parse_stored(name, entry)) for name, entry in header.items()), key=lambda pair: pair[1][:2])
    place = 0
    for name, stored in tensors:
        if stored.begin != place:
            raise ValueError(f"{name!r:.200} begins at byte {stored.begin:,} of the data, not at {place:,}, where it should")
        place = stored.end
    if place != rest - length:
        last = f"{tensors[-1][0]!r:.200}, the last tensor, ends" if tensors else "its tensors end"
        raise ValueError(f"{last} at byte {place:,} of the data, which has {rest - length:,}")
    return tensors


def _parse_stored(name: str, entry) -> _Stored:
    """One entry of the header; raises ValueError where it contradicts itself."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name!r:.200} is not described by an object of dtype, shape and data_offsets")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name!r:.200} has the dtype {dtype!r:.50}; known are {', '.join(DTYPES)}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"{name!r:.200} has the shape or data_offsets {numbers!r:.50}, not a list of whole numbers, 0 or more")
    if len(offsets) != 2:
        raise ValueError(f"{name!r:.200} has {len(offsets)} data_offsets, not 2")
    if len(shape) > 64 or math.prod(n or 1 for n in shape) >= 2**63:
        raise ValueError(f"{name!r:.200} has the shape {shape!r:.50}, which is too large")
    (begin, end), needed = offsets, math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise ValueError(f"{name!r:.200} of {dtype} {shape!r:.50} needs {needed:,} bytes, and has those from {begin:,} to {end:,}")
    return _Stored(begin, end, DTYPES[dtype], shape)


def _parse_json(text: bytes) -> dict:
    """JSON in UTF-8; raises ValueError if it is no object, or a name stands in one twice."""

    def unique(pairs: list[tuple]) -> dict:
        found = {}
        for name, value in pairs:
            if name in found:
                raise ValueError(f"{name!r:.200} stands there twice")
            found[name] = value
        return found

    try:
        values = json.loads(text.decode(), object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("its JSON is not an object")
    return values


def load_folder(folder: str | Path) -> TransformerDecoder | TransformerEncoder:
    """A folder as transformers' save_pretrained writes it -> our model with its weights, in float32 and eval mode.

    It holds config.json and model.safetensors or pytorch_model.bin, or either in several files with an index. By the
    "model_type" that config.json names, "gpt2" becomes a `TransformerDecoder` with fusion="prefix" (with
    `Memory.of_nothing` it is the language model that it was), "bert" a `TransformerEncoder`; see `from_gpt2` and
    `from_bert` for what is dropped. Words are numbered as there: a tokenizer of transformers makes them.

    Raises FileNotFoundError or ValueError, in one line, where a file is not there or damaged, the configuration asks
    for what our classes do not compute, or the weights do not fit it.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Put it there, and model.safetensors or pytorch_model.bin beside it")
    try:
        model, convert = _build(_parse_json(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    state = _read_folder(folder)
    try:
        return _fill(model, convert(state))
    except KeyError as error:
        raise ValueError(f"{folder}: the weights do not fit config.json: missing: {error.args[0]}") from None
    except (ValueError, IndexError, RuntimeError) as error:  # the last two of tensors that cannot be joined
        raise ValueError(f"{folder}: the weights do not fit config.json: {str(error).splitlines()[0]}") from None


def _build(config: dict) -> tuple[nn.Module, "function"]:
    """Our model of the sizes in a config.json, and what renames its weights; raises ValueError where ours is another."""
    kind = config.get("model_type")
    if kind not in ("gpt2", "bert"):
        raise ValueError(f'"model_type" is {kind!r:.50}; only "gpt2" and "bert" can be loaded')
    if "n_ctx" in config:
        config.setdefault("n_positions", config["n_ctx"])  # the older name
    sizes = [config.get(name) for name in SIZES[kind]]
    for name, size in zip(SIZES[kind], sizes):
        if type(size) is not int or size < 1:
            raise ValueError(f'"{name}" is {size!r:.50}, not a whole number above 0')
    inner = 4 * sizes[1]
    for name, values in (FIXED[kind] | {"n_inner": (None, inner), "intermediate_size": (inner,)}).items():
        if config.get(name, values[0]) not in values:
            raise ValueError(f'"{name}" is {config[name]!r:.50}; our model can only be {" or ".join(map(repr, values))}')
    if kind == "gpt2":
        return TransformerDecoder(*sizes, fusion="prefix"), from_gpt2
    norm_eps = config.get("layer_norm_eps", 1e-12)
    if not isinstance(norm_eps, float) or not 0 < norm_eps < 1:
        raise ValueError(f'"layer_norm_eps" is {norm_eps!r:.50}, not a small number above 0')
    return TransformerEncoder(*sizes, pre_norm=False, norm_eps=norm_eps), from_bert


def _read_folder(folder: Path) -> State:
    """The weights in a folder, be they in one file or in several, which an index lists."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        path, index = folder / name, folder / f"{name}.index.json"
        if path.is_file():
            return read_weights(path)
        if index.is_file():
            try:
                parts = _parse_json(index.read_bytes()).get("weight_map")
            except ValueError as error:
                raise ValueError(f"{index}: {error}") from None
            if not isinstance(parts, dict) or not all(isinstance(x, str) and re.fullmatch(r"\w[\w.-]*", x) for x in parts.values()):
                raise ValueError(f'{index}: its "weight_map" does not give the names of files in this folder')
            state = {}
            for part in sorted(set(parts.values())):
                state |= read_weights(folder / part)
            return state
    raise FileNotFoundError(f"{folder}: no weights. Put model.safetensors or pytorch_model.bin there")


def load_torchvision(name: str, file: str | Path | None = None) -> ResNet | VGG | VisionTransformer:
    """Our model with the weights that torchvision publishes under this name (of its best for ImageNet), in eval mode.

    name: resnet18, 34, 50, 101, 152, vgg11, 13, 16, 19, the same with _bn, vit_b_16, vit_b_32, vit_l_16 or vit_l_32.
    They are read from `file`, or else from torch.hub's folder, into which torchvision downloads them the first time.

    Raises ValueError for another name, and for a file that is damaged or of another model; FileNotFoundError where
    `file` is not there; OSError, which says which file to put where, if the download fails. All in one line.
    """
    if name not in TORCHVISION:
        raise ValueError(f"no model {name!r}: choose one of {', '.join(TORCHVISION)}")
    if file is None:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
        if not file.is_file():
            try:
                weights.get_state_dict(check_hash=True, progress=False, weights_only=True)
            except (OSError, HTTPException, RuntimeError) as error:  # the last where the file is not what it should be
                reason = getattr(error, "reason", None) or error
                raise OSError(f"{name} cannot be downloaded: {reason}. Put {weights.url} into {file.parent}") from None
    state = read_weights(file)
    try:
        return _fill(TORCHVISION[name](), from_torchvision_vit(state) if name.startswith("vit") else state)
    except ValueError as error:
        raise ValueError(f"{file}: not the weights of {name}: {error}") from None


def _fill(model: nn.Module, state: State) -> nn.Module:
    """The model with these weights, in eval mode; raises ValueError, listing what does not fit."""
    misfits = load_fitting(model, state)
    missing = [name for name in misfits.missing if not name.endswith("num_batches_tracked")]  # old files do not count
    if any(misfits := misfits._replace(missing=missing)):
        raise ValueError(str(misfits))
    return model.eval()


def rename(state: State, names: dict[str, str | None], prefix: str = "") -> State:
    """The same tensors under our names; those of their names may begin with `prefix`.

    Raises ValueError, listing the names that are not in the table: a file of another model is not loaded by half.
    """
    renamed, unknown = {}, []
    for theirs, tensor in state.items():
        theirs = theirs.removeprefix(prefix)
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, theirs)), None)
        if pattern is None:
            unknown.append(theirs)
        elif names[pattern] is not None:
            renamed[re.sub(pattern, names[pattern], theirs)] = tensor
    if unknown:
        rest = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise ValueError(f"these weights are of another kind of model: this one has no {', '.join(unknown[:5])}{rest}")
    return renamed


def from_gpt2(state: State) -> State:
    """The state dict of transformers' GPT2Model or GPT2LMHeadModel -> that of a `TransformerDecoder`.

        decoder = TransformerDecoder(vocab_size, n_embd, n_head, n_layer, max_length=n_positions, fusion="prefix")
        decoder.load_state_dict(from_gpt2(read_weights("model.safetensors")))

    The sizes are those in GPT-2's config.json: `load_folder` does all of this. Its linear layers keep their matrices transposed. The causal mask, which
    old files hold as `attn.bias`, is dropped, and so is `lm_head`, which is the embedding again.
    """
    ours = rename(state, GPT2, "transformer.")
    return {name: x.T if name.startswith("blocks.") and x.dim() == 2 else x for name, x in ours.items()}


def from_bert(state: State) -> State:
    """The state dict of transformers' BertModel, or of a model around it -> that of a `TransformerEncoder`.

        encoder = TransformerEncoder(
            vocab_size, hidden_size, num_attention_heads, num_hidden_layers, max_position_embeddings,
            pre_norm=False, norm_eps=1e-12,
        )
        encoder.load_state_dict(from_bert(read_weights("model.safetensors")))

    The sizes are those in BERT's config.json: `load_folder` does all of this. Its three projections are joined to one. Our encoder reads one sentence
    at a time: BERT's vector for the first of a pair is added to every position, that for the second is dropped, and so
    are the pooler and the heads of single tasks.
    """
    for old, new in (("gamma", "weight"), ("beta", "bias")):  # the first files name the norms' two vectors so
        state = {name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}"): x for name, x in state.items()}
    ours = rename(state, BERT, "bert.")
    positions = "embedding.positions.weight"
    ours[positions] = ours[positions] + ours.pop("token_types")[0]
    for query in [name for name in ours if "query" in name]:
        parts = [ours.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        ours[query.replace("query", "in_proj")] = torch.cat(parts)  # (3D, D), or of the biases (3D)
    return ours


def from_torchvision_vit(state: State) -> State:
    """The state dict of torchvision's vit_b_16, vit_l_32, … -> that of a `VisionTransformer`.

        model = VisionTransformer(224, 16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072)
        model.load_state_dict(from_torchvision_vit(read_weights("vit_b_16-c867db91.pth")))

    `load_torchvision` does both. Nothing is dropped. The published files name the two linear layers of a block otherwise than torchvision's code
    does; both names are known.
    """
    return rename(state, TORCHVISION_VIT)
