"""The exercises of chapter 9: BLEU and its relatives."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=9,
        module="metrics",
        parts=("exact_match",),
        title="word for word what somebody wrote",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_exact_match",
        ),
        wrong=(
            Wrong(
                "Any of the references will do, not only the first.",
                old="in map(list, refs)",
                new="in map(list, refs[:1])",
            ),
            Wrong(
                "Word for word: the same words in another order are another sentence.",
                old="list(h) in map(list, refs)",
                new="sorted(h) in map(sorted, refs)",
            ),
            Wrong(
                'A set forgets the order, and how often a word is there: ["a"] is '
                'not ["a", "a"].',
                old="list(h) in map(list, refs)",
                new="set(h) in map(set, refs)",
            ),
            Wrong(
                "A tuple never equals a list, though both may hold the same words.",
                old="list(h) in map(list, refs)",
                new="h in refs",
            ),
            Wrong(
                "There may be no hypotheses at all. Then the share is 0, not an error.",
                old="max(len(hypotheses), 1)",
                new="len(hypotheses)",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("_ngrams",),
        title="n words in a row",
        points=1,
        minutes=5,
        difficulty="easy",
        tests=(
            "test_document_frequencies_by_brute_force",
            "test_the_statistics_of_bleu_by_brute_force",
            "test_cider_d_by_hand",
        ),
        wrong=(
            Wrong(
                "Five words hold three n-grams of three. Count at both ends: the "
                "last n-gram ends with the last word.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="zip(*[tokens[i:-1] for i in range(n)])",
            ),
            Wrong(
                "At the end too few words are left: what is shorter than n is no "
                "n-gram.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="(tuple(tokens[i : i + n]) for i in range(len(tokens)))",
            ),
            Wrong(
                "n-grams overlap: one begins at each word.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new=(
                    "(tuple(tokens[i : i + n]) for i in range(0, len(tokens) - n "
                    "+ 1, n))"
                ),
            ),
            Wrong(
                "They are counted and kept in sets, which takes something that "
                "cannot change: a tuple, not a list.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="map(list, zip(*[tokens[i:] for i in range(n)]))",
            ),
            Wrong(
                "What stands there twice has to come twice, as others count it.",
                old="zip(*[tokens[i:] for i in range(n)])",
                new="iter(set(zip(*[tokens[i:] for i in range(n)])))",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("bleu_statistics",),
        title="what BLEU adds up: lengths, n-grams found, n-grams written",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_the_statistics_of_bleu_by_brute_force",
            "test_the_statistics_of_bleu_add_up",
            "test_bleu_agrees_with_sacrebleu_on_one_sentence",
        ),
        wrong=(
            Wrong(
                'Is it clipped? "the the the" has one word right, not three, if a '
                'reference has "the" only once.',
                old="min(count, most[ngram])",
                new="count if most[ngram] else 0",
            ),
            Wrong(
                "It is clipped by the one reference that has most of it, not by "
                "all of them together.",
                old="if ngram in most and count > most[ngram]:",
                new="if ngram in most:",
                more=(
                    ("most[ngram] = count", "most[ngram] += count"),
                ),
            ),
            Wrong(
                "What is rightly written twice counts twice, if a reference has "
                "it twice. Does a set stand where a count should?",
                old="min(count, most[ngram])",
                new="min(1, most[ngram])",
            ),
            Wrong(
                "Two references may be equally close in length. Then the shorter "
                "one counts.",
                old="min((abs(len(ref) - length), len(ref)) for ref in refs)[1]",
                new="-min((abs(len(ref) - length), -len(ref)) for ref in refs)[1]",
            ),
            Wrong(
                "The reference length that counts is the closest to the "
                "hypothesis', not the smallest.",
                old="min((abs(len(ref) - length), len(ref)) for ref in refs)[1]",
                new="min(len(ref) for ref in refs)",
            ),
            Wrong(
                "All references have a say in the length, not only the first.",
                old="min((abs(len(ref) - length), len(ref)) for ref in refs)[1]",
                new="len(refs[0])",
            ),
            Wrong(
                "A sentence of two words has no trigrams: 0 of them, and not fewer.",
                old="[max(length - n + 1, 0) for",
                new="[length - n + 1 for",
            ),
            Wrong(
                "How many n-grams has a sentence of five words, for n = 1? The "
                "totals are off by one.",
                old="[max(length - n + 1, 0) for",
                new="[max(length - n, 0) for",
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
            "test_a_sentence_shorter_than_an_n_gram_has_a_bleu_of_its_own_and_none_as_a_corpus",
            "test_bleu_of_a_corpus_is_not_the_mean_over_sentences",
            "test_the_statistics_of_bleu_add_up",
            "test_bleu_agrees_with_sacrebleu_on_one_sentence",
            "test_sentence_bleu_agrees_with_sacrebleu",
        ),
        wrong=(
            Wrong(
                "Who writes little, and only what is sure, scores too high. What "
                "does the formula say of a short hypothesis?",
                old="math.exp(1 - ref_len / sys_len)",
                new="1.0",
                more=(
                    ("bp = 0.0", "bp = 1.0"),
                ),
            ),
            Wrong(
                "Brevity punishes who is shorter. It rewards nobody for being "
                "longer: bp is at most 1.",
                old="bp = 1.0",
                new="bp = math.exp(1 - ref_len / max(sys_len, 1))",
            ),
            Wrong(
                "In bp, which of the two lengths is divided by which?",
                old="math.exp(1 - ref_len / sys_len)",
                new="math.exp(1 - sys_len / ref_len)",
            ),
            Wrong(
                "The mean of the precisions is the geometric one: a mean of their "
                "logarithms.",
                old="math.exp(log_mean)",
                new="sum(known) / len(known)",
            ),
            Wrong(
                "The logarithms are added up, but a mean divides by how many "
                "there are.",
                old="for precision in known) / len(known)",
                new="for precision in known)",
            ),
            Wrong(
                '"exp" takes 1/2 for the first count that is 0, 1/4 for the next, '
                "and so on.",
                old="halved /= 2",
                new="halved = 0.5",
            ),
            Wrong(
                '"add-k" leaves the single words as they are, and begins with n = 2.',
                old="[counts[0]]",
                new="[counts[0] + 1]",
                more=(
                    ("[totals[0]]", "[totals[0] + 1]"),
                ),
            ),
            Wrong(
                "A corpus is not the mean of its sentences: counts and lengths "
                "are added up over all of them, and divided once.",
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
                "A sentence of two words has no trigrams to get wrong. In "
                "sentence_bleu, what cannot be counted is left out.",
                old=", effective_order=True",
                new="",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("_longest_common_subsequence",),
        title="a table, of which one row is enough",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_rouge_l_by_hand",
            "test_rouge_l_by_brute_force",
        ),
        wrong=(
            Wrong(
                "The shared words must stand in the same order, but not side by "
                "side: a gap does not begin anew from 0.",
                old="max(row[j], above[j + 1])",
                new="0",
            ),
            Wrong(
                "A word that fits adds 1 to the cell diagonally above. From the "
                "one directly above, a word of b could be used twice.",
                old="above[j] + 1 if",
                new="above[j + 1] + 1 if",
            ),
            Wrong(
                "A word that fits adds 1 to the cell diagonally above. From the "
                "one on the left, a word of a could be used twice.",
                old="above[j] + 1 if",
                new="row[j] + 1 if",
            ),
            Wrong(
                "Where the words differ, either may be left out: look above as "
                "well as to the left.",
                old="max(row[j], above[j + 1])",
                new="row[j]",
            ),
            Wrong(
                "Where the words differ, either may be left out: look to the left "
                "as well as above.",
                old="max(row[j], above[j + 1])",
                new="above[j + 1]",
            ),
            Wrong(
                "How many words both have is not enough: they must come in the "
                "same order.",
                old="return row[-1]",
                new="return sum((Counter(a) & Counter(b)).values())",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("rouge_l",),
        title="ROUGE-L: how much comes in the same order",
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
                "Recall weighs more than precision. Which of the two does β² "
                "stand beside, below the line?",
                old="(r + 1.2**2 * p)",
                new="(p + 1.2**2 * r)",
            ),
            Wrong(
                "β is 1.2, not 1: recall weighs more.",
                old="(1 + 1.2**2) * p * r / (r + 1.2**2 * p)",
                new="2 * p * r / (r + p)",
            ),
            Wrong(
                "It is β squared in the formula, in both places.",
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
                "Of several references the best one counts, not their mean.",
                old="p = max(p, lcs / max(len(hypothesis), 1))",
                new="p += lcs / max(len(hypothesis), 1) / len(refs)",
            ),
            Wrong(
                "If nothing is shared, p and r are both 0, and the formula "
                "divides by 0.",
                old="if p:",
                new="if True:",
            ),
            Wrong(
                "Two sentences without words are equal. What does the docstring "
                "say of them?",
                old="if hypothesis or ref:",
                new="if True:",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("document_frequencies",),
        title="in how many pictures an n-gram is mentioned",
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
                "A picture counts once, however often its references have the n-gram.",
                old="ngrams = set()",
                new="ngrams = []",
                more=(
                    ("ngrams.update(_ng", "ngrams.extend(_ng"),
                ),
            ),
            Wrong(
                "All references of a picture are one document together, not one each.",
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
                "An n-gram may stand in any of a picture's references, not only "
                "in the first.",
                old="for ref in refs:",
                new="for ref in refs[:1]:",
            ),
            Wrong(
                "One to four tokens, and four is included.",
                old="range(1, 5)",
                new="range(1, 4)",
            ),
            Wrong(
                "How many documents are there: pictures, not references.",
                old="len(references)",
                new="sum(map(len, references))",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("cider_d", "_weigh"),
        title="CIDEr-D: what is worth saying",
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
                "The D: what is written more often than the reference has it must "
                "not count more. Where is min in your sum?",
                old="min(g_h[ngram], g_r[ngram])",
                new="g_h[ngram]",
            ),
            Wrong(
                "What stands in no reference at all is the rarest of all, not "
                "worthless: the formula has max(1, frequency).",
                old="{ngram: rarity.get(ngram, rarest)",
                new="{ngram: rarity.get(ngram, 0.0)",
                more=(
                    (
                        "count * rarity.get(ngram, rarest)",
                        "count * rarity.get(ngram, 0.0)",
                    ),
                ),
            ),
            Wrong(
                "Both g in the product have their logarithm, so it is there twice.",
                old="* g_r[ngram] for",
                new="* ngrams.count(ngram) for",
            ),
            Wrong(
                "The norms are those of g, that is, of the counts with their weights.",
                old="(math.hypot(*g_h.values()) * math.hypot(*g_r.values()))",
                new="(len(g_h) * len(g_r)) ** 0.5",
            ),
            Wrong(
                "A difference in length should cost something: the factor exp(…) "
                "is missing.",
                old="total += gaussian * similarity",
                new="total += similarity",
            ),
            Wrong(
                "σ is squared in the formula, so a small difference costs little.",
                old="(2 * 6.0**2)",
                new="(2 * 6.0)",
            ),
            Wrong(
                "The score is the mean over n = 1 to 4 as well; yours goes beyond 10.",
                old="similarity / 4",
                new="similarity",
            ),
            Wrong(
                "The mean over the references, not the best of them.",
                old="total += gaussian * similarity / 4",
                new="total = max(total, gaussian * similarity / 4)",
                more=(
                    (" / len(refs)", ""),
                ),
            ),
            Wrong(
                "Frequencies that are given come first; those of the references "
                "stand in only if there are none.",
                old="frequencies or document_frequencies(references)",
                new="document_frequencies(references)",
            ),
        ),
    ),
    Exercise(
        chapter=9,
        module="metrics",
        parts=("bootstrap",),
        title="how sure is a score?",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_the_interval_is_cut_from_a_thousand_scores_of_sums",
            "test_the_interval_of_a_mean_is_near_the_normal_one",
            "test_the_same_seed_gives_the_same_interval",
        ),
        wrong=(
            Wrong(
                "Drawn with repetition: some examples come twice and others "
                "never. If each comes once, all sums are the same.",
                old="draw.integers(N, size=N)",
                new="draw.permutation(N)",
            ),
            Wrong(
                "95 % in the middle leaves 2.5 % at each end, not 5 %.",
                old="scores[25].tolist(), scores[-26]",
                new="scores[50].tolist(), scores[-51]",
            ),
            Wrong(
                "The lowest and the highest of all depend on chance alone: 2.5 % "
                "are cut off at each end.",
                old="scores[25].tolist(), scores[-26]",
                new="scores[0].tolist(), scores[-1]",
            ),
            Wrong(
                "`score` takes sums over the drawn examples, not their means.",
                old="].sum(0)",
                new="].mean(0)",
            ),
            Wrong(
                "As many as there are examples are drawn each time: with fewer, "
                "the interval is too wide.",
                old="draw.integers(N, size=N)",
                new="draw.integers(N, size=(N + 1) // 2)",
            ),
            Wrong(
                "Nothing can be cut off at the ends before the scores are in order.",
                old="np.sort(scores, axis=0)",
                new="np.array(scores)",
            ),
            Wrong(
                "If `score` makes several, each is put in order by itself, over "
                "the 1,000 draws.",
                old=", axis=0)",
                new=", axis=-1)",
            ),
            Wrong(
                "The same seed must give the same interval: chance begins from it.",
                old="default_rng(seed)",
                new="default_rng()",
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
                "A list defines what counts as punctuation. It has single "
                'characters only, so "!!" stays a word.',
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
                "Capital and small letters should give the same word in the end.",
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
                "A bracket has a name in letters, even in the middle of a token.",
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
