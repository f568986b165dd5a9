"""The pieces put together: encoders fill a memory, and a decoder generates text from it.

Without a decoder, two encoders are the towers of a `DualEncoder` (contrastive.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .batches import inputs_of
from .contrastive import DualEncoder
from .hearing import AudioEncoder
from .recurrent import LSTMDecoder, LSTMEncoder
from .tabular import TableEncoder
from .text import BOS, PAD
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import mobilenet_encoder, resnet_encoder, vgg_encoder, vit_encoder

# Encoders by name: encoder(inputs (B, …)) -> Memory. To add one, write a class, or a function that
# returns one, and a line here. It is built with embed_dim and its settings in ModelConfig.encoders.
ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet_encoder,
    "vgg": vgg_encoder,
    "mobilenet": mobilenet_encoder,
    "vit": vit_encoder,
    "lstm": LSTMEncoder,
    "transformer": TransformerEncoder,
    "audio": AudioEncoder,
    "table": TableEncoder,
}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "lstm": LSTMDecoder,
    "transformer": TransformerDecoder,
}


def fuse(memories: list[Memory]) -> Memory:
    """Concatenate memories along their positions: (B, N1, D), … -> (B, N1 + N2 + …, D)."""
    if len(memories) == 1:
        return memories[0]
    tokens = torch.cat([memory.tokens for memory in memories], dim=1)  # (B, N1 + N2 + …, D)
    mask = torch.cat([memory.mask for memory in memories], dim=1)  # (B, N1 + N2 + …)
    return Memory(tokens, mask)


class EncoderDecoder(nn.Module):
    """The model of every task that generates text: encoders fill a memory, a decoder reads it.

    `encoders` maps the name of a modality ("image", "source", "sound") to its encoder. A batch is a
    dict of tensors; a modality that is not in it is not fused. If only some examples have one,
    batch["has_image"] (B,) bool says which; it is masked for the others. If sequences are padded,
    batch["sound_lengths"] (B,) goes to the encoder as well.

    Several encoders are fused on an equal footing: each vector is brought to the same length by
    `layer_norm`, even if a batch has one modality only. If examples have K references each, target
    (B, K, T), an example is encoded once for all K, and is then like K examples. In training, if a
    batch has several modalities, the fraction `modality_dropout` of the examples has one of them
    dropped, so the same model works with or without it. `label_smoothing` and
    `teacher_forcing_ratio` are those of `loss`.
    """

    loss_unit = "words"  # the unit of the count that `loss` returns

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        decoder: nn.Module,
        modality_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        teacher_forcing_ratio: float = 1.0,
    ):
        super().__init__()
        _check_steering(encoders)
        self.encoders = nn.ModuleDict(encoders)
        self.decoder = decoder
        self.modality_dropout = modality_dropout
        self.label_smoothing = label_smoothing
        self.teacher_forcing_ratio = teacher_forcing_ratio
        self.objective = None  # objective(model, batch), in place of the cross-entropy
        self.register_parameter("prompt", None)  # (P, D): see `finetuning.add_prompt`

    def encode(self, batch: dict[str, Tensor]) -> Memory:
        """The modalities in a batch, which does not change -> one memory."""
        modalities = [name for name in self.encoders if name in batch]
        if not modalities:
            expected = ", ".join(self.encoders)
            raise ValueError(f"the batch has none of: {expected}; it has: {', '.join(batch)}")
        present = {name: batch.get(f"has_{name}") for name in modalities}  # (B,), or None for all
        if self.training and self.modality_dropout and len(modalities) > 1:
            first = batch[modalities[0]]
            present = _drop_modality(present, len(first), self.modality_dropout, first.device)
        memories = {}
        for name in sorted(
            modalities, key=lambda name: len(self._steering(name))
        ):  # questions first
            inputs = inputs_of(batch, name)
            questions = [memories[other] for other in self._steering(name) if other in memories]
            if questions:
                inputs.append(sum(question.mean() for question in questions))  # (B, D)
            tokens, mask = _encode_present(self.encoders[name], inputs, present[name])
            if len(self.encoders) > 1:  # or the longest vectors would get all of the attention
                tokens = F.layer_norm(tokens, tokens.shape[-1:])
            memories[name] = Memory(tokens, mask)
        fused = [memories[name] for name in modalities]
        if self.prompt is not None:
            batch_size = len(fused[0].mask)
            tokens = self.prompt.expand(batch_size, -1, -1)  # (B, P, D)
            mask = fused[0].mask.new_ones(tokens.shape[:2])  # (B, P)
            fused = [Memory(tokens, mask), *fused]
        return fuse(fused)

    def _steering(self, name: str) -> list[str]:
        """The modalities that modulate this one's encoder (see `FiLM`)."""
        return steering_modalities(self.encoders[name])

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The cross-entropy summed over the words of a batch, and their number; padding is ignored.

        In training, with s = `label_smoothing`, the loss of a word is

            (1 - s) (-log p(word)) + s (mean of -log p over the vocabulary)

        and the fraction `teacher_forcing_ratio` of the words that the decoder reads are the true
        ones (see `forward`). In eval mode s = 0, and it reads the true words only. With
        an `objective`, such as `SelfCritical`, the loss is that.
        Source: Szegedy et al. 2016, section 7.
        """
        if self.objective:
            return self.objective(self, batch)
        target = batch["target"]  # (B, T) or (B, K, T)
        smoothing = self.label_smoothing if self.training else 0.0
        teacher_forcing_ratio = self.teacher_forcing_ratio if self.training else 1.0
        logits = self(batch, teacher_forcing_ratio=teacher_forcing_ratio).float()  # (B, T, V)
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            target.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=smoothing,
        )
        return loss, (target != PAD).sum()

    def forward(
        self,
        batch: dict[str, Tensor],
        need_weights: bool = False,
        teacher_forcing_ratio: float = 1.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, T, V): those at t predict batch["target"][:, t] from the words before it.

        With `need_weights`, also the attention weights (B, layers, H, T, N).

        With teacher forcing, the words before are the true ones. With a `teacher_forcing_ratio`
        below 1 (scheduled sampling), the decoder reads the true word with this probability, drawn
        for each word of each sentence, and otherwise its own most probable word. It then goes word
        by word. Source: Bengio et al. 2015.
        """
        if need_weights and teacher_forcing_ratio < 1:
            raise ValueError("attention weights are available only with teacher_forcing_ratio=1")
        memory, target = repeat_memory(self.encode(batch), batch["target"])  # target (B, T)
        if teacher_forcing_ratio == 1:
            return self.decoder(shift_right(target), memory, need_weights)
        state = self.decoder.start(memory)
        token = target.new_full((len(target),), BOS)  # (B,)
        steps = []
        for true in target.unbind(1):  # (B,)
            logits, state = self.decoder.step(token, state)  # (B, V)
            steps.append(logits)
            use_true = torch.rand(len(true), device=true.device) < teacher_forcing_ratio  # (B,)
            token = torch.where(use_true, true, logits.argmax(-1))
        return torch.stack(steps, dim=1)  # (B, T, V)


