"""The exercises of chapter 13: image–text retrieval."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=13,
        module="contrastive",
        parts=("AttentionPooling.forward",),
        title="one vector from many",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_pooling_equals_its_formula_over_the_unmasked_positions",
            "test_pooling_ignores_masked_positions_and_order",
            "test_fully_masked_memory_is_pooled_to_zeros",
            "test_new_pooling_is_nearly_the_mean",
        ),
        wrong=(
            Wrong(
                "Padding must get no weight: attention needs the memory's mask.",
                old="mask.unsqueeze(1)",
                new="None",
            ),
            Wrong(
                "The query decides how much each position weighs: this is the mean.",
                old=(
                    "scaled_dot_product_attention(query, tokens, tokens, "
                    "mask.unsqueeze(1))"
                ),
                new="memory.mean().unsqueeze(1)",
            ),
            Wrong(
                "Divide the scores by √D once: `scaled_dot_product_attention` "
                "does it already.",
                old="self.query.expand(",
                new="(self.query / len(self.query) ** 0.5).expand(",
            ),
            Wrong(
                "The formula divides the scores by √D.",
                old="self.query.expand(",
                new="(self.query * len(self.query) ** 0.5).expand(",
            ),
            Wrong(
                "A fully masked memory is pooled to zeros: a softmax over -inf "
                "alone is NaN.",
                old=(
                    "scaled_dot_product_attention(query, tokens, tokens, "
                    "mask.unsqueeze(1))"
                ),
                new=(
                    "(query @ tokens.mT / len(self.query) ** "
                    "0.5).masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1) @ "
                    "tokens"
                ),
            ),
            Wrong(
                "The weights sum to 1: a softmax over the positions, not a "
                "sigmoid of each score.",
                old=(
                    "scaled_dot_product_attention(query, tokens, tokens, "
                    "mask.unsqueeze(1))"
                ),
                new=(
                    "((query @ tokens.mT / len(self.query) ** 0.5).sigmoid() * "
                    "mask.unsqueeze(1)) @ tokens"
                ),
            ),
            Wrong(
                "The result has no axis for the query: (B, D), not (B, 1, D).",
                old="pooled.squeeze(1)",
                new="pooled",
            ),
            Wrong(
                "squeeze() without a number removes the batch axis, too, if there is "
                "one memory only.",
                old="pooled.squeeze(1)",
                new="pooled.squeeze()",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="contrastive",
        parts=("contrastive_loss", "_contrastive_losses"),
        title="which sentence, which picture",
        points=10,
        minutes=50,
        difficulty="hard",
        tests=(
            "test_contrastive_loss_with_same_equals_loops",
            "test_same_is_left_out_of_both_directions",
            "test_temperature_is_clamped",
            "test_loss_without_negatives_is_zero",
            "test_the_largest_scale_does_not_overflow_in_float32",
        ),
        wrong=(
            Wrong(
                "Both directions count: the sentence of each picture, and the "
                "picture of each sentence.",
                old="(a_to_b + b_to_a) / 2",
                new="a_to_b",
            ),
            Wrong(
                "Of the two directions, take the mean, not the sum.",
                old="(a_to_b + b_to_a) / 2",
                new="a_to_b + b_to_a",
            ),
            Wrong(
                "One softmax is over the rows of the logits, the other over the "
                "columns.",
                old="logits.logsumexp(0)",
                new="logits.logsumexp(1)",
            ),
            Wrong(
                "The loss is averaged over the pairs, not summed.",
                old="(a, b, log_scale, same).mean()",
                new="(a, b, log_scale, same).sum()",
            ),
            Wrong(
                "log_scale is a logarithm: the logits are multiplied by its "
                "exponential.",
                old="log_scale.clamp(max=MAX_LOG_SCALE).exp()",
                new="log_scale.clamp(max=MAX_LOG_SCALE)",
            ),
            Wrong(
                "exp(log_scale) is 1 / temperature: multiply by it.",
                old="scale * a",
                new="a / scale",
            ),
            Wrong(
                "The temperature may not fall below 0.01: clamp log_scale at ln 100.",
                old="log_scale.clamp(max=MAX_LOG_SCALE).exp()",
                new="log_scale.exp()",
            ),
            Wrong(
                "Clamp the logarithm, not its exponential: exp(4000) is infinite, "
                "and its gradient NaN.",
                old="log_scale.clamp(max=MAX_LOG_SCALE).exp()",
                new="log_scale.exp().clamp(max=100)",
            ),
            Wrong(
                "Beyond ln 100, log_scale has no gradient.",
                old="log_scale.clamp(max=MAX_LOG_SCALE).exp()",
                new=(
                    "(log_scale + (log_scale.clamp(max=MAX_LOG_SCALE) - "
                    "log_scale).detach()).exp()"
                ),
            ),
            Wrong(
                "The diagonal always counts, even where `same` is True on it.",
                old="_off_diagonal(same)",
                new="same",
            ),
            Wrong(
                "same[i, j] says that b_j fits a_i: it belongs to row i and "
                "column j of the logits.",
                old="_off_diagonal(same)",
                new="_off_diagonal(same).T",
            ),
            Wrong(
                "`same` need not be symmetric: leave out [i, j] only, not [j, i].",
                old="_off_diagonal(same)",
                new="_off_diagonal(same | same.T)",
            ),
            Wrong(
                "A logit of 0 still counts, as exp(0) = 1. Which logit counts as "
                "nothing?",
                old="-math.inf",
                new="0.0",
            ),
            Wrong(
                "Leave the pairs in `same` out of both softmaxes, not of one.",
                old="logits.logsumexp(0)",
                new="_dot_products(scale * a, b).logsumexp(0)",
            ),
            Wrong(
                "`same` says which pairs are no negatives: do not ignore it.",
                old="if same is not None:",
                new="if False:",
            ),
            Wrong(
                "`same` is the caller's, and another loss may need it: do not fill "
                "its diagonal in place.",
                old="_off_diagonal(same)",
                new="same.fill_diagonal_(False)",
            ),
            Wrong(
                "Logits go up to 100, and exp(100) is infinite in float32: logsumexp "
                "subtracts the largest.",
                old="logits.logsumexp(1)",
                new="logits.exp().sum(1).log()",
                more=(
                    (
                        "logits.logsumexp(0)",
                        "logits.exp().sum(0).log()",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="contrastive",
        parts=("hardest_negative_loss", "_hardest_negative_losses"),
        title="only the hardest negative",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_hardest_negative_loss_equals_loops",
            "test_loss_without_negatives_is_zero",
        ),
        wrong=(
            Wrong(
                "Only the hardest negative counts: the largest, not the sum over all.",
                old="(margin + negatives.amax(1) - positives)",
                new="(margin + negatives - positives.unsqueeze(1)).clamp(min=0).sum(1)",
            ),
            Wrong(
                "The hardest negative of a sentence is the largest score in its "
                "column.",
                old="negatives.amax(0)",
                new="negatives.amax(1)",
            ),
            Wrong(
                "The hardest negative is the one with the largest score.",
                old="negatives.amax(1)",
                new="negatives.masked_fill(excluded, math.inf).amin(1)",
            ),
            Wrong(
                "Both directions count.",
                old="return a_to_b + b_to_a",
                new="return a_to_b",
            ),
            Wrong(
                "The two directions are added, not averaged.",
                old="return a_to_b + b_to_a",
                new="return (a_to_b + b_to_a) / 2",
            ),
            Wrong(
                "The loss is averaged over the pairs, not summed.",
                old="(a, b, same, margin).mean()",
                new="(a, b, same, margin).sum()",
            ),
            Wrong(
                "A pair that is right by more than the margin has no loss, not a "
                "negative one.",
                old="(margin + negatives.amax(1) - positives).clamp(min=0)",
                new="(margin + negatives.amax(1) - positives)",
            ),
            Wrong(
                "The positive must be ahead by the margin.",
                old="(margin + negatives.amax(1) - positives)",
                new="(negatives.amax(1) - positives)",
            ),
            Wrong(
                "A pair is not its own negative: leave out the diagonal.",
                old="torch.eye(len(a), dtype=torch.bool, device=a.device)",
                new="torch.zeros(len(a), len(a), dtype=torch.bool)",
            ),
            Wrong(
                "`same` says which pairs are no negatives.",
                old="excluded | same",
                new="excluded",
            ),
            Wrong(
                "same[i, j] says that b_j fits a_i: it belongs to row i and "
                "column j of the scores.",
                old="excluded | same",
                new="excluded | same.T",
            ),
            Wrong(
                "All scores may be below 0: a masked one must be below all of them.",
                old="-math.inf",
                new="0.0",
            ),
            Wrong(
                "`same` is the caller's: do not fill its diagonal in place.",
                old="excluded = excluded | same",
                new="excluded = same.fill_diagonal_(True)",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="contrastive",
        parts=("sentence_fingerprint",),
        title="a number for a sentence",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_fingerprint_depends_on_words_and_order_but_not_on_padding",
            "test_fingerprints_of_many_sentences_are_unique",
        ),
        wrong=(
            Wrong(
                "The order of the words counts: multiply each by another power.",
                old="tokens * powers",
                new="tokens",
            ),
            Wrong(
                "Powers rise: base, base², base³ …, not the base each time.",
                old=".cumprod(0)",
                new="",
            ),
            Wrong(
                "Padding must not change the number: the first word has the first "
                "power.",
                old=".cumprod(0)",
                new=".cumprod(0).flip(0)",
            ),
            Wrong(
                "A small base gives different sentences the same number: use "
                "HASH_BASE.",
                old="HASH_BASE)",
                new="3)",
            ),
            Wrong(
                "An even base has powers that are 0 modulo 2⁶⁴, which forget the "
                "words: use HASH_BASE.",
                old="HASH_BASE)",
                new="2**32)",
            ),
            Wrong(
                "Stay with integers: in floating point, large numbers are rounded.",
                old="(tokens * powers)",
                new="(tokens.double() * powers)",
            ),
            Wrong(
                "The length of the padded row says nothing about the sentence.",
                old=".sum(1)",
                new=".sum(1) + tokens.size(1)",
            ),
            Wrong(
                "One number for each sentence: sum over the words.",
                old=".sum(1)",
                new=".sum(0)",
            ),
            Wrong(
                "The powers must be on the device of the tokens.",
                old="torch.full_like(tokens[0], HASH_BASE)",
                new="torch.full((tokens.size(1),), HASH_BASE)",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="contrastive",
        parts=("DualEncoder.embed",),
        title="a vector of length 1",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_embeddings_have_length_one_and_do_not_depend_on_the_rest_of_the_batch",
            "test_embedding_is_the_scaled_projection_of_the_pooled_memory",
            "test_lengths_of_sequences_go_to_the_encoder",
        ),
        wrong=(
            Wrong(
                "The vectors have length 1, so that their dot product is a cosine.",
                old="F.normalize(vectors, dim=1)",
                new="vectors",
            ),
            Wrong(
                "Each vector has length 1: divide by the norm of its row, not of "
                "its column.",
                old="F.normalize(vectors, dim=1)",
                new="F.normalize(vectors, dim=0)",
            ),
            Wrong(
                "First project, then scale to length 1.",
                old="self.projection[modality](pooled)",
                new="self.projection[modality](F.normalize(pooled, dim=1))",
                more=(("F.normalize(vectors, dim=1)", "vectors"),),
            ),
            Wrong(
                "The learned query of the modality pools the memory: this is the mean.",
                old="self.pooling[modality](memory)",
                new="memory.mean()",
            ),
            Wrong(
                "Each modality has its own projection.",
                old="self.projection[modality]",
                new='self.projection["target"]',
            ),
            Wrong(
                "An encoder may need several inputs: pass all of them on.",
                old="(*inputs)",
                new="(inputs[0])",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="metrics",
        parts=("retrieval_ranks",),
        title="the rank of the right answer",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_retrieval_ranks_by_brute_force",
            "test_ranks_of_both_directions_with_several_captions_by_hand",
            "test_a_model_that_scores_all_items_alike_is_last",
            "test_ranks_without_queries_or_irrelevant_items",
            "test_ranks_need_fitting_shapes_types_and_a_relevant_item",
        ),
        wrong=(
            Wrong(
                "A tie counts against the model. Otherwise one that scores all "
                "items alike is always first.",
                old="~(scores < best)",
                new="(scores > best)",
            ),
            Wrong(
                "NaN is a tie, so it counts against the model: it is not below "
                "anything.",
                old="~(scores < best)",
                new="(scores >= best)",
            ),
            Wrong(
                "Other relevant items are never in the way: count the irrelevant ones.",
                old="& ~relevant",
                new="& ~(relevant & (scores == best))",
            ),
            Wrong(
                "The best relevant item counts, not the first.",
                old="candidates.amax(1, keepdim=True)",
                new="scores.gather(1, relevant.float().argmax(1, keepdim=True))",
            ),
            Wrong(
                "The best relevant item counts, not the worst.",
                old="candidates.amax(1, keepdim=True)",
                new="scores.masked_fill(~relevant, math.inf).amin(1, keepdim=True)",
            ),
            Wrong(
                "One relevant score that is NaN must not spoil the others: leave "
                "it out of the maximum.",
                old=" | scores.isnan()",
                new="",
            ),
            Wrong(
                "Ranks start from 1.",
                old="1 + ahead.sum(1)",
                new="ahead.sum(1)",
            ),
            Wrong(
                "A rank for each query: sum over the gallery.",
                old="ahead.sum(1)",
                new="ahead.sum(0)",
            ),
            Wrong(
                "Without queries there are no ranks, and nothing to take a maximum of.",
                old="if len(scores) == 0:",
                new="if False:",
            ),
            Wrong(
                "A query without a right answer has no rank, and any number would be "
                "a lie.",
                old="if not has_answer.all():",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="metrics",
        parts=("recall_at",),
        title="among the first k?",
        points=2,
        minutes=10,
        difficulty="easy",
        tests=(
            "test_recall_counts_ranks_up_to_k",
            "test_recall_at_agrees_with_scikit_learn_where_one_item_is_right",
            "test_ranks_without_queries_or_irrelevant_items",
            "test_recall_at_less_than_one_raises",
        ),
        wrong=(
            Wrong(
                "Ranks start from 1: rank k is among the first k.",
                old="ranks <= k",
                new="ranks < k",
            ),
            Wrong(
                "Return 1.0 or 0.0 for each query, not their mean: its confidence "
                "interval needs them.",
                old="(ranks <= k).float().tolist()",
                new="[(ranks <= k).float().mean().item()]",
            ),
            Wrong(
                "Is a relevant item among the first k? Not: how near the top is it?",
                old="(ranks <= k).float()",
                new="((ranks <= k) / ranks)",
            ),
            Wrong(
                "Among the first 0 there is nothing: that is a mistake of the caller, "
                "not a recall of 0.",
                old="if k < 1:",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="metrics",
        parts=("median_rank",),
        title="half are found before it",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_median_rank_is_that_of_numpy_and_resamples_whole_pictures",
            "test_median_of_an_even_number_of_ranks_is_the_mean_of_the_two_in_the_middle",
            "test_median_rank_of_captions_alike_is_as_uncertain_as_that_of_one_caption",
            "test_median_rank_of_invalid_inputs_raises",
        ),
        wrong=(
            Wrong(
                "Resample pictures, each with all its captions: these are not "
                "independent of each other.",
                old="_group_members(pictures)",
                new="_group_members(range(len(pictures)))",
            ),
            Wrong(
                "With an even number of ranks, the median is the mean of the two "
                "middle ones.",
                old="[(total - 1) // 2, total // 2]",
                new="[(total - 1) // 2]",
            ),
            Wrong(
                "With an even number of ranks there are two middle ones: not only "
                "the upper.",
                old="[(total - 1) // 2, total // 2]",
                new="[total // 2]",
            ),
            Wrong(
                "The median, not the mean: one rank of 1,000 must not move it.",
                old="float(values[middle].mean())",
                new="float((values * sums).sum() / total)",
            ),
            Wrong(
                "A rank may occur several times in a picture: count all of them.",
                old="np.add.at(row, columns[queries], 1)",
                new="row[columns[queries]] = 1",
            ),
            Wrong(
                "The first position whose cumulated count is above the middle's index.",
                old='side="right"',
                new='side="left"',
            ),
            Wrong(
                "Each rank has its picture: what if the lists are of different "
                "lengths?",
                old="if len(ranks) != len(pictures):",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="search",
        parts=("search", "_largest"),
        title="the k best of a million",
        points=10,
        minutes=50,
        difficulty="hard",
        tests=(
            "test_search_is_that_of_brute_force_with_ties_in_the_order_of_indices",
            "test_search_agrees_with_topk_of_the_whole_product",
            "test_half_precision_vectors_are_searched_in_single_precision",
            "test_a_memory_mapped_file_is_searched_like_a_tensor",
            "test_search_reads_one_chunk_at_a_time_and_changes_nothing",
            "test_infinite_scores_are_ordered_like_others",
            "test_nan_is_refused_wherever_it_is",
            "test_shapes_that_do_not_fit_and_numbers_below_1_are_refused",
        ),
        wrong=(
            Wrong(
                "Positions within a chunk are not indices: add the chunk's first.",
                old="first + where",
                new="where",
            ),
            Wrong(
                "Keep the k best of all chunks so far, not of the last.",
                old="torch.cat([best, scores], dim=1)",
                new="scores",
                more=(("torch.cat([indices, first + where], dim=1)", "first + where"),),
            ),
            Wrong(
                "The indices go the way of their scores: sort them in the same order.",
                old="indices.gather(1, order[:, :k])",
                new="indices[:, :k]",
            ),
            Wrong(
                "The best one comes first.",
                old="best.sort(dim=1, descending=True, stable=True)",
                new="best.sort(dim=1, stable=True)",
            ),
            Wrong(
                "Vectors with equal scores are in the order of their indices: "
                "topk may take any of them.",
                old="if has_ties.any():",
                new="if False:",
            ),
            Wrong(
                "A sort that is not stable mixes up vectors with equal scores.",
                old="best.sort(dim=1, descending=True, stable=True)",
                new="best.flip(1).sort(dim=1, descending=True, stable=True)",
                more=(
                    (
                        "indices.gather(1, order[:, :k])",
                        "indices.flip(1).gather(1, order[:, :k])",
                    ),
                ),
            ),
            Wrong(
                "Of vectors with equal scores, the one with the lower index comes "
                "first, within a chunk, too.",
                old="indices, _ = indices.sort(dim=1)",
                new="indices, _ = indices.sort(dim=1, descending=True)",
            ),
            Wrong(
                "Products in half precision are too coarse: convert vectors and "
                "queries to float32.",
                old="queries @ converted.T",
                new="queries.half() @ converted.half().T",
            ),
            Wrong(
                "Convert one chunk at a time: the vectors may not fit into memory.",
                old="vectors[first : first + chunk_size]",
                new=(
                    "(vectors if isinstance(vectors, Tensor) else "
                    "torch.from_numpy(np.array(vectors[0:N])))[first : first + "
                    "chunk_size]"
                ),
            ),
            Wrong(
                "The last chunk may be shorter, but it counts.",
                old="range(0, N, chunk_size)",
                new="range(0, N - N % chunk_size, chunk_size)",
            ),
            Wrong(
                "With fewer than k vectors, there are N results.",
                old="k = min(k, scores.size(1))",
                new="k = k",
            ),
            Wrong(
                "NaN is sorted to the front: what was found is then not the best.",
                old="if best.isnan().any():",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=13,
        module="data.judge",
        parts=("true_pairs",),
        title="which negatives are none",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_true_pairs_are_those_of_the_judge",
            "test_true_pairs_of_the_scenes_of_each_split_are_those_of_the_judge",
            "test_true_pairs_of_nothing_and_of_an_unknown_language",
        ),
        wrong=(
            Wrong(
                "A caption may be true of several scenes: look at all that have "
                "its nouns.",
                old="for j in scenes_by_nouns.get(tuple(nouns), []):",
                new="for j in scenes_by_nouns.get(tuple(nouns), [])[:1]:",
            ),
            Wrong(
                "The same nouns are not enough: colours, sizes and places must be "
                "right, too.",
                old="if not wrong:",
                new="if True:",
            ),
            Wrong(
                "A caption is true of a scene, or a scene of none: rows are "
                "captions, columns scenes.",
                old="true[i, j] = True",
                new="true[j % len(true), i % len(scenes)] = True",
            ),
            Wrong(
                "A caption that is no sentence of the grammar is true of no scene.",
                old="_well_formed_reading(caption, language)",
                new="_read(_normal(caption, language), language)",
            ),
            Wrong(
                "The order of the objects does not matter: sort the nouns of the "
                "scene.",
                old="nouns = sorted(obj.noun for obj in scene.objects)",
                new="nouns = [obj.noun for obj in scene.objects]",
            ),
            Wrong(
                "An unknown language is an error, even without captions.",
                old="_check_language(language)",
                new="pass",
            ),
            Wrong(
                "Captions are in a language: pass it on to the parser.",
                old="_well_formed_reading(caption, language)",
                new='_well_formed_reading(caption, "en")',
            ),
        ),
    ),
)
