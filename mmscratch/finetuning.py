"""Fine-tuning: a trained model learns a new task, some of it, slowly, or by a small change beside its weights."""

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
from .engine.devices import pick_device
from .engine.runs import VERSION, check_version, read_checkpoint
from .model import EncoderDecoder, ModelConfig, build_model
from .recurrent import LSTM
from .reliability import write_atomically
from .text import vocabulary_from
from .weights import TORCHVISION, load_matching, load_torchvision, transfer_embedding_rows

State = dict[str, Tensor]


def freeze(model: nn.Module, *patterns: str) -> None:
    """Parameters whose name fits a pattern are trained no more; a part that is wholly frozen is really still.

    A pattern is a name of `model.named_parameters()`, or the beginning of one up to a dot, and * stands for anything:
    "encoders.image.backbone", "*.bias". Still means: eval mode, also after `model.train()`, so batch norm normalizes by
    its statistics and does not change them, and nothing is dropped.
    Raises ValueError, naming the pattern, where nothing fits it.
    """
    for pattern in patterns:
        fitting = [p for name, p in model.named_parameters() if _matches_pattern(name, pattern)]
        if not fitting:
            parts = ", ".join(part for part, _, _ in trainable_parts(model))
            raise ValueError(f"nothing to freeze is called {pattern!r}; there are {parts}")
        for parameter in fitting:
            parameter.requires_grad_(False)
    _set_frozen_modes(model)


def unfreeze(model: nn.Module, *patterns: str) -> None:
    """The opposite of `freeze`; without patterns, of all. A model of which all was frozen is in eval mode until `train()`."""
    for name, parameter in model.named_parameters():
        if not patterns or any(_matches_pattern(name, pattern) for pattern in patterns):
            parameter.requires_grad_(True)
    _set_frozen_modes(model)


