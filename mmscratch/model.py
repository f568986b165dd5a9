"""The pieces put together: encoders that fill a memory, and a decoder that writes while looking at it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .recurrent import LSTMDecoder, LSTMEncoder
from .text import BOS, PAD
from .transformer import TransformerDecoder, TransformerEncoder
from .vision import resnet_encoder, vgg_encoder, vit_encoder

# By name, what reads a modality: encoder(inputs (B, …)) -> Memory. A new one is a class, or a function that makes it, and a
# line here. Built with embed_dim and the settings that ModelConfig.encoders holds for its modality.
ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "resnet": resnet_encoder,
    "vgg": vgg_encoder,
    "vit": vit_encoder,
    "lstm": LSTMEncoder,
    "transformer": TransformerEncoder,
}
DECODERS: dict[str, Callable[..., nn.Module]] = {
    "lstm": LSTMDecoder,
    "transformer": TransformerDecoder,
}


def fuse(memories: list[Memory]) -> Memory:
    """Lay memories side by side: (B, N1, D), (B, N2, D), … -> (B, N1 + N2 + …, D). The decoder attends to all of it."""
    if len(memories) == 1:
        return memories[0]
    return Memory(
        torch.cat([m.tokens for m in memories], 1), torch.cat([m.mask for m in memories], 1)
    )


class EncoderDecoder(nn.Module):
    """Every task that writes: encoders turn what is given into a memory, and a decoder writes a sentence about it.

    `encoders` maps the name of a modality ("image", "source", "sound") to its encoder. A batch is a dict of tensors; a
    modality that it lacks is not fused. Where only some examples have one, batch["has_image"] (B,) bool says which; those
    that have none see nothing of it. Where sequences are padded, batch["sound_lengths"] (B,) goes to the encoder as well.

    Several modalities are fused on an equal footing: each vector is brought to the same length. In training, the fraction
    `modality_dropout` of the examples has one of its modalities dropped, so the same model works with or without it;
    `label_smoothing` and `teacher_forcing_ratio` are those of `loss`.
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
        self.encoders = nn.ModuleDict(encoders)
        self.decoder = decoder
        self.modality_dropout = modality_dropout
        self.label_smoothing = label_smoothing
        self.teacher_forcing_ratio = teacher_forcing_ratio

    def encode(self, batch: dict[str, Tensor]) -> Memory:
        """What is given -> one memory."""
        given = [name for name in self.encoders if name in batch]
        if not given:
            raise ValueError(
                f"the batch has none of: {', '.join(self.encoders)}; it has: {', '.join(batch)}"
            )
        there = {name: batch.get(f"has_{name}") for name in given}  # each (B,) or None
        if self.training and self.modality_dropout and len(given) > 1:
            there = _drop_modality(
                there, len(batch[given[0]]), self.modality_dropout, batch[given[0]].device
            )
        memories = []
        for name in given:
            inputs = [batch[name]]
            if f"{name}_lengths" in batch:
                inputs.append(batch[f"{name}_lengths"])
            memories.append(_encode_present(self.encoders[name], inputs, there[name]))
        # without it, the modality with longer vectors would get all of the attention
        if len(self.encoders) > 1:
            memories = [
                Memory(F.layer_norm(m.tokens, m.tokens.shape[-1:]), m.mask) for m in memories
            ]
        return fuse(memories)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(the cross-entropy of a batch, summed over its words; how many words that are). Padding counts for nothing.

        In training, with s for `label_smoothing`, a word costs (1 - s) (-log p(word)) + s (mean over the vocabulary of
        -log p), and the fraction `teacher_forcing_ratio` of the words that the decoder reads are the true ones (see `forward`).
        Otherwise s = 0, and it reads the true words. Source: Szegedy et al. 2016, section 7.
        """
        target = batch["target"]  # (B, T)
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
        """Logits (B, T, V), those at t for batch["target"][:, t], given the words before it: teacher forcing.

        With `need_weights` also where the decoder looked for each of them, (B, layers, H, T, N). With `teacher_forcing_ratio`
        below 1 only so large a share of the words before is the true one; in the place of the others stands what the model
        itself finds most probable there (scheduled sampling: Bengio et al. 2015). That goes word by word, and is slow.
        """
        target = batch["target"]  # (B, T), ending in <eos>
        bos = target.new_full((target.size(0), 1), BOS)  # (B, 1)
        if need_weights and teacher_forcing_ratio < 1:
            raise ValueError(
                "where it looks is told with teacher forcing only: teacher_forcing_ratio=1"
            )
        if teacher_forcing_ratio == 1:
            return self.decoder(
                torch.cat([bos, target[:, :-1]], dim=1), self.encode(batch), need_weights
            )
        state = self.decoder.start(self.encode(batch))
        token = bos.squeeze(1)  # (B,)
        steps = []
        for true in target.unbind(1):  # (B,)
            logits, state = self.decoder.step(token, state)  # (B, V)
            steps.append(logits)
            is_true = torch.rand(len(true), device=true.device) < teacher_forcing_ratio  # (B,)
            token = torch.where(is_true, true, logits.argmax(-1))
        return torch.stack(steps, dim=1)  # (B, T, V)


def _drop_modality(
    there: dict[str, Tensor | None], B: int, fraction: float, device: torch.device
) -> dict[str, Tensor]:
    """Of `fraction` of the examples leave out one modality, each as often as another, but never the only one of an example."""
    there = {
        name: torch.ones(B, dtype=torch.bool, device=device) if has is None else has
        for name, has in there.items()
    }
    count = torch.stack(list(there.values())).sum(0)  # (B,)
    chosen = (
        torch.rand(B, device=device) * len(there) / fraction
    ).floor()  # (B,) 0, 1, …: drop that one; larger: none
    return {
        name: has & ((chosen != i) | (count < 2)) for i, (name, has) in enumerate(there.items())
    }


def _encode_present(encoder: nn.Module, inputs: list[Tensor], there: Tensor | None) -> Memory:
    """The memory of the inputs, each (B, …), that are `there` (B,); the other rows have nothing to look at.

    The others are not computed either: batch norm would mix blank pictures into what it knows of real ones. Where none is
    there, the gradient is 0 all the same: processes that train together expect one.
    """
    if there is None or there.all():
        return encoder(*inputs)
    B = len(there)
    rows = there.nonzero().squeeze(1)  # (R,)
    if len(rows) == 0:
        training = encoder.training
        some = encoder.eval()(*(values[:1] for values in inputs))
        encoder.train(training)
        return Memory(0 * some.tokens.expand(B, -1, -1), torch.zeros_like(some.mask).expand(B, -1))
    some = encoder(*(values[rows] for values in inputs))
    tokens = some.tokens.new_zeros(B, *some.tokens.shape[1:])  # (B, N, D)
    mask = some.mask.new_zeros(B, *some.mask.shape[1:])  # (B, N)
    return Memory(tokens.index_copy(0, rows, some.tokens), mask.index_copy(0, rows, some.mask))


@dataclass
class ModelConfig:
    """What a model is made of; plain values, kept in its checkpoint.

    Each encoder, and the decoder, is a dict: its "name" in ENCODERS or DECODERS, and the settings with which it is built.
    """

    vocab_size: int
    encoders: dict[str, dict] = field(
        default_factory=lambda: {"image": {"name": "resnet"}}
    )  # by modality
    decoder: dict = field(default_factory=lambda: {"name": "lstm", "hidden_size": 256})
    embed_dim: int = 256  # of words, of the memory and of all that is compared with them
    joint_vocabulary: bool = False  # source and target have the same words, and share one embedding
    modality_dropout: float = 0.0  # these three: see `EncoderDecoder`
    label_smoothing: float = 0.0
    teacher_forcing_ratio: float = 1.0


def build_model(config: ModelConfig) -> EncoderDecoder:
    """A new model with random weights. Raises ValueError for settings that no model has."""
    if not config.encoders:
        raise ValueError(
            "a model needs an encoder for what is given, such as encoders={'image': {'name': 'resnet'}}"
        )
    readers = {
        modality: settings
        for modality, settings in config.encoders.items()
        if "vocab_size" in settings
    }
    others = {
        modality: settings
        for modality, settings in config.encoders.items()
        if modality not in readers
    }
    encoders = {
        modality: _build(ENCODERS, settings, embed_dim=config.embed_dim)
        for modality, settings in others.items()
    }
    decoder = _build(
        DECODERS, config.decoder, vocab_size=config.vocab_size, embed_dim=config.embed_dim
    )
    for (
        modality,
        settings,
    ) in readers.items():  # last: in this order a seed has always given the same weights
        encoders[modality] = _build(ENCODERS, settings, embed_dim=config.embed_dim)
    if config.joint_vocabulary:
        source_size = config.encoders.get("source", {}).get("vocab_size", 0)
        if source_size != config.vocab_size:
            raise ValueError(
                f"a joint vocabulary has one size, not {source_size} and {config.vocab_size}"
            )
        token_embedding(encoders["source"]).weight = token_embedding(decoder).weight
    return EncoderDecoder(
        encoders,
        decoder,
        config.modality_dropout,
        config.label_smoothing,
        config.teacher_forcing_ratio,
    )


def _build(
    registry: dict[str, Callable[..., nn.Module]], settings: dict, **sizes: int
) -> nn.Module:
    """The encoder or decoder that is registered under settings["name"], made with the other settings."""
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in registry:
        raise ValueError(
            f"the name of an encoder or decoder is one of {', '.join(registry)}, not {name!r}"
        )
    try:
        return registry[name](**sizes, **settings)
    except TypeError as error:  # a setting that it does not have
        raise ValueError(f"{name}: {error}") from None


def token_embedding(reader: nn.Module) -> nn.Embedding:
    """The embedding of the words of an encoder of sentences, or of a decoder."""
    return getattr(reader.embedding, "words", reader.embedding)
