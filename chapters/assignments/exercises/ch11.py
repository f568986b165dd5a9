"""The exercises of chapter 11: multimodal translation."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        11, "model", ("fuse",), "two memories side by side", 2, 10, "easy",
        "test_fuse_lays_memories_side_by_side test_several_modalities_are_fused_with_vectors_of_one_length",
        (
            Wrong("Side by side means more places, not longer vectors: along which axis do the places lie?",
                  "torch.cat([m.tokens for m in memories], 1)", "torch.cat([m.tokens for m in memories], -1)"),
            Wrong("The masks go side by side as well: padding of one memory must stay padding in both.",
                  "torch.cat([m.mask for m in memories], 1)",
                  "torch.ones(memories[0].mask.size(0), sum(m.mask.size(1) for m in memories)).bool()"),
            Wrong("A mask for each place: that of the first memory is too short for all.",
                  "torch.cat([m.mask for m in memories], 1)", "memories[0].mask"),
            Wrong("There may be more than two memories.",
                  "m.tokens for m in memories]",
                  "m.tokens for m in memories[:2]]",
                  (("m.mask for m in memories]", "m.mask for m in memories[:2]]"),)),
            Wrong("They lie in the order in which they were given.",
                  "m.tokens for m in memories]",
                  "m.tokens for m in memories[::-1]]",
                  (("m.mask for m in memories]", "m.mask for m in memories[::-1]]"),)),
        ),
    ),
    Exercise(
        11, "model", ("EncoderDecoder.encode",), "what is given, on an equal footing", 8, 40, "medium",
        "test_a_missing_modality_is_not_fused test_several_modalities_are_fused_with_vectors_of_one_length "
        "test_a_picture_that_stands_alone_is_never_dropped test_without_modality_dropout_nothing_is_drawn "
        "test_of_some_pictures_each_sentence_sees_its_own_or_none "
        "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both "
        "test_lengths_reach_the_encoder_of_what_is_padded",
        (
            Wrong("A batch need not have all that the model could read: what it lacks is not encoded.",
                  "[name for name in self.encoders if name in batch]", "list(self.encoders)"),
            Wrong("An equal footing: the vectors of one modality are longer than those of the other, and would win every "
                  "softmax.", "if len(self.encoders) > 1:  #", "if False:  #"),
            Wrong("A sentence must look the same to the decoder whether a picture is beside it or not: what decides is how "
                  "many modalities the model has, not how many this batch has.",
                  "if len(self.encoders) > 1:  #", "if len(given) > 1:  #"),
            Wrong("A model of one modality has nothing to bring to the same length: leave its memory as the encoder gave it.",
                  "if len(self.encoders) > 1:  #", "if True:  #"),
            Wrong("Each vector by itself is brought to the same length, not all of a sentence together.",
                  "m.tokens.shape[-1:]", "m.tokens.shape[1:]"),
            Wrong("Who lacks a picture is told by has_image in the batch, if it is there.", 'batch.get(f"has_{name}")', "None"),
            Wrong("Modalities are dropped in training only; a model that is in use should see all that there is.",
                  "self.training and ", ""),
            Wrong("Where only one is given there is nothing to choose from, and no coin to toss.", " and len(given) > 1", ""),
            Wrong("With modality_dropout, in training, a share of the examples should lack one of its modalities.",
                  "if self.training and", "if False and"),
            Wrong("Where sequences are padded, their encoder cannot know where each one ends: pass it the lengths as well.",
                  '[batch[name], batch[f"{name}_lengths"]] if f"{name}_lengths" in batch else [batch[name]]', "[batch[name]]"),
        ),
    ),
    Exercise(
        11, "model", ("_encode_some",), "who has no picture neither sees nor computes one", 10, 50, "hard",
        "test_of_some_pictures_each_sentence_sees_its_own_or_none test_batch_norm_learns_of_the_pictures_that_are_there "
        "test_those_without_a_picture_see_nothing_of_what_stands_in_its_place "
        "test_no_picture_is_as_good_as_none_that_is_there "
        "test_without_any_picture_the_gradient_of_what_sees_is_0_and_not_none "
        "test_only_the_rows_that_have_a_sound_reach_its_encoder_and_so_do_their_lengths",
        (
            Wrong("Masked afterwards is too late: the blank pictures went through batch norm, and changed the others.",
                  "B = len(there)",
                  "if there.any():\n        every = encoder(*inputs)\n        return Memory(every.tokens, every.mask & "
                  "there[:, None])\n    B = len(there)"),
            Wrong("Zeros are not nothing: a place of zeros still gets a share of the attention. What must its mask say?",
                  "mask.index_copy(0, rows, some.mask)", "torch.ones_like(mask)"),
            Wrong("Each memory belongs in the row of its own example, not in the first rows that are free.",
                  "tokens.index_copy(0, rows, some.tokens)", "torch.cat([some.tokens, tokens[len(rows) :]])"),
            Wrong("If nobody has a picture, the encoder still needs a gradient, of 0: processes that train together wait for "
                  "it.",
                  "0 * some.tokens.expand(B, -1, -1)", "some.tokens.new_zeros(B, *some.tokens.shape[1:])"),
            Wrong("What is computed only for its gradient of 0 is no picture that batch norm should learn of.",
                  "encoder.eval()(*(values[:1] for values in inputs))", "encoder(*(values[:1] for values in inputs))"),
            Wrong("The lengths belong to the examples: pick the rows of every input, not only of the first.",
                  "encoder(*(values[rows] for values in inputs))", "encoder(inputs[0][rows], *inputs[1:])"),
            Wrong("The encoder must be left as it was found: in training if it was in training.",
                  "encoder.train(training)", "encoder.eval()"),
            Wrong("The encoder must be left as it was found: one that was not in training must not be afterwards.",
                  "encoder.train(training)", "encoder.train()"),
        ),
    ),
    Exercise(
        11, "model", ("_drop_some",), "a coin for each example", 5, 25, "medium",
        "test_in_training_some_lack_the_picture_and_as_many_the_sentence_but_none_both",
        (
            Wrong("With a coin for each modality, some examples lose both. One of them must be left.",
                  "(chosen != i)", "(torch.rand(B, device=device) >= share / len(there))"),
            Wrong("An example that has only one modality must keep it.", " | (count < 2)", ""),
            Wrong("A coin for each example, not one for the whole batch.",
                  "torch.rand(B, device=device)", "torch.rand(1, device=device)"),
            Wrong("`share` of the examples lack something. With two modalities, each is lacking in half of those.",
                  " * len(there) / share", " / share"),
            Wrong("Each modality should be left out as often as another. Is it always the same one?",
                  "(torch.rand(B, device=device) * len(there) / share).floor()",
                  "torch.where(torch.rand(B, device=device) < share, 0, len(there))"),
            Wrong("Who lacks a picture to begin with does not get one by a coin.", "has & (", "("),
            Wrong("None says that all examples have it.", "torch.ones(B", "torch.zeros(B"),
        ),
    ),
    Exercise(
        11, "data.language", ("mask_colours", "_without_an"), "a stain where the colours were", 4, 20, "easy",
        "test_masking_by_hand test_masking_does_not_tell_that_the_word_begins_with_a_vowel "
        "test_masking_leaves_no_colour_word test_masked_captions_are_the_same_whatever_the_colours",
        (
            Wrong('"an [v] star" tells that the hidden word begins with a vowel, and so that it is "orange".',
                  "return _without_an(re.sub(pattern, MASKED, caption))", "return re.sub(pattern, MASKED, caption)"),
            Wrong('Only an "an" right before what is hidden must change: "an anchor" stays.', " (?={re.escape(MASKED)})", " "),
            Wrong("In German a colour has endings: what is left of them would tell the gender twice.", "(e[rsnm]?)?\\b", ""),
            Wrong("Each language has its own words for the colours.", 'if language == "en":', 'if language != "zh":'),
            Wrong("All colours of the sentence are hidden, not only the first.",
                  "MASKED, caption))", "MASKED, caption, count=1))"),
            Wrong("Hide the colour and nothing else: 的 is no part of it.",
                  'pattern = "|".join(colour.chinese for', 'pattern = "|".join(colour.chinese + "的" for'),
        ),
    ),
    Exercise(
        11, "data.language", ("mask_noun",), "a stain where a noun was", 4, 20, "medium",
        "test_masking_a_noun_by_hand test_each_noun_is_masked_in_turn_and_nothing_else "
        "test_masking_does_not_tell_that_the_word_begins_with_a_vowel",
        (
            Wrong("German nouns have a capital letter, and the list of words has none.", ", re.IGNORECASE", ""),
            Wrong("If `which` is larger than the number of nouns, it is counted on from the start.",
                  "which % len(found)", "which"),
            Wrong("A sentence may have no noun that you know. It stays as it is.",
                  "    if not found:\n        return caption\n", ""),
            Wrong("The same noun may stand there twice, and only one of them is to be hidden.",
                  "caption[:start] + MASKED + caption[end:]", "caption.replace(caption[start:end], MASKED)"),
            Wrong('"an [v]" tells that the noun begins with a vowel. There is a function for that.',
                  "_without_an(caption[:start] + MASKED + caption[end:])", "caption[:start] + MASKED + caption[end:]"),
            Wrong("Counted from the start of the sentence, not from its end.",
                  "found[which % len(found)]", "found[-1 - which % len(found)]"),
            Wrong("Some nouns are the beginning of others. The pattern must not stop amid a word.",
                  'rf"\\b(?:{nouns})\\b"', "nouns", ((", reverse=True", ""),)),
        ),
    ),
    Exercise(
        11, "data.language", ("colour_of",), "which colour a token names", 2, 10, "easy",
        "test_the_colours_of_a_caption_are_known_by_their_tokens test_every_german_ending_of_a_colour_is_known",
        (
            Wrong("A German colour may end like an ending by itself: look for the whole word first.",
                  "colours.get(token) or ", ""),
            Wrong("German has five endings of adjectives; you know fewer.", "e[rsnm]?$", "e[rs]?$"),
            Wrong('Only German has these endings: in English, "reds" is no colour.',
                  're.sub(r"e[rsnm]?$", "", token) if language == "de" else token', 're.sub(r"(e[rsnm]?|s)$", "", token)'),
            Wrong("To the tokenizer each Chinese character is a token, so the whole word never comes.",
                  "word[0] == token", "word == token"),
            Wrong("The character 色 stands in every Chinese colour: which of a word's characters tells the colour?",
                  "word[0] == token", "token in word"),
            Wrong("A word that only begins like a colour is none.",
                  "colours.get(token) or colours",
                  "next((colours[word] for word in colours if token.startswith(word)), None) or colours"),
        ),
    ),
    Exercise(
        11, "metrics", ("words_right",), "of the words that were hidden, which are right?", 3, 15, "easy",
        "test_words_right_by_hand test_words_right_are_those_of_all_sentences_in_order",
        (
            Wrong("Two colours that have changed places are both wrong: the n-th is compared with the n-th.",
                  "right.append(name == other)", "right.append(name is not None and name in written)"),
            Wrong("A word that the hypothesis lacks is wrong. It must not drop out of the list.", "in zip_longest(", "in zip("),
            Wrong("The words of the reference are asked for; what the hypothesis has beyond them is not counted.",
                  "written[: len(wanted)]", "written"),
            Wrong('Names are compared, not words: "scarlet" for "red" is right, if both mean the same.',
                  "[meaning(token) for token in hypothesis", "[token for token in hypothesis",
                  (("[meaning(token) for token in refs", "[token for token in refs"),)),
            Wrong("The first of the references decides, not the last.", "refs[0]", "refs[-1]"),
            Wrong("One verdict a word, not one a sentence.",
                  "right.append(name == other)", "right.append(written == wanted)",
                  (("zip_longest(wanted, written[: len(wanted)])", "[*zip(wanted, wanted)][:1]"),)),
        ),
    ),
)
