"""The exercises of chapter 16: small labelled sets."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=16,
        module="tables",
        parts=("Schema.encode",),
        title="a missing cell is not 0",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_rows_are_encoded",
            "test_encoding_does_not_depend_on_rows_that_were_not_for_training",
            "test_a_number_that_is_none_is_named",
            "test_equal_numbers_have_a_scale_of_one",
        ),
        wrong=(
            Wrong(
                "What is missing is not the mean of the training rows: it is NaN.",
                old="values.append(math.nan)",
                new="values.append(0.0)",
            ),
            Wrong(
                "A category that training did not have is `OTHER`.",
                old="is_known else OTHER",
                new="is_known else len(known)",
            ),
            Wrong(
                "Upper and lower case are the same.",
                old="cell.lower() in known",
                new="cell in known",
            ),
            Wrong(
                "The number 0 is kept for `OTHER`.",
                old="known.index(cell.lower()) + 1",
                new="known.index(cell.lower())",
            ),
            Wrong(
                "A number is divided by the column's scale.",
                old="(number - column.mean) / column.scale",
                new="number - column.mean",
            ),
            Wrong(
                "A column that the row does not have is missing.",
                old='row.get(column.name, "")',
                new="row[column.name]",
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="tabular",
        parts=("TableEncoder.forward",),
        title="a vector for each column",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_tokens_are_those_of_rtdl_revisiting_models",
            "test_gradients_are_those_of_the_formula",
            "test_a_missing_column_is_as_if_it_were_not_there",
            "test_a_row_without_any_value_has_nothing_to_attend_to",
            "test_tables_of_one_kind_of_column",
            "test_blocks_and_a_norm_follow",
        ),
        wrong=(
            Wrong(
                "What is missing is masked.",
                old="~rows.isnan()",
                new="torch.ones_like(rows, dtype=torch.bool)",
            ),
            Wrong(
                "Numbers come first, then categories: `order`.",
                old="rows[:, self.order]",
                new="rows[:, :]",
            ),
            Wrong(
                "NaN times anything is NaN, also where it is masked.",
                old="rows.nan_to_num()",
                new="rows.clone()",
            ),
            Wrong(
                "All columns share one embedding: each has its own rows in it.",
                old=".long() + self.first",
                new=".long()",
            ),
            Wrong(
                "Each column has a bias, or nobody could tell one from another.",
                old="tokens + self.bias",
                new="tokens",
            ),
            Wrong(
                "In the blocks, too, nothing attends to what is missing.",
                old="block(x, mask.unsqueeze(1))",
                new="block(x)",
            ),
            Wrong("A norm follows the blocks.", old="self.norm(x)", new="x"),
            Wrong(
                "The rows are the caller's: what is missing there must stay NaN.",
                old=(
                    "        rows = rows[:, self.order]  # (B, C)\n"
                    "        mask = ~rows.isnan()\n"
                    "        rows = rows.nan_to_num()\n"
                ),
                new=(
                    "        mask = ~rows.isnan()[:, self.order]\n"
                    "        rows[rows.isnan()] = 0\n"
                    "        rows = rows[:, self.order]\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="tables",
        parts=("split_groups",),
        title="whole groups, and each class its share",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_a_group_is_in_one_part_and_parts_have_their_share_of_each_class",
            "test_folds_are_as_balanced_as_those_of_scikit_learn",
            "test_the_split_depends_on_seed_and_groups_and_not_on_the_order_of_the_rows",
            "test_fewer_groups_than_parts_are_refused",
        ),
        wrong=(
            Wrong(
                "All rows of a group belong to the same part.",
                old="rows[group].append(i)",
                new="rows[i].append(i)",
            ),
            Wrong(
                "Groups of one size come in an order that depends on seed and group only.",
                old="(-len(rows[group]), draw(group))",
                new="-len(rows[group])",
            ),
            Wrong(
                "Another seed gives another split.",
                old='f"{seed} {group}"',
                new='f"{group}"',
            ),
            Wrong(
                "Each part gets its share of each label, not only of the rows.",
                old="sum(n * lacking[part][c] / (totals[c] * share) for c, n in counts.items())",
                new="sum(lacking[part].values()) / share",
            ),
            Wrong(
                "What a part has got, it lacks no longer.",
                old="lacking[part][label] -= count",
                new="pass",
            ),
            Wrong(
                "A group of five rows fills five places.",
                old="lacking[part][label] -= count",
                new="lacking[part][label] -= 1",
            ),
            Wrong(
                "With fewer groups than parts, a part would stay empty: refuse.",
                old="len(rows) < len(shares)",
                new="False",
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="classification",
        parts=("roc_auc",),
        title="by ranks, with ties",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_auc_and_average_precision_are_those_of_scikit_learn",
            "test_auc_is_the_share_of_pairs_in_the_right_order",
            "test_auc_of_a_million_examples_is_exact",
            "test_shapes_and_types_are_checked",
        ),
        wrong=(
            Wrong(
                "Equal scores share their mean rank.",
                old="(counts - 1) / 2",
                new="0 * counts",
            ),
            Wrong(
                "Ranks begin with 1.",
                old="last - (counts - 1) / 2",
                new="last - 1 - (counts - 1) / 2",
            ),
            Wrong(
                "The smallest sum of ranks that P examples can have is P (P + 1) / 2.",
                old="P * (P + 1) / 2",
                new="P * (P - 1) / 2",
            ),
            Wrong("There are P · N pairs.", old="/ (P * N)", new="/ (P * (P + N))"),
            Wrong(
                "The ranks of the positive examples are added up.",
                old="ranks[positive]",
                new="ranks[~positive]",
            ),
            Wrong(
                "A sum of a million ranks needs more than 24 bits.",
                old=".double()",
                new="",
            ),
            Wrong(
                "Without examples of both kinds there is no order: call `_check_positive`.",
                old="_check_positive(scores, positive)",
                new="positive",
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="classification",
        parts=("reliability_bins", "expected_calibration_error"),
        title="how often is 70 % right?",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_bins_hold_their_upper_edge_and_the_error_is_their_mean_gap",
            "test_bins_are_those_of_scikit_learn",
            "test_scaling_changes_confidence_and_not_the_class",
        ),
        wrong=(
            Wrong(
                "A bin holds its upper edge, not its lower one.",
                old="(confidence * bins).ceil().long().clamp(1, bins) - 1",
                new="(confidence * bins).floor().long().clamp(max=bins - 1)",
            ),
            Wrong("The first bin holds 0 as well.", old=".clamp(1, bins)", new=""),
            Wrong(
                "A gap counts by the number of examples in its bin.",
                old="each.count * abs(each.accuracy - each.confidence)",
                new="len(confidence) / bins * abs(each.accuracy - each.confidence)",
            ),
            Wrong(
                "Too sure in one bin and too unsure in another do not cancel: take absolute values.",
                old="each.count * abs(each.accuracy - each.confidence)",
                new="each.count * (each.accuracy - each.confidence)",
            ),
            Wrong(
                "The confidence of a bin is the mean of its examples, not its middle.",
                old="confidence[inside].double().mean().item()",
                new="(b + 0.5) / bins",
            ),
            Wrong(
                "Leave out bins without an example.",
                old="if inside.any():",
                new="if True:",
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="classification",
        parts=("fit_temperature",),
        title="one number that makes a model honest",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_the_temperature_is_found",
            "test_scaling_changes_confidence_and_not_the_class",
            "test_fitting_a_temperature_does_not_change_the_logits",
        ),
        wrong=(
            Wrong(
                "Divide by the temperature.",
                old="log_probs / math.exp(log_temperature)",
                new="log_probs * math.exp(log_temperature)",
            ),
            Wrong(
                "The search is for the logarithm of the temperature.",
                old="return math.exp((low + high) / 2)",
                new="return (low + high) / 2",
            ),
            Wrong(
                "The loss is to be small: keep the side of the smaller one.",
                old="loss(left) < loss(right)",
                new="loss(left) > loss(right)",
            ),
            Wrong(
                "Go on until the temperature is exact to some digits.",
                old="range(60)",
                new="range(4)",
            ),
            Wrong(
                "A model can also be too unsure: the temperature may be below 1.",
                old="math.log(0.05)",
                new="math.log(1.0)",
            ),
            Wrong(
                "double() of a tensor in float64 is the tensor itself: a change in "
                "place is the caller's, too.",
                old="    log_probs = log_probs.double()\n",
                new=(
                    "    log_probs = log_probs.double()\n"
                    "    log_probs -= log_probs.logsumexp(-1, keepdim=True)\n"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="classification",
        parts=("ClassLoss.__call__", "focal_loss"),
        title="rare classes",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_focal_loss_of_two_classes_is_that_of_torchvision",
            "test_focal_loss_with_gamma_zero_is_the_cross_entropy",
            "test_the_class_loss_weighs_words_and_ignores_padding",
            "test_the_class_loss_of_an_improbable_word_is_finite",
        ),
        wrong=(
            Wrong(
                "Padding is no word.", old="losses[is_word].sum()", new="losses.sum()"
            ),
            Wrong(
                "In eval mode it is the plain cross-entropy.",
                old="if model.training:",
                new="if True:",
            ),
            Wrong(
                "Each word has its weight.",
                old="focal_loss(chosen, self.gamma) * self.weights.to(target.device)[target]",
                new="focal_loss(chosen, self.gamma)",
            ),
            Wrong(
                "What is right already, with p near 1, counts less.",
                old="(1 - log_probs.exp()) ** gamma",
                new="log_probs.exp() ** gamma",
            ),
            Wrong(
                "A loss is minus the logarithm.",
                old="-((1 - log_probs.exp()) ** gamma)",
                new="((1 - log_probs.exp()) ** gamma)",
            ),
            Wrong(
                "The count is that of the words, without padding.",
                old="is_word.sum()",
                new="torch.tensor(len(target))",
            ),
            Wrong(
                "The softmax of an improbable word is 0 in float32, and its logarithm "
                "-inf: take both at once.",
                old=".log_softmax(-1)",
                new=".softmax(-1).log()",
            ),
        ),
    ),
    Exercise(
        chapter=16,
        module="classification",
        parts=("group_bootstrap",),
        title="how sure are we, if rows are alike?",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_the_group_bootstrap_of_single_rows_is_like_that_of_examples",
            "test_rows_of_a_group_are_drawn_together",
            "test_a_draw_with_one_class_only_is_drawn_again",
            "test_drawing_groups_leaves_the_global_random_numbers_alone",
        ),
        wrong=(
            Wrong(
                "Draw groups, not rows.",
                old="members.setdefault(group, []).append(i)",
                new="members.setdefault(i, []).append(i)",
            ),
            Wrong(
                "Draw with replacement, or each draw has all groups.",
                old="rng.integers(len(rows), size=len(rows))",
                new="rng.permutation(len(rows))",
            ),
            Wrong(
                "95 % leave 2.5 % at each end.",
                old="[0.025, 0.975]",
                new="[0.05, 0.95]",
            ),
            Wrong(
                "A draw that cannot be scored is drawn again.",
                old="            continue",
                new="            scores.append(0.0)",
            ),
            Wrong(
                "The score itself is that of all rows.",
                old="ConfidenceInterval(overall, low, high)",
                new="ConfidenceInterval(sum(scores) / draws, low, high)",
            ),
            Wrong(
                "Without rows there is no interval.",
                old="if not rows:",
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
                        "rng.integers(len(rows), size=len(rows))",
                        "rng.randint(len(rows), size=len(rows))",
                    ),
                ),
            ),
        ),
    ),
)
