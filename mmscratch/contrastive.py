"""Two towers and one space: a picture and the sentence about it get vectors that are alike."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory, scaled_dot_product_attention
from .batches import inputs_of
from .engine import distributed
from .text import PAD

MAX_LOG_SCALE = math.log(100)
HASH_BASE = 6364136223846793005  # odd, with random bits: Knuth's multiplier for 64-bit numbers


class AttentionPooling(nn.Module):
    """Pool a memory to one vector: a learned query attends to it once, with a single head.

        pooled = Σₙ softmax(query · memoryₙ / √D)ₙ memoryₙ

    The query starts near 0, so at first the weights are nearly equal, and this is nearly the mean.
    Source: Yang et al. 2016, for words; Radford et al. 2021 (CLIP), for pictures.
    """

    def __init__(self, embed_dim: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(embed_dim))
        nn.init.normal_(self.query, std=0.02)

    def forward(self, memory: Memory) -> Tensor:
        """A memory of B × N positions -> (B, D); zeros for one that is fully masked."""
        tokens, mask = memory
        query = self.query.expand(len(tokens), 1, -1)  # (B, 1, D)
        pooled = scaled_dot_product_attention(query, tokens, tokens, mask.unsqueeze(1))  # (B, 1, D)
        return pooled.squeeze(1)  # (B, D)


def contrastive_loss(a: Tensor, b: Tensor, log_scale: Tensor, same: Tensor | None = None) -> Tensor:
    """The symmetric InfoNCE loss, averaged over B pairs: find the b of each a, and the a of each b.

        logits = exp(min(log_scale, ln 100)) a bᵀ
        lossᵢ = -½ log softmaxⱼ(logitsᵢⱼ)ᵢ - ½ log softmaxⱼ(logitsⱼᵢ)ᵢ

    a, b        (B, D), vectors of length 1; row i of each is a pair
    log_scale   (), the logarithm of 1 / temperature. From ln 100 on it has no gradient
    same        (B, B) bool: where same[i, j], b_j fits a_i as well, so the two are not negatives of
                each other, and neither softmax counts them. The diagonal always counts

    Source: van den Oord et al. 2018 (InfoNCE); in both directions, with a learned temperature,
    Radford et al. 2021 (CLIP).
    """
    return _contrastive_losses(a, b, log_scale, same).mean()


def _contrastive_losses(a: Tensor, b: Tensor, log_scale: Tensor, same: Tensor | None) -> Tensor:
    """`contrastive_loss` of each pair, (B,)."""
    scale = log_scale.clamp(max=MAX_LOG_SCALE).exp()
    logits = _dot_products(scale * a, b)  # (B, B)
    positives = logits.diagonal()  # (B,)
    if same is not None:
        logits = logits.masked_fill(_off_diagonal(same), -math.inf)
    a_to_b = logits.logsumexp(1) - positives  # (B,)
    b_to_a = logits.logsumexp(0) - positives  # (B,)
    return (a_to_b + b_to_a) / 2


def hardest_negative_loss(
    a: Tensor, b: Tensor, same: Tensor | None = None, margin: float = 0.2
) -> Tensor:
    """The hinge loss with the hardest negative in each direction, averaged over B pairs.

        s = a bᵀ
        lossᵢ = max(0, margin + maxⱼ sᵢⱼ - sᵢᵢ) + max(0, margin + maxⱼ sⱼᵢ - sᵢᵢ)

    j runs over the negatives: j ≠ i, and not same[i, j] (same[j, i] in the second term). A pair
    without any negative has loss 0, and gradient 0. Arguments are those of `contrastive_loss`.
    Source: Faghri et al. 2018 (VSE++).
    """
    return _hardest_negative_losses(a, b, same, margin).mean()


def _hardest_negative_losses(
    a: Tensor, b: Tensor, same: Tensor | None, margin: float = 0.2
) -> Tensor:
    """`hardest_negative_loss` of each pair, (B,)."""
    scores = _dot_products(a, b)  # (B, B)
    positives = scores.diagonal()  # (B,)
    excluded = torch.eye(len(a), dtype=torch.bool, device=a.device)  # (B, B)
    if same is not None:
        excluded = excluded | same
    negatives = scores.masked_fill(excluded, -math.inf)
    a_to_b = (margin + negatives.amax(1) - positives).clamp(min=0)  # (B,)
    b_to_a = (margin + negatives.amax(0) - positives).clamp(min=0)  # (B,)
    return a_to_b + b_to_a


def _dot_products(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ (B, B), without autocast: in bfloat16, numbers above 64 are 0.5 apart."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T


def _off_diagonal(same: Tensor) -> Tensor:
    """The matrix (B, B) with False on its diagonal."""
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def sentence_fingerprint(tokens: Tensor) -> Tensor:
    """A number for each sentence, tokens (B, T) -> (B,) int64: Σₜ tokenₜ · baseᵗ⁺¹ mod 2⁶⁴.

    <pad> is 0, so padding does not change it. The order of the words does, and any other word;
    it is practically impossible that two different sentences have the same number. The result is on
    the device of the tokens.
    """
    powers = torch.full_like(tokens[0], HASH_BASE).cumprod(0)  # (T,), int64 wraps around
    return (tokens * powers).sum(1)  # (B,)


class DualEncoder(nn.Module):
    """The model of retrieval: two encoders ("towers") whose vectors are compared by dot product.

        vector = W pooled / |W pooled|,   pooled = attention pooling (tower (inputs))

    towers      the encoders of two modalities, say "image" and "target" (the sentence)
    dim         the length D of the vectors
    embed_dim   that of the towers' memories
    negatives   "all": trained with `contrastive_loss`; "hardest": with `hardest_negative_loss`

    No tower sees the other's input, so a gallery's vectors are computed once, for all queries.
    Source: Frome et al. 2013 (DeViSE); Radford et al. 2021 (CLIP).
    """

    loss_unit = "pairs"  # the unit of the count that `loss` returns

    def __init__(
        self, towers: dict[str, nn.Module], dim: int, embed_dim: int, negatives: str = "all"
    ):
        super().__init__()
        _check_towers(towers)
        if negatives not in ("all", "hardest"):
            raise ValueError(f'negatives are "all" or "hardest", not {negatives!r}')
        self.negatives = negatives
        self.same = None  # or a function, numbers (B,) -> (B, B) bool (see `loss`)
        self.encoders = nn.ModuleDict(towers)
        self.pooling = nn.ModuleDict()
        self.projection = nn.ModuleDict()
        for modality in towers:
            self.pooling[modality] = AttentionPooling(embed_dim)
            self.projection[modality] = nn.Linear(embed_dim, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed(self, modality: str, *inputs: Tensor) -> Tensor:
        """The inputs of a modality's encoder, each (B, …) -> vectors of length 1, (B, D)."""
        memory = self.encoders[modality](*inputs)
        pooled = self.pooling[modality](memory)  # (B, embed_dim)
        vectors = self.projection[modality](pooled)  # (B, D)
        vectors = vectors.to(self.log_scale.dtype)  # float32 under autocast, too
        return F.normalize(vectors, dim=1)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The vectors of both modalities, each (B, D), in the order of the towers.

        If sequences are padded, batch["sound_lengths"] (B,) goes to the encoder as well.
        """
        a, b = (self.embed(name, *inputs_of(batch, name)) for name in self.encoders)
        return a, b

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss summed over the pairs of a batch, and their number.

        Pairs are not negatives of each other if they have the same picture (batch["number"] (B,),
        which may be missing), the same words batch["target"] (even if these are only spoken), or a
        True in `self.same(numbers)`.
        In training, the batches of all processes are one batch, and each process returns the loss
        of its own pairs among all of them.
        """
        a, b = self(batch)  # each (b, D)
        present = self._has_both(batch)  # (b,)
        vectors = torch.cat([a, b], dim=1)[present]  # (b', 2D)
        a, b = self._gather(vectors).chunk(2, dim=1)  # each (B, D), those of all processes
        words = sentence_fingerprint(batch["target"])  # (b,)
        numbers = batch["number"] if self.same else batch.get("number", words)  # (b,)
        ranks = torch.full_like(words, distributed.rank())  # (b,)
        labels = torch.stack([words, numbers, ranks], dim=1)[present]  # (b', 3)
        words, numbers, ranks = self._gather(labels).unbind(1)  # each (B,)
        same_words = words.unsqueeze(1) == words  # (B, B)
        same_picture = numbers.unsqueeze(1) == numbers  # (B, B)
        same = same_words | same_picture
        if self.same:
            same = same | self.same(numbers)
        if self.negatives == "all":
            losses = _contrastive_losses(a, b, self.log_scale, same)  # (B,)
        else:
            losses = _hardest_negative_losses(a, b, same)  # (B,)
        own = ranks == distributed.rank()  # (B,)
        return losses[own].sum(), own.sum()

    def _has_both(self, batch: dict[str, Tensor]) -> Tensor:
        """Which examples have both modalities, and words, (b,) bool (see `BucketSampler`)."""
        present = (batch["target"] != PAD).any(1)  # (b,)
        for name in self.encoders:
            present = present & batch.get(f"has_{name}", present)
        return present

    def _gather(self, x: Tensor) -> Tensor:
        """The rows of all processes; in eval mode the process's own, as it has its own batches."""
        return distributed.gather(x) if self.training else x


def _check_towers(towers: dict[str, nn.Module]) -> None:
    """Raise ValueError unless there are two towers, and neither is steered."""
    if len(towers) != 2:
        raise ValueError(f"a DualEncoder has two towers, not: {', '.join(towers)}")
    for modality, tower in towers.items():
        steered_by = getattr(tower, "steered_by", "")
        if steered_by:
            raise ValueError(
                f"{modality} is steered by {steered_by!r}, but a tower sees nothing of the other"
            )
