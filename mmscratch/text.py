"""Text: from a sentence to a list of numbers and back."""

import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from heapq import heappop, heappush

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
MASKED = "[v]"  # a hidden word, as in "a [v] star"


def _character_class(kind: str, end: int = sys.maxunicode + 1) -> str:
    """The characters below `end` of Unicode's categories that start with a letter, as ranges."""
    ranges = []
    for code in range(end):
        if unicodedata.category(chr(code))[0] == kind:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_MARKS = _character_class("M", 0x1F000) + "\U000e0100-\U000e01ef"  # accents, vowel signs, viramas
# What belongs to the character before it: marks, joiners without a width, and skin tones.
_EXTENDS = rf"[{_MARKS}\u200c\u200d\U0001f3fb-\U0001f3ff]"
_WORD = rf"[^\W{_HAN}]+(?:{_EXTENDS}+[^\W{_HAN}]*)*"
_TOKEN = re.compile(
    rf"\[v\]"  # a masked word is one token
    rf"|[{_HAN}]{_EXTENDS}*"  # every Chinese character by itself
    rf"|\d+(?:[.,]\d+)+"  # 3.5 and 1,000
    rf"|{_WORD}(?:['’-]{_WORD})*"  # a word, with apostrophes and hyphens in it
    rf"|[\U0001f1e6-\U0001f1ff]{{2}}"  # a flag
    rf"|(?!{_EXTENDS})[^\w\s]{_EXTENDS}*(?:(?<=\u200d)[^\w\s]{_EXTENDS}*)*"  # others; joined emoji
    rf"|{_EXTENDS}"  # a mark without a character
)
_EXTENSION = re.compile(_EXTENDS)
_NO_SPACE_BEFORE = re.compile(r"[.,!?;:)\]}%…。，！？；：、）》」]")
_NO_SPACE_AFTER = re.compile(r"[({（《「]")  # no "[": joined, "[", "v", "]" would be a masked word
_WIDE = re.compile(rf"[{_HAN}。，！？；：、（）《》「」]")


def tokenize(text: str) -> list[str]:
    """Split a sentence into lower-case words and punctuation marks.

    "Don't go, Käthe!" -> ["don't", "go", ",", "käthe", "!"]. Chinese, which has no spaces, is split
    into characters. Accents, vowel signs and joiners belong to the character before them, in every
    script. The text is brought to Unicode's NFC form first, so that both encodings of "ü" give the
    same word.
    """
    return _TOKEN.findall(unicodedata.normalize("NFC", text.lower()))


def detokenize(tokens: Iterable[str]) -> str:
    """Join tokens as people write: no space before a comma, none between Chinese characters.

    `tokenize(detokenize(tokens)) == tokens` for all that `tokenize` returns.
    """
    text = ""
    for token in tokens:
        no_space = (
            _NO_SPACE_BEFORE.fullmatch(token)
            or _NO_SPACE_AFTER.fullmatch(text[-1:])
            or _WIDE.fullmatch(token)
            or _WIDE.fullmatch(text[-1:])
        ) and not _EXTENSION.match(token)  # it would become a part of the character before it
        text += token if no_space or not text else " " + token
    return text


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """A text of strangers for a terminal, on one line: its control characters are written as escapes.

    "a\\nb" for a and b on two lines. So nothing that is in a caption, a file's name or the vocabulary
    of a downloaded model can move the cursor, change a colour or turn the writing round.
    """
    return _CONTROLS.sub(lambda match: repr(match[0])[1:-1], str(text))


