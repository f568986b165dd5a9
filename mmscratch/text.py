"""Words: from a sentence to a list of numbers and back."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

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
            raise ValueError(
                "a vocabulary needs words that are all different and none of " + " ".join(SPECIALS)
            )

    @classmethod
    def build(cls, sentences: Iterable[Sequence[str]], min_freq: int = 1) -> "Vocabulary":
        """All words that the tokenized sentences use at least `min_freq` times, the commonest first, ties by spelling."""
        counts = Counter(word for sentence in sentences for word in sentence)
        kept = [
            word for word, count in counts.items() if count >= min_freq and word not in SPECIALS
        ]
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Tokens -> numbers; a word that is not in the vocabulary becomes <unk>."""
        if isinstance(tokens, str):
            raise TypeError(
                f"encode takes a list of tokens, not the string {tokens[:40]!r}: call tokenize first"
            )
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
        """The words without the specials: what a checkpoint holds, and `vocabulary_from` reads."""
        return self.words[len(SPECIALS) :]


START = "▁"  # U+2581: here a token begins
FIRST_BYTE = len(SPECIALS)
FIRST_CHARACTER = FIRST_BYTE + 256


class BytePairEncoding:
    """A vocabulary of pieces of words, which can spell every word: nothing is ever <unk>.

    Each token is spelled as "▁" and its characters. Learning joins the pair of neighbours that is most frequent to a new
    piece, again and again, so that frequent words become one piece and rare ones a few. From low 5 times, lower 2,
    newest 6 and widest 3 times come e+s, es+t, ▁+l, o+w, ▁l+ow, …, and "lowest" is then written as "▁low" "est".
    Learned on sentences of two languages together, the pieces are those of both.

    The numbers: 4 specials, 256 bytes, "▁", the characters, and one piece a merge. A character that learning did not
    see twice is written as the bytes of its UTF-8, each a piece: "猫" as <0xE7> <0x8C> <0xAB>. So is what cannot be
    printed, and a "▁" within a token. Bytes are never joined. Decoding gives all tokens back exactly.

    Source: Gage 1994; for words Sennrich, Haddow & Birch 2016; "▁" and the bytes as in SentencePiece, Kudo & Richardson 2018.
    """

    def __init__(self, characters: str, merges: Iterable[Sequence[str]] = ()):
        """Raises ValueError for a character that is there twice, or is "▁", and for a merge that cannot be."""
        self.words = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), START, *characters]
        self.index = {word: i for i, word in enumerate(self.words)}
        self.merges: dict[
            tuple[int, int], int
        ] = {}  # two pieces -> what they make; the earlier learned, the smaller
        self._known: dict[str, list[int]] = {}  # tokens that were encoded before
        if len(self.index) != len(self.words):
            raise ValueError(f"the characters must be all different and none of them {START!r}")
        for left, right in merges:
            if not self._add((self.index.get(left, PAD), self.index.get(right, PAD))):
                raise ValueError(
                    f"the merge of {left!r:.40} and {right!r:.40} must join two known pieces to a new one"
                )

    def _add(self, pair: tuple[int, int]) -> bool:
        """Make a new piece of two, unless one is a byte or there is one of that name, as "<pad>" from "<pa" and "d>"."""
        name = self.words[pair[0]] + self.words[pair[1]]
        if min(pair) < FIRST_CHARACTER or name in self.index:
            return False
        self.merges[pair] = self.index[name] = len(self.words)
        self.words.append(name)
        return True

    @classmethod
    def learn(cls, sentences: Iterable[Sequence[str]], merges: int = 8000) -> "BytePairEncoding":
        """From tokenized sentences, so many merges, or fewer where no pair is left that occurs twice.

        Of pairs that are equally frequent, the one of the older pieces comes first; characters are as old as their
        numbers in Unicode. So the order of the sentences does not matter.
        """
        counts = Counter(token for sentence in sentences for token in sentence)
        characters = Counter("".join(counts.elements()))
        encoding = cls(
            "".join(
                sorted(
                    c for c in characters if characters[c] > 1 and c.isprintable() and c != START
                )
            )
        )
        words, frequencies = [encoding._spell(token) for token in counts], list(counts.values())
        pair_counts, places = (
            Counter(),
            defaultdict(set),
        )  # of each pair, how often and in which words it occurs
        changed, heap = (
            set(),
            [],
        )  # the heap gives the most frequent pair; its entry is outdated if the count has changed

        def count_pairs(k: int, sign: int) -> None:
            for pair in zip(words[k], words[k][1:]):
                pair_counts[pair] += sign * frequencies[k]
                places[pair].add(k)
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
            if -count == pair_counts[pair] and encoding._add(pair):
                for k in places.pop(pair):
                    count_pairs(k, -1)
                    words[k] = _join(words[k], pair, encoding.merges[pair])
                    count_pairs(k, 1)
        return encoding

    def __len__(self) -> int:
        return len(self.words)

    def _spell(self, token: str) -> list[int]:
        """As "▁", characters and bytes."""
        ids = [FIRST_CHARACTER]
        for c in token:
            known = c in self.index and c != START
            ids += (
                [self.index[c]]
                if known
                else [FIRST_BYTE + byte for byte in c.encode("utf-8", "surrogatepass")]
            )
        return ids

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Tokens -> numbers of pieces: the merges that were learned, in their order."""
        if isinstance(tokens, str):
            raise TypeError(
                f"encode takes a list of tokens, not the string {tokens[:40]!r}: call tokenize first"
            )
        ids = []
        for token in tokens:
            if token not in self._known:
                pieces = self._spell(token)
                while pairs := [pair for pair in zip(pieces, pieces[1:]) if pair in self.merges]:
                    first = min(pairs, key=self.merges.get)
                    pieces = _join(pieces, first, self.merges[first])
                self._known[token] = pieces
            ids += self._known[token]
        return ids

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Numbers -> tokens, up to the first <eos>; <pad> and <bos> are left out.

        Bytes that are not UTF-8, as a model may write them, become "\ufffd".
        """
        tokens = []
        for i in ids:
            if i == EOS:
                break
            if i in (PAD, BOS):
                continue
            piece = self.words[i]
            if piece.startswith(START) or not tokens:
                tokens.append(b"")
            is_byte = FIRST_BYTE <= i < FIRST_CHARACTER
            tokens[-1] += (
                bytes([i - FIRST_BYTE])
                if is_byte
                else piece.removeprefix(START).encode("utf-8", "surrogatepass")
            )
        return [_read_utf8(token) for token in tokens]

    def state(self) -> dict:
        """Plain values for a checkpoint or JSON, which `vocabulary_from` reads."""
        merges = [[self.words[left], self.words[right]] for left, right in self.merges]
        return {
            "characters": "".join(self.words[FIRST_CHARACTER + 1 : len(self) - len(merges)]),
            "merges": merges,
        }


