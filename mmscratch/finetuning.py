"""Fine-tuning: a trained model learns a new task, some of it, slowly, or by a small change beside its weights."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator
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
from .weights import TORCHVISION, keep_rows, load_fitting, load_torchvision

State = dict[str, Tensor]


def freeze(model: nn.Module, *patterns: str) -> None:
    """Parameters whose name fits a pattern are trained no more; a part that is wholly frozen is really still.

    A pattern is a name of `model.named_parameters()`, or the beginning of one up to a dot, and * stands for anything:
    "encoders.image.backbone", "*.bias". Still means: eval mode, also after `model.train()`, so batch norm normalizes by
    its statistics and does not change them, and nothing is dropped.
    Raises ValueError, naming the pattern, where nothing fits it.
    """
    for pattern in patterns:
        fitting = [p for name, p in model.named_parameters() if _fits(name, pattern)]
        if not fitting:
            parts = ", ".join(part for part, _, _ in trained_parts(model))
            raise ValueError(f"nothing to freeze is called {pattern!r}; there are {parts}")
        for parameter in fitting:
            parameter.requires_grad_(False)
    _settle(model)


def unfreeze(model: nn.Module, *patterns: str) -> None:
    """The opposite of `freeze`; without patterns, of all. A model of which all was frozen is in eval mode until `train()`."""
    for name, parameter in model.named_parameters():
        if not patterns or any(_fits(name, pattern) for pattern in patterns):
            parameter.requires_grad_(True)
    _settle(model)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern + ".*")


def _settle(model: nn.Module) -> None:
    """Modules whose parameters are all frozen go into eval mode and stay there; the others follow `model` again."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
            module.train = partial(_stay, module)
        else:
            module.__dict__.pop("train", None)
    model.train(model.training)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `nn.Module.train` of what is frozen."""
    return module


def trained_parts(model: nn.Module) -> list[tuple[str, int, int]]:
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


def thaw(model: nn.Module, frozen: list[str], share: float) -> bool:
    """Free that share of the parameters called `frozen`, by layers, those nearest to the output first; has it changed?

    Called with a share that grows from 0 to 1, this is gradual unfreezing: what is new learns first, and does not pull
    at the rest before it makes sense. Source: Howard & Ruder 2018.
    """
    chosen = [[name for name in names if name in frozen] for names in layers(model)]
    chosen = [names for names in reversed(chosen) if names]
    free = [name for names in chosen[: int(share * len(chosen))] for name in names]
    change = any(not model.get_parameter(name).requires_grad for name in free)
    if change:
        unfreeze(model, *free)
    return change


# ---------------------------------------------------------------------------------------------------------------------
# Low-rank adaptation.


class LoRA(nn.Module):
    """A change of a matrix that has few numbers: the frozen W is joined by a product of two thin matrices.

        y = W x + scale · B A dropout(x)

    A is (rank, in), random; B is (out, rank), zero, so that at the start nothing is changed. What the paper calls
    α / r is `scale`. Source: Hu et al. 2021, "LoRA"; their package loralib initializes A in the same way.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, dropout: float):
        super().__init__()
        self.scale, self.dropout, self.merged = scale, dropout, None
        self.a = nn.Parameter(torch.empty(rank, in_features))
        self.b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def matrix(self) -> Tensor:
        """scale · B A, (out, in)."""
        return self.scale * self.b @ self.a

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """What is added to W x, (…, in) -> (…, out), or to some rows of it."""
        x = F.dropout(x, self.dropout, self.training)
        return self.scale * F.linear(F.linear(x, self.a), self.b[rows])

    @torch.no_grad()
    def merge(self, weight: Tensor) -> None:
        """Add scale · B A to W, once; W is kept, so that `unmerge` gives it back to the bit."""
        if self.merged is None:
            self.merged = weight.clone()
            weight += self.matrix()

    @torch.no_grad()
    def unmerge(self, weight: Tensor) -> None:
        """W is again what it was before `merge`."""
        if self.merged is not None:
            weight.copy_(self.merged)
            self.merged = None


def _share(layer: nn.Module, other: nn.Module) -> nn.Module:
    """Give a layer that was made without memory the parameters and layers of another one that it has places for."""
    for name in layer._parameters:
        setattr(layer, name, getattr(other, name))
    for name in layer._modules:
        setattr(layer, name, getattr(other, name))
    layer.training = other.training
    return layer


