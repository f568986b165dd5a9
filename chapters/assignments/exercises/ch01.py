"""The exercises of chapter 1: images and words."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        1, "text", ("tokenize",), "a sentence to words and signs", 1, 5, "easy",
        "test_tokenize test_both_spellings_of_an_umlaut_are_the_same_word test_tokens_hold_all_of_the_text_but_spaces",
        (
            Wrong("Spaces alone do not part a text: a comma is a token, and so is every Chinese character. There is a pattern "
                  "for it above the function.",
                  '_TOKEN.findall(unicodedata.normalize("NFC", text.lower()))', "text.lower().split()"),
            Wrong("Small and capital letters should give the same word.", "text.lower()", "text"),
            Wrong("An ü can be one character of Unicode, or a u and two dots. Both look the same and should be the same word.",
                  'unicodedata.normalize("NFC", text.lower())', "text.lower()"),
            Wrong("NFD takes letters and their accents apart, and the pattern then cuts words there. Which form joins them?",
                  '"NFC"', '"NFD"'),
            Wrong("casefold() does more than to make letters small: what happens to ß?", "text.lower()", "text.casefold()"),
        ),
    ),
    Exercise(
        1, "text", ("detokenize",), "tokens to a sentence as a person writes it", 3, 15, "easy",
        "test_detokenize_writes_as_a_person_would test_what_is_joined_is_split_again_in_the_same_way",
        (
            Wrong("A space between all tokens is not how people write: look at commas, brackets and Chinese.",
                  'text += token if together else " " + token', 'text += " " + token if text else token'),
            Wrong("No space before the first token: there is nothing yet to part it from.", "not text or (", "text and ("),
            Wrong("Behind an opening bracket there is no space either.", "or _NO_SPACE_AFTER.fullmatch(text[-1])", ""),
            Wrong("A Chinese character needs no space on either side: look at the token, and at what stands before it.",
                  "or _WIDE.fullmatch(text[-1])", ""),
            Wrong("A token is a sign only if all of it is: 3.5 holds a full stop and is still a number that needs its space.",
                  "_NO_SPACE_BEFORE.fullmatch(token)", "_NO_SPACE_BEFORE.search(token)"),
        ),
    ),
    Exercise(
        1, "text", ("Vocabulary.build",), "the words that are worth a number", 2, 10, "easy",
        "test_build_orders_by_frequency_then_by_spelling test_build_keeps_what_is_frequent_enough "
        "test_a_special_in_a_text_is_only_a_word",
        (
            Wrong("Words that are equally frequent must not stand in the order in which they were met: it is that of the data.",
                  "key=lambda word: (-counts[word], word)", "key=lambda word: -counts[word]"),
            Wrong("The commonest word comes first, not last.", "(-counts[word], word)", "(counts[word], word)"),
            Wrong('"At least min_freq times": a word that is there exactly so often stays.',
                  "count >= min_freq", "count > min_freq"),
            Wrong('A text may hold "<eos>", but the vocabulary has its specials already.', " and word not in SPECIALS", ""),
            Wrong("A word that stands in a sentence twice counts twice.",
                  "for word in sentence)", "for word in set(sentence))"),
        ),
    ),
    Exercise(
        1, "text", ("Vocabulary.encode", "Vocabulary.decode"), "words to numbers and back", 2, 10, "easy",
        "test_the_specials_come_first test_an_unknown_word_is_unk test_a_special_in_a_text_is_only_a_word "
        "test_decode_stops_at_the_first_eos test_encode_then_decode_gives_the_sentence_back",
        (
            Wrong("A word that nobody has seen is no error: it has a number too.",
                  "self.index.get(token, UNK)", "self.index[token]"),
            Wrong("An unknown word must not vanish: <unk> holds its place.",
                  "self.index.get(token, UNK) for token in tokens",
                  "self.index[token] for token in tokens if token in self.index"),
            Wrong('The word "<eos>" in a text is as unknown as any other: it must not become the special.',
                  "self.index.get(token, UNK)", "self.words.index(token) if token in self.words else UNK"),
            Wrong("At <eos> the sentence is over; what stands behind it must not be read.", "break", "continue"),
            Wrong("<pad> is no end: it is left out, and the reading goes on.", "if i == EOS:", "if i in (EOS, PAD):"),
            Wrong("<pad> and <bos> are no words of the sentence. But <unk> stands for one, and stays.",
                  "(PAD, BOS)", "(PAD, BOS, UNK)"),
            Wrong("<bos> is not a word of the sentence either.", "i not in (PAD, BOS)", "i != PAD"),
        ),
    ),
    Exercise(
        1, "images", ("normalize",), "pictures around zero", 1, 5, "easy",
        "test_normalize_is_torchvisions",
        (
            Wrong("MEAN and STD are of numbers from 0 to 1, and the pictures go from 0 to 255.", " * 255", ""),
            Wrong("Which axis is that of the colours? Broadcasting begins from the right.", ".view(3, 1, 1)", ".view(3)"),
            Wrong("The mean has to be brought to the same scale as the picture, and so has the deviation.",
                  "(images - mean) / std", "(images / 255 - mean) / std"),
            Wrong("Divided by the standard deviation, not by its square.",
                  "(images - mean) / std", "(images - mean) / std**2 * 255"),
            Wrong("Scaled but not moved: what is dark should be below zero.", "(images - mean)", "images"),
        ),
    ),
    Exercise(
        1, "batches", ("collate",), "examples to a batch", 3, 15, "easy",
        "test_collate_pads_to_the_longest_of_the_batch",
        (
            Wrong("The batch's own axis comes first: (B, T), not (T, B).", "batch_first=True", "batch_first=False"),
            Wrong("The numbers behind the end are those of <pad>.", "padding_value=PAD", "padding_value=-1"),
            Wrong("Padding belongs behind the words, not before them.",
                  "padding_value=PAD", 'padding_value=PAD, padding_side="left"'),
            Wrong("Of different lengths, the longest decides: nothing of a sentence may be cut off.",
                  "pad_sequence(values,", "pad_sequence([value[: len(values[0])] for value in values],"),
            Wrong("Every sequence is padded, not only the one called target.", "values[0].dim() == 1", 'name == "target"'),
        ),
    ),
    Exercise(
        1, "batches", ("BucketSampler.__iter__",), "sentences of similar length together", 8, 40, "medium",
        "test_each_example_comes_exactly_once_an_epoch test_the_order_depends_on_seed_and_epoch_only "
        "test_start_goes_on_where_another_stopped test_sentences_of_similar_length_come_together",
        (
            Wrong("Too much padding: sort each bucket by length before you cut it into batches.",
                  "bucket = sorted(order[first : first + self.bucket_size], key=self.lengths.__getitem__)",
                  "bucket = order[first : first + self.bucket_size]"),
            Wrong("Sort within each bucket, not the whole epoch: with buckets of one batch, nothing is bucketed.",
                  "range(0, len(order), self.bucket_size)", "range(0, len(order), len(order))",
                  (("order[first : first + self.bucket_size]", "order"),)),
            Wrong("The batches of a bucket come from short to long: shuffle them too, or the model reads by length.",
                  "torch.randperm(len(batches), generator=generator).tolist()", "range(len(batches))"),
            Wrong("Another epoch, another order: the numbers that chance begins with must depend on the epoch as well.",
                  "_digest(self.seed, self.epoch)", "_digest(self.seed)"),
            Wrong("Seed 0 in epoch 1 gives what seed 1 gives in epoch 0: a sum does not keep two numbers apart.",
                  "_digest(self.seed, self.epoch)", "_digest(self.seed + self.epoch)"),
            Wrong("The order may not depend on torch's common generator, nor move it on: use one of your own for all.",
                  "torch.randperm(len(self.lengths), generator=generator)", "torch.randperm(len(self.lengths))"),
            Wrong("start(epoch, skip) leaves out the first batches of what the epoch would have been; nothing else changes.",
                  "[self.skip :]", ""),
            Wrong("The last batch may be a small one, but its examples must come.",
                  "range(0, len(bucket), self.batch_size)", "range(0, len(bucket) - self.batch_size + 1, self.batch_size)"),
        ),
    ),
)