def shift_right(target: Tensor) -> Tensor:
    """What the decoder reads to write a target (B, T): <bos>, and all its words but the last."""
    bos = target.new_full((len(target), 1), BOS)  # (B, 1)
    return torch.cat([bos, target[:, :-1]], dim=1)


def repeat_memory(memory: Memory, target: Tensor) -> tuple[Memory, Tensor]:
    """If examples have K references each, target (B, K, T): K sentences about the same memory.

    Returns the memory (B·K, N, D) and the target (B·K, T); a target (B, T) stays as it is.
    """
    if target.dim() == 2:
        return memory, target
    return memory.repeat(target.size(1)), target.flatten(0, 1)


def steering_modalities(encoder: nn.Module) -> list[str]:
    """The modalities that modulate an encoder: "source,sound" -> two; their mean vectors add up."""
    steered_by = getattr(encoder, "steered_by", "")
    return steered_by.split(",") if steered_by else []


def _check_steering(encoders: dict[str, nn.Module]) -> None:
    """Raise ValueError if an encoder is steered by a modality that has no encoder."""
    for name, encoder in encoders.items():
        for other in steering_modalities(encoder):
            if other not in encoders:
                known = ", ".join(encoders)
                raise ValueError(
                    f"{name} is steered by {other!r}, and the model has encoders for: {known}"
                )


def _drop_modality(
    present: dict[str, Tensor | None], batch_size: int, fraction: float, device: torch.device
) -> dict[str, Tensor]:
    """Drop one modality, each equally often, from `fraction` of the examples; never the only one.

    `present`: for each modality, which examples have it, (B,) bool, or None if all do. It does not
    change; the result is on `device`.
    """
    all_present = torch.ones(batch_size, dtype=torch.bool, device=device)
    present = {name: all_present if has is None else has for name, has in present.items()}
    num_present = torch.stack(list(present.values())).sum(0)  # (B,)
    draws = torch.rand(batch_size, device=device)  # (B,)
    # The number of the modality to drop: 0, 1, …; none if it is larger than that.
    dropped = (draws * len(present) / fraction).floor()  # (B,)
    kept = {}
    for i, (name, has) in enumerate(present.items()):
        kept[name] = has & ((dropped != i) | (num_present < 2))
    return kept