def _join(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The same, but with `new` wherever the pair stood, from left to right: of "a a a" only the first two are joined."""
    joined = []
    for i in ids:
        if joined and (joined[-1], i) == pair:
            joined[-1] = new
        else:
            joined.append(i)
    return joined


def _read_utf8(text: bytes) -> str:
    try:
        return text.decode(
            "utf-8", "surrogatepass"
        )  # half of a surrogate pair may stand in a Python string
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace")


def vocabulary_from(state: list | dict) -> Vocabulary | BytePairEncoding:
    """The vocabulary whose `state()` this is. Raises ValueError if it is of neither class."""
    match state:
        case [*words] if all(isinstance(word, str) for word in words):
            return Vocabulary(words)
        case {"characters": str(characters), "merges": [*merges], **others} if not others:
            if all(
                isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in merges
            ):
                return BytePairEncoding(characters, merges)
    raise ValueError(
        "not the state of a vocabulary: a list of words, or a dict of characters and merges, was expected"
    )


# ---------------------------------------------------------------------------------------------------------------------
# The tokenizer of the COCO evaluation.

# Words that keep their full stop. With (?-i:M) only the capital form does: "Miss." is a title, "miss." ends a sentence.
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
_L = r"(?:[^\W\d_²³¹¼-¾⁰-₉⅐-⅞]|[\u0300-\u036f])"  # a letter, or an accent that is a character of its own
_LD = rf"(?:{_L}|\d)"  # a letter or a digit
_DOL = rf"[dol]['’`]{_LD}"  # as d'Avignon, o'clock and l'avion begin
_ENDING = r"(?:'(?:[msd]|[rv]e|ll)(?![a-z])|’(?:[msd]|[rv]e|ll))"
_OVER = rf"(?![-/.!?_]?{_LD}|{_ENDING})"  # the word ends here
_STOP = r"(?:\.(?=[,;:]))?"  # a full stop before a comma stays at its word
_SIDE = r"[a-z0-9]+(?:-[a-z]+){0,2}"  # of a slash
# The Java program takes the longest token that fits, a regular expression the first: so the order is part of the rules.
_PTB_TOKEN = re.compile(
    rf"""
      can(?=not{_OVER}) | (?:gon|wan)(?=na{_OVER}) | got(?=ta{_OVER}) | (?:lem|gim)(?=me{_OVER}) | ['’]t(?=is|was)  # can|not
    | [a-z]+(?=\ )  # most words: letters up to a space
    # addresses, tags, &#39;; me@home.org, @me, #me
    | https?://[^\s"<>|()]+(?<![.,!?-]) | </?[a-z][\w:.-]*/?> | &\#\d+;
    | [a-z0-9][^\s"<>|()@]*@[^\s"<>|()]+(?<!\.) | @[a-z_][a-z0-9_]* | \#{_L}+
    # (555) 555-1234; and/or; fractions, of which "1 1/2" is one token with a space in it
    | (?:\(\d{{2,3}}\)\ ?|(?:\d{{2,4}}[-\ ]){{1,2}})\d{{3,4}}[-\ ]?\d{{3,5}}(?!\w)
    | {_SIDE}(?:/{_SIDE}){{1,2}}
    | (?:\d{{1,4}}[-\ ])?\d{{1,4}}[/⁄]\d{{1,4}}
    # hyphens do not part: T-shirt, 1.5-inch, U.S.-made; the second line is for other letters and _
    | [a-z0-9][a-z0-9.,]*(?:-(?:[a-z](?:\.[a-z])+\.|[a-z0-9]+))+(?!_?{_LD}){_STOP}
    | (?:{_DOL})?{_LD}+(?:[-_‐‑]{_LD}+)+{_STOP}
    | {_L}+(?={_ENDING}) | [a-z]*[a-mo-z](?=n['’`]t)  # dog|'s, do|n't
    # plan B|. The; U.S., p.m. and a single letter; abbreviations; No. 5, but "no." at the end of a sentence is "no"
    | [a-z](?=\.\s+(?-i:{"|".join(_SENTENCE_STARTS)})(?:\s|$)) | (?:[a-z]\.)+(?!{_L})
    | (?:{"|".join(_ABBREVIATIONS)})\.(?!{_L}) | (?:art|ca|figs?|nos?|op|pp|prop)\.(?=\s?\d)
    # 's, n't; o'clock; 'n', 'em, '90s; a ' that opens a quotation; O'Malley, and n'ts from don'ts; Hawai'i; single words
    | {_ENDING} | n['’`]t(?![a-z]) | {_DOL}{_LD}+
    | ['’](?:n['’]|em|[2-9]0s|till?|cause|\d\d(?=\s|$)) | '(?=[a-z]\S)
    | (?-i:(?![IY])[A-Zn])['’`]{_L}{{2,}} | {_L}{{2,}}(?<=[aeiouy])['’`](?=[aeiou]|(?-i:[A-Z])){_L}+
    | ['’]n | (?:[ldj]|ol|dunkin|somethin)['’] | y['’](?={_L})
    | c['’]est | cap['’]n | c'mon | e'er | ev'ry | li'l | s'mores | nat'l | nor'easter | cont'd
    # C++, AT&T, US$; other words, and the.end is one of them; 1,000 and 10:30, 20th, -5
    | c\+\+ | [cf]\# | (?-i:[A-Z]+(?:[+&][A-Z]+)+){_STOP} | (?-i:[A-Z]*)\$
    | {_L}{_LD}*(?:[.!?]{_L}{_LD}*)*{_STOP} | [-+]?\d*(?:[.:,]\d+)+ | {_LD}+{_STOP} | [-+]\d+
    # :-) and other signs; what fits nothing, as an emoji, is passed over
    | (?-i:[:;=][-o]?[()dpDP])(?![a-z0-9])
    | ['`‘’]' | \.{{3}} | [!?]+ | -+ | \*+ | _+ | \#+ | @+ | << | >> | [!-~¡-¿×÷–-―‖-‧‰-⁄⁰-₎€℀-⯿]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_READ_AS = {
    "&amp;": "&",
    "&quot;": '"',
    "&apos;": "'",
    "&lt;": "<",
    "&gt;": ">",
    "&nbsp;": " ",
    "\n": " ",
    "\u00ad": "",
}
_WRITTEN_AS = dict(
    zip("[]{}€¤£¢¼½¾⅓⅔", "-lsb- -rsb- -lcb- -rcb- $ $ # cents 1/4 1/2 3/4 1/3 2/3".split())
)
_WRITTEN_AS |= {f"’{ending}": f"'{ending}" for ending in ("s", "m", "d", "re", "ve", "ll")} | {
    "n’t": "n't"
}
_PUNCTUATION = {
    *". ? ! , ; : - -- --- ---- – — ― … ... ' ` ‘ ’ ‛ ‹ › '' `' ‘' ’' “ ” « »".split(),
    '"',
}


def caption_tokenize(text: str) -> list[str]:
    """Split a caption into words as the evaluation of COCO captions does, whose scores papers report.

    "A man's T-shirt (red), and he can't swim!" ->
    ["a", "man", "'s", "t-shirt", "-lrb-", "red", "-rrb-", "and", "he", "ca", "n't", "swim"]

    Lower-case words by the rules of the Penn Treebank, without punctuation. Its list of punctuation has "-LRB-" in capitals
    and single signs only: so brackets stay, and so do "!!" and "?!". In "1 1/2" and a phone number the space becomes a
    no-break space and part of the token.
    Agrees with the PTBTokenizer of pycocoevalcap, which runs Stanford CoreNLP 3.4.1 in Java, on all 35,000 captions of
    Flickr8k and all 30,014 English ones of Multi30k (training and validation). Known to differ: "&eacute;" and "&AMP;", tags
    with a space in them, addresses without http but with a path, file names such as "1.mp3", emoticons but for those like
    ":-)", two curly quotes side by side, a curly apostrophe amid a word, and an abbreviation with no space behind it ("co.a").
    Java also lets the next caption decide about a single letter at the end ("plan B."), and a carriage return shifts all
    captions behind it; here a caption is read by itself. Source: Marcus et al. 1993; Chen et al. 2015.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"caption_tokenize takes one caption, a string, not {type(text).__name__}: call it for each caption"
        )
    for old, new in _READ_AS.items():
        text = text.replace(old, new)
    tokens = []
    for token in _PTB_TOKEN.findall(text):
        token = token.lower()
        if not token.isalpha():
            token = (
                _WRITTEN_AS.get(token, token)
                .replace("(", "-lrb-")
                .replace(")", "-rrb-")
                .replace(" ", "\u00a0")
            )
        if token not in _PUNCTUATION:
            tokens.append(token)
    return tokens
