"""The exercises of chapter 12: visual question answering."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=12,
        module="metrics",
        parts=("answer_table",),
        title="how far the question alone gets",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_answer_table_by_hand",
            "test_answer_table_by_brute_force",
            "test_the_question_alone_answers_no_balanced_pair",
            "test_answer_table_refuses_lists_that_do_not_fit",
        ),
        wrong=(
            Wrong(
                "On a tie, the answer that comes first in training counts.",
                old="[(answer, _)] = answer_counts.most_common(1)",
                new="answer = max(reversed(answer_counts), key=answer_counts.get)",
            ),
            Wrong(
                "A question has many training answers. The most frequent one counts, "
                "not the last.",
                old="counts[question][answer] += 1",
                new="counts[question] = Counter([answer])",
            ),
            Wrong(
                "A question has many training answers. The most frequent one counts, "
                "not the first.",
                old="counts[question][answer] += 1",
                new="counts[question] = counts[question] or Counter([answer])",
            ),
            Wrong(
                "Questions that training does not have need an answer, too: put the "
                'most frequent answer of all under "".',
                old='counts[""] = Counter(answers)',
                new="pass",
            ),
            Wrong(
                'The answer under "" is the most frequent one among all examples: '
                "count each example, not each question once.",
                old="Counter(answers)",
                new="Counter(dict(zip(questions, answers)).values())",
            ),
            Wrong(
                "zip() stops at the shorter of two lists and says nothing.",
                old="if len(questions) != len(answers):",
                new="if False:",
            ),
            Wrong(
                "A string is a sequence of letters, each of which would become a "
                "question.",
                old='_check_no_string("questions", questions)',
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="metrics",
        parts=("normalize_answer",),
        title="which answers are the same",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_normalized_answers_agree_with_the_vqa_evaluation",
            "test_a_punctuation_mark_becomes_a_space_or_is_deleted",
            "test_missing_apostrophes_agree_with_the_vqa_evaluation",
        ),
        wrong=(
            Wrong(
                "If there is a comma between two digits, all marks of the answer are "
                "deleted, not only the commas.",
                old="if has_digit_comma or",
                new='if has_digit_comma and mark == "," or',
            ),
            Wrong(
                "The comma of 1,000 is deleted: it separates no words.",
                old="if has_digit_comma or",
                new="if",
            ),
            Wrong(
                "The space next to a mark may come before it or after it.",
                old='or f" {mark}" in answer',
                new="",
            ),
            Wrong(
                'A mark without a space next to it separates words: "t-shirt" becomes '
                '"t shirt".',
                old='replacements[mark] = " "',
                new='replacements[mark] = ""',
            ),
            Wrong(
                "Look for a mark's spaces in the answer as it is written, not after "
                "other marks have become spaces.",
                old='replacements[mark] = " "',
                new='answer = answer.replace(mark, " ")',
            ),
            Wrong(
                'A period that a digit follows stays: "3.5" is a number.',
                old=r'r"\.(?![0-9])"',
                new=r'r"\."',
            ),
            Wrong(
                'Only the character after a period decides: the period of "7." goes.',
                old=r'r"\.(?![0-9])"',
                new=r'r"(?<![0-9])\.(?![0-9])"',
            ),
            Wrong(
                r"Only 0 to 9 are digits here: \d matches those of all scripts.",
                old=r'r"\.(?![0-9])"',
                new=r'r"\.(?!\d)"',
            ),
            Wrong(
                'Lower-case the words before you look them up: "The" is an article.',
                old="answer.lower().split()",
                new="answer.split()",
                more=(('" ".join(words)', '" ".join(words).lower()'),),
            ),
            Wrong(
                'Articles say nothing about the picture: "a cat" becomes "cat".',
                old="if word not in _ARTICLES:",
                new="if True:",
            ),
            Wrong(
                "An article is a whole word: leave the letters of other words alone.",
                old="answer.lower().split()",
                new='answer.lower().replace("the", "").split()',
            ),
            Wrong(
                '"two" and "2" are the same answer.',
                old="_NUMBER_WORDS.get(word, word)",
                new="word",
            ),
            Wrong(
                '"dont" and "don\'t" are the same answer: look the word up in '
                "_CORRECTIONS.",
                old="_CORRECTIONS.get(word, word)",
                new="word",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="metrics",
        parts=("vqa_accuracy", "_leave_one_out"),
        title="VQA accuracy: three people are enough",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_vqa_accuracy_agrees_with_the_vqa_evaluation",
            "test_vqa_accuracy_by_brute_force",
            "test_vqa_accuracy_with_fewer_than_four_answers_by_hand",
            "test_unanimous_answers_are_compared_as_written",
            "test_vqa_accuracy_refuses_lists_that_do_not_fit",
            "test_vqa_accuracy_takes_tuples_and_no_questions_and_keeps_its_inputs",
        ),
        wrong=(
            Wrong(
                "Leave one person out at a time. If 3 of 10 people agree, the score is "
                "0.9: three times, only two are left.",
                old="others = answers[:i] + answers[i + 1 :]",
                new="others = answers",
            ),
            Wrong(
                "More than three agreeing people are not worth more: a score is at "
                "most 1.",
                old="min(others.count(prediction) / enough, 1)",
                new="others.count(prediction) / enough",
            ),
            Wrong(
                "Three agreeing people are enough, however many were asked.",
                old="others.count(prediction) / enough",
                new="others.count(prediction) / len(others)",
            ),
            Wrong(
                "With three people, only two others can agree. What does the formula "
                "divide by?",
                old="min(3, len(answers) - 1)",
                new="3",
            ),
            Wrong(
                "The score is the mean over all people, not over ten.",
                old="total / len(answers)",
                new="total / 10",
            ),
            Wrong(
                "The score is the mean over all choices of the others, not the best.",
                old="total += min(others.count(prediction) / enough, 1)",
                new="total = max(total, min(others.count(prediction) / enough, 1))",
                more=(("total / len(answers)", "total"),),
            ),
            Wrong(
                "If several people all gave the same answer, the prediction must equal "
                "it as written.",
                old="if len(given) == 1 or len(set(given)) > 1:",
                new="if True:",
            ),
            Wrong(
                "A single answer is compared after normalize_answer, too.",
                old="if len(given) == 1 or len(set(given)) > 1:",
                new="if len(set(given)) > 1:",
            ),
            Wrong(
                "People's spaces at both ends do not make different answers: remove "
                "them before you ask whether all agree.",
                old="given = [_strip_answer(answer) for answer in given]",
                new="given = list(given)",
            ),
            Wrong(
                "Normalise the prediction as well as the people's answers.",
                old="prediction = normalize_answer(prediction)",
                new="prediction = str(prediction)",
            ),
            Wrong(
                "zip() stops at the shorter of two lists and says nothing.",
                old="if len(predictions) != len(answers):",
                new="if False:",
            ),
            Wrong(
                "The answers are the caller's: `given[:] =` rewrites them.",
                old="given = [_strip_answer(answer) for answer in given]",
                new="given[:] = [_strip_answer(answer) for answer in given]",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="metrics",
        parts=("pair_accuracy",),
        title="right about both pictures",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_pair_accuracy_by_hand",
            "test_pair_accuracy_by_brute_force",
            "test_pair_accuracy_of_invalid_inputs_raises",
            "test_the_question_alone_answers_no_balanced_pair",
        ),
        wrong=(
            Wrong(
                "A model that ignores the pictures gets half of each pair right. That "
                "must not count: take the lowest score of a pair, not the mean.",
                old="min(scores[i] for i in members)",
                new="sum(scores[i] for i in members) / len(members)",
            ),
            Wrong(
                "Both pictures must be right, not one of them.",
                old="min(scores[i] for i in members)",
                new="max(scores[i] for i in members)",
            ),
            Wrong(
                "A pair's score is the lowest of its scores, not their product.",
                old="min(scores[i] for i in members)",
                new="math.prod(scores[i] for i in members)",
            ),
            Wrong(
                "The examples of a pair need not follow each other: the numbers in "
                "`pairs` say which belong together.",
                old="_group_members(pairs).items()",
                new="enumerate([i, i + 1] for i in range(0, len(pairs) - 1, 2))",
            ),
            Wrong(
                "The mean is over pairs: divide by their number, not by that of the "
                "examples.",
                old="return _mean_score(pair_scores)",
                new=(
                    "return MeanScore(sum(pair_scores) / max(len(scores), 1), "
                    "pair_scores)"
                ),
            ),
            Wrong(
                "One picture is no pair: raise ValueError.",
                old="if len(members) == 1:",
                new="if len(members) == 0:",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="metrics",
        parts=("shuffle_within",),
        title="the wrong picture for the same question",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_shuffling_within_groups_moves_every_example_inside_its_group",
            "test_shuffling_within_groups_reaches_every_other_place_equally_often",
            "test_shuffling_with_the_same_seed_gives_the_same_order",
            "test_shuffling_leaves_the_global_random_numbers_alone",
        ),
        wrong=(
            Wrong(
                "A plain shuffle leaves one example of a group in its place on "
                "average. Put the shuffled members in a circle, and move each by one.",
                old="in enumerate(circle):",
                new="in enumerate(members):",
            ),
            Wrong(
                "Examples change places only within their group: another question "
                "would be no control for what the picture adds.",
                old="_group_members(groups).values()",
                new="[list(range(len(groups)))]",
            ),
            Wrong(
                "Which example takes another's place must be random: every other one "
                "of the group is equally likely.",
                old="rng.permutation(members).tolist()",
                new="members",
            ),
            Wrong(
                "Reversing the order leaves the middle one of an odd number in its "
                "place.",
                old="circle[i - 1]",
                new="circle[-1 - i]",
            ),
            Wrong(
                "The same seed must give the same order: pass it to the random "
                "generator.",
                old="default_rng(seed)",
                new="default_rng()",
            ),
            Wrong(
                "Return Python's integers: NumPy's print as np.int64(7) and are no "
                "JSON.",
                old="rng.permutation(members).tolist()",
                new="rng.permutation(members)",
            ),
            Wrong(
                "np.random.seed changes the random numbers of the whole program: make "
                "a generator of your own.",
                old="rng = np.random.default_rng(seed)",
                new=(
                    "np.random.seed(seed)\n"
                    "    rng = np.random"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="data.questions",
        parts=("true_answer", "_is_at_side", "_first_at_side"),
        title="a program that knows the answer",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_true_answers_agree_with_a_judge_that_reads_the_sentence",
            "test_a_false_premise_has_no_answer",
            "test_the_first_object_at_a_side_is_the_only_nearest_one",
            "test_numbers_and_existence_of_absent_objects",
        ),
        wrong=(
            Wrong(
                "What colour is the cat, if there are two? The premise is false, and "
                "the answer None.",
                old="if len(found) != 1:\n        return None\n    (obj,) = found\n",
                new="if not found:\n        return None\n    obj = found[0]\n",
            ),
            Wrong(
                'A question about an object that is missing has no answer: not "no".',
                old="if len(found) != 1:\n        return None\n",
                new='if len(found) != 1:\n        return "no"\n',
            ),
            Wrong(
                "Both objects of a comparison must be the only ones of their kind.",
                old="if len(others) != 1:\n",
                new="if not others:\n",
            ),
            Wrong(
                '"Is there a star?" has the answer "yes", too, if there are two.',
                old="len(found) > 0",
                new="len(found) == 1",
            ),
            Wrong(
                "Equal numbers are not more.",
                old="len(found) > len(_fitting",
                new="len(found) >= len(_fitting",
            ),
            Wrong(
                "Zero can be compared, too: with no cat at all, there are not more cats "
                "than stars.",
                old='    if relation == "more":\n',
                new='    if not found:\n        return None\n    if relation == "more":\n',
            ),
            Wrong(
                "If two things are equally near, neither is the first: the premise is "
                "false.",
                old="if len(found) == 1 else",
                new="if found else",
            ),
            Wrong(
                "The first thing at a side is the nearest, not the outermost.",
                old="min(map(distance, found), default=0)",
                new="max(map(distance, found), default=0)",
            ),
            Wrong(
                "There may be other things further away: the nearest is still the "
                "first.",
                old="if distance(other) == nearest]",
                new="]",
            ),
            Wrong(
                "The first thing left of the star: the thing is at the left of the "
                "star, and not the star at the left of the thing.",
                old="_is_at_side(other, obj, side)",
                new="_is_at_side(obj, other, side)",
            ),
            Wrong(
                "An object in the same column is neither left nor right of the other.",
                old="- other.cell[axis]) > 0",
                new="- other.cell[axis]) >= 0",
            ),
            Wrong(
                "Rows count from the top: what is above has the smaller row.",
                old="sign * (obj.cell",
                new="(sign if axis == 0 else -sign) * (obj.cell",
            ),
            Wrong(
                "The nine places are listed row by row.",
                old="obj.row * 3 + obj.column",
                new="obj.column * 3 + obj.row",
            ),
            Wrong(
                'An answer is a word: "2", not 2.',
                old="str(len(found))",
                new="len(found)",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="film",
        parts=("modulate",),
        title="a scale and a shift for each channel",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_modulation_equals_four_loops",
            "test_modulation_works_with_as_many_examples_as_channels_and_rows",
            "test_modulation_does_not_change_its_inputs",
        ),
        wrong=(
            Wrong(
                "Broadcasting aligns the last axes: γ (B, C) must become "
                "(B, C, 1, 1) first.",
                old="scale[:, :, None, None]",
                new="scale",
            ),
            Wrong(
                "The second axis of γ is that of the channels, not of the rows.",
                old="scale[:, :, None, None]",
                new="scale[:, None, :, None]",
            ),
            Wrong(
                "Each example has a γ of its own, because it has a question of its own.",
                old="scale[:, :, None, None]",
                new="scale.mean(0, keepdim=True)[:, :, None, None]",
            ),
            Wrong(
                "First scale, then shift: γ does not multiply β.",
                old="scale * x + shift",
                new="scale * (x + shift)",
            ),
            Wrong(
                "γ itself is the factor: the 1 was added to it in FiLM.",
                old="scale * x + shift",
                new="(1 + scale) * x + shift",
            ),
            Wrong(
                "Leave x as it is: its caller may need it again.",
                old="scale * x + shift",
                new="x.mul_(scale).add_(shift)",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="film",
        parts=("FiLM.forward", "FiLM.__init__"),
        title="FiLM: the question decides what the CNN looks for",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_film_equals_its_formula",
            "test_film_has_one_matrix_without_bias",
            "test_new_film_changes_nothing_but_learns",
            "test_a_question_of_zeros_changes_nothing_whatever_was_learned",
        ),
        wrong=(
            Wrong(
                "γ = 1 + Δγ. Without the 1, a new FiLM erases everything that the CNN "
                "has seen.",
                old="(1 + delta)",
                new="delta",
            ),
            Wrong(
                "γ = 1 + Δγ is linear in the question: it may be negative, too.",
                old="(1 + delta)",
                new="delta.exp()",
            ),
            Wrong(
                "W starts at 0, so that the CNN is the same as without at first.",
                old="nn.init.zeros_(self.linear.weight)",
                new="pass",
            ),
            Wrong(
                "With a bias, a question of zeros would change the CNN.",
                old=", bias=False",
                new="",
            ),
            Wrong(
                "The first half of W q holds the Δγ, the second half the β.",
                old="delta, shift = self",
                new="shift, delta = self",
            ),
            Wrong(
                "Blocks differ in their number of channels: split by `channels`.",
                old="(1 + delta).split(self.channels, dim=1)",
                new="(1 + delta).chunk(len(self.channels), dim=1)",
            ),
            Wrong(
                "All Δγ come first, then all β: they do not alternate block by block.",
                old="list(zip(scales, shifts))",
                new=(
                    "[(1 + part[:, ::2], part[:, 1::2]) for part in self.linear("
                    "question).split([2 * C for C in self.channels], dim=1)]"
                ),
            ),
            Wrong(
                "Return a pair of γ and β for each block, not all γ and then all β.",
                old="list(zip(scales, shifts))",
                new="[scales, shifts]",
            ),
        ),
    ),
    Exercise(
        chapter=12,
        module="decoding",
        parts=("candidate_log_probs", "_score_targets"),
        title="closed answers: how probable is each?",
        points=10,
        minutes=50,
        difficulty="hard",
        tests=(
            "test_candidate_log_probs_equal_those_under_teacher_forcing",
            "test_candidate_log_probs_do_not_depend_on_the_others",
            "test_candidate_log_probs_keep_the_order_of_a_data_set",
            "test_probabilities_of_different_answers_sum_to_at_most_1",
            "test_half_precision_candidates_are_summed_in_float32",
        ),
        wrong=(
            Wrong(
                "The <eos> belongs to an answer. Without it, a prefix of an answer is "
                "never less probable than the whole.",
                old='encode_words(vocabularies["target"], words) for',
                new='encode_words(vocabularies["target"], words)[:-1] for',
            ),
            Wrong(
                "Candidates differ in length: padding adds nothing to the sum.",
                old="chosen.masked_fill(target == PAD, 0.0)",
                new="chosen",
            ),
            Wrong(
                "The probability of an answer is the product over its words: sum the "
                "logarithms, and do not divide by the length.",
                old="return total.view(B, A)",
                new="return (total / (targets != PAD).sum(1)).view(B, A)",
            ),
            Wrong(
                "The decoder must read the candidate's words, not those that it finds "
                "most probable.",
                old="token = target",
                new="token = logits.argmax(-1)",
            ),
            Wrong(
                "The first word that the decoder reads is <bos>.",
                old="torch.full_like(index, BOS)",
                new="torch.full_like(index, EOS)",
            ),
            Wrong(
                "Row i of the targets is scored given memory index[i]: the first A "
                "rows are all candidates of the first example.",
                old="torch.arange(B, device=targets.device).repeat_interleave(A)",
                new="torch.arange(B, device=targets.device).repeat(A)",
            ),
            Wrong(
                "A batch contains the examples `indices`, and a data set is not read "
                "in order: put the scores back in their rows.",
                old="log_probs[indices] = scores.cpu()",
                new="log_probs[first : first + len(indices)] = scores.cpu()",
            ),
            Wrong(
                "A candidate may contain words that the vocabulary lacks: <unk> is not "
                "forbidden here.",
                old="logits.float().log_softmax(-1)",
                new="_log_probs(logits)",
            ),
            Wrong(
                "In half precision, a sum of many logarithms is not exact: convert the "
                "logits to float32.",
                old="logits.float().log_softmax(-1)",
                new="logits.log_softmax(-1)",
            ),
            Wrong(
                "Score at most MAX_ROWS candidates at a time, over all examples.",
                old="MAX_ROWS // len(candidates)",
                new="MAX_ROWS",
            ),
            Wrong(
                "Put the model into eval mode: dropout must not change an answer.",
                old="model.eval()",
                new="pass",
            ),
        ),
    ),
)
