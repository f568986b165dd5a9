"""The exercises of chapter 10: translation."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=10,
        module="text",
        parts=("BytePairEncoding.learn", "_join"),
        title="which pieces get a number",
        points=25,
        minutes=120,
        difficulty="hard",
        tests=(
            "test_bpe_example_of_the_paper",
            "test_learning_stops_when_no_pair_occurs_twice",
            "test_learning_ignores_the_order_of_sentences",
            "test_pieces_have_distinct_names",
            "test_rare_and_unprintable_characters_become_bytes",
            "test_learning_agrees_with_a_naive_implementation",
            "test_bpe_agrees_with_hugging_face",
        ),
        wrong=(
            Wrong(
                "A pair counts as often as its word occurs, not once per word.",
                old="sign * frequencies[k]",
                new="sign",
            ),
            Wrong(
                'In "a a a" only the first two are merged; the third stays.',
                old=(
                    "for i in ids:\n"
                    "        if joined and (joined[-1], i) == pair:"
                ),
                new=(
                    "for before, i in zip([PAD, *ids], ids):\n"
                    "        if (before, i) == pair:"
                ),
            ),
            Wrong(
                "Among equally frequent pairs, the one with the older pieces comes "
                "first.",
                old="(-pair_counts[pair], pair))",
                new="(-pair_counts[pair], (-pair[0], -pair[1])))",
                more=(
                    (
                        "count, pair = heappop(heap)",
                        "count, (a, b) = heappop(heap); pair = -a, -b",
                    ),
                ),
            ),
            Wrong(
                "A merge changes the counts of the neighbouring pairs too: "
                "subtract the old pairs of the word, and count the new ones.",
                old="                count_pairs(k, -1)\n",
                new="                pair_counts[pair] = 0\n",
            ),
            Wrong(
                "A pair that occurs only once does not become a piece.",
                old="if pair_counts[pair] > 1:",
                new="if pair_counts[pair] > 0:",
            ),
            Wrong(
                "A character that occurs only once gets no number; it is written "
                "as bytes.",
                old="if counts[c] > 1 and",
                new="if counts[c] > 0 and",
            ),
            Wrong(
                "Count how often a character occurs, not in how many words.",
                old='Counter("".join(token_counts.elements()))',
                new='Counter("".join(token_counts))',
            ),
            Wrong(
                "An entry of the heap is outdated if the pair's count has changed "
                "since.",
                old="is_outdated = -count != pair_counts[pair]",
                new="is_outdated = False",
            ),
            Wrong(
                "`sentences` is an Iterable: a generator is empty when you read it "
                "for the second time.",
                old='Counter("".join(token_counts.elements()))',
                new=(
                    "Counter(c for sentence in sentences for token in sentence for c "
                    "in token)"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=10,
        module="text",
        parts=("BytePairEncoding.encode", "BytePairEncoding._spell"),
        title="from words to pieces",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_bpe_example_of_the_paper",
            "test_rare_and_unprintable_characters_become_bytes",
            "test_bpe_takes_tokens_and_no_string",
            "test_bpe_has_the_interface_of_a_vocabulary",
            "test_any_tokens_survive_encoding_and_decoding",
            "test_merges_are_applied_in_the_order_they_were_learned",
            "test_bpe_agrees_with_hugging_face",
        ),
        wrong=(
            Wrong(
                "The merge that was learned first is applied first, wherever in "
                "the word it is.",
                old="min(pairs, key=self.merges.get)",
                new="pairs[0]",
            ),
            Wrong(
                "Merged pieces can be merged again, until no learned pair is left.",
                old="while pairs :=",
                new="if pairs :=",
            ),
            Wrong(
                'Every token starts with "▁": without it, nobody could tell where '
                "one ends.",
                old='ids = [FIRST_CHARACTER]  # "▁"',
                new="ids = []",
            ),
            Wrong(
                "An unknown character is written as its UTF-8 bytes: one to four "
                "of them.",
                old='byte for byte in c.encode("utf-8", "surrogatepass")',
                new="byte for byte in [ord(c) % 256]",
            ),
            Wrong(
                'A "▁" within a token is written as bytes: as a piece it would '
                "start another token.",
                old="c in self.index and c != WORD_START",
                new="c in self.index",
            ),
            Wrong(
                "A string is a sequence of characters too: refuse it, with TypeError.",
                old="if isinstance(tokens, str):",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=10,
        module="text",
        parts=("BytePairEncoding.decode", "_read_utf8"),
        title="from pieces to words",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_invalid_utf8_becomes_the_replacement_character",
            "test_bpe_has_the_interface_of_a_vocabulary",
            "test_any_tokens_survive_encoding_and_decoding",
            "test_any_text_survives_encoding_and_decoding",
            "test_any_generated_ids_can_be_decoded",
        ),
        wrong=(
            Wrong(
                "A character may take several bytes: collect the bytes of a "
                "token, and decode them together.",
                old="bytes([i - FIRST_BYTE])",
                new="chr(i - FIRST_BYTE).encode()",
            ),
            Wrong(
                "A model may generate any piece first: the first piece always "
                "starts a token.",
                old=" or not tokens",
                new="",
            ),
            Wrong(
                "A model may generate bytes that are not valid UTF-8: they become "
                '"\\ufffd".',
                old='return text.decode("utf-8", "replace")',
                new="raise",
            ),
            Wrong(
                "The sentence ends at the first <eos>.",
                old="break",
                new="continue",
            ),
            Wrong(
                '"▁" marks the start of a token and is not part of it.',
                old="piece.removeprefix(WORD_START)",
                new="piece",
            ),
            Wrong(
                "A piece such as <0xE7> stands for a byte, not for its own name.",
                old="if FIRST_BYTE <= i < FIRST_CHARACTER",
                new="if False",
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
        chapter=10,
        module="recurrent",
        parts=("LSTMEncoder.forward",),
        title="a sentence read in both directions",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_encoder_agrees_with_torch_on_packed_sequences",
            "test_encoding_ignores_padding_and_other_sentences",
            "test_each_word_depends_on_both_sides",
            "test_encoder_dropout_on_words_and_states_is_only_in_training",
        ),
        wrong=(
            Wrong(
                "The LSTM that reads from the end meets the padding first: it "
                "must know where each sentence ends.",
                old=", lengths=mask.sum(1)",
                new="",
            ),
            Wrong(
                "The embedding's numbers are small, of variance 1/D: scale the "
                "words to variance 1.",
                old=" * self.embedding.embedding_dim**0.5",
                new="",
            ),
            Wrong(
                "In the mask, True is a word and False is padding.",
                old="self.projection(states), mask)",
                new="self.projection(states), ~mask)",
            ),
            Wrong(
                "In eval mode there is no dropout.",
                old="words = F.dropout(words, self.dropout, self.training)",
                new="words = F.dropout(words, self.dropout)",
            ),
            Wrong(
                "The LSTM's states have dropout too, before they are projected.",
                old="states = F.dropout(states, self.dropout, self.training)",
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=10,
        module="model",
        parts=("EncoderDecoder.forward",),
        title="teacher forcing and scheduled sampling",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_logits_depend_on_earlier_words_only",
            "test_the_first_word_follows_bos",
            "test_full_teacher_forcing_word_by_word_equals_forward",
            "test_without_teacher_forcing_it_reads_its_own_predictions",
            "test_scheduled_sampling_mixes_true_words_and_predictions",
            "test_gradients_flow_without_teacher_forcing",
        ),
        wrong=(
            Wrong(
                "The decoder sees the word that it has to predict: shift the "
                "target by one, and start with <bos>.",
                old="shift_right(target)",
                new="target",
            ),
            Wrong(
                "With a teacher_forcing_ratio of 0.7, seven of ten words are the "
                "true ones.",
                old="true.device) < teacher_forcing_ratio",
                new="true.device) > teacher_forcing_ratio",
            ),
            Wrong(
                "Each sentence of a batch has its own coin.",
                old="torch.rand(len(true), ",
                new="torch.rand(1, ",
            ),
            Wrong(
                "The coin is tossed again for each word.",
                old="for true in target.unbind(1):  # (B,)\n",
                new=(
                    "coin = torch.rand(len(target)); numbers = "
                    "iter(target.unbind(1))\n"
                    "        for true in numbers:\n"
                ),
                more=(
                    (
                        "torch.rand(len(true), device=true.device) < teacher",
                        "coin < teacher",
                    ),
                ),
            ),
            Wrong(
                "Read the model's most probable word, not a sampled one.",
                old="logits.argmax(-1)",
                new="logits.softmax(-1).multinomial(1).squeeze(1)",
            ),
            Wrong(
                "Logits are (B, T, V): the second axis is the words of the sentence.",
                old="torch.stack(steps, dim=1)",
                new="torch.stack(steps)",
            ),
        ),
    ),
)