def _encode_present(encoder: nn.Module, inputs: list[Tensor], present: Tensor | None) -> Memory:
    """Encode the rows of the inputs, each (B, …), that are `present` (B,), and mask the others.

    The other rows are not even encoded: batch norm would count blank pictures in its statistics.
    With no row present, one is encoded in eval mode and multiplied by 0, so that the gradient is 0
    and not None: training on several processes expects a gradient from each. The encoder stays in
    the mode that it was in.
    """
    if present is None or present.all():
        return encoder(*inputs)
    batch_size = len(present)
    rows = present.nonzero().squeeze(1)  # (R,)
    if len(rows) == 0:
        training = encoder.training
        encoder.eval()
        memory = encoder(*[values[:1] for values in inputs])  # for the gradient of 0
        encoder.train(training)
        tokens = 0 * memory.tokens.expand(batch_size, -1, -1)  # (B, N, D)
        mask = torch.zeros_like(memory.mask).expand(batch_size, -1)  # (B, N)
        return Memory(tokens, mask)
    memory = encoder(*[values[rows] for values in inputs])  # (R, N, D)
    tokens = memory.tokens.new_zeros(batch_size, *memory.tokens.shape[1:])  # (B, N, D)
    mask = memory.mask.new_zeros(batch_size, *memory.mask.shape[1:])  # (B, N)
    tokens = tokens.index_copy(0, rows, memory.tokens)
    mask = mask.index_copy(0, rows, memory.mask)
    return Memory(tokens, mask)


@dataclass
class ModelConfig:
    """The settings of a model: plain values, which are saved in its checkpoint.

    Each encoder, and the decoder, is a dict: its "name" in ENCODERS or DECODERS, and the settings
    to build it with. An empty decoder means a `DualEncoder` with these encoders as its towers.
    """

    vocab_size: int
    # by modality
    encoders: dict[str, dict] = field(default_factory=lambda: {"image": {"name": "resnet"}})
    decoder: dict = field(default_factory=lambda: {"name": "lstm", "hidden_size": 256})
    embed_dim: int = 256  # of words and of the memory
    joint_vocabulary: bool = False  # source and target share words and embedding
    modality_dropout: float = 0.0  # this and the next two: see `EncoderDecoder`
    label_smoothing: float = 0.0
    teacher_forcing_ratio: float = 1.0


def build_model(config: ModelConfig) -> EncoderDecoder | DualEncoder:
    """A new model with random weights. Raises ValueError for settings that do not fit."""
    if not config.encoders:
        example = "encoders={'image': {'name': 'resnet'}}"
        raise ValueError(f"a model needs an encoder for its input, such as {example}")
    if not config.decoder:
        return _build_dual_encoder(config)
    if "target" in config.encoders:
        raise ValueError("a decoder must not see its target: no encoder for it, or no decoder")
    embed_dim = config.embed_dim
    encoders = {}
    for modality, settings in config.encoders.items():
        if "vocab_size" not in settings:
            encoders[modality] = _build(ENCODERS, settings, embed_dim=embed_dim)
    decoder = _build(DECODERS, config.decoder, vocab_size=config.vocab_size, embed_dim=embed_dim)
    # Text encoders come last: in another order, a seed would give other weights than before.
    for modality, settings in config.encoders.items():
        if "vocab_size" in settings:
            encoders[modality] = _build(ENCODERS, settings, embed_dim=embed_dim)
    if config.joint_vocabulary:
        source_size = config.encoders.get("source", {}).get("vocab_size", 0)
        target_size = config.vocab_size
        if source_size != target_size:
            sizes = f"{source_size} and {target_size}"
            raise ValueError(f"a joint vocabulary has one size, not {sizes}")
        token_embedding(encoders["source"]).weight = token_embedding(decoder).weight
    return EncoderDecoder(
        encoders,
        decoder,
        config.modality_dropout,
        config.label_smoothing,
        config.teacher_forcing_ratio,
    )


def _build_dual_encoder(config: ModelConfig) -> DualEncoder:
    if "target" in config.encoders and "vocab_size" not in config.encoders["target"]:
        raise ValueError("without a decoder, 'target' is a text encoder, and needs a vocab_size")
    regularization = (config.modality_dropout, config.label_smoothing)
    if config.joint_vocabulary or any(regularization) or config.teacher_forcing_ratio < 1:
        raise ValueError("without a decoder, leave its settings at their defaults")
    embed_dim = config.embed_dim
    towers = {}
    for modality, settings in config.encoders.items():
        towers[modality] = _build(ENCODERS, settings, embed_dim=embed_dim)
    return DualEncoder(towers, dim=embed_dim, embed_dim=embed_dim)


def _build(
    registry: dict[str, Callable[..., nn.Module]], settings: dict, **sizes: int
) -> nn.Module:
    """Build the encoder or decoder registered as settings["name"] with the other settings."""
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in registry:
        names = ", ".join(registry)
        raise ValueError(f"the name of an encoder or decoder is one of {names}, not {name!r}")
    try:
        return registry[name](**sizes, **settings)
    except TypeError as error:  # an unknown, missing or unfit setting
        raise ValueError(f"{name}: {error}") from None


def token_embedding(module: nn.Module) -> nn.Embedding:
    """The word embedding of a text encoder or a decoder."""
    return getattr(module.embedding, "words", module.embedding)
