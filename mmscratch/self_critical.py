"""Training on the metric itself: self-critical sequence training."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Memory
from .batches import pad_to_largest
from .decoding import Hypothesis, greedy_search, sample
from .metrics import DocumentFrequencies, Tokens, cider_d, document_frequencies, sentence_bleu
from .model import repeat_memory, shift_right
from .text import BOS, EOS, PAD, UNK

# reward(captions, numbers): how good each caption is, a list of words, of the picture of its number
Reward = Callable[[Sequence[Tokens], Sequence[int]], Sequence[float]]

MAX_LENGTH = 40  # words of a caption that is drawn
NUM_SAMPLES = 5  # captions drawn for each picture
CROSS_ENTROPY = 0.1  # the weight of what people wrote, which keeps captions fluent


def self_critical_loss(log_probs: Tensor, rewards: Tensor, baselines: Tensor) -> Tensor:
    """The loss whose gradient makes captions likelier that earn more than their baseline.

        -Σᵢ (rᵢ - bᵢ) Σₜ log p(wordᵢₜ | words before it, picture)

    log_probs (B, T) of the words of captions that were drawn, 0 for padding; their rewards r (B,);
    baselines b (B,): the rewards of the captions that greedy search writes for the same pictures.

    If captions are drawn from p, the expected gradient is that of -E[r], for any baseline that does
    not depend on what is drawn; a good one makes it less noisy. No gradient goes through r and b.
    Source: Williams 1992 (REINFORCE); Rennie et al. 2017, equation 10.
    """
    advantages = (rewards - baselines).detach()  # (B,)
    return -(advantages * log_probs.sum(1)).sum()


def caption_log_probs(decoder: nn.Module, memory: Memory, captions: Tensor) -> Tensor:
    """The log-probability of each word of captions (B, T) about B memories: (B, T), 0 for <pad>.

    <pad>, <bos> and <unk> are not among the words, since `sample` never draws them.
    """
    logits = decoder(shift_right(captions), memory).float()  # (B, T, V)
    never = torch.zeros(logits.size(-1), dtype=torch.bool, device=logits.device)  # (V,)
    never[[PAD, BOS, UNK]] = True
    log_probs = logits.masked_fill(never, -torch.inf).log_softmax(-1)
    chosen = log_probs.gather(2, captions.unsqueeze(2)).squeeze(2)  # (B, T)
    return chosen.masked_fill(captions == PAD, 0.0)


class SelfCritical:
    """A loss for an `EncoderDecoder`: the reward of its own captions.

    For each picture of a batch, `NUM_SAMPLES` captions are drawn and one is written by greedy
    search, the baseline of all (see `self_critical_loss`). To it comes the cross-entropy of a word
    that people wrote, times `CROSS_ENTROPY`. The loss is summed over the drawn words, which are its
    count. In eval mode the loss is minus the reward of the greedy captions, and the count their
    number; so the best weights of a training are those with the best reward in validation.

    Dropout is off, and batch norm uses its running statistics, so that captions are drawn from the
    same distribution that they are scored with.

    reward      see `Reward`; it gets the numbers of the pictures in batch["number"]
    vocabulary  of the captions
    """

    def __init__(self, reward: Reward, vocabulary):
        self.reward = reward
        self.vocabulary = vocabulary

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        training = model.training
        model.eval()
        memory = model.encode(batch)
        fixed = Memory(memory.tokens.detach(), memory.mask)
        greedy = greedy_search(model.decoder, fixed, MAX_LENGTH)
        baselines = self._rewards(greedy, batch["number"])  # (B,)
        if not training:
            return -baselines.sum(), torch.tensor(len(baselines), device=baselines.device)
        drawn = sample(model.decoder, fixed.repeat(NUM_SAMPLES), MAX_LENGTH)
        rewards = self._rewards(drawn, batch["number"].repeat_interleave(NUM_SAMPLES))
        captions = _with_eos(drawn).to(memory.tokens.device)  # (B·samples, T)
        log_probs = caption_log_probs(model.decoder, memory.repeat(NUM_SAMPLES), captions)
        loss = self_critical_loss(log_probs, rewards, baselines.repeat_interleave(NUM_SAMPLES))
        count = (captions != PAD).sum()
        loss = loss + CROSS_ENTROPY * count * _cross_entropy(model, memory, batch["target"])
        model.train(training)
        return loss, count

    def _rewards(self, captions: list[Hypothesis], numbers: Tensor) -> Tensor:
        words = [self.vocabulary.decode(caption.tokens) for caption in captions]
        rewards = self.reward(words, numbers.tolist())
        return torch.tensor(rewards, dtype=torch.float, device=numbers.device)  # (B,)


def _with_eos(captions: list[Hypothesis]) -> Tensor:
    """The words of captions, (B, T): with <eos>, unless they were cut, and padded."""
    rows = []
    for caption in captions:
        ended = len(caption.tokens) < MAX_LENGTH
        rows.append(torch.tensor(caption.tokens + [EOS] * ended))
    return pad_to_largest(rows)


def _cross_entropy(model: nn.Module, memory: Memory, target: Tensor) -> Tensor:
    """The mean cross-entropy of a word of the references (B, T) or (B, K, T)."""
    memory, target = repeat_memory(memory, target)  # target (B·K, T)
    logits = model.decoder(shift_right(target), memory).float()  # (B·K, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)


def cider_reward(references: Sequence[Sequence[Tokens]], documents: int | None = None) -> Reward:
    """CIDEr-D of captions against the references of their pictures.

    documents  how many of the pictures, the first ones, say how common an n-gram is; default: all
    """
    frequencies = document_frequencies(references[:documents])

    def reward(captions: Sequence[Tokens], numbers: Sequence[int]) -> list[float]:
        theirs = [references[number] for number in numbers]
        # `cider_d` goes through all frequencies that it gets: only those of n-grams that occur here.
        texts = list(chain(captions, *(references[number] for number in set(numbers))))
        ngrams = document_frequencies([texts]).counts
        counts = Counter({ngram: frequencies.counts[ngram] for ngram in ngrams})
        return cider_d(captions, theirs, DocumentFrequencies(counts, frequencies.documents)).scores

    return reward


def bleu_reward(references: Sequence[Sequence[Tokens]]) -> Reward:
    """The BLEU of each caption, smoothed, from 0 to 1, against the references of its picture."""

    def reward(captions: Sequence[Tokens], numbers: Sequence[int]) -> list[float]:
        scores = []
        for caption, number in zip(captions, numbers):
            scores.append(sentence_bleu(caption, references[number]).score / 100)
        return scores

    return reward
