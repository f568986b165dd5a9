"""The exercises of chapter 9: BLEU and its relatives."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=9,
        module="metrics",
        parts=("exact_match",),
        title="equal to a reference, word for word",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_exact_match",
        ),
        wrong=(
            Wrong(
                "Any of the references will do, not only the first.",
                old="for ref in refs]",
                new="for ref in refs[:1]]",
            ),
            Wrong(
                "Word for word: the same words in another order are another sentence.",
                old="list(hypothesis) in [list(ref) for",
                new="sorted(hypothesis) in [sorted(ref) for",
            ),
            Wrong(
                'A set forgets order and repetition: ["a"] does not match ["a", "a"].',
                old="list(hypothesis) in [list(ref) for",
                new="set(hypothesis) in [set(ref) for",
            ),
            Wrong(
                "A tuple never equals a list, even if both contain the same words.",
                old="list(hypothesis) in [list(ref) for ref in refs]",
                new="hypothesis in refs",
            ),
            Wrong(
                "Without hypotheses the fraction is 0, not an error.",
                old="max(len(hypotheses), 1)",
                new="len(hypotheses)",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("_ngrams",),
        title="n consecutive words",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_document_frequencies_by_brute_force",
            "test_bleu_statistics_by_brute_force",
            "test_cider_d_by_hand",
        ),
        wrong=(
            Wrong(
                "Five words contain three trigrams: the last n-gram ends with the last "
                "word.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="zip(*[tokens[i:-1] for i in range(n)])",
            ),
            Wrong(
                "A remainder of fewer than n words at the end is not an n-gram.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="(tuple(tokens[i : i + n]) for i in range(len(tokens)))",
            ),
            Wrong(
                "n-grams overlap: one starts at every word.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new=(
                    "(tuple(tokens[i : i + n]) for i in range(0, len(tokens) - n "
                    "+ 1, n))"
                ),
            ),
            Wrong(
                "n-grams are counted and kept in sets, so they must be hashable: "
                "tuples, not lists.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="map(list, zip(*[tokens[i:] for i in range(n)]))",
            ),
            Wrong(
                "An n-gram that occurs twice must be yielded twice: the callers count "
                "them.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="iter(set(zip(*[tokens[i:] for i in range(n)])))",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("bleu_statistics",),
        title="what BLEU adds up: lengths, clipped counts and totals",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_bleu_statistics_by_brute_force",
            "test_bleu_statistics_add_up",
            "test_bleu_agrees_with_sacrebleu_on_one_sentence",
        ),
        wrong=(
            Wrong(
                'Are the counts clipped? "the the the" has one word right, not three, '
                'if a reference has "the" only once.',
                old="min(count, most[ngram])",
                new="count if most[ngram] else 0",
            ),
            Wrong(
                "Counts are clipped by the one reference in which the n-gram occurs "
                "most often, not by all references together.",
                old="if ngram in most and count > most[ngram]:",
                new="if ngram in most:",
                more=(
                    ("most[ngram] = count", "most[ngram] += count"),
                ),
            ),
            Wrong(
                "An n-gram that occurs twice counts twice if a reference has it twice. "
                "Did you use a set instead of a count?",
                old="min(count, most[ngram])",
                new="min(1, most[ngram])",
            ),
            Wrong(
                "Two references may be equally close in length. Then the shorter one "
                "counts.",
                old="(abs(len(ref) - length), len(ref))",
                new="(abs(len(ref) - length), -len(ref))",
                more=(
                    ("row[1] = ref_len", "row[1] = -ref_len"),
                ),
            ),
            Wrong(
                "ref_len is the reference length closest to the hypothesis', not the "
                "smallest.",
                old="row[1] = ref_len",
                new="row[1] = min(len(ref) for ref in refs)",
            ),
            Wrong(
                "All references are considered for ref_len, not only the first.",
                old="row[1] = ref_len",
                new="row[1] = len(refs[0])",
            ),
            Wrong(
                "A sentence of two words has no trigrams: their number is 0, not "
                "negative.",
                old="[max(length - n + 1, 0) for",
                new="[length - n + 1 for",
            ),
            Wrong(
                "How many n-grams does a sentence of five words have, for n = 1? Your "
                "totals are off by one.",
                old="[max(length - n + 1, 0) for",
                new="[max(length - n, 0) for",
            ),
            Wrong(
                "The references are the caller's: sort() would change their order "
                "there.",
                old=(
                    "        distances = [(abs(len(ref) - length), len(ref)) for ref "
                    "in refs]\n"
                    "        _, ref_len = min(distances)"
                ),
                new=(
                    "        refs.sort(key=lambda ref: (abs(len(ref) - length), "
                    "len(ref)))\n"
                    "        ref_len = len(refs[0])"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("bleu", "_bleu", "sentence_bleu"),
        title="BLEU: brevity, the geometric mean, smoothing",
        points=12,
        minutes=60,
        difficulty="medium",
        tests=(
            "test_bleu_by_hand",
            "test_only_sentence_bleu_leaves_out_ngrams_longer_than_the_sentence",
            "test_corpus_bleu_is_not_the_mean_over_sentences",
            "test_bleu_statistics_add_up",
            "test_bleu_agrees_with_sacrebleu_on_one_sentence",
            "test_sentence_bleu_agrees_with_sacrebleu",
        ),
        wrong=(
            Wrong(
                "Short hypotheses that contain only safe words score too high. What "
                "does the formula say about brevity?",
                old="math.exp(1 - ref_len / sys_len)",
                new="1.0",
                more=(
                    ("bp = 0.0", "bp = 1.0"),
                ),
            ),
            Wrong(
                "The brevity penalty punishes short hypotheses but does not reward "
                "long ones: bp is at most 1.",
                old="bp = 1.0",
                new="bp = math.exp(1 - ref_len / max(sys_len, 1))",
            ),
            Wrong(
                "In bp, which of the two lengths is divided by the other?",
                old="math.exp(1 - ref_len / sys_len)",
                new="math.exp(1 - sys_len / ref_len)",
            ),
            Wrong(
                "The precisions are averaged geometrically: by the mean of their "
                "logarithms.",
                old="math.exp(log_mean)",
                new="sum(included) / len(included)",
            ),
            Wrong(
                "The mean of the logarithms is their sum divided by their number.",
                old="for precision in included) / len(included)",
                new="for precision in included)",
            ),
            Wrong(
                '"exp" takes 1/2 for the first count that is 0, 1/4 for the next, and '
                "so on.",
                old="smoothed /= 2",
                new="smoothed = 0.5",
            ),
            Wrong(
                '"add-k" leaves the unigram counts as they are and starts at n = 2.',
                old="[counts[0]]",
                new="[counts[0] + 1]",
                more=(
                    ("[totals[0]]", "[totals[0] + 1]"),
                ),
            ),
            Wrong(
                "Corpus BLEU is not the mean of sentence scores: counts and lengths "
                "are summed over all sentences first.",
                old="statistics = bleu_statistics(hypotheses, references).sum(0)",
                new="statistics = bleu_statistics(hypotheses, references)",
                more=(
                    (
                        "return _bleu(statistics.tolist(), smooth_method)\n",
                        (
                            "each = [_bleu(row, smooth_method) for row in "
                            "statistics.tolist()]\n"
                            "    return each[0]._replace(score=sum(one.score for one "
                            "in each) / len(each))\n"
                        ),
                    ),
                ),
            ),
            Wrong(
                "A sentence of two words has no trigrams to get wrong: sentence_bleu "
                "leaves out every n for which there are no n-grams.",
                old=", effective_order=True",
                new="",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("_longest_common_subsequence",),
        title="dynamic programming with one row of the table",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_rouge_l_by_hand",
            "test_rouge_l_by_brute_force",
        ),
        wrong=(
            Wrong(
                "The shared words must be in the same order, but not adjacent: a gap "
                "does not reset the length to 0.",
                old="max(row[j], above[j + 1])",
                new="0",
            ),
            Wrong(
                "A match adds 1 to the cell diagonally above. From the cell directly "
                "above, a word of b could be used twice.",
                old="above[j] + 1",
                new="above[j + 1] + 1",
            ),
            Wrong(
                "A match adds 1 to the cell diagonally above. From the cell on the "
                "left, a word of a could be used twice.",
                old="above[j] + 1",
                new="row[j] + 1",
            ),
            Wrong(
                "Where the words differ, either may be skipped: look above as well as "
                "to the left.",
                old="max(row[j], above[j + 1])",
                new="row[j]",
            ),
            Wrong(
                "Where the words differ, either may be skipped: look to the left as "
                "well as above.",
                old="max(row[j], above[j + 1])",
                new="above[j + 1]",
            ),
            Wrong(
                "The number of shared words is not enough: they must come in the same "
                "order.",
                old="return row[-1]",
                new="return sum((Counter(a) & Counter(b)).values())",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("rouge_l",),
        title="ROUGE-L: how much is in the same order",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_rouge_l_by_hand",
            "test_rouge_l_by_brute_force",
            "test_rouge_l_agrees_with_the_coco_evaluation",
        ),
        wrong=(
            Wrong(
                "Recall weighs more than precision. Which of the two does β² multiply "
                "in the denominator?",
                old="(r + 1.2**2 * p)",
                new="(p + 1.2**2 * r)",
            ),
            Wrong(
                "β is 1.2, not 1: recall weighs more.",
                old="(1 + 1.2**2) * p * r / (r + 1.2**2 * p)",
                new="2 * p * r / (r + p)",
            ),
            Wrong(
                "β is squared in both places of the formula.",
                old="(1 + 1.2**2) * p * r / (r + 1.2**2 * p)",
                new="(1 + 1.2) * p * r / (r + 1.2 * p)",
            ),
            Wrong(
                "The best precision and the best recall may come from different "
                "references.",
                old="p = max(p, lcs / max(len(hypothesis), 1))",
                new="r = r if p >= lcs / max(len(hypothesis), 1) else 0.0",
                more=(
                    (
                        "r = max(r, lcs / max(len(ref), 1))",
                        (
                            "r = r or lcs / max(len(ref), 1)\n"
                            "            p = max(p, lcs / max(len(hypothesis), 1))"
                        ),
                    ),
                ),
            ),
            Wrong(
                "The best of several references counts, not their mean.",
                old="p = max(p, lcs / max(len(hypothesis), 1))",
                new="p += lcs / max(len(hypothesis), 1) / len(refs)",
            ),
            Wrong(
                "If nothing is shared, p and r are both 0, and the formula divides by "
                "0.",
                old="if p:",
                new="if True:",
            ),
            Wrong(
                "Two empty sentences are equal. What does the docstring say about "
                "them?",
                old="if hypothesis or ref:",
                new="if True:",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("document_frequencies",),
        title="in how many pictures an n-gram occurs",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_document_frequencies_by_hand",
            "test_document_frequencies_by_brute_force",
            "test_cider_d_by_hand",
            "test_cider_d_takes_the_frequencies_of_other_pictures",
        ),
        wrong=(
            Wrong(
                "A picture counts once, however often its references contain the "
                "n-gram.",
                old="ngrams = set()",
                new="ngrams = []",
                more=(
                    ("ngrams.update(_ng", "ngrams.extend(_ng"),
                ),
            ),
            Wrong(
                "All references of a picture form one document together, not one each.",
                old="ngrams = set()",
                new="ngrams = []",
                more=(
                    (
                        "ngrams.update(_ngrams(ref, n))",
                        "ngrams.extend(set(_ngrams(ref, n)))",
                    ),
                ),
            ),
            Wrong(
                "An n-gram may occur in any of a picture's references, not only in the "
                "first.",
                old="for ref in refs:",
                new="for ref in refs[:1]:",
            ),
            Wrong(
                "n-grams of 1 to 4 tokens: 4 is included.",
                old="range(1, 5)",
                new="range(1, 4)",
            ),
            Wrong(
                "`documents` is the number of pictures, not of references.",
                old="len(references)",
                new="sum(map(len, references))",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("cider_d", "_tf_idf"),
        title="CIDEr-D: rare n-grams weigh more",
        points=18,
        minutes=90,
        difficulty="hard",
        tests=(
            "test_cider_d_by_hand",
            "test_cider_d_takes_the_frequencies_of_other_pictures",
            "test_cider_d_agrees_with_the_coco_evaluation",
        ),
        wrong=(
            Wrong(
                "The D in the name: repeating an n-gram more often than the reference "
                "does must not score more. Where is min in your sum?",
                old="min(g_h[ngram], g_r[ngram])",
                new="g_h[ngram]",
            ),
            Wrong(
                "An n-gram that no reference contains is the rarest of all, not "
                "worthless: the formula has max(1, document frequency).",
                old="{ngram: idf.get(ngram, max_idf)",
                new="{ngram: idf.get(ngram, 0.0)",
                more=(
                    (
                        "count * idf.get(ngram, max_idf)",
                        "count * idf.get(ngram, 0.0)",
                    ),
                ),
            ),
            Wrong(
                "Both g in the product contain the logarithm, so it appears twice.",
                old="* g_r[ngram] for",
                new="* ngrams.count(ngram) for",
            ),
            Wrong(
                "The norms are those of g, the weighted counts.",
                old="math.hypot(*g_h.values()) * math.hypot(*g_r.values())",
                new="(len(g_h) * len(g_r)) ** 0.5",
            ),
            Wrong(
                "A difference in length must cost something: the factor exp(…) is "
                "missing.",
                old="total += gaussian * similarity",
                new="total += similarity",
            ),
            Wrong(
                "σ is squared in the formula, so a small difference costs little.",
                old="(2 * 6.0**2)",
                new="(2 * 6.0)",
            ),
            Wrong(
                "The score is also the mean over n = 1 to 4; yours exceeds 10.",
                old="similarity / 4",
                new="similarity",
            ),
            Wrong(
                "Average over the references; do not take the best.",
                old="total += gaussian * similarity / 4",
                new="total = max(total, gaussian * similarity / 4)",
                more=(
                    (" / len(refs)", ""),
                ),
            ),
            Wrong(
                "If frequencies are passed, use them; those of the references are only "
                "the default.",
                old="if frequencies is None:",
                new="if True:",
            ),
            Wrong(
                "The counts are the caller's: a setdefault() for an n-gram that they "
                "lack changes them.",
                old="    counts, documents = frequencies\n",
                new=(
                    "    counts, documents = frequencies\n"
                    "    for hypothesis in hypotheses:\n"
                    "        for ngram in _ngrams(hypothesis, 1):\n"
                    "            counts.setdefault(ngram, 0)\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("bootstrap",),
        title="a confidence interval by resampling",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_the_interval_comes_from_1000_scores_of_resampled_sums",
            "test_the_interval_of_a_mean_is_close_to_the_normal_one",
            "test_the_same_seed_gives_the_same_interval",
            "test_no_examples_have_no_interval",
            "test_the_interval_leaves_the_global_random_numbers_alone",
        ),
        wrong=(
            Wrong(
                "Draw with replacement: some examples occur twice and others never. If "
                "each occurs once, all sums are the same.",
                old="rng.integers(N, size=N)",
                new="rng.permutation(N)",
            ),
            Wrong(
                "95 % in the middle leaves 2.5 % at each end, not 5 %.",
                old="scores[25].tolist(), scores[-26]",
                new="scores[50].tolist(), scores[-51]",
            ),
            Wrong(
                "The lowest and the highest score depend on chance alone: cut off 2.5 "
                "% at each end.",
                old="scores[25].tolist(), scores[-26]",
                new="scores[0].tolist(), scores[-1]",
            ),
            Wrong(
                "`score` takes the sums over the drawn examples, not their means.",
                old="].sum(0)",
                new="].mean(0)",
            ),
            Wrong(
                "Draw N examples each time: with fewer, the interval is too wide.",
                old="rng.integers(N, size=N)",
                new="rng.integers(N, size=(N + 1) // 2)",
            ),
            Wrong(
                "Sort the scores before you cut off the ends.",
                old="np.sort(scores, axis=0)",
                new="np.array(scores)",
            ),
            Wrong(
                "If `score` returns several scores, sort each over the 1,000 draws.",
                old=", axis=0)",
                new=", axis=-1)",
            ),
            Wrong(
                "The same seed must give the same interval: pass it to the random "
                "generator.",
                old="default_rng(seed)",
                new="default_rng()",
            ),
            Wrong(
                "Without any example there is nothing to draw: say so with a "
                "ValueError.",
                old="if N == 0:",
                new="if False:",
            ),
            Wrong(
                "np.random.seed changes the random numbers of the whole program: make "
                "a generator of your own.",
                old="rng = np.random.default_rng(seed)",
                new=(
                    "np.random.seed(seed)\n"
                    "    rng = np.random"
                ),
                more=(
                    (
                        "rng.integers(N, size=N)",
                        "rng.randint(N, size=N)",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="text",
        parts=("caption_tokenize",),
        title="the words that papers count",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_caption_tokenize_agrees_with_java",
        ),
        wrong=(
            Wrong(
                'A list defines what counts as punctuation. It has "!" but not '
                '"!!", which therefore stays a word.',
                old="if token not in _PUNCTUATION:",
                new="if any(map(str.isalnum, token)):",
            ),
            Wrong(
                "Punctuation marks are not words here: commas and full stops must go.",
                old="if token not in _PUNCTUATION:",
                new="if token:",
            ),
            Wrong(
                "Lower-case after the split, not before: the pattern "
                'distinguishes "Miss." from "miss." by the capital.',
                old="_PTB_TOKEN.findall(text)",
                new="_PTB_TOKEN.findall(text.lower())",
            ),
            Wrong(
                "In the end, capital and small letters should give the same word.",
                old="token = token.lower()",
                new="token = str(token)",
            ),
            Wrong(
                "Some of the text is replaced before it is split: &amp; is only "
                "another way to write &.",
                old="_TEXT_REPLACEMENTS.items()",
                new="{}.items()",
            ),
            Wrong(
                "Some tokens are replaced after the split: ½ becomes 1/2, and ’s "
                "becomes 's.",
                old="_TOKEN_REPLACEMENTS.get(token, token)",
                new="token",
            ),
            Wrong(
                "Brackets are spelled out in letters, even in the middle of a token.",
                old='token.replace("(", "-lrb-").replace(")", "-rrb-")',
                new="str(token)",
            ),
            Wrong(
                '"1 1/2" is one token: its space becomes a no-break space.',
                old='.replace(" ", "\\u00a0")',
                new="",
            ),
        ),
    ),
)
