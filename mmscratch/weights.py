"""Weights that were trained before: what of them fits a model, and how those of other projects are read and named."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .engine.safetensors import parse_json, read_safetensors
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import VGG, ResNet, VisionTransformer

State = dict[str, Tensor]

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

# In config.json, what our constructors take first: words, width, heads, layers, positions.
SIZES = {
    "gpt2": ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions"),
    "bert": (
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "max_position_embeddings",
    ),
}
# What our classes have no setting for -> the values that they are made for, which also hold where the key is left out.
FIXED = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,), "tie_word_embeddings": (True,),
    },
    "bert": {
        "hidden_act": ("gelu",), "position_embedding_type": ("absolute",), "is_decoder": (False,),
        "add_cross_attention": (False,), "pad_token_id": (0,),
    },
}  # fmt: skip
BASE, LARGE = (
    (12, 12, 768, 3072),
    (24, 16, 1024, 4096),
)  # layers, heads, width, width within a block
TORCHVISION = {
    **{f"resnet{depth}": partial(ResNet, depth) for depth in ResNet.STAGES},
    **{f"vgg{depth}": partial(VGG, depth) for depth in VGG.CONVOLUTIONS},
    **{f"vgg{depth}_bn": partial(VGG, depth, batch_norm=True) for depth in VGG.CONVOLUTIONS},
    **{f"vit_b_{patch}": partial(VisionTransformer, 224, patch, *BASE) for patch in (16, 32)},
    **{f"vit_l_{patch}": partial(VisionTransformer, 224, patch, *LARGE) for patch in (16, 32)},
}


class IncompatibleKeys(NamedTuple):
    """What of a state dict did not fit a model, by name, each with a reason."""

    missing: list[str]  # in the state dict
    unexpected: list[str]  # by the model
    mismatched: list[str]

    def __str__(self) -> str:
        kinds = zip(("missing", "unexpected", "of another shape"), self)
        return (
            "; ".join(f"{kind}: {_shortened(names)}" for kind, names in kinds if names)
            or "all fits"
        )


def _shortened(names: list[str]) -> str:
    """The first five."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def load_matching(model: nn.Module, state: State) -> IncompatibleKeys:
    """Load what has the same name and shape in both, leave the rest of the model as it is, and say what did not fit."""
    ours = model.state_dict()
    common = [name for name in ours if name in state]
    fitting = {name: state[name] for name in common if state[name].shape == ours[name].shape}
    model.load_state_dict(fitting, strict=False)
    shapes = [
        f"{name} {tuple(state[name].shape)}, here {tuple(ours[name].shape)}"
        for name in common
        if name not in fitting
    ]
    return IncompatibleKeys(
        [name for name in ours if name not in state],
        [name for name in state if name not in ours],
        shapes,
    )


def transfer_embedding_rows(
    old: Tensor, old_words: Sequence[str], new: Tensor, new_words: Sequence[str]
) -> Tensor:
    """For another vocabulary: `new` (V', …), but for words that both know with the rows of `old` (V, …)."""
    index = {word: i for i, word in enumerate(old_words)}
    known = [(i, index[word]) for i, word in enumerate(new_words) if word in index]
    rows, from_rows = torch.tensor(known, dtype=torch.long).reshape(-1, 2).T
    new = new.clone()
    new[rows] = old[from_rows].to(new)
    return new


