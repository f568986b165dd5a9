"""Fine-tuning: freezing, layer-wise learning rates, small changes of a frozen model, and runs that
start from another run.
"""

import hashlib
import math
import re
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import MultiHeadAttention
from .contrastive import DualEncoder
from .engine.devices import pick_device
from .engine.runs import VERSION, check_version, read_checkpoint
from .model import EncoderDecoder, ModelConfig, build_model
from .recurrent import LSTM
from .reliability import write_atomically
from .text import vocabulary_from
from .weights import (
    TORCHVISION,
    IncompatibleKeys,
    gpt2_decoder_state,
    load_matching,
    load_torchvision,
    shorten,
    transfer_embedding_rows,
)

State = dict[str, Tensor]


def freeze(model: nn.Module, *patterns: str) -> None:
    """Freeze the parameters whose names match a pattern, and modules with no other parameters.

    A pattern is a name in `model.named_parameters()`, or the start of one up to a dot; * matches
    anything: "encoders.image.backbone", "*.bias". A module whose parameters are all frozen stays
    in eval mode, even after `model.train()`: batch norm uses its running statistics and does not
    update them, and nothing is dropped. The other modules keep their mode.
    Raises ValueError, naming the pattern and the model's parts, if it matches nothing.
    """
    for pattern in patterns:
        matching = [p for name, p in model.named_parameters() if _matches_pattern(name, pattern)]
        if not matching:
            parts = ", ".join(part for part, _, _ in trainable_parts(model))
            raise ValueError(f"no parameter is called {pattern!r}; the model's parts are {parts}")
        for parameter in matching:
            parameter.requires_grad_(False)
    _set_frozen_modes(model)


def unfreeze(model: nn.Module, *patterns: str) -> None:
    """The opposite of `freeze`; without patterns, for all parameters.

    If the whole model was frozen, it is in eval mode until `train()`.
    """
    for name, parameter in model.named_parameters():
        if not patterns or any(_matches_pattern(name, pattern) for pattern in patterns):
            parameter.requires_grad_(True)
    _set_frozen_modes(model)


