"""The exercises of chapter 15: real photographs."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=15,
        module="vision",
        parts=("depthwise_conv2d",),
        title="one filter for each channel",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_depthwise_conv2d_agrees_with_torch",
            "test_depthwise_conv2d_refuses_mismatched_shapes",
        ),
        wrong=(
            Wrong(
                "The filter is not flipped: what deep learning calls convolution "
                "is cross-correlation.",
                old="weight[:, :, u, v]",
                new="weight[:, :, U - 1 - u, V - 1 - v]",
            ),
            Wrong(
                "Output i starts at row i · stride of the padded picture.",
                old="x[:, :, u::stride, v::stride]",
                new="x[:, :, u:, v:]",
            ),
            Wrong(
                "Pad all four sides.",
                old="F.pad(x, (padding,) * 4)",
                new="F.pad(x, (padding,) * 2)",
            ),
            Wrong(
                "Rows and columns of the filter: u goes with the height, v with "
                "the width.",
                old="x[:, :, u::stride, v::stride]",
                new="x[:, :, v::stride, u::stride]",
            ),
            Wrong(
                "Each channel has a bias of its own, the same at all places.",
                old="bias[:, None, None]",
                new="bias[0]",
            ),
            Wrong(
                "A filter for each channel, each of depth 1: refuse others.",
                old="(filters, depth) != (C, 1)",
                new="depth != 1",
            ),
            Wrong(
                "A picture may be too small for the filter, even if padded: say so.",
                old="H < U or W < V",
                new="False",
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="vision",
        parts=("InvertedResidual.__init__", "InvertedResidual.forward"),
        title="narrow, wide, narrow",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=("test_inverted_residual_agrees_with_torchvision",),
        needs=("Conv2d",),
        wrong=(
            Wrong(
                "Add x only to what has its shape: as many channels as well.",
                old="stride == 1 and in_channels == channels",
                new="stride == 1",
            ),
            Wrong(
                "There is no ReLU after the last batch norm: a linear bottleneck.",
                old="y = self.conv(x)",
                new="y = self.conv(x).clamp(0, 6)",
            ),
            Wrong(
                "The 3×3 is depthwise: groups is the number of channels inside.",
                old="stride, groups=hidden",
                new="stride",
            ),
            Wrong(
                "With an expansion of 1, the first 1×1 is left out.",
                old="expansion > 1",
                new="expansion > 0",
            ),
            Wrong(
                "The depthwise convolution has the stride, not the first 1×1.",
                old="_conv_bn_relu6(in_channels, hidden, 1)",
                new="_conv_bn_relu6(in_channels, hidden, 1, stride)",
                more=(("3, stride, groups=hidden", "3, groups=hidden"),),
            ),
            Wrong(
                "A residual block adds its input to what it computes.",
                old="x + y if self.has_shortcut else y",
                new="y",
            ),
            Wrong(
                "Inside, there are `expansion` times as many channels.",
                old="expansion * in_channels",
                new="expansion * channels",
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="self_critical",
        parts=("self_critical_loss",),
        title="likelier, if better",
        points=3,
        minutes=15,
        difficulty="medium",
        tests=(
            "test_the_expected_gradient_is_that_of_the_expected_reward",
            "test_no_gradient_goes_through_the_rewards",
            "test_the_loss_is_the_formula",
        ),
        wrong=(
            Wrong(
                "A loss falls: minus the reward.",
                old="return -(",
                new="return (",
            ),
            Wrong(
                "A caption becomes likelier if it beats its baseline, not whenever it "
                "earns something.",
                old="rewards - baselines",
                new="rewards",
            ),
            Wrong(
                "Rewards and baselines are numbers here: no gradient goes through them.",
                old="(rewards - baselines).detach()",
                new="rewards - baselines",
            ),
            Wrong(
                "The log-probability of a caption is the sum over its words: the mean "
                "would make the gradient of long captions smaller.",
                old="log_probs.sum(1)",
                new="log_probs.mean(1)",
            ),
            Wrong(
                "Sum over the captions, do not average.",
                old=").sum()",
                new=").mean()",
            ),
            Wrong(
                "Take the logarithm of the probability, not the probability.",
                old="log_probs.sum(1)",
                new="log_probs.sum(1).exp()",
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="self_critical",
        parts=("caption_log_probs",),
        title="how probable was that?",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_the_probabilities_of_all_captions_sum_to_one",
            "test_log_probs_are_those_of_the_search",
            "test_the_expected_gradient_is_that_of_the_expected_reward",
        ),
        wrong=(
            Wrong(
                "The decoder reads the word before the one that it predicts: <bos> "
                "comes first.",
                old="shift_right(captions)",
                new="captions",
            ),
            Wrong(
                "<pad>, <bos> and <unk> are never drawn: take them out before the "
                "softmax.",
                old="logits.masked_fill(never, -torch.inf).log_softmax(-1)",
                new="logits.log_softmax(-1)",
            ),
            Wrong(
                "Three words are never drawn, not only <pad>.",
                old="never[[PAD, BOS, UNK]]",
                new="never[[PAD]]",
            ),
            Wrong(
                "Where a caption has ended, the log-probability is 0.",
                old="chosen.masked_fill(captions == PAD, 0.0)",
                new="chosen",
            ),
            Wrong(
                "Logarithms of probabilities are asked for.",
                old=".log_softmax(-1)",
                new=".softmax(-1)",
            ),
            Wrong(
                "<eos> is a word as well: its probability counts.",
                old="captions == PAD",
                new="captions < 4",
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="features",
        parts=("feature_key",),
        title="what do the features depend on?",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=("test_the_key_depends_on_weights_statistics_pictures_views_and_format",),
        wrong=(
            Wrong(
                "Other weights give other features.",
                old="fingerprint(backbone)",
                new="type(backbone).__name__",
            ),
            Wrong(
                "Batch norm's statistics are no parameters, and change the features.",
                old="fingerprint(backbone)",
                new="str([float(p.double().sum()) for p in backbone.parameters()])",
            ),
            Wrong(
                "The order of the pictures is that of the rows.",
                old="*digests",
                new="*sorted(digests)",
            ),
            Wrong(
                "With more views, the file has another shape.",
                old="str(views), ",
                new="",
            ),
            Wrong(
                "bfloat16 gives other features than float32.",
                old="str(dtype), ",
                new="",
            ),
            Wrong(
                "All pictures count, not only their number.",
                old="*digests",
                new="str(len(digests))",
            ),
            Wrong(
                'Joined without anything between them, "a" and "b" are the same as '
                '"ab".',
                old='" ".join(parts)',
                new='"".join(parts)',
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="streaming",
        parts=("deal_shards",),
        title="like cards",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_every_shard_goes_to_one_process",
            "test_shards_are_shuffled_by_seed_and_epoch_only",
            "test_fewer_shards_than_processes_are_refused",
        ),
        wrong=(
            Wrong(
                "All processes must shuffle alike, or two of them get the same shard.",
                old="seed_of(seed, epoch)",
                new="seed_of(seed, epoch, rank)",
            ),
            Wrong(
                "In another epoch, the order is another one.",
                old="seed_of(seed, epoch)",
                new="seed_of(seed)",
            ),
            Wrong(
                "Another seed gives another order.",
                old="seed_of(seed, epoch)",
                new="seed_of(epoch)",
            ),
            Wrong(
                "Nobody else's random numbers may matter: use a generator of your own.",
                old=", generator=generator",
                new="",
            ),
            Wrong(
                "Deal them like cards: every world_size-th, starting from the rank.",
                old="order[rank::world_size]",
                new="order[rank * num_shards // world_size :][: num_shards // world_size]",
            ),
            Wrong(
                "A process without a shard would wait for ever: refuse.",
                old="num_shards < world_size",
                new="False",
            ),
            Wrong(
                "torch.manual_seed changes the random numbers of the whole program: "
                "make a generator of your own.",
                old="generator = torch.Generator().manual_seed(seed_of(seed, epoch))",
                new="torch.manual_seed(seed_of(seed, epoch))",
                more=(
                    (
                        "torch.randperm(num_shards, generator=generator)",
                        "torch.randperm(num_shards)",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="streaming",
        parts=("ShardSampler.__iter__", "ShardSampler._shuffled"),
        title="a stream that can go on anywhere",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_one_process_reads_nearly_everything_once",
            "test_examples_of_a_window_are_near_one_another",
            "test_processes_read_different_shards_and_equally_many_batches",
            "test_a_process_with_few_examples_begins_again",
            "test_skipping_batches_goes_on_where_it_was",
            "test_a_process_without_a_share_gets_an_example_that_does_not_count",
        ),
        wrong=(
            Wrong(
                "Skip batches of this process's share, not of the whole batch.",
                old="self.skip * share",
                new="self.skip * self.batch_size",
            ),
            Wrong(
                "`start` says how many batches are skipped.",
                old="place = self.skip * share",
                new="place = 0",
            ),
            Wrong(
                "A process gets its share of a batch: every world_size-th example.",
                old="range(max(1, share))",
                new="range(self.batch_size)",
            ),
            Wrong(
                "After its last example, a process begins again with the first.",
                old="place % ends[-1]",
                new="min(place, ends[-1] - 1)",
            ),
            Wrong(
                "An example that is there only to keep step has the epoch None.",
                old="self.epoch if share else None",
                new="self.epoch",
            ),
            Wrong(
                "Shuffle the examples of a window.",
                old="[examples[i] for i in order.tolist()]",
                new="examples",
            ),
            Wrong(
                "A window may start within a shard.",
                old="max(first, start)",
                new="start",
            ),
            Wrong(
                "A window may end within a shard.",
                old="min(first + WINDOW, end)",
                new="end",
            ),
            Wrong(
                "Examples are numbered over all shards, in the order of `sizes`.",
                old="self.starts[shard] + place - start",
                new="place",
            ),
            Wrong(
                "A batch of 6 for 4 processes: two of them take 2, the others 1. With "
                "6 // 4 each, two examples are missing.",
                old="len(range(self.rank, self.batch_size, self.world_size))",
                new="self.batch_size // self.world_size",
            ),
        ),
    ),
    Exercise(
        chapter=15,
        module="text",
        parts=("ByteLevelBPE.encode_text", "ByteLevelBPE._merge"),
        title="any text at all",
        points=8,
        minutes=40,
        difficulty="hard",
        test_file="test_gpt2.py",
        tests=(
            "test_tokens_are_those_of_transformers",
            "test_text_never_becomes_a_special",
            "test_it_is_a_vocabulary_of_words",
        ),
        wrong=(
            Wrong(
                "Cut the text into pieces first: nothing is merged across them.",
                old="_gpt2_pieces().findall(text)",
                new="[text] if text else []",
            ),
            Wrong(
                "The space before a word belongs to it.",
                old="_gpt2_pieces().findall(text)",
                new="text.split()",
            ),
            Wrong(
                "Of all pairs in the list, the earliest comes first.",
                old="min(pairs, key=",
                new="max(pairs, key=",
            ),
            Wrong(
                "Every byte has a printable symbol, which is not always its own "
                "character.",
                old="byte_symbols()[byte]",
                new="chr(byte)",
            ),
            Wrong(
                "The bytes are those of UTF-8.",
                old='piece.encode("utf-8", "replace")',
                new='piece.encode("utf-16-le", "replace")',
            ),
            Wrong(
                "You return the list that is in `pieces`: if the caller appends to "
                "it, the next text is wrong.",
                old="            numbers += self.pieces[piece]\n",
                new=(
                    "            numbers = numbers + self.pieces[piece] if numbers "
                    "else self.pieces[piece]\n"
                ),
            ),
        ),
    ),
)
