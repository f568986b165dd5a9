"""The exercises of chapter 8: beam search."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=8,
        module="decoding",
        parts=("sample",),
        title="drawn at random: temperature, top-k, top-p",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_words_are_drawn_as_often_as_they_are_probable",
            "test_samples_are_repeatable_and_each_is_its_own",
            "test_samples_among_one_word_are_greedy",
            "test_samples_that_make_no_sense_are_refused",
        ),
        wrong=(
            Wrong(
                "A low temperature makes the probable more probable. Is it a "
                "factor or a divisor?",
                old=") / temperature  #",
                new=") * temperature  #",
            ),
            Wrong(
                "Probabilities that are all divided by the same number keep their "
                "proportions: the temperature divides the logits.",
                old=") / temperature  #",
                new=")  #",
                more=(
                    ("logits.softmax(-1)", "logits.softmax(-1) / temperature"),
                ),
            ),
            Wrong(
                "The word that crosses the line belongs to the nucleus: what "
                "counts is the probability of the words before it.",
                old="probabilities.cumsum(-1) - probabilities",
                new="probabilities.cumsum(-1)",
            ),
            Wrong(
                "What was drawn is a place in the sorted list, and not yet a word.",
                old=(
                    "words.gather(1, probabilities.multinomial(1, "
                    "generator=generator))"
                ),
                new="probabilities.multinomial(1, generator=generator)",
            ),
            Wrong(
                "With top_k = k, k words are left.",
                old="logits[:, top_k:]",
                new="logits[:, top_k + 1 :]",
            ),
            Wrong(
                "top_p is the share of what temperature and top_k have left, not "
                "of the model's own probabilities.",
                old="before = probabilities.cumsum(-1) - probabilities",
                new=(
                    "own = log_probs.softmax(-1).gather(1, words); before = "
                    "own.cumsum(-1) - own"
                ),
            ),
            Wrong(
                "Draw with the generator that was given: else nobody can repeat it.",
                old="(1, generator=generator)",
                new="(1)",
            ),
            Wrong(
                "A temperature of 0 or below, or of infinity, makes no sense: "
                "raise ValueError, and say so.",
                old="if not 0 < temperature < math.inf:",
                new="if temperature < 0:",
            ),
        ),
    ),
    Exercise(
        chapter=8,
        module="recurrent",
        parts=("LSTMDecoder.reorder",),
        title="reordering beams",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_reorder_moves_words_and_memory",
            "test_beams_share_the_memory_without_copies",
        ),
        wrong=(
            Wrong(
                "The first axis of the state is that of the layers; the sentences "
                "are on the second.",
                old="state.hidden.index_select(1, index)",
                new="state.hidden.index_select(0, index)",
            ),
            Wrong(
                "Hidden state and cell belong together: reorder both.",
                old="state.cell.index_select(1, index)",
                new="state.cell",
            ),
            Wrong(
                "A sentence keeps its memory when it moves: `memory_index` says "
                "which memories are needed.",
                old="tokens = tokens.index_select(0, needed)",
                new="pass",
                more=(
                    ("mask = mask.index_select(0, needed)", "pass"),
                ),
            ),
            Wrong(
                "The beams of one picture share its memory: where `memory_index` "
                "returns None, copy nothing.",
                old="if needed is not None:",
                new=(
                    "if needed is None:\n"
                    "            tokens = tokens.clone()\n"
                    "            mask = mask.clone()\n"
                    "        else:"
                ),
            ),
            Wrong(
                "`memory_index` needs the number of sentences before reordering: "
                "an axis of the hidden state.",
                old="state.hidden.size(1)",
                new="len(index)",
            ),
        ),
        test_file="test_decoders.py",
    ),
    Exercise(
        chapter=8,
        module="decoding",
        parts=("beam_search", "_expand", "_collect", "_keep", "_can_improve", "_pick"),
        title="beam search, and its end",
        points=30,
        minutes=150,
        difficulty="hard",
        tests=(
            "test_beams_enough_find_all_sentences_there_are",
            "test_of_many_languages_beam_search_is_the_slow_search",
            "test_an_end_that_is_not_among_the_best_does_not_count",
            "test_an_end_takes_no_beam_away",
            "test_it_goes_on_while_a_longer_sentence_may_be_better",
            "test_it_stops_as_soon_as_nothing_better_can_come",
            "test_with_the_greedy_sentence_it_is_never_worse_than_greedy",
            "test_beams_that_make_no_sense_are_refused",
        ),
        wrong=(
            Wrong(
                "When beams change places, their states must too: each goes on "
                "from the state of its own beginning.",
                old="candidates.beam.gather(1, place)",
                new="torch.arange(place.size(1)).clamp(max=K - 1).expand_as(place)",
            ),
            Wrong(
                "When beams change places, their words must too: whose beginning "
                "does each candidate continue?",
                old="_pick(beams.words, beam)",
                new=(
                    "_pick(beams.words, torch.arange(beam.size(1)).clamp(max=K - "
                    "1).expand_as(beam))"
                ),
            ),
            Wrong(
                "Look at twice as many candidates as there are beams: else each "
                "<eos> takes one beam away.",
                old="min(2 * num_beams, K * V)",
                new="min(num_beams, K * V)",
            ),
            Wrong(
                "An <eos> is a sentence found only if it is among the first "
                "num_beams candidates.",
                old="ended & among_first &",
                new="ended &",
            ),
            Wrong(
                "That enough sentences were found is not the end: a beginning may "
                "still become better than these.",
                old="going = bound > beams.best_scores[:, -1]",
                new="going = beams.best_scores[:, -1] == -torch.inf",
            ),
            Wrong(
                "The bound: a beginning can keep its log-probability and become "
                "longer. At which length would its score be highest, for a "
                "penalty above 0, and for one of 0 or below?",
                old="best_length = max_length if length_penalty > 0 else length + 1",
                new="best_length = length",
            ),
            Wrong(
                "<eos> counts in the length of a sentence.",
                old="score = log_prob / length**",
                new="score = log_prob / max(length - 1, 1) **",
            ),
            Wrong(
                "A beam that has ended is no beginning any more.",
                old="candidates.log_prob.masked_fill(candidates.ended, -torch.inf)",
                new="candidates.log_prob",
            ),
            Wrong(
                "With `keep_greedy`, the greedy sentence is one more to choose from.",
                old="if options.keep_greedy:",
                new="if False:",
            ),
            Wrong(
                "The rows of the state of batch entry i begin at i · K.",
                old="first_row = K * torch.arange(B",
                new="first_row = 0 * torch.arange(B",
            ),
        ),
    ),
    Exercise(
        chapter=8,
        module="decoding",
        parts=("_forbid",),
        title="no short sentences, and nothing said twice",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_no_n_words_stand_in_a_sentence_twice",
            "test_where_no_word_is_left_the_sentence_ends",
            "test_of_many_languages_beam_search_is_the_slow_search",
        ),
        wrong=(
            Wrong(
                "n words that were written are enough for the next word to "
                "repeat: what of a word twice in a row, with n = 1?",
                old="if 0 < n <= words.size(-1):",
                new="if 0 < n < words.size(-1):",
            ),
            Wrong(
                "A word is forbidden if all of the n - 1 words before it are "
                "those of an earlier place.",
                old="== last).all(-1)",
                new="== last).any(-1)",
            ),
            Wrong(
                "A sentence that is too short must not end, whether words may be "
                "repeated or not.",
                old="if not too_short and n == 0:",
                new="if n == 0:",
            ),
            Wrong(
                "Where no word is left at all, <eos> is.",
                old="nothing_left = log_probs.amax(-1) == -torch.inf",
                new="nothing_left = torch.zeros_like(eos, dtype=torch.bool)",
            ),
            Wrong(
                "Where only <eos> is left it keeps the probability that the model "
                "gave it.",
                old="torch.where(nothing_left, eos, ",
                new="torch.where(nothing_left, 0.0, ",
            ),
            Wrong(
                "Forbid only what would repeat, not each word that was written before.",
                old=".masked_fill(~repeated, PAD)",
                new="",
            ),
        ),
    ),
)