def read_weights(path: str | Path) -> State:
    """The tensors in a file by name, on the CPU: a .safetensors file, or one of torch.save, of which nothing is executed.

    If they lie under "state_dict" or "model", as in many checkpoints, they are taken from there.
    Raises FileNotFoundError or ValueError, in one line, where it is not there, is damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Put there what safetensors or torch.save wrote"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds, and advises to execute what is in it
        reason = (
            getattr(error, "strerror", None)
            or "it is damaged, or holds more than tensors and plain values"
        )
        raise ValueError(
            f"{path}: {reason}. Copy it again, or save only the model's state_dict()"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(x, Tensor) for k, x in state.items()
    ):
        raise ValueError(
            f"{path}: not a dict of tensors by name. Save only the model's state_dict()"
        )
    return dict(state)


def load_folder(folder: str | Path) -> TransformerDecoder | TransformerEncoder:
    """A folder that transformers' save_pretrained wrote -> our model with its weights, in float32 and eval mode.

    By the "model_type" in config.json, "gpt2" becomes a `TransformerDecoder` with fusion="prefix" (over
    `Memory.empty` it is the language model that it was), and "bert" a `TransformerEncoder`. See `from_gpt2` and
    `from_bert` for what is dropped. The weights are in model.safetensors or pytorch_model.bin, or in parts with an index.

    Raises FileNotFoundError or ValueError, in one line, where a file is not there or damaged, config.json asks for
    something that our classes do not compute, or the weights do not fit it.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Put it there, and model.safetensors or pytorch_model.bin beside it"
        )
    try:
        model, convert = _build(parse_json(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    state = _read_folder(folder)
    try:
        return _fill(model, convert(state))
    except (KeyError, IndexError, RuntimeError) as error:  # of `from_bert`, which joins tensors
        reason = f"missing, or of another shape: {str(error).splitlines()[0]}"
    except ValueError as error:
        reason = error
    raise ValueError(f"{folder}: the weights do not fit config.json: {reason}")


def _build(config: dict) -> tuple[nn.Module, Callable[[State], State]]:
    """The model that a config.json asks for, and what renames its weights; raises ValueError where ours cannot be that."""
    kind = config.get("model_type")
    if kind not in ("gpt2", "bert"):
        raise ValueError(f'"model_type" is {kind!r:.50}; only "gpt2" and "bert" can be loaded')
    if "n_ctx" in config:
        config.setdefault("n_positions", config["n_ctx"])  # its older name
    sizes = [config.get(name) for name in SIZES[kind]]
    for name, size in zip(SIZES[kind], sizes):
        if type(size) is not int or size < 1:
            raise ValueError(f'"{name}" is {size!r:.50}, not a whole number above 0')
    inner, norm_eps = 4 * sizes[1], config.get("layer_norm_eps", 1e-12)
    fixed = FIXED[kind] | {"n_inner": (None, inner), "intermediate_size": (inner,)}
    for name, values in fixed.items():
        if name in config and config[name] not in values:
            raise ValueError(
                f'"{name}" is {config[name]!r:.50}; ours can only be {" or ".join(map(repr, values))}'
            )
    if not isinstance(norm_eps, float):
        raise ValueError(f'"layer_norm_eps" is {norm_eps!r:.50}, not a number such as 1e-12')
    if kind == "gpt2":
        return TransformerDecoder(*sizes, fusion="prefix"), from_gpt2
    return TransformerEncoder(*sizes, pre_norm=False, norm_eps=norm_eps), from_bert


def _read_folder(folder: Path) -> State:
    """The weights in a folder, from one file, or from several that an index lists."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        path, index = folder / name, folder / f"{name}.index.json"
        if path.is_file():
            return read_weights(path)
        if index.is_file():
            try:
                parts = set(parse_json(index.read_bytes())["weight_map"].values())
                if any(not re.fullmatch(r"\w[\w.-]*", part) for part in parts):
                    raise ValueError
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(
                    f"{index}: not an index of files in this folder. Copy it again"
                ) from None
            return {
                name: x for part in sorted(parts) for name, x in read_weights(folder / part).items()
            }
    raise FileNotFoundError(
        f"{folder}: no weights. Put model.safetensors or pytorch_model.bin there"
    )


def load_torchvision(name: str, file: str | Path | None = None) -> ResNet | VGG | VisionTransformer:
    """Our model with the weights, trained on ImageNet, that torchvision publishes under its name; in eval mode.

    `name` is one of `TORCHVISION`: resnet18, vgg16_bn, vit_b_32, … Without a `file`, the weights are those in torch.hub's
    folder, into which torchvision downloads them at first.
    Raises ValueError for another name, and for a file that is damaged or of another model; FileNotFoundError where
    `file` is not there; OSError, which says what to put where, where the download fails. All in one line.
    """
    if name not in TORCHVISION:
        raise ValueError(f"no model {name!r}: choose one of {', '.join(TORCHVISION)}")
    if file is None:
        weights = _published(name)
        file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
        if not file.is_file():
            try:
                weights.get_state_dict(check_hash=True, progress=False, weights_only=True)
            except (
                OSError,
                HTTPException,
                RuntimeError,
            ) as error:  # the last where what came has another hash
                raise OSError(
                    f"{name} cannot be downloaded: {error}. Put {weights.url} into {file.parent}"
                ) from None
    state = read_weights(file)
    try:
        return _fill(
            TORCHVISION[name](), from_torchvision_vit(state) if name.startswith("vit") else state
        )
    except ValueError as error:
        raise ValueError(f"{file}: not the weights of {name}: {error}") from None


def _published(name: str):
    """Where torchvision publishes the weights of a model. Only here is torchvision imported."""
    try:
        import torchvision
    except (
        ImportError,
        RuntimeError,
    ) as error:  # the second where its compiled part is for another torch
        raise ValueError(
            f"{name} needs torchvision, which cannot be imported ({error}): install the torchvision that is built for "
            f"torch {torch.__version__}"
        ) from None
    return torchvision.models.get_model_weights(name).DEFAULT


def _fill(model: nn.Module, state: State) -> nn.Module:
    """The model with all of these weights, in eval mode; raises ValueError, listing what does not fit."""
    misfits = load_matching(model, state)
    missing = [
        name for name in misfits.missing if not name.endswith("num_batches_tracked")
    ]  # unknown to older files
    misfits = misfits._replace(missing=missing)
    if any(misfits):
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
        raise ValueError(
            f"these weights are of another kind of model: this one has no {_shortened(unknown)}"
        )
    return renamed


def from_gpt2(state: State) -> State:
    """The state dict of transformers' GPT2Model or GPT2LMHeadModel -> that of a `TransformerDecoder`.

        decoder = TransformerDecoder(vocab_size, n_embd, n_head, n_layer, max_length=n_positions, fusion="prefix")
        decoder.load_state_dict(from_gpt2(read_weights("model.safetensors")))

    The sizes are those in GPT-2's config.json; `load_folder` reads them and does all of this. Its linear layers keep
    their matrices transposed. The causal mask, which old files hold as `attn.bias`, is dropped, and so is `lm_head`,
    which is the embedding again.
    """
    ours = rename(state, GPT2, "transformer.")
    return {
        name: x.T if name.startswith("blocks.") and x.dim() == 2 else x for name, x in ours.items()
    }


def from_bert(state: State) -> State:
    """The state dict of transformers' BertModel, or of a model around it -> that of a `TransformerEncoder`.

        encoder = TransformerEncoder(
            vocab_size, hidden_size, num_attention_heads, num_hidden_layers, max_position_embeddings,
            pre_norm=False, norm_eps=1e-12,
        )
        encoder.load_state_dict(from_bert(read_weights("model.safetensors")))

    The sizes are those in BERT's config.json; `load_folder` reads them and does all of this. Its three projections are
    joined to one. Our encoder reads one sentence at a time: BERT's vector for the first of a pair is added to every
    position, that for the second is dropped, and so are the pooler and the heads of single tasks.
    """
    for old, new in (
        ("gamma", "weight"),
        ("beta", "bias"),
    ):  # the first files name the norms' two vectors so
        state = {
            name.replace(f"LayerNorm.{old}", f"LayerNorm.{new}"): x for name, x in state.items()
        }
    ours = rename(state, BERT, "bert.")
    positions = "embedding.positions.weight"
    first_of_pair = ours.pop("token_types")[0]  # (D)
    if first_of_pair.shape != ours[positions].shape[1:]:
        raise ValueError(
            f"a vector for the first of a pair is {tuple(first_of_pair.shape)}, and not as wide as the others"
        )
    ours[positions] = ours[positions] + first_of_pair
    for query in [name for name in ours if "query" in name]:
        parts = [ours.pop(query.replace("query", part)) for part in ("query", "key", "value")]
        ours[query.replace("query", "in_proj")] = torch.cat(parts)  # (3D, D), or of the biases (3D)
    return ours


def from_torchvision_vit(state: State) -> State:
    """The state dict of torchvision's vit_b_16, vit_l_32, … -> that of a `VisionTransformer`.

        model = VisionTransformer(224, 16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072)
        model.load_state_dict(from_torchvision_vit(read_weights("vit_b_16-c867db91.pth")))

    `load_torchvision` does both. Nothing is dropped. The published files name the two linear layers of a block
    otherwise than torchvision's code does; both names are known.
    """
    return rename(state, TORCHVISION_VIT)