def _matches_pattern(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")


def _set_frozen_modes(model: nn.Module) -> None:
    """Modules whose parameters are all frozen go into eval mode and stay there; the others follow `model` again."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
            module.train = partial(_stay_in_eval, module)
        else:
            module.__dict__.pop("train", None)
    model.train(model.training)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `nn.Module.train` of what is frozen."""
    return module


def trainable_parts(model: nn.Module) -> list[tuple[str, int, int]]:
    """What is trained and what is frozen: (part, its parameters, those that are trained), the LoRA last.

    The other parts are called as `freeze` knows them.
    """
    parts: dict[str, list[int]] = {}
    for name, parameter in sorted(model.named_parameters(), key=lambda pair: ".lora." in pair[0]):
        names = name.split(".")
        part = "LoRA" if "lora" in names else ".".join(names[: 3 if names[0] == "encoders" else 2])
        counts = parts.setdefault(part, [0, 0])
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() * parameter.requires_grad
    return [(part, *counts) for part, counts in parts.items()]


# ---------------------------------------------------------------------------------------------------------------------
# From the input to the output.


def layers(model: nn.Module) -> list[list[str]]:
    """The names of an `EncoderDecoder`'s parameters, layer by layer, from the input to the output.

    The CNN's or ViT's first convolution, its stages or blocks, the projection, the encoder's blocks, the decoder's
    blocks, and last the embedding, which is the output too, with all else of the decoder.
    """
    found: dict[tuple, list[str]] = {}
    for name, _ in model.named_parameters():
        found.setdefault(_depth(name), []).append(name)
    return [found[depth] for depth in sorted(found)]


def _depth(name: str) -> tuple[int, int, int]:
    """What sorts a parameter among the layers: (CNN, encoder or decoder; before, in or behind the blocks; their number)."""
    part = 0 if ".backbone." in name else 1 if name.startswith("encoders.") else 2
    numbered = re.search(r"\b(?:layer|blocks\.|features\.)(\d+)", name)
    if numbered:
        return part, 1, int(numbered[1])
    behind = part == 2 or re.search(r"backbone\.(norm|head|fc|classifier)\.", name)
    return part, 2 if behind else 0, 0


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """For the optimizer: who decays, and how fast each layer learns.

    Matrices and filters decay; biases, norms and single vectors do not, for their size is no excess. The learning rate
    of a group is to be multiplied by its "factor",

        factor = layer_decay ** (layers between this one and the output)

    so that with layer_decay below 1 what lies nearer to the input, and is more general, changes less.
    Source: discriminative fine-tuning, Howard & Ruder 2018 (ULMFiT).
    """
    depth = {name: i for i, names in enumerate(reversed(layers(model))) for name in names}
    groups: dict[tuple, dict] = {}
    for decays in (True, False):
        for name, parameter in model.named_parameters():
            if (parameter.squeeze().dim() > 1) == decays:
                factor, decay = layer_decay ** depth[name], weight_decay * decays
                new = {"params": [], "weight_decay": decay, "factor": factor}
                groups.setdefault((decays, factor), new)["params"].append(parameter)
    return list(groups.values())


def gradual_unfreezing(model: nn.Module, frozen: list[str], fraction: float) -> bool:
    """Free that share of the parameters called `frozen`, by layers, those nearest to the output first; has it changed?

    Called with a share that grows from 0 to 1, this is gradual unfreezing: what is new learns first, and does not pull
    at the rest before it makes sense. Source: Howard & Ruder 2018.
    """
    chosen = [[name for name in names if name in frozen] for names in layers(model)]
    chosen = [names for names in reversed(chosen) if names]
    free = [name for names in chosen[: int(fraction * len(chosen))] for name in names]
    change = any(not model.get_parameter(name).requires_grad for name in free)
    if change:
        unfreeze(model, *free)
    return change


# ---------------------------------------------------------------------------------------------------------------------
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
        """x (…, in) -> what is added to W x, (…, out), or to these rows of it."""
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


# ---------------------------------------------------------------------------------------------------------------------
# What is kept of a small change.


def trainable_state(model: nn.Module) -> State:
    """The tensors that are trained, and a LoRA even where it is not: some kilobytes."""
    return {
        name: x.detach()
        for name, x in model.named_parameters()
        if x.requires_grad or ".lora." in name
    }


def fingerprint(model: nn.Module) -> str:
    """A number, in hexadecimal digits, of all that is not trained: names, shapes, types and every bit (SHA-256)."""
    digest = hashlib.sha256()
    trained = trainable_state(model)
    for name, x in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(f"{name} {tuple(x.shape)} {x.dtype} ".encode())
            digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_trainable(model: nn.Module, state: State, base: str) -> None:
    """Put what `trainable_state` gave on the model that it was trained on, known by its `fingerprint`.

    Raises ValueError where the rest of the model is another, or the names or shapes do not fit.
    """
    if fingerprint(model) != base:
        raise ValueError(
            "what is kept here is a change of another model: the weights that it was trained on are not these"
        )
    ours = trainable_state(model)
    shapes, theirs = (
        {name: tuple(x.shape) for name, x in tensors.items()} for tensors in (ours, state)
    )
    if shapes != theirs:
        wrong = [name for name in shapes | theirs if shapes.get(name) != theirs.get(name)]
        raise ValueError(
            f"what is kept here does not fit what is trained: {', '.join(wrong[:5])}, {len(wrong)} in all"
        )
    with torch.no_grad():
        for name, x in state.items():
            ours[name].copy_(x)


# ---------------------------------------------------------------------------------------------------------------------
# From one run to the next.


def save_run(
    folder: str | Path,
    model: EncoderDecoder,
    config: ModelConfig,
    vocabularies: dict,
    metadata: dict,
) -> None:
    """Keep a model, however it was made, as a run that `load_run` reads and that a training can start from."""
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
    """What a checkpoint keeps of vocabularies by modality: their states, and once that of "target" where one is the same."""
    target = vocabularies["target"]
    others = {
        name: "target" if words is target else words.state() for name, words in vocabularies.items()
    }
    return others | {"target": target.state()}


def vocabularies_from(states: dict) -> dict:
    """The vocabularies of `vocabulary_states`, by modality."""
    target = vocabulary_from(states["target"])
    return {
        name: target if name == "target" or state == "target" else vocabulary_from(state)
        for name, state in states.items()
    }


def load_run(folder: str | Path) -> tuple[EncoderDecoder, dict, dict]:
    """The best model of a run in eval mode, its vocabularies by modality, and its checkpoint.

    A run with LoRA keeps only what it has trained, so the run that it started from is read as well, and the change is
    merged into its weights. Raises ValueError where those are no longer the same.
    """
    path = Path(folder) / "best.pt"
    saved = read_checkpoint(path)
    check_version(path, saved)
    try:
        model = build_model(ModelConfig(**saved["model_config"]))
        vocabularies = vocabularies_from(saved["vocabularies"])
        config = saved["train_config"]
        if not config.get("lora"):
            model.load_state_dict(saved["model"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        raise ValueError(f"{path}: the checkpoint of something else") from None
    if config.get("lora"):
        try:
            prepare_for_finetuning(
                model, vocabularies, config["start_from"], config["lora"], config["freeze"]
            )
        except FileNotFoundError as error:
            raise ValueError(f"{path} is only a change of another model, but {error}") from None
        load_lora(path, model, saved)
        merge_lora(model)
    return model.to(pick_device()).eval(), vocabularies, saved


def load_lora(path: Path, model: EncoderDecoder, saved: dict) -> None:
    """Put the LoRA that is kept at `path` on a model that `prepare_for_finetuning` has prepared."""
    try:
        load_trainable(model, saved["model"], saved["base"])
    except ValueError as error:
        base = saved["train_config"]["start_from"]
        raise ValueError(
            f"{path} is a change of {base}, which must be as it was: {error}"
        ) from None


def prepare_for_finetuning(
    model: EncoderDecoder,
    vocabularies: dict,
    start_from: str = "",
    lora: int = 0,
    frozen: tuple[str, ...] = (),
    dropout: float = 0.0,
) -> None:
    """Prepare a new model for fine-tuning: with the weights of `start_from`, with a LoRA of rank `lora` in the decoder if
    that is not 0, and with the parameters frozen that match `frozen`.

    `start_from` is the folder of a run, or the name of one of torchvision's models, which then is the backbone.
    The vocabularies may be others, and there may be more positions: what both know keeps its rows, and with LoRA all rows
    of such a table are trained.
    """
    published = start_from in TORCHVISION
    changed = []
    if lora and (published or not start_from):
        raise ValueError(
            "a LoRA is a change of a trained decoder: say of which run (start_from, or --from)"
        )
    if published and "image" not in model.encoders:
        raise ValueError(f"{start_from} is a CNN, and this model sees no pictures")
    if published:
        misfits = load_matching(
            model.encoders["image"].backbone, load_torchvision(start_from).state_dict()
        )
        if (
            misfits.missing or misfits.mismatched
        ):  # the classifier, which an encoder lacks, is unexpected
            raise ValueError(
                f"the weights of torchvision's {start_from} do not fit this model: {misfits}"
            )
    elif start_from:
        changed = _load_base(model, vocabularies, start_from)
    if lora:
        freeze(model, "*")
        add_lora(model.decoder, lora, dropout=dropout)
        if changed:
            unfreeze(model, *changed)
    freeze(model, *frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"all of the model is frozen by {' and '.join(frozen)}: there is nothing to train"
        )


_TOKEN_EMBEDDINGS = re.compile(r"(.*\.)?embedding(\.words)?\.weight|decoder\.bias")


def _load_base(model: EncoderDecoder, vocabularies: dict, folder: str) -> list[str]:
    """Load the weights of a run. -> the names of the tables whose rows are other words, or more, than those of the run."""
    if not Path(folder, "best.pt").exists():
        raise FileNotFoundError(f"{folder} holds no trained model")
    base, before, _ = load_run(folder)
    state = base.state_dict()
    ours = model.state_dict()
    changed = []
    for name in state:
        if name not in ours or state[name].shape[1:] != ours[name].shape[1:]:
            continue
        if _TOKEN_EMBEDDINGS.fullmatch(name):
            modality = name.split(".")[1] if name.startswith("encoders.") else "target"
            rows = before[modality].words, vocabularies[modality].words
        elif name.endswith("embedding.positions.weight"):
            rows = range(len(state[name])), range(len(ours[name]))
        else:
            continue
        if rows[0] != rows[1]:
            changed.append(name)
        state[name] = transfer_embedding_rows(state[name], rows[0], ours[name], rows[1])
    misfits = load_matching(model, state)
    if any(misfits):
        raise ValueError(f"the weights of {folder} do not fit this model: {misfits}")
    return changed
