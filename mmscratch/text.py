"""Words: from a sentence to a list of numbers and back."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
MASKED = "[v]"  # stands for a hidden word, as in "a [v] star"

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(
    rf"\[v\]"  # the mask is one token
    rf"|[{_HAN}]"  # Chinese: every character by itself
    rf"|\d+(?:[.,]\d+)+"  # 3.5 and 1,000
    rf"|[^\W{_HAN}]+(?:['’-][^\W{_HAN}]+)*"  # a word, with its inner apostrophes and hyphens
    rf"|[^\w\s]"  # any other sign by itself
)
_NO_SPACE_BEFORE = re.compile(r"[.,!?;:)\]}%…。，！？；：、）》」]")
_NO_SPACE_AFTER = re.compile(r"[({（《「]")  # no "[": "[", "v", "]" together would be the mask
_WIDE = re.compile(rf"[{_HAN}。，！？；：、（）《》「」]")


def tokenize(text: str) -> list[str]:
    """Split a sentence into lower-case words and signs.

    "Don't go, Käthe!" -> ["don't", "go", ",", "käthe", "!"]. Chinese, which has no spaces, is split into characters.
    The text is brought to Unicode's NFC form first, so that both ways of writing "ü" are the same word.
    """
    return _TOKEN.findall(unicodedata.normalize("NFC", text.lower()))


def detokenize(tokens: Iterable[str]) -> str:
    """Join tokens as a person would write them: no space before a comma, none between Chinese characters.

    `tokenize(detokenize(tokens)) == tokens` for whatever `tokenize` returns.
    """
    text = ""
    for token in tokens:
        together = not text or (
            _NO_SPACE_BEFORE.fullmatch(token)
            or _NO_SPACE_AFTER.fullmatch(text[-1])
            or _WIDE.fullmatch(token)
            or _WIDE.fullmatch(text[-1])
        )
        text += token if together else " " + token
    return text


class Vocabulary:
    """Words and their numbers. The first four are <pad> 0, <bos> 1, <eos> 2 and <unk> 3.

    A special is never read from a text: the word "<eos>" in a caption is as unknown as any other.
    """

    def __init__(self, words: Sequence[str]):
        self.words = [*SPECIALS, *words]
        self.index = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}
        if len(self.index) != len(words) or self.index.keys() & set(SPECIALS):
            raise ValueError("a vocabulary needs words that are all different and none of " + " ".join(SPECIALS))

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], min_freq: int = 1) -> "Vocabulary":
        """All words that the tokenized sentences use at least `min_freq` times, the commonest first, ties by spelling."""
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = [word for word, count in counts.items() if count >= min_freq and word not in SPECIALS]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Tokens -> numbers; a word that is not in the vocabulary becomes <unk>."""
        if isinstance(tokens, str):
            raise TypeError(f"encode takes a list of tokens, not the string {tokens[:40]!r}: call tokenize first")
        return [self.index.get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Numbers -> tokens, up to the first <eos>; <pad> and <bos> are left out."""
        tokens = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                tokens.append(self.words[i])
        return tokens

    def save(self, path: str | Path) -> None:
        """Write the words as JSON."""
        Path(path).write_text(json.dumps(self.words[len(SPECIALS) :], ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read what `save` wrote."""
        try:
            words = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError("a list of words was expected")
            return cls(words)
        except ValueError as error:  # JSON that is broken and text that is not UTF-8 are ValueErrors too
            raise ValueError(f"{path}: not a vocabulary: {error}") from None
