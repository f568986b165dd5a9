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
            "test_fuse_lays_memories_side_by_side",
            "test_several_modalities_are_fused_with_vectors_of_one_length",
        ),
        wrong=(
            Wrong(
                "Side by side means more places, not longer vectors: along which "
                "axis do the places lie?",
                old="torch.cat([m.tokens for m in memories], 1)",
                new="torch.cat([m.tokens for m in memories], -1)",
            ),
            Wrong(
                "The masks go side by side as well: padding of one memory must "
                "stay padding in both.",
                old="torch.cat([m.mask for m in memories], 1)",
                new=(
                    "torch.ones(memories[0].mask.size(0), sum(m.mask.size(1) for "
                    "m in memories)).bool()"
                ),
            ),
            Wrong(
                "A mask for each place: that of the first memory is too short for all.",
                old="torch.cat([m.mask for m in memories], 1)",
                new="memories[0].mask",
            ),
            Wrong(
                "There may be more than two memories.",
                old="m.tokens for m in memories]",
                new="m.tokens for m in memories[:2]]",
                more=(
                    ("m.mask for m in memories]", "m.mask for m in memories[:2]]"),
                ),
            ),
            Wrong(
                "They lie in the order in which they were given.",
                old="m.tokens for m in memories]",
                new="m.tokens for m in memories[::-1]]",
                more=(
                    ("m.mask for m in memories]", "m.mask for m in memories[::-1]]"),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="model",
        parts=("EncoderDecoder.encode",),
        title="what is given, on an equal footing",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_a_missing_modality_is_not_fused",
            "test_several_modalities_are_fused_with_vectors_of_one_length",
            "test_a_picture_that_stands_alone_is_never_dropped",
            "test_without_modality_dropout_nothing_is_drawn",
            "test_of_some_pictures_each_sentence_sees_its_own_or_none",
            "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both",
            "test_lengths_reach_the_encoder_of_what_is_padded",
        ),
        wrong=(
            Wrong(
                "A batch need not have all that the model could read: what it "
                "lacks is not encoded.",
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
                "A sentence must look the same to the decoder whether a picture "
                "is beside it or not: what decides is how many modalities the "
                "model has, not how many this batch has.",
                old="if len(self.encoders) > 1:",
                new="if len(given) > 1:",
            ),
            Wrong(
                "A model of one modality has nothing to bring to the same length: "
                "leave its memory as the encoder gave it.",
                old="if len(self.encoders) > 1:",
                new="if True:",
            ),
            Wrong(
                "Each vector by itself is brought to the same length, not all of "
                "a sentence together.",
                old="m.tokens.shape[-1:]",
                new="m.tokens.shape[1:]",
            ),
            Wrong(
                "Who lacks a picture is told by has_image in the batch, if it is "
                "there.",
                old='batch.get(f"has_{name}")',
                new="None",
            ),
            Wrong(
                "Modalities are dropped in training only; a model that is in use "
                "should see all that there is.",
                old="self.training and ",
                new="",
            ),
            Wrong(
                "Where only one is given there is nothing to choose from, and no "
                "coin to toss.",
                old=" and len(given) > 1",
                new="",
            ),
            Wrong(
                "With modality_dropout, in training, a share of the examples "
                "should lack one of its modalities.",
                old="if self.training and",
                new="if False and",
            ),
            Wrong(
                "Where sequences are padded, their encoder cannot know where each "
                "one ends: pass it the lengths as well.",
                old='inputs.append(batch[f"{name}_lengths"])',
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=11,
        module="model",
        parts=("_encode_present",),
        title="who has no picture neither sees nor computes one",
        points=10,
        minutes=50,
        difficulty="hard",
        tests=(
            "test_of_some_pictures_each_sentence_sees_its_own_or_none",
            "test_batch_norm_learns_of_the_pictures_that_are_there",
            "test_those_without_a_picture_see_nothing_of_what_stands_in_its_place",
            "test_no_picture_is_as_good_as_none_that_is_there",
            "test_without_any_picture_the_gradient_of_what_sees_is_0_and_not_none",
            "test_only_the_rows_that_have_a_sound_reach_its_encoder_and_so_do_their_lengths",
        ),
        wrong=(
            Wrong(
                "Masked afterwards is too late: the blank pictures went through "
                "batch norm, and changed the others.",
                old="B = len(there)",
                new=(
                    "if there.any():\n"
                    "        every = encoder(*inputs)\n"
                    "        return Memory(every.tokens, every.mask & there[:, "
                    "None])\n"
                    "    B = len(there)"
                ),
            ),
            Wrong(
                "Zeros are not nothing: a place of zeros still gets a share of "
                "the attention. What must its mask say?",
                old="mask.index_copy(0, rows, some.mask)",
                new="torch.ones_like(mask)",
            ),
            Wrong(
                "Each memory belongs in the row of its own example, not in the "
                "first rows that are free.",
                old="tokens.index_copy(0, rows, some.tokens)",
                new="torch.cat([some.tokens, tokens[len(rows) :]])",
            ),
            Wrong(
                "If nobody has a picture, the encoder still needs a gradient, of "
                "0: processes that train together wait for it.",
                old="0 * some.tokens.expand(B, -1, -1)",
                new="some.tokens.new_zeros(B, *some.tokens.shape[1:])",
            ),
            Wrong(
                "What is computed only for its gradient of 0 is no picture that "
                "batch norm should learn of.",
                old="encoder.eval()(*(values[:1] for values in inputs))",
                new="encoder(*(values[:1] for values in inputs))",
            ),
            Wrong(
                "The lengths belong to the examples: pick the rows of every "
                "input, not only of the first.",
                old="encoder(*(values[rows] for values in inputs))",
                new="encoder(inputs[0][rows], *inputs[1:])",
            ),
            Wrong(
                "The encoder must be left as it was found: in training if it was "
                "in training.",
                old="encoder.train(training)",
                new="encoder.eval()",
            ),
            Wrong(
                "The encoder must be left as it was found: one that was not in "
                "training must not be afterwards.",
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
            "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both",
        ),
        wrong=(
            Wrong(
                "With a coin for each modality, some examples lose both. One of "
                "them must be left.",
                old="(chosen != i)",
                new="(torch.rand(B, device=device) >= fraction / len(there))",
            ),
            Wrong(
                "An example that has only one modality must keep it.",
                old=" | (count < 2)",
                new="",
            ),
            Wrong(
                "A coin for each example, not one for the whole batch.",
                old="torch.rand(B, device=device)",
                new="torch.rand(1, device=device)",
            ),
            Wrong(
                "`fraction` of the examples lack something. With two modalities, "
                "each is lacking in half of those.",
                old=" * len(there) / fraction",
                new=" / fraction",
            ),
            Wrong(
                "Each modality should be left out as often as another. Is it "
                "always the same one?",
                old=(
                    "(\n"
                    "        torch.rand(B, device=device) * len(there) / fraction\n"
                    "    ).floor()"
                ),
                new=(
                    "torch.where(torch.rand(B, device=device) < fraction, 0, "
                    "len(there))"
                ),
            ),
            Wrong(
                "Who lacks a picture to begin with does not get one by a coin.",
                old="has & (",
                new="(",
            ),
            Wrong(
                "None says that all examples have it.",
                old="torch.ones(B",
                new="torch.zeros(B",
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
                "German colours have endings: one that is left over would show "
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
                "One bool for each word, not one for each sentence.",
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
