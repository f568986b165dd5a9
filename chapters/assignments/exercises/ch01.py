"""The exercises of chapter 1: images and words."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=1,
        module="text",
        parts=("tokenize",),
        title="from a sentence to words and punctuation marks",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_tokenize",
            "test_composed_and_decomposed_umlauts_are_the_same_word",
            "test_tokens_contain_the_whole_text_except_spaces",
        ),
        wrong=(
            Wrong(
                "Splitting at spaces is not enough: a comma is a token, and so is "
                "every Chinese character. There is a pattern for it above the "
                "function.",
                old='_TOKEN.findall(unicodedata.normalize("NFC", text.lower()))',
                new="text.lower().split()",
            ),
            Wrong(
                "Capital letters should give the same word as small ones.",
                old="text.lower()",
                new="text",
            ),
            Wrong(
                "An ü can be one character of Unicode, or a u followed by two "
                "dots. Both look the same and should be the same word.",
                old='unicodedata.normalize("NFC", text.lower())',
                new="text.lower()",
            ),
            Wrong(
                "NFD separates letters from their accents, and the pattern then "
                "cuts words there. Which form joins them?",
                old='"NFC"',
                new='"NFD"',
            ),
            Wrong(
                "casefold() does more than lower-case letters: what happens to ß?",
                old="text.lower()",
                new="text.casefold()",
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="text",
        parts=("detokenize",),
        title="from tokens to a sentence as people write it",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_detokenize_spaces_tokens_as_people_do",
            "test_tokenize_inverts_detokenize",
        ),
        wrong=(
            Wrong(
                "A space between all tokens is not how people write: look at "
                "commas, brackets and Chinese.",
                old='text += token if no_space or not text else " " + token',
                new='text += " " + token if text else token',
            ),
            Wrong(
                "No space before the first token: there is nothing to separate it "
                "from.",
                old="text += token if no_space or not text else",
                new="text += token if no_space else",
            ),
            Wrong(
                "There is no space after an opening bracket either.",
                old="or _NO_SPACE_AFTER.fullmatch(text[-1:])",
                new="",
            ),
            Wrong(
                "A Chinese character needs no space on either side: look at the "
                "token, and at the character before it.",
                old="or _WIDE.fullmatch(text[-1:])",
                new="",
            ),
            Wrong(
                "A token is punctuation only if all of it is: 3.5 contains a full "
                "stop and is still a number that needs its space.",
                old="_NO_SPACE_BEFORE.fullmatch(token)",
                new="_NO_SPACE_BEFORE.search(token)",
            ),
            Wrong(
                "`tokens` is an Iterable, perhaps a generator: a loop can read it, "
                "but it has no length, and it cannot be cut.",
                old="for token in tokens:",
                new="for token in tokens[: len(tokens)]:",
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="text",
        parts=("Vocabulary.build",),
        title="which words get a number",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_build_sorts_by_frequency_then_alphabetically",
            "test_build_drops_words_below_min_freq",
            "test_specials_in_text_are_ordinary_words",
        ),
        wrong=(
            Wrong(
                "Equally frequent words must not stay in the order in which they "
                "were found: that depends on the order of the data.",
                old="key=lambda word: (-counts[word], word)",
                new="key=lambda word: -counts[word]",
            ),
            Wrong(
                "The most frequent word comes first, not last.",
                old="(-counts[word], word)",
                new="(counts[word], word)",
            ),
            Wrong(
                '"At least min_freq times": a word that occurs exactly min_freq '
                "times stays.",
                old="counts[word] >= min_freq",
                new="counts[word] > min_freq",
            ),
            Wrong(
                'A text may contain "<eos>", but the vocabulary has its specials '
                "already.",
                old=" and word not in SPECIALS",
                new="",
            ),
            Wrong(
                "A word that occurs twice in a sentence counts twice.",
                old="for word in sentence)",
                new="for word in set(sentence))",
            ),
            Wrong(
                "`sentences` is an Iterable: a generator can be read once only, and a "
                "second loop over it finds nothing.",
                old=(
                    "counts = Counter(word for sentence in sentences for word in "
                    "sentence)"
                ),
                new=(
                    "found = {word for sentence in sentences for word in sentence}\n"
                    "        counts = {word: sum(list(sentence).count(word) for "
                    "sentence in sentences) for word in found}"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="text",
        parts=("Vocabulary.encode", "Vocabulary.decode"),
        title="from words to numbers and back",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_specials_come_first",
            "test_unknown_words_become_unk",
            "test_specials_in_text_are_ordinary_words",
            "test_decode_stops_at_the_first_eos",
            "test_decode_inverts_encode",
            "test_encode_refuses_a_string",
        ),
        wrong=(
            Wrong(
                "An unknown word is not an error: it has a number too.",
                old="self.index.get(token, UNK)",
                new="self.index[token]",
            ),
            Wrong(
                "An unknown word must not vanish: <unk> takes its place.",
                old="self.index.get(token, UNK) for token in tokens",
                new="self.index[token] for token in tokens if token in self.index",
            ),
            Wrong(
                'The word "<eos>" in a text is as unknown as any other: it must '
                "not become the special.",
                old="self.index.get(token, UNK)",
                new="self.words.index(token) if token in self.words else UNK",
            ),
            Wrong(
                "The sentence ends at <eos>; whatever follows must not be read.",
                old="break",
                new="continue",
            ),
            Wrong(
                "<pad> does not end the sentence: leave it out and read on.",
                old="if i == EOS:",
                new="if i in (EOS, PAD):",
            ),
            Wrong(
                "<pad> and <bos> are not words of the sentence. But <unk> stands "
                "for a word, and stays.",
                old="(PAD, BOS)",
                new="(PAD, BOS, UNK)",
            ),
            Wrong(
                "<bos> is not a word of the sentence either.",
                old="i not in (PAD, BOS)",
                new="i != PAD",
            ),
            Wrong(
                "A string is an Iterable, too: of letters. Refuse it, as the "
                "docstring says, before every letter becomes <unk>.",
                old="if isinstance(tokens, str):",
                new="if False:",
            ),
            Wrong(
                "`ids` is an Iterable, perhaps a generator: `in` reads it up to "
                "<eos>, and what it has read is gone.",
                old="        for i in ids:\n",
                new=(
                    "        if EOS not in ids:\n"
                    "            ids = [*ids, EOS]\n"
                    "        for i in ids:\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="images",
        parts=("normalize",),
        title="pixels around zero",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_normalize_agrees_with_torchvision",
        ),
        wrong=(
            Wrong(
                "MEAN and STD are for pixels from 0 to 1, and these go from 0 to 255.",
                old="255 * torch.tensor(MEAN",
                new="torch.tensor(MEAN",
                more=(
                    ("255 * torch.tensor(STD", "torch.tensor(STD"),
                ),
            ),
            Wrong(
                "Which axis holds the colour channels? Broadcasting aligns shapes "
                "from the right.",
                old="(MEAN, device=images.device).view(3, 1, 1)",
                new="(MEAN, device=images.device).view(3)",
                more=(
                    (
                        "(STD, device=images.device).view(3, 1, 1)",
                        "(STD, device=images.device).view(3)",
                    ),
                ),
            ),
            Wrong(
                "The mean must be on the same scale as the picture, and so must "
                "the standard deviation.",
                old="(images - mean) / std",
                new="(images / 255 - mean) / std",
            ),
            Wrong(
                "Divide by the standard deviation, not by its square, the variance.",
                old="(images - mean) / std",
                new="(images - mean) / std**2 * 255",
            ),
            Wrong(
                "Scaled but not shifted: dark pixels should be below zero.",
                old="(images - mean)",
                new="images",
            ),
            Wrong(
                "On a GPU, both operands must be there: on which device are your mean "
                "and standard deviation?",
                old="torch.tensor(MEAN, device=images.device)",
                new="torch.tensor(MEAN)",
                more=(
                    (
                        "torch.tensor(STD, device=images.device)",
                        "torch.tensor(STD)",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="batches",
        parts=("collate",),
        title="from examples to a batch",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_collate_pads_to_the_longest_of_the_batch",
            "test_collate_returns_lengths_of_padded_sequences",
            "test_collate_marks_missing_modalities",
            "test_collate_ignores_the_order_of_keys",
            "test_collate_pads_several_references_to_the_largest",
        ),
        wrong=(
            Wrong(
                "The batch axis comes first: (B, T), not (T, B).",
                old="batch_first=True",
                new="batch_first=False",
            ),
            Wrong(
                "After the end of a sentence, every number is that of <pad>.",
                old="padding_value=PAD",
                new="padding_value=-1",
            ),
            Wrong(
                "Padding belongs after the words, not before them.",
                old="padding_value=PAD",
                new='padding_value=PAD, padding_side="left"',
            ),
            Wrong(
                "The longest sentence sets the width: no sentence may be cut off.",
                old="pad_sequence(values, ",
                new="pad_sequence([value[: len(values[0])] for value in values], ",
            ),
            Wrong(
                "Every sequence is padded, not only the one called target.",
                old="if is_text or len(set(lengths)) > 1:",
                new='if modality == "target":',
            ),
            Wrong(
                "If only some examples have a picture, zeros take the place of the "
                "others: without has_image nobody can tell.",
                old='batch[f"has_{modality}"] = torch.tensor(present)',
                new="pass",
            ),
            Wrong(
                "Words have no lengths in the batch: their padding, <pad>, can be "
                "seen. Zeros in other sequences cannot.",
                old="if not is_text and len(set(lengths)) > 1:",
                new="if len(set(lengths)) > 1:",
            ),
            Wrong(
                "The first example need not have everything: gather the modalities of "
                "all examples.",
                old="dict.fromkeys(name for example in examples for name in example)",
                new="examples[0].keys()",
            ),
            Wrong(
                "Words may be (K, T), K references of an example: pad both K and T.",
                old="if is_text and values[0].dim() == 2:",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=1,
        module="batches",
        parts=("BucketSampler.__iter__",),
        title="batches of sentences of similar length",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_each_example_comes_exactly_once_an_epoch",
            "test_the_order_depends_on_seed_and_epoch_only",
            "test_start_skips_the_first_batches",
            "test_without_shuffling_batches_keep_the_order_of_the_data",
            "test_batches_hold_sentences_of_similar_length",
        ),
        wrong=(
            Wrong(
                "Too much padding: sort each bucket by length before you cut it "
                "into batches.",
                old=(
                    "bucket = sorted(order[first : first + self.bucket_size], "
                    "key=self.lengths.__getitem__)"
                ),
                new="bucket = order[first : first + self.bucket_size]",
            ),
            Wrong(
                "Sort within each bucket, not the whole epoch: with buckets of one "
                "batch, batches still mix short and long sentences.",
                old="range(0, len(order), self.bucket_size)",
                new="range(0, len(order), len(order))",
                more=(
                    ("order[first : first + self.bucket_size]", "order"),
                ),
            ),
            Wrong(
                "The batches of a bucket run from short to long: shuffle them "
                "too, or the model sees sentences in the order of their length.",
                old="torch.randperm(len(batches), generator=generator).tolist()",
                new="range(len(batches))",
            ),
            Wrong(
                "Another epoch, another order: the seed of the shuffling must "
                "depend on the epoch as well.",
                old="seed_of(self.seed, self.epoch)",
                new="seed_of(self.seed)",
            ),
            Wrong(
                "Seed 0 in epoch 1 gives the same order as seed 1 in epoch 0: a "
                "sum does not keep two numbers apart.",
                old="seed_of(self.seed, self.epoch)",
                new="seed_of(self.seed + self.epoch)",
            ),
            Wrong(
                "The order must not depend on torch's global generator, nor "
                "advance it: use your own generator throughout.",
                old="torch.randperm(len(self.lengths), generator=generator)",
                new="torch.randperm(len(self.lengths))",
            ),
            Wrong(
                "Without `shuffle`, the examples keep the order of the data.",
                old=(
                    "        if self.shuffle:\n"
                    "            order = torch"
                ),
                new=(
                    "        if True:\n"
                    "            order = torch"
                ),
            ),
            Wrong(
                "After start(epoch, skip), the first `skip` batches of the epoch "
                "are left out; nothing else changes.",
                old="[self.skip :]",
                new="",
            ),
            Wrong(
                "The last batch may be smaller, but its examples must not be left out.",
                old="range(0, len(bucket), self.batch_size)",
                new="range(0, len(bucket) - self.batch_size + 1, self.batch_size)",
            ),
        ),
    ),
)
