"""The exercises of chapter 10: translation."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=10,
        module="text",
        parts=("BytePairEncoding.learn", "_join"),
        title="which pieces are worth a number",
        points=25,
        minutes=120,
        difficulty="hard",
        tests=(
            "test_the_example_of_the_paper",
            "test_learning_stops_where_nothing_is_there_twice",
            "test_the_order_of_the_sentences_does_not_matter",
            "test_names_are_all_different_whatever_is_learned",
            "test_rare_characters_the_mark_and_what_cannot_be_printed_are_bytes",
            "test_learning_is_that_of_a_learner_that_counts_everything_anew",
            "test_hugging_face_learns_and_writes_the_same",
        ),
        wrong=(
            Wrong(
                "A pair counts as often as its word is there, not once a word.",
                old="sign * frequencies[k]",
                new="sign",
            ),
            Wrong(
                'Of "a a a" only the first two are joined, and the third stays.',
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
                "Of pairs that are equally frequent, the one of the older pieces "
                "comes first.",
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
                "A merge changes the counts of the neighbours too: take the old "
                "pairs of the word away, and count the new ones.",
                old="                    count_pairs(k, -1)\n",
                new="                    pair_counts[pair] = 0\n",
            ),
            Wrong(
                "A pair that occurs once is no piece.",
                old="if pair_counts[pair] > 1:",
                new="if pair_counts[pair] > 0:",
            ),
            Wrong(
                "A character that is there once gets no number, and is written as "
                "bytes.",
                old="if characters[c] > 1 and",
                new="if characters[c] > 0 and",
            ),
            Wrong(
                "Count how often a character occurs, not in how many words.",
                old='Counter("".join(counts.elements()))',
                new='Counter("".join(counts))',
            ),
            Wrong(
                "An entry of the heap is as old as its count: if the count has "
                "changed since, it is no longer true.",
                old="if -count == pair_counts[pair] and",
                new="if",
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
            "test_the_example_of_the_paper",
            "test_rare_characters_the_mark_and_what_cannot_be_printed_are_bytes",
            "test_pieces_are_encoded_and_decoded_as_words_are",
            "test_any_tokens_come_back_exactly",
            "test_the_merge_that_was_learned_first_goes_first_wherever_it_stands",
            "test_hugging_face_learns_and_writes_the_same",
        ),
        wrong=(
            Wrong(
                "The merge that was learned first goes first, wherever in the "
                "word it stands.",
                old="min(pairs, key=self.merges.get)",
                new="pairs[0]",
            ),
            Wrong(
                "What was joined can be joined again, until no pair is left that "
                "was learned.",
                old="while pairs :=",
                new="if pairs :=",
            ),
            Wrong(
                'Every token begins with "▁": else one could not tell where one ends.',
                old="ids = [FIRST_CHARACTER]",
                new="ids = []",
            ),
            Wrong(
                "An unknown character is the bytes of its UTF-8, of which there "
                "may be up to four.",
                old='byte for byte in c.encode("utf-8", "surrogatepass")',
                new="byte for byte in [ord(c) % 256]",
            ),
            Wrong(
                'A "▁" within a token is written as bytes: as a piece it would '
                "begin another token.",
                old="known = c in self.index and c != START",
                new="known = c in self.index",
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
            "test_bytes_that_are_no_text_become_a_sign",
            "test_pieces_are_encoded_and_decoded_as_words_are",
            "test_any_tokens_come_back_exactly",
            "test_any_text_comes_back_exactly",
            "test_whatever_a_model_writes_is_decoded",
        ),
        wrong=(
            Wrong(
                "A character may be several bytes: collect the bytes of a token, "
                "and read them together.",
                old="bytes([i - FIRST_BYTE])",
                new="chr(i - FIRST_BYTE).encode()",
            ),
            Wrong(
                "A model may begin with any piece: the first one begins a token "
                "in any case.",
                old=" or not tokens",
                new="",
            ),
            Wrong(
                'A model may write bytes that are no UTF-8: then "\\ufffd" stands '
                "for them.",
                old='return text.decode("utf-8", "replace")',
                new="raise",
            ),
            Wrong(
                "The sentence is over at the first <eos>.",
                old="break",
                new="continue",
            ),
            Wrong(
                '"▁" says where a token begins, and is no part of it.',
                old="piece.removeprefix(START)",
                new="piece",
            ),
            Wrong(
                "A byte has a name, such as <0xE7>, but it stands for the byte.",
                old="is_byte = FIRST_BYTE <= i < FIRST_CHARACTER",
                new="is_byte = False",
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
        title="teacher forcing, and less of it",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_the_logits_at_t_know_the_words_before_t_and_no_others",
            "test_the_first_word_comes_after_bos",
            "test_told_every_word_it_writes_word_by_word_what_it_writes_at_once",
            "test_told_no_word_it_goes_on_from_what_it_finds_most_probable",
            "test_told_some_words_the_others_are_its_own",
            "test_gradients_flow_when_it_goes_on_from_its_own_words",
        ),
        wrong=(
            Wrong(
                "The decoder sees the word that it is to write: shift the target "
                "by one, and begin with <bos>.",
                old="torch.cat([bos, target[:, :-1]], dim=1)",
                new="target",
            ),
            Wrong(
                "With a teacher forcing of 0.7, seven of ten words are the true ones.",
                old="true.device) < teacher_forcing_ratio",
                new="true.device) > teacher_forcing_ratio",
            ),
            Wrong(
                "Each sentence of a batch has a coin of its own.",
                old="torch.rand(len(true), ",
                new="torch.rand(1, ",
            ),
            Wrong(
                "The coin is thrown anew for each word.",
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
                "What the model finds most probable, not a word drawn at random.",
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