def _matches_pattern(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")


def _set_frozen_modes(model: nn.Module) -> None:
    """Keep fully frozen modules in eval mode; let the others follow `model` again."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
            module.train = partial(_stay_in_eval, module)
        else:
            module.__dict__.pop("train", None)
    model.train(model.training)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """Replaces `nn.Module.train` in a frozen module."""
    return module


def trainable_parts(model: nn.Module) -> list[tuple[str, int, int]]:
    """(name, number of parameters, how many are trained) of each part; small changes come last.

    The names of the others are patterns for `freeze`.
    """
    parts: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        names = name.split(".")
        length = 3 if names[0] == "encoders" else 2
        part = ".".join(names[:length])
        if "lora" in names or "adapter" in names:
            part = "LoRA" if "lora" in names else "adapters"
        counts = parts.setdefault(part, [0, 0])
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() * parameter.requires_grad
    for name in ("LoRA", "adapters", "prompt"):
        if name in parts:
            parts[name] = parts.pop(name)  # to the end
    return [(part, *counts) for part, counts in parts.items() if counts[0]]


# -------------------------------------------------------------------------------------------------
# Layers, from the input to the output.


def layers(model: nn.Module) -> list[list[str]]:
    """The names of a model's parameters, by layer, from the input to the output.

    The layers are the backbone's first convolution, its stages or blocks, what comes after these,
    the projection, the encoder's blocks, and the decoder's blocks. The last layer is the decoder's
    embedding, which is also its output, with all other parameters of the decoder; for a
    `DualEncoder`, all parameters that are not its encoders'.
    """
    by_depth: dict[tuple, list[str]] = {}
    for name, _ in model.named_parameters():
        by_depth.setdefault(_depth(name), []).append(name)
    return [by_depth[depth] for depth in sorted(by_depth)]


def _depth(name: str) -> tuple[int, int, int]:
    """A parameter's sort key: (backbone, encoder or decoder; before, in or after blocks; block)."""
    if ".backbone." in name:
        part = 0
    elif name.startswith("encoders."):
        part = 1
    else:
        part = 2
    block = re.search(r"\b(?:layer|blocks\.|features\.)(\d+)", name)
    if block:
        return part, 1, int(block[1])
    is_after = part == 2 or re.search(r"backbone\.(norm|head|fc|classifier)\.", name)
    return part, 2 if is_after else 0, 0


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for the optimizer, each with its weight decay and a factor for its learning rate.

    Matrices and filters decay; biases, norms and single vectors, such as a class token (1, 1, D),
    do not. A group's learning rate is to be multiplied by its "factor",

        factor = layer_decay ** (layers between this one and the output)

    so with layer_decay below 1, layers near the input, which are more general, change less.
    Source: discriminative fine-tuning, Howard & Ruder 2018 (ULMFiT).
    """
    distance = {}  # from the output, in layers
    for i, names in enumerate(reversed(layers(model))):
        for name in names:
            distance[name] = i
    groups: dict[tuple, dict] = {}
    for decays in (True, False):
        for name, parameter in model.named_parameters():
            is_matrix = parameter.squeeze().dim() > 1
            if is_matrix == decays:
                factor = layer_decay ** distance[name]
                decay = weight_decay if decays else 0.0
                new_group = {"params": [], "weight_decay": decay, "factor": factor}
                group = groups.setdefault((decays, factor), new_group)
                group["params"].append(parameter)
    return list(groups.values())


def gradual_unfreezing(model: nn.Module, frozen: list[str], fraction: float) -> bool:
    """Unfreeze a fraction of the frozen layers, from the output down; return whether any changed.

    `frozen` names the parameters that were frozen at the start; only layers with such parameters
    count. As the fraction grows from 0 to 1, new layers learn first and do not disturb the others
    before they are useful. Source: Howard & Ruder 2018 (ULMFiT).
    """
    frozen_layers = []
    for names in reversed(layers(model)):
        frozen_names = [name for name in names if name in frozen]
        if frozen_names:
            frozen_layers.append(frozen_names)
    free = []
    for names in frozen_layers[: int(fraction * len(frozen_layers))]:
        free.extend(names)
    changed = any(not model.get_parameter(name).requires_grad for name in free)
    if changed:
        unfreeze(model, *free)
    return changed


# -------------------------------------------------------------------------------------------------
# Low-rank adaptation.


class LoRA(nn.Module):
    """A low-rank change of a frozen matrix W (out, in): the product of two thin matrices is added.

        y = W x + scale · B A dropout(x)

    A (rank, in) is random and B (out, rank) is zero, so nothing is changed at the start. `scale`
    is the paper's α / r. Source: Hu et al. 2021, "LoRA"; A is initialized as in their loralib.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float):
        super().__init__()
        self.scale = scale
        self.dropout = dropout
        self.a = nn.Parameter(weight.new_empty(rank, weight.size(1)))
        self.b = nn.Parameter(weight.new_zeros(weight.size(0), rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def matrix(self) -> Tensor:
        """scale · B A, (out, in)."""
        return self.scale * self.b @ self.a

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """x (…, in) -> the change of W x, (…, out), or of these rows of it."""
        x = F.dropout(x, self.dropout, self.training)
        return self.scale * F.linear(F.linear(x, self.a), self.b[rows])


class LoRALinear(nn.Linear):
    """A linear layer that `add_lora` has given a `LoRA` for its matrix."""

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) -> (…, out)."""
        return super().forward(x) + self.lora["weight"](x)


class LoRAAttention(MultiHeadAttention):
    """Multi-head attention with a `LoRA` for the joint matrix of its queries, keys and values."""

    def in_proj(self, x: Tensor, rows: slice) -> Tensor:
        """x (…, D) -> its products with these rows of the changed joint matrix."""
        return super().in_proj(x, rows) + self.lora["in_proj_weight"](x, rows)


class LoRALSTM(LSTM):
    """An LSTM with a `LoRA` for each of its matrices.

    The change is added to the matrix itself, not to its product with x, so it has no dropout.
    """

    def weight(self, name: str) -> Tensor:
        """The changed matrix of that name."""
        return super().weight(name) + self.lora[name].matrix()


_LORA_CLASS = {nn.Linear: LoRALinear, MultiHeadAttention: LoRAAttention, LSTM: LoRALSTM}
_PLAIN_CLASS = {lora_class: plain_class for plain_class, lora_class in _LORA_CLASS.items()}


def add_lora(model: nn.Module, rank: int, scale: float = 2.0, dropout: float = 0.0) -> None:
    """Freeze the model, and give its linear layers, attentions and LSTMs a `LoRA` for each matrix.

    A layer remains the same object with the same parameters; it gets `layer.lora`, and its class
    becomes the one above that adds the change. At the start, the model computes what it did before.
    A layer that has a matrix with fewer than `rank` rows or columns is left as it is.
    Raises ValueError where no layer can have a LoRA, or the model has one already.
    """
    if _lora_layers(model):
        raise ValueError("this model has a LoRA: train it, or call `merge_lora` or `remove_lora`")
    chosen = []
    for layer in model.modules():
        if type(layer) in _LORA_CLASS:
            sides = [size for matrix in _matrices(layer).values() for size in matrix.shape]
            if 1 <= rank <= min(sides):
                chosen.append(layer)
    if not chosen:
        raise ValueError(f"no layer of this {type(model).__name__} can have a LoRA of rank {rank}")
    model.requires_grad_(False)
    for layer in chosen:
        layer.lora = nn.ModuleDict()
        for name, matrix in _matrices(layer).items():
            layer.lora[name] = LoRA(matrix, rank, scale, dropout)
        layer.__class__ = _LORA_CLASS[type(layer)]
    _set_frozen_modes(model)


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add each change to its matrix in place, W + scale · B A, and remove the LoRAs.

    The model computes the same, as fast as before `add_lora`. This cannot be undone: subtracting
    the change again would leave rounding errors in W.
    """
    for layer in _lora_layers(model):
        for name, lora in layer.lora.items():
            weight = layer.get_parameter(name)
            weight += lora.matrix()
    remove_lora(model)


def remove_lora(model: nn.Module) -> None:
    """Delete the LoRAs and set the layers' classes back; the weights stay, bit for bit."""
    for layer in _lora_layers(model):
        del layer.lora
        layer.__class__ = _PLAIN_CLASS[type(layer)]


def _lora_layers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if type(layer) in _PLAIN_CLASS]


def _matrices(layer: nn.Module) -> dict[str, nn.Parameter]:
    """A layer's own matrices by name, without those of the layers in it."""
    own = layer.named_parameters(recurse=False)
    return {name: parameter for name, parameter in own if parameter.dim() == 2}


# -------------------------------------------------------------------------------------------------
# Other small changes.


def train_biases(model: nn.Module) -> None:
    """Freeze the model but for its biases, which include those of its norms: BitFit.

    A bias is a parameter whose own name begins or ends with "bias".
    Raises ValueError if there is none. Source: Ben Zaken et al. 2022.
    """
    model.requires_grad_(False)
    biases = []
    for name, parameter in model.named_parameters():
        own_name = name.rpartition(".")[2]
        if own_name.startswith("bias") or own_name.endswith("bias"):
            biases.append(parameter)
    if not biases:
        raise ValueError(f"this {type(model).__name__} has no biases to train")
    for bias in biases:
        bias.requires_grad_(True)
    _set_frozen_modes(model)


class Adapter(nn.Module):
    """A narrow network behind a frozen layer, with a way around it.

        y = x + W_up gelu(W_down x + b_down) + b_up

    x, y (…, dim). The linear layers are `down`, with W_down (size, dim), and `up`, with W_up
    (dim, size). W_up and b_up start at 0, so that nothing is changed at the start.
    Source: Houlsby et al. 2019.
    """

    def __init__(self, dim: int, size: int):
        super().__init__()
        self.down = nn.Linear(dim, size)
        self.up = nn.Linear(size, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


class AdapterLinear(nn.Linear):
    """A linear layer that `add_adapters` has given an `Adapter` for its output."""

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in) -> (…, out)."""
        return self.adapter(super().forward(x))


# The linear layers that end a part of a block: of an attention, of an MLP, of the LSTM decoder.
_ENDS = ("out_proj", "linear2", "combine")


def add_adapters(model: nn.Module, size: int) -> None:
    """Freeze the model, and give the linear layers that end a part of a block an `Adapter` each.

    As with `add_lora`, the layers stay the same objects, and compute the same at the start.
    Raises ValueError if there is no such layer, or the model has adapters already.
    """
    chosen = []
    for name, layer in model.named_modules():
        if type(layer) is AdapterLinear:
            raise ValueError("this model has adapters: train them, or call `remove_adapters`")
        if type(layer) is nn.Linear and name.rpartition(".")[2] in _ENDS:
            chosen.append(layer)
    if not chosen:
        raise ValueError(f"no layer of this {type(model).__name__} can have an adapter")
    model.requires_grad_(False)
    for layer in chosen:
        layer.adapter = Adapter(layer.out_features, size).to(layer.weight)
        layer.__class__ = AdapterLinear
    _set_frozen_modes(model)


def remove_adapters(model: nn.Module) -> None:
    """Delete the adapters and set the layers' classes back; the weights stay, bit for bit."""
    for layer in model.modules():
        if type(layer) is AdapterLinear:
            del layer.adapter
            layer.__class__ = nn.Linear


def add_prompt(model: EncoderDecoder, length: int) -> None:
    """Put `length` learned positions before the memory, `model.prompt` (P, D): prompt tuning.

    The decoder attends to these vectors as to what it sees or reads. They start with variance 1,
    like the vectors of several encoders that are fused. Nothing is frozen: call `freeze` before.
    Raises ValueError if the model has a prompt already. Source: Lester et al. 2021.
    """
    if model.prompt is not None:
        raise ValueError("this model has a prompt: train it, or set `prompt` to None")
    weight = next(model.decoder.parameters())
    model.prompt = nn.Parameter(torch.randn(length, model.decoder.embed_dim).to(weight))


# -------------------------------------------------------------------------------------------------
# The trained tensors, without the rest of the model.


def trainable_state(model: nn.Module) -> State:
    """The trained tensors, and every LoRA, adapter or prompt even if it is frozen: some kilobytes.

    A joint embedding has two names, as in the model's state dict.
    """
    state = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        is_added = ".lora." in name or ".adapter." in name or name == "prompt"
        if parameter.requires_grad or is_added:
            state[name] = parameter.detach()
    return state


def fingerprint(model: nn.Module) -> str:
    """The SHA-256 of all tensors that are not trained: names, shapes, dtypes and every bit."""
    digest = hashlib.sha256()
    trained = trainable_state(model)
    for name, x in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(f"{name} {tuple(x.shape)} {x.dtype} ".encode())
            data = x.detach().cpu().contiguous().reshape(-1)  # (elements,)
            digest.update(data.view(torch.uint8).numpy())
    return digest.hexdigest()


def load_trainable(model: nn.Module, state: State, base: str) -> None:
    """Load a `trainable_state` into the model that it was trained on, known by its `fingerprint`.

    Raises ValueError if the rest of the model differs, or the names or shapes do not fit.
    """
    if fingerprint(model) != base:
        raise ValueError("these tensors were trained on another model, with other weights")
    ours = trainable_state(model)
    our_shapes = {name: tuple(x.shape) for name, x in ours.items()}
    shapes = {name: tuple(x.shape) for name, x in state.items()}
    if our_shapes != shapes:
        names = our_shapes | shapes
        wrong = [name for name in names if our_shapes.get(name) != shapes.get(name)]
        raise ValueError(
            f"the trained tensors do not fit: {', '.join(wrong[:5])}, {len(wrong)} in all"
        )
    with torch.no_grad():
        for name, x in state.items():
            ours[name].copy_(x)


# -------------------------------------------------------------------------------------------------
# From one run to the next.


def save_run(
    folder: str | Path,
    model: EncoderDecoder | DualEncoder,
    config: ModelConfig,
    vocabularies: dict,
    metadata: dict,
) -> None:
    """Save any model as a run, for `load_run` to read and for training to start from."""
    state = {
        "version": VERSION,
        "model": model.state_dict(),
        "model_config": asdict(config),
        "train_config": {},
        "vocabularies": vocabulary_states(vocabularies),
        "metadata": metadata,
    }
    write_atomically(Path(folder) / "best.pt", state)


def vocabulary_states(vocabularies: dict) -> dict:
    """The state of each vocabulary by modality, or "target" if it is the target's vocabulary."""
    target = vocabularies["target"]
    states = {}
    for modality, vocabulary in vocabularies.items():
        states[modality] = "target" if vocabulary is target else vocabulary.state()
    states["target"] = target.state()
    return states


def vocabularies_from(states: dict) -> dict:
    """The vocabularies of `vocabulary_states`, by modality."""
    target = vocabulary_from(states["target"])
    vocabularies = {}
    for modality, state in states.items():
        is_target = modality == "target" or state == "target"
        vocabularies[modality] = target if is_target else vocabulary_from(state)
    return vocabularies


_being_loaded: list[Path] = []  # runs with a small change, whose bases are being loaded


def load_run(folder: str | Path) -> tuple[EncoderDecoder | DualEncoder, dict, dict]:
    """The best model of a run in eval mode, its vocabularies by modality, and its checkpoint.

    A run with a small change, such as a LoRA, saves only what it trained, so the run that it started
    from is read as well; a LoRA is merged into its weights. Raises ValueError if those have changed
    since. "runs/base+answers" is the run runs/base with the change of runs/answers: see
    `swap_change`.
    """
    if "+" in Path(folder).name and not Path(folder).exists():
        return _load_with_change(Path(folder))
    path = Path(folder) / "best.pt"
    if path.resolve() in _being_loaded:
        raise ValueError(f"{path} holds a change of a run that is, in the end, itself")
    saved = read_checkpoint(path)
    check_version(path, saved)
    try:
        model = build_model(ModelConfig(**saved["model_config"]))
        vocabularies = vocabularies_from(saved["vocabularies"])
        config = saved["train_config"]
        change = change_of(config)
        if not change:
            model.load_state_dict(saved["model"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        raise ValueError(f"{path}: the checkpoint of something else") from None
    if change:
        _being_loaded.append(path.resolve())
        try:
            prepare_for_finetuning(
                model,
                vocabularies,
                config["start_from"],
                frozen=config["freeze"],
                weights=config.get("weights", ""),
                decoder_from=config.get("decoder_from", ""),
                **change,
            )
        except FileNotFoundError as error:
            raise ValueError(f"{path} holds only a change of another run, but {error}") from None
        finally:
            _being_loaded.pop()
        load_change(path, model, saved)
        merge_lora(model)
    return model.to(pick_device()).eval(), vocabularies, saved


CHANGES = {"lora": "a LoRA", "adapters": "adapters", "prompt": "a prompt", "biases": "biases"}


def change_of(config: dict) -> dict:
    """The small change among the settings of a `TrainConfig`: {"lora": 8}, or {} for none."""
    return {name: config[name] for name in CHANGES if config.get(name)}


def load_change(path: Path, model: EncoderDecoder, saved: dict) -> None:
    """Load the change saved at `path` into a model that `prepare_for_finetuning` has prepared."""
    try:
        load_trainable(model, saved["model"], saved["base"])
    except ValueError as error:
        config = saved["train_config"]
        base = config.get("decoder_from") or config["start_from"]
        raise ValueError(
            f"{path} is a change of {base}, which must be as it was: {error}"
        ) from None


def _load_with_change(folder: Path) -> tuple[EncoderDecoder, dict, dict]:
    """Load "runs/base+answers": the base, its vocabularies, and the checkpoint of the change."""
    base, *names = folder.name.split("+")
    if len(names) != 1:
        raise ValueError(f"{folder}: a run takes one change at a time, as in runs/base+name")
    model, vocabularies, _ = load_run(folder.with_name(base))
    saved = swap_change(model, folder.with_name(names[0]))
    return model.eval(), vocabularies, saved


def swap_change(model: EncoderDecoder, folder: str | Path | None) -> dict:
    """Take out the small change that is in a model, and put in that of another run of the same base.

    The base's weights are in memory once, however many changes there are; None only takes out.
    Returns the checkpoint of the change. Raises ValueError if its base has other weights or words, or
    if the run is no change of another one; and FileNotFoundError if there is none.
    """
    remove_lora(model)
    remove_adapters(model)
    model.prompt = None
    with torch.no_grad():
        for name, x in model.__dict__.pop("replaced", {}).items():
            model.get_parameter(name).copy_(x)
    if folder is None:
        return {}
    path = Path(folder) / "best.pt"
    saved = read_checkpoint(path)
    check_version(path, saved)
    change = change_of(saved["train_config"])
    if not change:
        raise ValueError(f"{path} holds a whole model, and no change of one")
    device = next(model.parameters()).device
    trained = saved["model"]
    own = dict(model.named_parameters())
    if any(name in own and own[name].shape != x.shape for name, x in trained.items()):
        raise ValueError(f"{path} has learned other words than its base: load it without the +")
    model.replaced = {name: own[name].detach().clone() for name in trained if name in own}
    freeze(model, "*")
    _add_change(model, **change)
    model.to(device)
    if model.replaced:
        unfreeze(model, *model.replaced)
    try:
        load_change(path, model, saved)
    except ValueError:
        swap_change(model, None)  # an untrained prompt would not be harmless
        raise
    return saved


def _add_change(
    model: EncoderDecoder,
    dropout: float = 0.0,
    lora: int = 0,
    adapters: int = 0,
    prompt: int = 0,
    biases: bool = False,
) -> None:
    """Freeze the decoder, and add what is trained in its place. What else is frozen stays so."""
    freeze(model, "decoder")
    if lora:
        add_lora(model.decoder, lora, dropout=dropout)
    elif adapters:
        add_adapters(model.decoder, adapters)
    elif prompt:
        add_prompt(model, prompt)
    elif biases:
        train_biases(model.decoder)


def prepare_for_finetuning(
    model: EncoderDecoder | DualEncoder,
    vocabularies: dict,
    start_from: str = "",
    frozen: tuple[str, ...] = (),
    dropout: float = 0.0,
    weights: str = "",
    decoder_from: str = "",
    **change,
) -> None:
    """Prepare a new model for fine-tuning: load weights, add a small change, freeze parameters.

    model           as `build_model` makes it
    vocabularies    its own, by modality
    start_from      a run's folder; or several, separated by commas, to take parts from each; or the
                    name of a torchvision model, which becomes the backbone
    frozen          patterns for `freeze`
    weights         the file with the weights of the torchvision model; "": they are downloaded
    decoder_from    a folder with GPT-2, which becomes the decoder
    change          at most one small change, which is trained in place of the model: lora=R, the rank
                    of a LoRA for the decoder, with this dropout; adapters=S, their size, in the
                    decoder; prompt=P learned positions before the memory; or biases=True, the
                    decoder's

    The run may have other vocabularies and other numbers of positions: words and positions that
    both have keep their rows. With a small change, all rows of such an embedding are trained. From
    a run with other encoders, say of another task, only the encoders that both have are taken, and
    the decoder if it has the same shapes. What they lack stays new, such as a `FiLM` or additional
    blocks. Of what several runs have, the first one's is taken.
    """
    published = start_from in TORCHVISION
    names = [CHANGES[name] for name, value in change.items() if value]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)}: choose one of them")
    small = names[0] if names else ""
    if small and isinstance(model, DualEncoder):
        raise ValueError(
            f"{small} would change a decoder, and a DualEncoder has none: train it whole"
        )
    if small and not decoder_from and (published or not start_from):
        raise ValueError(
            f"{small} would change a trained decoder: name its run (start_from, or --from)"
        )
    changed = []
    if decoder_from:
        model.decoder.load_state_dict(gpt2_decoder_state(Path(decoder_from)))
    if published:
        _load_backbone(model, start_from, weights)
    elif start_from:
        changed = _load_bases(model, vocabularies, start_from.split(","), small)
    if small:
        if not decoder_from:
            freeze(model, "*")
        _add_change(model, dropout, **change)
        if changed:
            unfreeze(model, *changed)
    freeze(model, *frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{' and '.join(frozen)} are the whole model: there is nothing to train")


def _load_backbone(model: EncoderDecoder | DualEncoder, name: str, file: str) -> None:
    """Load the weights of one of torchvision's models into the backbone of the image encoder."""
    if "image" not in model.encoders:
        raise ValueError(f"{name} reads pictures, and this model does not")
    backbone = model.encoders["image"].backbone
    incompatible = load_matching(backbone, load_torchvision(name, file or None).state_dict())
    if incompatible.missing or incompatible.mismatched:  # its classifier is unexpected, and unused
        raise ValueError(
            f"the weights of torchvision's {name} do not fit this model: {incompatible}"
        )


_TOKEN_EMBEDDINGS = re.compile(r"(.*\.)?embedding(\.words)?\.weight|decoder\.bias")


def _load_bases(
    model: EncoderDecoder | DualEncoder, vocabularies: dict, folders: list[str], small: str
) -> list[str]:
    """Load the weights of runs -> the names of embeddings whose words or positions differ.

    small  the name of a small change of the model; "" for none
    """
    if small and len(folders) > 1:
        raise ValueError(f"{small} would change one run, not several: {', '.join(folders)}")
    changed = []
    taken = []
    for folder in reversed(folders):  # the first run has the last word
        names, parts = _load_base(model, vocabularies, folder, small)
        changed += names
        if parts:
            taken.insert(0, f"from {folder}: {parts}")
    if taken:
        print("\n".join(taken), "all else is new", sep="\n")
    return changed


def _load_base(
    model: EncoderDecoder | DualEncoder, vocabularies: dict, folder: str, small: str
) -> tuple[list[str], str]:
    """Load a run's weights.

    Returns the names of embeddings whose words or positions differ, and which parts were taken; ""
    if all.
    """
    if not Path(folder, "best.pt").exists():
        raise FileNotFoundError(f"{folder} holds no trained model")
    base, old_vocabularies, _ = load_run(folder)
    state = base.state_dict()
    new = model.state_dict()
    if "prompt" in state or any(".adapter." in name for name in state):
        raise ValueError(
            f"{folder} holds adapters or a prompt, which cannot be merged: start from its own base"
        )
    changed = _transfer_rows(state, old_vocabularies, new, vocabularies)
    is_alike = _shapes(state, "encoders.").keys() == _shapes(new, "encoders.").keys()
    decoders = [_shapes(tensors, "decoder.").keys() for tensors in (state, new)]
    if all(decoders) and not decoders[0] & decoders[1]:  # an LSTM and a Transformer
        is_alike = False
    if is_alike:
        incompatible = load_matching(model, state)
    else:
        parts = _shared_parts(state, new, folder)
        if small:
            raise ValueError(f"{folder} has other encoders: its decoder is no base for {small}")
        state = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
        _, left_out, mismatched = load_matching(model, state)
        incompatible = IncompatibleKeys([], [], mismatched)  # a new task has new parts
    if any(incompatible):
        raise ValueError(f"the weights of {folder} do not fit this model: {incompatible}")
    if is_alike:
        return changed, ""
    names = " and ".join(part.removesuffix(".") for part in parts)
    without = f" without {shorten(left_out)}" if left_out else ""
    return changed, names + without


def _transfer_rows(
    state: State, old_vocabularies: dict, new: State, vocabularies: dict
) -> list[str]:
    """Give the embeddings in `state` the rows of `new`; words and positions of both keep theirs.

    Returns the names of the embeddings whose words or positions differ.
    """
    changed = []
    for name in state:
        if name not in new or state[name].shape[1:] != new[name].shape[1:]:
            continue
        if _TOKEN_EMBEDDINGS.fullmatch(name):
            modality = name.split(".")[1] if name.startswith("encoders.") else "target"
            if modality not in old_vocabularies:  # of a row's categories, which have no words
                continue
            old_rows = old_vocabularies[modality].words
            new_rows = vocabularies[modality].words
        elif name.endswith("embedding.positions.weight"):
            old_rows = range(len(state[name]))
            new_rows = range(len(new[name]))
        else:
            continue
        if old_rows != new_rows:
            changed.append(name)
        state[name] = transfer_embedding_rows(state[name], old_rows, new[name], new_rows)
    return changed


def _shared_parts(state: State, new: State, folder: str) -> tuple[str, ...]:
    """The parts of a new model that a run with other encoders has, as prefixes of tensor names.

    These are the encoders that both have, and the decoder if all its tensors have the same shapes.
    Raises ValueError if no encoder is shared.
    """
    theirs = _encoders_of(state)
    ours = _encoders_of(new)
    parts = [f"encoders.{name}." for name in theirs if name in ours]
    if not parts:
        names = f"{', '.join(theirs)}, and this model for {', '.join(ours)}"
        raise ValueError(f"{folder} has encoders for {names}")
    decoder = _shapes(new, "decoder.")
    if decoder and _shapes(state, "decoder.") == decoder:
        parts.append("decoder.")
    return tuple(parts)


def _encoders_of(state: State) -> list[str]:
    """The modalities of the encoders, in their order."""
    names = [name.split(".")[1] for name in state if name.startswith("encoders.")]
    return list(dict.fromkeys(names))


def _shapes(state: State, prefix: str) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if name.startswith(prefix)}
