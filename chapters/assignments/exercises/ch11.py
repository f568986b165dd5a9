"""The exercises of chapter 11: multimodal translation."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=11,
        module="model",
        parts=("fuse",),
        title="two memories side by side",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_fuse_concatenates_memories",
            "test_fused_modalities_have_vectors_of_one_length",
        ),
        wrong=(
            Wrong(
                "Side by side means more positions, not longer vectors: along "
                "which axis are the positions?",
                old="[memory.tokens for memory in memories], dim=1",
                new="[memory.tokens for memory in memories], dim=-1",
            ),
            Wrong(
                "Concatenate the masks as well: padding must stay padding.",
                old="torch.cat([memory.mask for memory in memories], dim=1)",
                new="torch.ones(tokens.shape[:2]).bool()",
            ),
            Wrong(
                "Every position needs its mask: the first memory's is too short "
                "for all.",
                old="torch.cat([memory.mask for memory in memories], dim=1)",
                new="memories[0].mask",
            ),
            Wrong(
                "There may be more than two memories.",
                old="[memory.tokens for memory in memories], dim=1",
                new="[memory.tokens for memory in memories[:2]], dim=1",
                more=(
                    (
                        "[memory.mask for memory in memories], dim=1",
                        "[memory.mask for memory in memories[:2]], dim=1",
                    ),
                ),
            ),
            Wrong(
                "Keep the memories in the given order.",
                old="[memory.tokens for memory in memories], dim=1",
                new="[memory.tokens for memory in memories[::-1]], dim=1",
                more=(
                    (
                        "[memory.mask for memory in memories], dim=1",
                        "[memory.mask for memory in memories[::-1]], dim=1",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="model",
        parts=("EncoderDecoder.encode",),
        title="several modalities on an equal footing",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_a_missing_modality_is_not_fused",
            "test_fused_modalities_have_vectors_of_one_length",
            "test_the_only_modality_is_never_dropped",
            "test_without_modality_dropout_no_random_numbers_are_drawn",
            "test_each_sentence_sees_its_own_picture_or_none",
            "test_modality_dropout_drops_each_equally_often_and_never_both",
            "test_lengths_of_padded_inputs_reach_the_encoder",
        ),
        wrong=(
            Wrong(
                "A batch need not have all the modalities of the model: encode "
                "only those that it has.",
                old="[name for name in self.encoders if name in batch]",
                new="list(self.encoders)",
            ),
            Wrong(
                "An equal footing: the vectors of one modality are longer than "
                "those of the other, and would win every softmax.",
                old="if len(self.encoders) > 1:",
                new="if False:",
            ),
            Wrong(
                "A sentence must look the same to the decoder with or without a "
                "picture: what decides is how many modalities the model has, not "
                "how many this batch has.",
                old="if len(self.encoders) > 1:",
                new="if len(modalities) > 1:",
            ),
            Wrong(
                "A model of one modality has nothing to bring to the same length: "
                "leave its memory as it is.",
                old="if len(self.encoders) > 1:",
                new="if True:",
            ),
            Wrong(
                "Each vector is normalised by itself, not all of a sentence together.",
                old="tokens.shape[-1:]",
                new="tokens.shape[1:]",
            ),
            Wrong(
                "If has_image is in the batch, it says which examples have a picture.",
                old='batch.get(f"has_{name}")',
                new="None",
            ),
            Wrong(
                "Modalities are dropped in training only; in use, a model should "
                "see everything.",
                old="self.training and ",
                new="",
            ),
            Wrong(
                "With only one modality there is nothing to choose from, and no "
                "coin to toss.",
                old=" and len(modalities) > 1",
                new="",
            ),
            Wrong(
                "In training, the fraction modality_dropout of the examples "
                "should lack one modality.",
                old="if self.training and",
                new="if False and",
            ),
            Wrong(
                "The encoder of padded sequences cannot know where each one ends: "
                "pass it the lengths as well.",
                old="inputs_of(batch, name)",
                new="[batch[name]]",
            ),
            Wrong(
                "pop() removes has_image from the caller's batch, and the loss may "
                "need it.",
                old='batch.get(f"has_{name}")',
                new='batch.pop(f"has_{name}", None)',
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="model",
        parts=("_encode_present",),
        title="absent pictures are neither seen nor computed",
        points=10,
        minutes=50,
        difficulty="hard",
        tests=(
            "test_each_sentence_sees_its_own_picture_or_none",
            "test_batch_norm_counts_present_pictures_only",
            "test_pixels_of_absent_pictures_have_no_effect",
            "test_absent_pictures_equal_no_picture_modality",
            "test_without_any_picture_the_image_gradient_is_zero_not_none",
            "test_only_rows_with_a_sound_reach_its_encoder",
        ),
        wrong=(
            Wrong(
                "Masking afterwards is too late: the blank pictures have gone "
                "through batch norm, and changed the others.",
                old="batch_size = len(present)",
                new=(
                    "if present.any():\n"
                    "        every = encoder(*inputs)\n"
                    "        return Memory(every.tokens, every.mask & present[:, "
                    "None])\n"
                    "    batch_size = len(present)"
                ),
            ),
            Wrong(
                "Zeros are not nothing: a position of zeros still gets some of "
                "the attention. What must its mask say?",
                old="mask.index_copy(0, rows, memory.mask)",
                new="torch.ones_like(mask)",
            ),
            Wrong(
                "Each memory belongs in the row of its own example, not in the "
                "first free rows.",
                old="tokens.index_copy(0, rows, memory.tokens)",
                new="torch.cat([memory.tokens, tokens[len(rows) :]])",
            ),
            Wrong(
                "With no picture at all, the encoder still needs a gradient, of "
                "0: processes that train together wait for it.",
                old="0 * memory.tokens.expand(batch_size, -1, -1)",
                new="memory.tokens.new_zeros(batch_size, *memory.tokens.shape[1:])",
            ),
            Wrong(
                "A row that is encoded only for the gradient of 0 must not enter "
                "the batch-norm statistics.",
                old="encoder.eval()\n",
                new="\n",
            ),
            Wrong(
                "The lengths belong to the examples: pick the rows of every "
                "input, not only of the first.",
                old="encoder(*[values[rows] for values in inputs])",
                new="encoder(inputs[0][rows], *inputs[1:])",
            ),
            Wrong(
                "Leave the encoder as you found it: in training mode if it was in "
                "training mode.",
                old="encoder.train(training)",
                new="encoder.eval()",
            ),
            Wrong(
                "Leave the encoder as you found it: in eval mode if it was in "
                "eval mode.",
                old="encoder.train(training)",
                new="encoder.train()",
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="model",
        parts=("_drop_modality",),
        title="a coin for each example",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_modality_dropout_drops_each_equally_often_and_never_both",
            "test_dropping_a_modality_does_not_change_what_was_present",
        ),
        wrong=(
            Wrong(
                "With a coin for each modality, some examples lose both. One must "
                "be left.",
                old="(dropped != i)",
                new=(
                    "(torch.rand(batch_size, device=device) >= fraction / "
                    "len(present))"
                ),
            ),
            Wrong(
                "An example that has only one modality must keep it.",
                old=" | (num_present < 2)",
                new="",
            ),
            Wrong(
                "Toss a coin for each example, not one for the whole batch.",
                old="torch.rand(batch_size, device=device)",
                new="torch.rand(1, device=device)",
            ),
            Wrong(
                "`fraction` of the examples lack one modality. With two modalities, "
                "each is missing in half of those.",
                old=" * len(present) / fraction",
                new=" / fraction",
            ),
            Wrong(
                "Each modality should be dropped equally often. Do you always "
                "drop the same one?",
                old="(draws * len(present) / fraction).floor()",
                new="torch.where(draws < fraction, 0, len(present))",
            ),
            Wrong(
                "An example without a picture does not get one from a coin.",
                old="has & (",
                new="(",
            ),
            Wrong(
                "`None` means that all examples have the modality.",
                old="torch.ones(batch_size",
                new="torch.zeros(batch_size",
            ),
            Wrong(
                "`present` is the caller's: make a new dict.",
                old=(
                    "present = {name: all_present if has is None else has for name, "
                    "has in present.items()}"
                ),
                new=(
                    "present.update({name: all_present for name, has in "
                    "present.items() if has is None})"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="data.language",
        parts=("mask_colours", "_without_an"),
        title="a stain where the colours were",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_masked_colours_by_hand",
            "test_masking_does_not_reveal_an_initial_vowel",
            "test_masking_leaves_no_colour_word",
            "test_masked_captions_do_not_depend_on_the_colours",
        ),
        wrong=(
            Wrong(
                '"an [v] star" reveals that the hidden word begins with a vowel: '
                'it must be "orange".',
                old="return _without_an(re.sub(pattern, MASKED, caption))",
                new="return re.sub(pattern, MASKED, caption)",
            ),
            Wrong(
                'Only an "an" right before the hidden word must change: "an '
                'anchor" stays.',
                old=" (?={re.escape(MASKED)})",
                new=" ",
            ),
            Wrong(
                "German colours have endings: one that is left over would reveal "
                "the gender of the noun.",
                old="(e[rsnm]?)?\\b",
                new="",
            ),
            Wrong(
                "Each language has its own words for the colours.",
                old='if language == "en":',
                new='if language != "zh":',
            ),
            Wrong(
                "Hide all colours of the sentence, not only the first.",
                old="MASKED, caption))",
                new="MASKED, caption, count=1))",
            ),
            Wrong(
                "Hide only the colour: 的 does not belong to it.",
                old='pattern = "|".join(colour.chinese for',
                new='pattern = "|".join(colour.chinese + "的" for',
            ),
            Wrong(
                '"than orange" ends in "an orange": where does the word begin?',
                old='rf"\\ban (?=',
                new='rf"an (?=',
            ),
            Wrong(
                '"tired" is no colour, though it ends in one: a pattern can ask for '
                "the ends of a word.",
                old='rf"\\b({\'|\'.join(COLOURS)})\\b"',
                new='rf"({\'|\'.join(COLOURS)})"',
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="data.language",
        parts=("mask_noun",),
        title="a stain where a noun was",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_masked_nouns_by_hand",
            "test_each_noun_is_masked_and_nothing_else",
            "test_masking_does_not_reveal_an_initial_vowel",
        ),
        wrong=(
            Wrong(
                "German nouns are capitalised, and the words of the lexicon are not.",
                old=", re.IGNORECASE",
                new="",
            ),
            Wrong(
                "If `which` exceeds the number of nouns, counting continues at the "
                "first.",
                old="which % len(found)",
                new="which",
            ),
            Wrong(
                "A sentence may have no noun that you know. Return it as it is.",
                old=("    if not found:\n        return caption\n"),
                new="",
            ),
            Wrong(
                "The same noun may occur twice, and only one of them is to be hidden.",
                old="caption[:start] + MASKED + caption[end:]",
                new="caption.replace(caption[start:end], MASKED)",
            ),
            Wrong(
                '"an [v]" reveals that the noun begins with a vowel. There is a '
                "function for that.",
                old="_without_an(caption[:start] + MASKED + caption[end:])",
                new="caption[:start] + MASKED + caption[end:]",
            ),
            Wrong(
                "Count from the start of the sentence, not from its end.",
                old="found[which % len(found)]",
                new="found[-1 - which % len(found)]",
            ),
            Wrong(
                'Some nouns are the beginning of others: "star" of "stars". A '
                "match must end with the word.",
                old='rf"\\b(?:{pattern})\\b"',
                new="pattern",
                more=((", reverse=True", ""),),
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="data.language",
        parts=("colour_of",),
        title="which colour a token names",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_colours_of_a_caption_are_recognised_by_their_tokens",
            "test_german_colours_are_recognised_with_every_ending",
        ),
        wrong=(
            Wrong(
                '"orangefarben" itself ends in "en": look up the whole word first.',
                old=" and token not in colours",
                new="",
            ),
            Wrong(
                "German adjectives have five endings; you know fewer.",
                old="e[rsnm]?$",
                new="e[rs]?$",
            ),
            Wrong(
                'Only German has these endings: in English, "reds" is no colour.',
                old='language == "de" and token not in colours',
                new="token not in colours",
                more=(('r"e[rsnm]?$"', 'r"(e[rsnm]?|s)$"'),),
            ),
            Wrong(
                "The tokenizer makes each Chinese character a token, so you never "
                "see the whole word.",
                old="word[0] == token",
                new="word == token",
            ),
            Wrong(
                "Every Chinese colour contains the character 色: which of a word's "
                "characters identifies the colour?",
                old="word[0] == token",
                new="token in word",
            ),
            Wrong(
                "A word that merely begins like a colour is not one.",
                old="return colours.get(token)",
                new=(
                    "return next((colours[word] for word in colours if "
                    "token.startswith(word)), None)"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="metrics",
        parts=("aligned_accuracy",),
        title="which of the hidden words are right?",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_aligned_accuracy_by_hand",
            "test_aligned_accuracy_of_several_sentences_in_order",
        ),
        wrong=(
            Wrong(
                "Two swapped colours are both wrong: compare the n-th with the n-th.",
                old="right.append(name == other)",
                new="right.append(name is not None and name in found)",
            ),
            Wrong(
                "A word missing from the hypothesis is wrong. It must not be dropped "
                "from the list.",
                old="in zip_longest(",
                new="in zip(",
            ),
            Wrong(
                "Only the words of the reference are checked; further words of the "
                "hypothesis do not count.",
                old="[: len(expected)]",
                new="",
            ),
            Wrong(
                'Compare names, not words: "scarlet" for "red" is right, if both mean '
                "the same.",
                old="[name for name in names if name]",
                new="[token for token in tokens if meaning(token)]",
            ),
            Wrong(
                "The first reference decides, not the last.",
                old="refs[0]",
                new="refs[-1]",
            ),
            Wrong(
                "Return one bool for each word, not one for each sentence.",
                old="right.append(name == other)",
                new="right.append(found == expected)",
                more=(
                    (
                        "zip_longest(expected, found)",
                        "[*zip(expected, expected)][:1]",
                    ),
                ),
            ),
        ),
    ),
)