class LoRALinear(nn.Linear):
    """A linear layer with the parameters of another one, and a `LoRA` beside its weight."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float = 2.0, dropout: float = 0.0):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        _share(self, linear)
        self.lora = LoRA(self.in_features, self.out_features, rank, scale, dropout).to(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.lora.merged is not None else y + self.lora(x)

    def changes(self) -> list[tuple[LoRA, Tensor]]:
        """Each LoRA with the weight beside which it stands."""
        return [(self.lora, self.weight)]

    def plain(self) -> nn.Linear:
        """The layer without its LoRA, with the same parameters."""
        return _share(nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta"), self)


class LoRAAttention(MultiHeadAttention):
    """Multi-head attention with the parameters of another one, and a `LoRA` beside the joint matrix of its projections."""

    def __init__(self, attention: MultiHeadAttention, rank: int, scale: float = 2.0, dropout: float = 0.0):
        with torch.device("meta"):
            super().__init__(attention.embed_dim, attention.num_heads, attention.dropout)
        _share(self, attention)
        self.lora = LoRA(self.embed_dim, 3 * self.embed_dim, rank, scale, dropout).to(self.in_proj_weight)

    def in_proj(self, x: Tensor, rows: slice) -> Tensor:
        y = super().in_proj(x, rows)
        return y if self.lora.merged is not None else y + self.lora(x, rows)

    def changes(self) -> list[tuple[LoRA, Tensor]]:
        """Each LoRA with the weight beside which it stands."""
        return [(self.lora, self.in_proj_weight)]

    def plain(self) -> MultiHeadAttention:
        """The layer without its LoRA, with the same parameters."""
        with torch.device("meta"):
            return _share(MultiHeadAttention(self.embed_dim, self.num_heads, self.dropout), self)


class LoRALSTM(LSTM):
    """An LSTM with the parameters of another one, and a `LoRA` beside each of its matrices.

    The change is added to the matrix, not to what it gives, so it has no dropout; what goes into an LSTM mostly had one.
    """

    def __init__(self, lstm: LSTM, rank: int, scale: float = 2.0, dropout: float = 0.0):
        with torch.device("meta"):
            super().__init__(lstm.input_size, lstm.hidden_size, lstm.num_layers, len(lstm.directions) == 2, lstm.dropout)
        _share(self, lstm)
        matrices = [(name, weight) for name, weight in lstm.named_parameters() if weight.dim() == 2]
        self.lora = nn.ModuleDict({name: LoRA(*weight.T.shape, rank, scale, 0.0).to(weight) for name, weight in matrices})

    def weight(self, name: str) -> Tensor:
        lora, weight = self.lora[name], super().weight(name)
        return weight if lora.merged is not None else weight + lora.matrix()

    def changes(self) -> list[tuple[LoRA, Tensor]]:
        """Each LoRA with the weight beside which it stands."""
        return [(lora, self.get_parameter(name)) for name, lora in self.lora.items()]

    def plain(self) -> LSTM:
        """The layer without its LoRA, with the same parameters."""
        with torch.device("meta"):
            lstm = LSTM(self.input_size, self.hidden_size, self.num_layers, len(self.directions) == 2, self.dropout)
        return _share(lstm, self)


_WITH_LORA = {nn.Linear: LoRALinear, MultiHeadAttention: LoRAAttention, LSTM: LoRALSTM}


def add_lora(model: nn.Module, rank: int, scale: float = 2.0, dropout: float = 0.0) -> None:
    """Freeze the model, and give each linear layer, attention and LSTM in it a `LoRA`, which is then all that is trained.

    As it begins, the model computes what it did. A layer with fewer inputs or outputs than `rank` gets none.
    Raises ValueError where no layer can have one, or there is one already.
    """
    if any(_changes(model)):
        raise ValueError("this model has a LoRA: merge it and call `remove_lora`, or train the one that it has")

    def with_lora(layer: nn.Module) -> nn.Module:
        kind = _WITH_LORA.get(type(layer))
        wide = kind and all(min(p.shape) >= rank for p in layer.parameters(recurse=False) if p.dim() == 2)
        return kind(layer, rank, scale, dropout) if wide else layer

    if rank >= 1:
        _replace(model, with_lora)
    if not any(_changes(model)):
        raise ValueError(f"no layer of this {type(model).__name__} can have a LoRA of rank {rank}")
    model.requires_grad_(False)
    for lora, _ in _changes(model):
        lora.requires_grad_(True)
    _settle(model)


def merge_lora(model: nn.Module) -> None:
    """Let every weight hold its change, so that the model computes the same as fast as one without LoRA."""
    for lora, weight in _changes(model):
        lora.merge(weight)


def unmerge_lora(model: nn.Module) -> None:
    """Take every change out of its weight, which then is as before, to the bit. The LoRAs stay beside their weights."""
    for lora, weight in _changes(model):
        lora.unmerge(weight)


def remove_lora(model: nn.Module) -> None:
    """Plain layers again: with what `merge_lora` made of their weights, or else as they were before `add_lora`."""
    _replace(model, lambda layer: layer.plain() if isinstance(layer, tuple(_WITH_LORA.values())) else layer)


def _changes(model: nn.Module) -> Iterator[tuple[LoRA, Tensor]]:
    """Each LoRA in it with the weight beside which it stands."""
    return (change for layer in model.modules() if isinstance(layer, tuple(_WITH_LORA.values())) for change in layer.changes())


def _replace(model: nn.Module, other: Callable[[nn.Module], nn.Module]) -> None:
    """Put other(layer) in the place of every layer within."""
    for name, layer in list(model.named_children()):
        setattr(model, name, other(layer))
        _replace(getattr(model, name), other)


# ---------------------------------------------------------------------------------------------------------------------
# What is kept of a small change.


def trained_state(model: nn.Module) -> State:
    """The tensors that are trained, and a LoRA even where it is not: some kilobytes."""
    return {name: x.detach() for name, x in model.named_parameters() if x.requires_grad or ".lora." in name}


def fingerprint(model: nn.Module) -> str:
    """A number, in hexadecimal digits, of all that is not trained: names, shapes, types and every bit (SHA-256)."""
    digest = hashlib.sha256()
    trained = trained_state(model)
    for name, x in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(f"{name} {tuple(x.shape)} {x.dtype} ".encode())
            digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_trained(model: nn.Module, state: State, base: str) -> None:
    """Put what `trained_state` gave on the model that it was trained on, known by its `fingerprint`.

    Raises ValueError where the rest of the model is another, or the names or shapes do not fit.
    """
    if fingerprint(model) != base:
        raise ValueError("what is kept here is a change of another model: the weights that it was trained on are not these")
    ours = trained_state(model)
    shapes, theirs = ({name: tuple(x.shape) for name, x in tensors.items()} for tensors in (ours, state))
    if shapes != theirs:
        wrong = [name for name in shapes | theirs if shapes.get(name) != theirs.get(name)]
        raise ValueError(f"what is kept here does not fit what is trained: {', '.join(wrong[:5])}, {len(wrong)} in all")
    with torch.no_grad():
        for name, x in state.items():
            ours[name].copy_(x)


# ---------------------------------------------------------------------------------------------------------------------
# From one run to the next.


def save_run(folder: str | Path, model: EncoderDecoder, config: ModelConfig, vocabularies: dict, facts: dict) -> None:
    """Keep a model, however it was made, as a run that `load_run` reads and that a training can start from."""
    state = {
        "version": VERSION,
        "model": model.state_dict(),
        "model_config": asdict(config),
        "train_config": {},
        "vocabularies": vocabulary_states(vocabularies),
        "facts": facts,
    }
    write_atomically(Path(folder) / "best.pt", state)


def vocabulary_states(vocabularies: dict) -> dict:
    """What a checkpoint keeps of vocabularies by modality: their states, and once that of "target" where one is the same."""
    target = vocabularies["target"]
    others = {name: "target" if words is target else words.state() for name, words in vocabularies.items()}
    return others | {"target": target.state()}


def vocabularies_from(states: dict) -> dict:
    """The vocabularies of `vocabulary_states`, by modality."""
    target = vocabulary_from(states["target"])
    return {name: target if name == "target" or state == "target" else vocabulary_from(state) for name, state in states.items()}


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
            adapt(model, vocabularies, config["start_from"], config["lora"], config["freeze"])
        except FileNotFoundError as error:
            raise ValueError(f"{path} is only a change of another model, but {error}") from None
        load_change(path, model, saved)
        merge_lora(model)
        remove_lora(model)
    return model.to(pick_device()).eval(), vocabularies, saved


def load_change(path: Path, model: EncoderDecoder, saved: dict) -> None:
    """Put the LoRA that is kept at `path` on a model that `adapt` has prepared."""
    try:
        load_trained(model, saved["model"], saved["base"])
    except ValueError as error:
        base = saved["train_config"]["start_from"]
        raise ValueError(f"{path} is a change of {base}, which must be as it was: {error}") from None


def adapt(
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
        raise ValueError("a LoRA is a change of a trained decoder: say of which run (start_from, or --from)")
    if published:
        misfits = load_fitting(model.encoders["image"].backbone, load_torchvision(start_from).state_dict())
        if misfits.missing or misfits.other_shape:  # the classifier, which an encoder lacks, is unexpected
            raise ValueError(f"the weights of torchvision's {start_from} do not fit this model: {misfits}")
    elif start_from:
        changed = _load_base(model, vocabularies, start_from)
    if lora:
        freeze(model, "*")
        add_lora(model.decoder, lora, dropout=dropout)
        if changed:
            unfreeze(model, *changed)
    freeze(model, *frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"all of the model is frozen by {' and '.join(frozen)}: there is nothing to train")


_A_ROW_A_WORD = re.compile(r"(.*\.)?embedding(\.words)?\.weight|decoder\.bias")


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
        if _A_ROW_A_WORD.fullmatch(name):
            modality = name.split(".")[1] if name.startswith("encoders.") else "target"
            rows = before[modality].words, vocabularies[modality].words
        elif name.endswith("embedding.positions.weight"):
            rows = range(len(state[name])), range(len(ours[name]))
        else:
            continue
        if rows[0] != rows[1]:
            changed.append(name)
        state[name] = keep_rows(state[name], rows[0], ours[name], rows[1])
    misfits = load_fitting(model, state)
    if any(misfits):
        raise ValueError(f"the weights of {folder} do not fit this model: {misfits}")
    return changed
