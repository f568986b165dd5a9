"""Rewards for captions: what self-critical training of a captioner can aim at."""

from ..data.captions import SceneCaptions, number_pictures
from ..data.dataset import DataSet
from ..data.judge import judge
from ..metrics import Tokens
from ..self_critical import Reward, SelfCritical, bleu_reward, cider_reward
from ..text import caption_tokenize, detokenize
from ..training import Trainer

REWARDS = {
    "cider_d": "CIDEr-D",
    "bleu": "BLEU of the sentence",
    "truth": "1 if it is true (scenes only)",
}
REWARD = {
    "choices": tuple(REWARDS),
    "help": "train a trained captioner (--from) on a reward of its captions: "
    + "; ".join(f"{name}: {meaning}" for name, meaning in REWARDS.items()),
}
SETTINGS = {"batch_size": 32, "learning_rate": 5e-5}  # of training on a reward


def set_reward(trainer: Trainer, name: str | None) -> None:
    """Let a trainer maximise a reward, if there is one, and number its pictures: captions find theirs.

    Raises ValueError if it does not start from a trained captioner, or nobody knows the truth.
    """
    if name is None:
        return
    if not trainer.config.start_from:
        raise ValueError("--reward improves a captioner that is trained already: --from RUN")
    if trainer.train.data.shard_sizes:
        raise ValueError("--reward needs all captions in memory, and shards are read as a stream")
    datasets = (trainer.train.data, trainer.validation.data)
    number_pictures(*datasets)
    reward = _make_reward(name, *datasets)
    trainer.model.objective = SelfCritical(reward, trainer.train.vocabularies["target"])


def _make_reward(name: str, training: DataSet, validation: DataSet) -> Reward:
    if name == "truth":
        if not isinstance(training, SceneCaptions):
            raise ValueError("only of scenes is the truth known: choose --reward cider_d or bleu")
        scenes = [*training.scenes, *validation.scenes]
        return lambda captions, numbers: [
            float(judge(detokenize(words), scenes[number]).true)
            for words, number in zip(captions, numbers)
        ]
    texts = [*training.texts, *validation.texts]
    references = [[caption_tokenize(text) for text in several] for several in texts]
    if name == "bleu":
        score = bleu_reward(references)
    else:
        score = cider_reward(references, documents=len(training))

    def reward(captions: list[Tokens], numbers: list[int]) -> list[float]:
        """Of captions without punctuation and capitals, as they are evaluated."""
        return score([caption_tokenize(detokenize(words)) for words in captions], numbers)

    return reward