class Vocabulary:
    """Words and their numbers. The first four, the specials, are <pad>, <bos>, <eos> and <unk>.

    Text never becomes a special: the word "<eos>" in a caption is <unk>, like any unknown word.
    """

    def __init__(self, words: Sequence[str]):
        self.words = [*SPECIALS, *words]
        self.index = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}
        if len(self.index) != len(words) or self.index.keys() & set(SPECIALS):
            specials = " ".join(SPECIALS)
            raise ValueError(f"the words of a vocabulary must be different, and none of {specials}")

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], min_freq: int = 1) -> "Vocabulary":
        """All words that occur at least `min_freq` times in the tokenized sentences.

        The most frequent comes first; equally frequent words are in alphabetical order.
        """
        counts = Counter(word for sentence in sentences for word in sentence)
        words = [word for word in counts if counts[word] >= min_freq and word not in SPECIALS]
        return cls(sorted(words, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Tokens -> numbers; words that are not in the vocabulary become <unk>.

        Raises TypeError for a string, which is not tokenized yet.
        """
        if isinstance(tokens, str):
            raise TypeError(f"encode takes tokens, not the string {tokens[:40]!r}: call tokenize")
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

    def state(self) -> list[str]:
        """The words without the specials, for a checkpoint; `vocabulary_from` reads them."""
        return self.words[len(SPECIALS) :]


WORD_START = "▁"  # U+2581, the start of a token
FIRST_BYTE = len(SPECIALS)
FIRST_CHARACTER = FIRST_BYTE + 256


class BytePairEncoding:
    """A vocabulary of pieces of words (subwords), which can spell every word: nothing is <unk>.

    Each token is spelled as "▁" and its characters. Learning merges the most frequent pair of
    neighbouring pieces into a new piece, again and again, so that a frequent word becomes one piece
    and a rare word a few. From low 5 times, lower 2, newest 6 and widest 3 times it learns e+s,
    es+t, ▁+l, o+w, ▁l+ow, …, and "lowest" is then written as "▁low" "est". Learned on sentences of
    two languages together, the pieces are shared by both.

    The numbers are: 4 specials, 256 bytes, "▁", the characters, and one piece for each merge. A
    character that does not occur twice in the sentences is written as the bytes of its UTF-8, each
    a piece: "猫" as <0xE7> <0x8C> <0xAB>. So are unprintable characters, and a "▁" within a token.
    Bytes are never merged. Decoding gives all tokens back exactly.

    Source: Gage 1994; for words, Sennrich, Haddow & Birch 2016; "▁" and the bytes as in
    SentencePiece, Kudo & Richardson 2018.
    """

    def __init__(self, characters: str, merges: Iterable[Sequence[str]] = ()):
        """Raises ValueError for a duplicate character or "▁", and for an impossible merge."""
        self.words = [
            *SPECIALS,
            *(f"<0x{byte:02X}>" for byte in range(256)),
            WORD_START,
            *characters,
        ]
        self.index = {word: i for i, word in enumerate(self.words)}
        self.merges: dict[tuple[int, int], int] = {}  # two pieces -> the new piece, in order
        self._cache: dict[str, list[int]] = {}  # token -> its pieces
        if len(self.index) != len(self.words):
            raise ValueError(
                f"the characters must be all different and none of them {WORD_START!r}"
            )
        for left, right in merges:
            if not self._add((self.index.get(left, PAD), self.index.get(right, PAD))):
                pair = f"{left!r:.40} and {right!r:.40}"
                raise ValueError(f"the merge of {pair} must join two known pieces to a new one")

    def _add(self, pair: tuple[int, int]) -> bool:
        """Merge a pair into a new piece, unless one of the two is a byte or the new name is taken.

        It is taken if, for example, "<pa" and "d>" would become "<pad>".
        """
        left, right = pair
        name = self.words[left] + self.words[right]
        if min(pair) < FIRST_CHARACTER or name in self.index:
            return False
        self.merges[pair] = len(self.words)
        self.index[name] = len(self.words)
        self.words.append(name)
        return True

    @classmethod
    def learn(cls, sentences: Iterable[Sequence[str]], merges: int = 8000) -> "BytePairEncoding":
        """Learn up to `merges` merges from tokenized sentences, as long as some pair occurs twice.

        Among equally frequent pairs, the one of the older pieces is merged first; characters are as
        old as their numbers in Unicode. So the order of the sentences does not matter.
        """
        token_counts = Counter(token for sentence in sentences for token in sentence)
        counts = Counter("".join(token_counts.elements()))
        characters = [
            c for c in sorted(counts) if counts[c] > 1 and c.isprintable() and c != WORD_START
        ]
        encoding = cls("".join(characters))
        words = [encoding._spell(token) for token in token_counts]
        frequencies = list(token_counts.values())
        pair_counts = Counter()  # how often each pair occurs
        words_with = defaultdict(set)  # in which words each pair occurs
        changed = set()  # the pairs whose count has changed
        heap = []  # of (-count, pair), the most frequent first; some counts are outdated

        def count_pairs(k: int, sign: int) -> None:
            """Add the pairs of the k-th word to the counts, or subtract them."""
            for pair in zip(words[k], words[k][1:]):
                pair_counts[pair] += sign * frequencies[k]
                words_with[pair].add(k)
                changed.add(pair)

        for k in range(len(words)):
            count_pairs(k, 1)
        while len(encoding.merges) < merges:
            for pair in changed:
                if pair_counts[pair] > 1:
                    heappush(heap, (-pair_counts[pair], pair))
            changed.clear()
            if not heap:
                break
            count, pair = heappop(heap)
            is_outdated = -count != pair_counts[pair]
            if is_outdated or not encoding._add(pair):
                continue
            for k in words_with.pop(pair):
                count_pairs(k, -1)
                words[k] = _join(words[k], pair, encoding.merges[pair])
                count_pairs(k, 1)
        return encoding

    def __len__(self) -> int:
        return len(self.words)

    def _spell(self, token: str) -> list[int]:
        """A token as "▁", characters, and bytes for unknown characters."""
        ids = [FIRST_CHARACTER]  # "▁"
        for c in token:
            if c in self.index and c != WORD_START:
                ids.append(self.index[c])
            else:
                ids += [FIRST_BYTE + byte for byte in c.encode("utf-8", "surrogatepass")]
        return ids

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Tokens -> numbers of pieces, by the merges in the order in which they were learned.

        Raises TypeError for a string, which is not tokenized yet.
        """
        if isinstance(tokens, str):
            raise TypeError(f"encode takes tokens, not the string {tokens[:40]!r}: call tokenize")
        ids = []
        for token in tokens:
            if token not in self._cache:
                pieces = self._spell(token)
                while pairs := [pair for pair in zip(pieces, pieces[1:]) if pair in self.merges]:
                    first = min(pairs, key=self.merges.get)
                    pieces = _join(pieces, first, self.merges[first])
                self._cache[token] = pieces
            ids += self._cache[token]
        return ids

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Numbers -> tokens, up to the first <eos>; <pad> and <bos> are left out.

        A model may generate bytes that are not valid UTF-8: they become "\ufffd".
        """
        tokens = []
        for i in ids:
            if i == EOS:
                break
            if i in (PAD, BOS):
                continue
            piece = self.words[i]
            if piece.startswith(WORD_START) or not tokens:
                tokens.append(b"")
            if FIRST_BYTE <= i < FIRST_CHARACTER:
                tokens[-1] += bytes([i - FIRST_BYTE])
            else:
                tokens[-1] += piece.removeprefix(WORD_START).encode("utf-8", "surrogatepass")
        return [_read_utf8(token) for token in tokens]

    def state(self) -> dict:
        """Plain values for a checkpoint or JSON, which `vocabulary_from` reads."""
        merges = [[self.words[left], self.words[right]] for left, right in self.merges]
        characters = self.words[FIRST_CHARACTER + 1 : len(self) - len(merges)]
        return {"characters": "".join(characters), "merges": merges}


def _join(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """Replace each occurrence of the pair by `new`, from left to right: once in "a a a"."""
    joined = []
    for i in ids:
        if joined and (joined[-1], i) == pair:
            joined[-1] = new
        else:
            joined.append(i)
    return joined


def _read_utf8(text: bytes) -> str:
    try:  # a Python string may hold half a surrogate pair
        return text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace")


END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special: before and after every text


class ByteLevelBPE:
    """GPT-2's vocabulary: byte pair encoding of UTF-8, so that every text can be written.

    A text is cut into pieces: words with the space before them, numbers, signs, more spaces. The
    bytes of a piece are written as 256 printable characters (`byte_symbols`), and of all pairs of
    neighbours that `merges` lists, the earliest is merged first, everywhere in the piece, until no
    pair is in the list. " cats" -> "Ġcats", or "Ġcat" "s".

    tokens: GPT-2's, in the order of their numbers; ours come after the four specials. <eos> stands
        for GPT-2's "<|endoftext|>", which is left out: text never becomes it.

    As a vocabulary of a model, it writes the words of `tokenize` with a space before the first.
    Source: Radford et al. 2019, section 2.2. The same as transformers' GPT2Tokenizer.
    """

    def __init__(self, tokens: Sequence[str], merges: Iterable[Sequence[str]]):
        self.words = [*SPECIALS, *(token for token in tokens if token != END_OF_TEXT)]
        self.index = {word: i for i, word in enumerate(self.words) if i >= len(SPECIALS)}
        self.merges = [tuple(pair) for pair in merges]
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        missing = [symbol for symbol in byte_symbols() if symbol not in self.index]
        missing += [left + right for left, right in self.merges if left + right not in self.index]
        if missing:
            raise ValueError(f"its tokens lack {missing[0]!r}: the files do not belong together")
        self.pieces = {}  # known pieces -> their numbers

    def __len__(self) -> int:
        return len(self.words)

    def encode_text(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        numbers = []
        for piece in _gpt2_pieces().findall(text):
            if piece not in self.pieces:
                symbols = [byte_symbols()[byte] for byte in piece.encode("utf-8", "replace")]
                self.pieces[piece] = [self.index[token] for token in self._merge(symbols)]
            numbers += self.pieces[piece]
        return numbers

    def _merge(self, symbols: list[str]) -> list[str]:
        while True:
            pairs = set(zip(symbols, symbols[1:])) & self.ranks.keys()
            if not pairs:
                return symbols
            left, right = min(pairs, key=self.ranks.__getitem__)
            merged = []
            for symbol in symbols:
                if merged and (merged[-1], symbol) == (left, right):
                    merged[-1] = left + right
                else:
                    merged.append(symbol)
            symbols = merged

    def decode_text(self, ids: Iterable[int]) -> str:
        """The text of tokens, up to the first <eos>; bytes that are no UTF-8 become U+FFFD."""
        byte_of = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
        content = bytearray()
        for i in ids:
            if i == EOS:
                break
            if i >= len(SPECIALS):
                content += bytes(byte_of[symbol] for symbol in self.words[i])
        return content.decode("utf-8", "replace")

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The words of `tokenize` -> numbers."""
        return self.encode_text(" " + detokenize(tokens))

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Numbers -> the words of `tokenize`."""
        return tokenize(self.decode_text(ids))

    def state(self) -> dict:
        """Plain values for a checkpoint, which `vocabulary_from` reads."""
        return {"byte_level": self.words[len(SPECIALS) :], "merges": list(map(list, self.merges))}


@cache
def byte_symbols() -> list[str]:
    """A printable character for each byte: itself, if it is printable, else the next from U+0100."""
    symbols = []
    others = 256
    for byte in range(256):
        is_printable = 33 <= byte <= 126 or 161 <= byte <= 255 and byte != 173
        symbols.append(chr(byte if is_printable else others))
        others += not is_printable
    return symbols


@cache
def _gpt2_pieces() -> re.Pattern:
    """The pieces that GPT-2 cuts a text into; Python's \\w and \\s are not Unicode's classes."""
    letters = _character_class("L")
    numbers = _character_class("N")
    spaces = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(
        rf"'(?:[sdmt]|ll|ve|re)"
        rf"| ?[{letters}]+"
        rf"| ?[{numbers}]+"
        rf"| ?[^{spaces}{letters}{numbers}]+"
        rf"|[{spaces}]+(?![^{spaces}])"  # all spaces but the last, which belongs to the next word
        rf"|[{spaces}]+"
    )


def vocabulary_from(state: list | dict) -> Vocabulary | BytePairEncoding | ByteLevelBPE:
    """The vocabulary whose `state()` this is. Raises ValueError if it is not the state of one."""
    match state:
        case [*words] if all(isinstance(word, str) for word in words):
            return Vocabulary(words)
        case {"characters": str(characters), "merges": [*merges], **others} if not others:
            if all(_is_pair(pair) for pair in merges):
                return BytePairEncoding(characters, merges)
        case {"byte_level": [*tokens], "merges": [*merges], **others} if not others:
            if all(isinstance(token, str) for token in tokens) and all(map(_is_pair, merges)):
                return ByteLevelBPE(tokens, merges)
    expected = "a list of words, or a dict of characters and merges"
    raise ValueError(f"not the state of a vocabulary: expected {expected}")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and [type(piece) for piece in pair] == [str, str]


# -------------------------------------------------------------------------------------------------
# The tokenizer of the COCO evaluation.

# Words that keep their full stop. (?-i:M) is for capitals only: "Miss." is a title, "miss." is not.
_ABBREVIATIONS = r"""
    mr mrs ms mlle mme messrs msgr drs? profs? sens? reps? govs? pres hon rev jr sr esq lt lieut col gen maj capt sgt sfc
    cpl pvt pfc spc brig adm co?mdr det insp ens supts? attys? alex wm jos adj adv asst assoc treas ste? mt ft ave rd blvd
    bldg rt ct ala ariz calif colo conn dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn tenn va vt wisc? wyo
    (?-i:A)(?:rk|z) (?-i:D)el (?-i:I)ll (?-i:L)a (?-i:M)(?:as|is)s (?-i:O)re (?-i:P)a (?-i:T)ex (?-i:W)ash
    jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri inc cos? corp ltd plc pp?t[ey]s? bros bancorp
    bhd assn univ intl natl sys dept elec invt m[ft]g cie etc vs al cf est ext seq sq tel ph (?:ed|ph)\.d
""".split()
_SENTENCE_STARTS = r"""
    A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\. Ms\. Now Once
    One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You
""".split()
_L = rf"(?:[^\W\d_²³¹¼-¾⁰-₉⅐-⅞]|(?![\ufe00-\ufe0f])[{_MARKS}])"  # a letter or its mark
_LD = rf"(?:{_L}|\d)"  # a letter or a digit
_DOL = rf"[dol]['’`]{_LD}"  # the start of d'Avignon, o'clock, l'avion
_ENDING = r"(?:'(?:[msd]|[rv]e|ll)(?![a-z])|’(?:[msd]|[rv]e|ll))"
_OVER = rf"(?![-/.!?_]?{_LD}|{_ENDING})"  # the word ends here
_STOP = r"(?:\.(?=[,;:]))?"  # a full stop before a comma belongs to the word
_SIDE = r"[a-z0-9]+(?:-[a-z]+){0,2}"  # on one side of a slash
# Java takes the longest token that matches, a regular expression the first: the order matters.
_PTB_TOKEN = re.compile(
    rf"""
    # can|not, gon|na, got|ta, lem|me, 't|is
      can(?=not{_OVER}) | (?:gon|wan)(?=na{_OVER}) | got(?=ta{_OVER}) | (?:lem|gim)(?=me{_OVER})
    | ['’]t(?=is|was)
    | [a-z]+(?=\ )  # most words: letters up to a space
    # addresses, tags, &#39;, me@home.org, @me, #me
    | https?://[^\s"<>|()]+(?<![.,!?-]) | </?[a-z][\w:.-]*/?> | &\#\d+;
    | [a-z0-9][^\s"<>|()@]*@[^\s"<>|()]+(?<!\.) | @[a-z_][a-z0-9_]* | \#{_L}+
    # (555) 555-1234; and/or; fractions: "1 1/2" is one token, with a space in it
    | (?:\(\d{{2,3}}\)\ ?|(?:\d{{2,4}}[-\ ]){{1,2}})\d{{3,4}}[-\ ]?\d{{3,5}}(?!\w)
    | {_SIDE}(?:/{_SIDE}){{1,2}}
    | (?:\d{{1,4}}[-\ ])?\d{{1,4}}[/⁄]\d{{1,4}}
    # hyphens do not split: T-shirt, 1.5-inch, U.S.-made; the second line is for other letters and _
    | [a-z0-9][a-z0-9.,]*(?:-(?:[a-z](?:\.[a-z])+\.|[a-z0-9]+))+(?!_?{_LD}){_STOP}
    | (?:{_DOL})?{_LD}+(?:[-_‐‑]{_LD}+)+{_STOP}
    | {_L}+(?={_ENDING}) | [a-z]*[a-mo-z](?=n['’`]t)  # dog|'s, do|n't
    # plan B|. The; U.S., p.m. and single letters; abbreviations; No. 5, but not "no."
    | [a-z](?=\.\s+(?-i:{"|".join(_SENTENCE_STARTS)})(?:\s|$)) | (?:[a-z]\.)+(?!{_L})
    | (?:{"|".join(_ABBREVIATIONS)})\.(?!{_L}) | (?:art|ca|figs?|nos?|op|pp|prop)\.(?=\s?\d)
    # 's, n't; o'clock; 'n', 'em, '90s; an opening '; O'Malley, n'ts of don'ts; Hawai'i; words
    | {_ENDING} | n['’`]t(?![a-z]) | {_DOL}{_LD}+
    | ['’](?:n['’]|em|[2-9]0s|till?|cause|\d\d(?=\s|$)) | '(?=[a-z]\S)
    | (?-i:(?![IY])[A-Zn])['’`]{_L}{{2,}} | {_L}{{2,}}(?<=[aeiouy])['’`](?=[aeiou]|(?-i:[A-Z])){_L}+
    | ['’]n | (?:[ldj]|ol|dunkin|somethin)['’] | y['’](?={_L})
    | c['’]est | cap['’]n | c'mon | e'er | ev'ry | li'l | s'mores | nat'l | nor'easter | cont'd
    # C++, AT&T, US$; other words, of which the.end is one; 1,000 and 10:30, 20th, -5
    | c\+\+ | [cf]\# | (?-i:[A-Z]+(?:[+&][A-Z]+)+){_STOP} | (?-i:[A-Z]*)\$
    | {_L}{_LD}*(?:[.!?]{_L}{_LD}*)*{_STOP} | [-+]?\d*(?:[.:,]\d+)+ | {_LD}+{_STOP} | [-+]\d+
    # :-) and other symbols; anything else, such as an emoji, is skipped
    | (?-i:[:;=][-o]?[()dpDP])(?![a-z0-9])
    | ['`‘’]' | \.{{3}} | [!?]+ | -+ | \*+ | _+ | \#+ | @+ | << | >> | [!-~¡-¿×÷–-―‖-‧‰-⁄⁰-₎€℀-⯿。۔։؟،।॥]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TEXT_REPLACEMENTS = {
    "&amp;": "&",
    "&quot;": '"',
    "&apos;": "'",
    "&lt;": "<",
    "&gt;": ">",
    "&nbsp;": " ",
    "\n": " ",
    "\u00ad": "",
}
_TOKEN_REPLACEMENTS = dict(
    zip("[]{}€¤£¢¼½¾⅓⅔", "-lsb- -rsb- -lcb- -rcb- $ $ # cents 1/4 1/2 3/4 1/3 2/3".split())
)
_TOKEN_REPLACEMENTS["n’t"] = "n't"
_TOKEN_REPLACEMENTS |= {f"’{end}": f"'{end}" for end in ("s", "m", "d", "re", "ve", "ll")}
_PUNCTUATION = {
    *". ? ! , ; : - -- --- ---- – — ― … ... ' ` ‘ ’ ‛ ‹ › '' `' ‘' ’' “ ” « »".split(),
    '"',
}


def caption_tokenize(text: str) -> list[str]:
    """Split a caption into words as the COCO evaluation does, whose scores papers report.

    "A man's T-shirt (red), and he can't swim!" ->
    ["a", "man", "'s", "t-shirt", "-lrb-", "red", "-rrb-", "and", "he", "ca", "n't", "swim"]

    Lower-case words by the rules of the Penn Treebank, without punctuation. Its list of punctuation
    has "-LRB-" in capitals, and "!" and "?" only one at a time, so brackets stay, and so do "!!"
    and "?!".
    In "1 1/2" and a phone number the space becomes a no-break space, a part of the token.

    Agrees with the PTBTokenizer of pycocoevalcap, which runs Stanford CoreNLP 3.4.1 in Java, on all
    35,000 captions of Flickr8k and all 30,014 English ones of Multi30k (training and validation).
    The full stops of other scripts stay, as in Java: 。 ۔ ։ ؟ ، । ॥.
    Known differences: Java cuts words at some marks of Gurmukhi, Kannada, Malayalam, Khmer, Burmese
    and Tibetan, here they stay whole; "&eacute;" and "&AMP;", tags with a space in them, addresses
    without http but with a path, file names such as "1.mp3", emoticons other than those like ":-)",
    two curly quotes in a row, a curly apostrophe inside a word, and an abbreviation with no space
    after it ("co.a").
    In Java, moreover, a single letter at the end ("plan B.") depends on the next caption, and a
    carriage return shifts all captions after it; here each caption is read by itself.
    Source: Marcus et al. 1993; Chen et al. 2015.
    """
    if not isinstance(text, str):
        kind = type(text).__name__
        raise TypeError(
            f"caption_tokenize takes one caption, a string, not {kind}: call it for each caption"
        )
    for old, new in _TEXT_REPLACEMENTS.items():
        text = text.replace(old, new)
    tokens = []
    for token in _PTB_TOKEN.findall(text):
        token = token.lower()
        if not token.isalpha():
            token = _TOKEN_REPLACEMENTS.get(token, token)
            token = token.replace("(", "-lrb-").replace(")", "-rrb-")
            token = token.replace(" ", "\u00a0")
        if token not in _PUNCTUATION:
            tokens.append(token)
    return tokens
