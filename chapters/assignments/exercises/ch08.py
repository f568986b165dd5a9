"""The exercises of chapter 8: beam search."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=8,
        module="decoding",
        parts=("sample",),
        title="sampling: temperature, top-k, top-p",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_words_are_sampled_as_often_as_they_are_probable",
            "test_samples_are_repeatable_and_independent",
            "test_sampling_from_a_single_word_is_greedy",
            "test_invalid_sampling_settings_raise",
            "test_the_nucleus_is_no_larger_than_needed",
        ),
        wrong=(
            Wrong(
                "A low temperature makes probable words more probable. Do you multiply "
                "by it, or divide?",
                old="logits = logits / temperature",
                new="logits = logits * temperature",
            ),
            Wrong(
                "Dividing all probabilities by the same number keeps their ratios. The "
                "temperature divides the logits.",
                old="logits = logits / temperature",
                new="",
                more=(
                    ("logits.softmax(-1)", "logits.softmax(-1) / temperature"),
                ),
            ),
            Wrong(
                "The word that crosses top_p belongs to the nucleus. Compare top_p "
                "with the probability of the words before it.",
                old="probabilities.cumsum(-1) - probabilities",
                new="probabilities.cumsum(-1)",
            ),
            Wrong(
                "multinomial returns an index into the sorted words, not a word.",
                old="words.gather(1, drawn)",
                new="drawn",
            ),
            Wrong(
                "With top_k = k, k words remain.",
                old="logits[:, top_k:]",
                new="logits[:, top_k + 1 :]",
            ),
            Wrong(
                "top_p applies to the probabilities after temperature and top_k, not "
                "to the model's own.",
                old="before = probabilities.cumsum(-1) - probabilities",
                new=(
                    "own = log_probs.softmax(-1).gather(1, words); before = "
                    "own.cumsum(-1) - own"
                ),
            ),
            Wrong(
                "Draw with the generator that was passed; otherwise nobody can repeat "
                "the samples.",
                old="(1, generator=generator)",
                new="(1)",
            ),
            Wrong(
                "A temperature that is 0, negative, NaN or infinite makes no sense: "
                "raise ValueError.",
                old="if not 0 < temperature < math.inf:",
                new="if temperature < 0:",
            ),
            Wrong(
                "The fewest words that add up to at least top_p: if those before a "
                "word are exactly enough, it is one too many.",
                old="before >= top_p",
                new="before > top_p",
            ),
            Wrong(
                "Every comparison with NaN is False: write the condition that a good "
                "top_p meets, and negate it.",
                old="not 0 < top_p <= 1",
                new="(top_p <= 0 or top_p > 1)",
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
        title="beam search, and when to stop",
        points=30,
        minutes=150,
        difficulty="hard",
        tests=(
            "test_enough_beams_find_every_sentence",
            "test_beam_search_equals_a_slow_search_on_random_tables",
            "test_eos_outside_the_first_num_beams_finishes_nothing",
            "test_a_finished_hypothesis_takes_no_beam_away",
            "test_search_continues_while_a_longer_sentence_may_win",
            "test_search_stops_when_no_beam_can_improve",
            "test_keep_greedy_is_never_worse_than_greedy",
            "test_invalid_search_settings_raise",
        ),
        wrong=(
            Wrong(
                "When beams are reordered, so are their states: each continues from "
                "the state of the beam it extends.",
                old="candidates.beam.gather(1, rank)",
                new="torch.arange(rank.size(1)).clamp(max=K - 1).expand_as(rank)",
            ),
            Wrong(
                "When beams are reordered, so are their words: which beam does each "
                "candidate extend?",
                old="_pick(beams.tokens, beam)",
                new=(
                    "_pick(beams.tokens, torch.arange(beam.size(1)).clamp(max=K - "
                    "1).expand_as(beam))"
                ),
            ),
            Wrong(
                "Consider twice as many candidates as beams; otherwise each <eos> "
                "costs one beam.",
                old="min(2 * num_beams, K * V)",
                new="min(num_beams, K * V)",
            ),
            Wrong(
                "An <eos> finishes a hypothesis only if it is among the first "
                "num_beams candidates.",
                old="ended & among_first &",
                new="ended &",
            ),
            Wrong(
                "Having n_best hypotheses is not enough to stop: a beam may still "
                "become better than they are.",
                old="active = bound > beams.best_scores[:, -1]",
                new="active = beams.best_scores[:, -1] == -torch.inf",
            ),
            Wrong(
                "The bound: a beam may keep its log-probability and get longer. At "
                "which length would its score be highest, for a penalty above 0, and "
                "for one of 0 or below?",
                old="best_length = max_length if length_penalty > 0 else length + 1",
                new="best_length = length",
            ),
            Wrong(
                "The length of a sentence includes <eos>.",
                old="score = log_prob / length**",
                new="score = log_prob / max(length - 1, 1) **",
            ),
            Wrong(
                "A candidate that has ended is not extended: it cannot be one of the "
                "next beams.",
                old="candidates.log_prob.masked_fill(candidates.ended, -torch.inf)",
                new="candidates.log_prob",
            ),
            Wrong(
                "With `keep_greedy`, the greedy hypothesis competes with those of the "
                "search.",
                old="if options.keep_greedy:",
                new="if False:",
            ),
            Wrong(
                "In the decoder's state, the rows of batch entry i start at row i · K.",
                old="first_row = K * torch.arange(B",
                new="first_row = 0 * torch.arange(B",
            ),
            Wrong(
                "The trees are appended to the list: what is in it already, stays.",
                old="trees += _trees(steps)",
                new="trees[:] = _trees(steps)",
            ),
        ),
    ),
    Exercise(
        chapter=8,
        module="decoding",
        parts=("_forbid",),
        title="minimum length, and no repeated n-grams",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_no_ngram_occurs_twice",
            "test_a_sentence_ends_where_every_word_is_forbidden",
            "test_beam_search_equals_a_slow_search_on_random_tables",
        ),
        wrong=(
            Wrong(
                "With n tokens so far, the next word can already repeat an n-gram. "
                "Think of n = 1 and the same word twice in a row.",
                old="if 0 < n <= t:",
                new="if 0 < n < t:",
            ),
            Wrong(
                "A word is forbidden if all n - 1 words before it match those of an "
                "earlier n-gram, not just one.",
                old="== last).all(-1)",
                new="== last).any(-1)",
            ),
            Wrong(
                "A sentence that is too short must not end, whether n-grams may repeat "
                "or not.",
                old="if not too_short and n == 0:",
                new="if n == 0:",
            ),
            Wrong(
                "If no word is left at all, <eos> is allowed.",
                old="nothing_left = log_probs.amax(-1) == -torch.inf",
                new="nothing_left = torch.zeros_like(eos, dtype=torch.bool)",
            ),
            Wrong(
                "If only <eos> is left, it keeps the log-probability that the model "
                "gave it.",
                old="torch.where(nothing_left, eos, ",
                new="torch.where(nothing_left, 0.0, ",
            ),
            Wrong(
                "Forbid only the words that would repeat an n-gram, not every word "
                "that has occurred.",
                old=".masked_fill(~repeated, PAD)",
                new="",
            ),
        ),
    ),
)
