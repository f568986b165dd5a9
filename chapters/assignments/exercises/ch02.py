"""The exercises of chapter 2: CNN encoder."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=2,
        module="vision",
        parts=("conv2d",),
        title="convolution as one matrix product",
        points=20,
        minutes=120,
        difficulty="medium",
        tests=(
            "test_conv2d_agrees_with_torch",
        ),
        wrong=(
            Wrong(
                "A picture has four sides, and F.pad takes a number for each of them.",
                old="(padding,) * 4",
                new="(padding,) * 2",
            ),
            Wrong(
                "What deep learning calls convolution does not flip the filter: "
                "see the formula.",
                old="weight.flatten(1)",
                new="weight.flip(2, 3).flatten(1)",
            ),
            Wrong(
                "The stride applies in both directions.",
                old=".unfold(3, V, stride)",
                new=".unfold(3, V, 1)",
            ),
            Wrong(
                "The numbers of a window and those of a filter must be in the "
                "same order: channel, row, column.",
                old="windows.permute(0, 2, 3, 1, 4, 5)",
                new="windows.permute(0, 2, 3, 4, 5, 1)",
            ),
            Wrong(
                "Rows and columns of the window have changed places: a filter "
                "need not be square.",
                old="windows.permute(0, 2, 3, 1, 4, 5)",
                new="windows.permute(0, 2, 3, 1, 5, 4)",
            ),
            Wrong(
                "Where is the bias?",
                old="y = y + bias",
                new="y = y",
            ),
            Wrong(
                "Channels come second: (B, O, H', W').",
                old="return y.permute(0, 3, 1, 2)",
                new="return y",
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="vision",
        parts=("BasicBlock.forward", "BasicBlock.__init__", "_shortcut"),
        title="the block of ResNet-18",
        points=8,
        minutes=40,
        difficulty="medium",
        tests=(
            "test_basic_block_agrees_with_torchvision",
            "test_blocks_are_modulated_after_the_last_batch_norm",
        ),
        needs=("Conv2d",),
        wrong=(
            Wrong(
                "The last ReLU comes after the sum: before it, the block could "
                "only add.",
                old="return F.relu(y + shortcut)",
                new="return F.relu(y) + shortcut",
            ),
            Wrong(
                "Where is x? Without the shortcut around the convolutions it is "
                "not a residual block.",
                old="y + shortcut",
                new="y",
            ),
            Wrong(
                "The stride is in the first convolution, not in the second.",
                old="_conv(in_channels, channels, 3, stride)",
                new="_conv(in_channels, channels, 3)",
                more=(
                    (
                        "_conv(channels, channels, 3)",
                        "_conv(channels, channels, 3, stride)",
                    ),
                ),
            ),
            Wrong(
                "There is a ReLU between the two convolutions; without it they "
                "would be one.",
                old="F.relu(self.bn1(self.conv1(x)))",
                new="self.bn1(self.conv1(x))",
            ),
            Wrong(
                "If the number of channels stays but the size is halved, x must be "
                "made to fit, too.",
                old="if stride == 1 and in_channels == out_channels",
                new="if in_channels == out_channels",
            ),
            Wrong(
                "The convolution of the shortcut is followed by a batch norm, like "
                "all the others.",
                old=", nn.BatchNorm2d(out_channels))",
                new=")",
            ),
            Wrong(
                "If x already fits, it passes unchanged: there are no weights on "
                "the shortcut.",
                old="if stride == 1 and in_channels == out_channels",
                new="if False",
            ),
            Wrong(
                "A question (chapter 12) may modulate what comes out of the last "
                "batch norm: what is the argument `modulation` for?",
                old="y = modulate(y, *modulation)",
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="vision",
        parts=("Bottleneck.forward", "Bottleneck.__init__"),
        title="the block of ResNet-50",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_bottleneck_agrees_with_torchvision",
            "test_blocks_are_modulated_after_the_last_batch_norm",
        ),
        needs=("Conv2d",),
        wrong=(
            Wrong(
                "The stride is in the 3×3, as in torchvision: a 1×1 with a stride "
                "of 2 ignores three of every four positions.",
                old="_conv(in_channels, channels, 1)",
                new="_conv(in_channels, channels, 1, stride)",
                more=(
                    (
                        "_conv(channels, channels, 3, stride)",
                        "_conv(channels, channels, 3)",
                    ),
                ),
            ),
            Wrong(
                "How many channels come out of the block? The shortcut must "
                "produce the same number.",
                old="_shortcut(in_channels, 4 * channels, stride)",
                new="_shortcut(in_channels, channels, stride)",
            ),
            Wrong(
                "Each of the first two batch norms is followed by a ReLU.",
                old="y = F.relu(self.bn2(self.conv2(y)))",
                new="y = self.bn2(self.conv2(y))",
            ),
            Wrong(
                "The last ReLU comes after the sum, not before it.",
                old="y = self.bn3(self.conv3(y))",
                new="y = F.relu(self.bn3(self.conv3(y)))",
            ),
            Wrong(
                "Where is x? Without the shortcut around the convolutions it is "
                "not a residual block.",
                old="y + shortcut",
                new="y",
            ),
            Wrong(
                "A question (chapter 12) may modulate what comes out of the last "
                "batch norm: what is the argument `modulation` for?",
                old="y = modulate(y, *modulation)",
                new="pass",
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="vision",
        parts=("ResNet.__init__",),
        title="four stages from a list of depths",
        points=20,
        minutes=100,
        difficulty="hard",
        tests=(
            "test_deep_resnet_has_the_parameters_of_torchvision",
            "test_resnet_of_a_list_of_stages_agrees_with_torchvision",
            "test_resnet_features_have_the_documented_shape",
            "test_no_classifier_without_num_classes",
        ),
        wrong=(
            Wrong(
                "The first stage keeps the size: the 7×7 and the pooling before "
                "it have already halved it twice.",
                old="2 if i > 0 and j == 0 else 1",
                new="2 if j == 0 else 1",
            ),
            Wrong(
                "A stage halves the picture once, in its first block; the blocks "
                "after it keep the size.",
                old="2 if i > 0 and j == 0 else 1",
                new="2 if i > 0 else 1",
            ),
            Wrong(
                "The output of a Bottleneck is four times as wide, and it is the "
                "input of the next block.",
                old="in_channels = channels * block.expansion",
                new="in_channels = channels",
            ),
            Wrong(
                "Each stage is twice as wide as the one before.",
                old="channels = width * 2**i",
                new="channels = width",
            ),
            Wrong(
                "From which depth on are the blocks bottlenecks? A list of depths "
                "means basic blocks.",
                old="depth >= 50",
                new="depth >= 102",
            ),
            Wrong(
                "With num_classes=None there is no classifier: it has no weights, "
                "and the output is the features.",
                old=(
                    "nn.Linear(in_channels, num_classes) if num_classes else "
                    "nn.Identity()"
                ),
                new="nn.Linear(in_channels, num_classes)",
            ),
            Wrong(
                "torchvision's first convolution has no bias: the batch norm that "
                "follows would remove it.",
                old="stride=2, padding=3, bias=False",
                new="stride=2, padding=3",
            ),
            Wrong(
                "FiLM asks each block for its number of channels: `block_channels` "
                "has one entry for each block, not for each stage.",
                old="                self.block_channels.append(in_channels)\n",
                new="",
                more=(
                    (
                        '            name = f"layer{i + 1}"\n',
                        (
                            "            self.block_channels.append(in_channels)\n"
                            '            name = f"layer{i + 1}"\n'
                        ),
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="vision",
        parts=("VGG.__init__",),
        title="stacks of 3×3 convolutions",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_vgg_has_the_parameters_of_torchvision",
            "test_vgg_features_agree_with_torchvision",
            "test_no_classifier_without_num_classes",
        ),
        wrong=(
            Wrong(
                "The ReLU comes after the batch norm: the other way round, the "
                "norm would bring negative numbers back.",
                old=(
                    "                if batch_norm:\n"
                    "                    layers.append(nn.BatchNorm2d(channels))\n"
                    "                layers.append(nn.ReLU())\n"
                ),
                new=(
                    "                layers.append(nn.ReLU())\n"
                    "                if batch_norm:\n"
                    "                    layers.append(nn.BatchNorm2d(channels))\n"
                ),
            ),
            Wrong(
                "A 3×3 without padding loses one row or column on every side; "
                "only the pooling makes the picture smaller.",
                old="channels, 3, padding=1",
                new="channels, 3",
            ),
            Wrong(
                "There is one pooling for each stage, not one for each convolution.",
                old="                layers.append(nn.ReLU())\n",
                new="                layers += [nn.ReLU(), nn.MaxPool2d(2)]\n",
                more=(
                    (
                        "            layers.append(nn.MaxPool2d(2))\n",
                        "",
                    ),
                ),
            ),
            Wrong(
                "VGG's convolutions have a bias, even where a batch norm follows.",
                old="channels, 3, padding=1",
                new="channels, 3, padding=1, bias=not batch_norm",
                more=(
                    ("nn.init.zeros_(module.bias)", "pass"),
                ),
            ),
            Wrong(
                "The last two stages are equally wide: 512 channels.",
                old="(64, 128, 256, 512, 512)",
                new="(64, 128, 256, 512, 1024)",
            ),
            Wrong(
                "Two hidden layers of 4096, each with its ReLU and its dropout, "
                "and then the classes.",
                old=(
                    "                nn.Linear(4096, 4096),\n"
                    "                nn.ReLU(),\n"
                    "                nn.Dropout(),\n"
                ),
                new="",
            ),
            Wrong(
                "The pooling takes windows of 2×2 that do not overlap.",
                old="nn.MaxPool2d(2)",
                new="nn.MaxPool2d(3, stride=2, padding=1)",
            ),
            Wrong(
                "With num_classes=None there is no classifier.",
                old="if num_classes:",
                new="if True:",
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="metrics",
        parts=("label_scores",),
        title="precision, recall and F1",
        points=10,
        minutes=50,
        difficulty="medium",
        tests=(
            "test_label_scores_by_hand",
            "test_label_scores_of_invalid_inputs_raise",
        ),
        wrong=(
            Wrong(
                "Precision: how much of what was predicted is true. Recall: how much "
                "of what is true was predicted.",
                old="tp / pred_sum.clamp",
                new="tp / true_sum.clamp",
                more=(
                    ("recall = tp / true_sum.clamp", "recall = tp / pred_sum.clamp"),
                ),
            ),
            Wrong(
                "If a label is never predicted, or never true, 0 / 0 is 0 here, not "
                "NaN.",
                old="pred_sum.clamp(min=1)",
                new="pred_sum",
                more=(
                    ("tp / true_sum.clamp(min=1)", "tp / true_sum"),
                    ("(pred_sum + true_sum).clamp(min=1)", "(pred_sum + true_sum)"),
                ),
            ),
            Wrong(
                "True negatives are right decisions, too: accuracy counts them.",
                old="(predicted == true).float().mean(0)",
                new="tp / len(true)",
            ),
            Wrong(
                '"micro" adds up the counts of all labels before it divides; the '
                'mean of the scores of all labels would be "macro".',
                old='if average == "micro":',
                new="if False:",
                more=(
                    (
                        "return LabelScores(accuracy, precision, recall, f1)",
                        (
                            "scores = LabelScores(accuracy, precision, recall, f1)\n"
                            "    return LabelScores(*(score.mean() for score in "
                            "scores)) if average else scores"
                        ),
                    ),
                ),
            ),
            Wrong(
                "Without an average, each label has its own score: a single number is "
                'what "micro" gives.',
                old='if average == "micro":',
                new="if True:",
            ),
            Wrong(
                "In the numerator of F1, true positives count twice: see the formula.",
                old="2 * tp / (pred_sum",
                new="tp / (pred_sum",
            ),
            Wrong(
                "Count for each label over the examples, not for each example over its "
                "labels.",
                old="tp = (predicted & true).sum(0)",
                new="tp = (predicted & true).sum(-1)",
                more=(
                    ("predicted.sum(0)", "predicted.sum(-1)"),
                    ("= true.sum(0)", "= true.sum(-1)"),
                ),
            ),
            Wrong(
                "Micro precision and recall are equal if each example has one class. "
                "With labels, false positives and false negatives need not be as many.",
                old="    recall = tp / true_sum.clamp(min=1)\n",
                new=(
                    "    recall = tp / true_sum.clamp(min=1)\n"
                    '    if average == "micro":\n'
                    "        recall = precision\n"
                ),
            ),
            Wrong(
                "Numbers other than bool are no decisions, and `&` and `==` would not "
                "complain: see what the docstring raises.",
                old="if (predicted.dtype, true.dtype) != (torch.bool, torch.bool):",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=2,
        module="metrics",
        parts=("confusion_matrix",),
        title="which class is mistaken for which",
        points=4,
        minutes=20,
        difficulty="easy",
        tests=(
            "test_confusion_matrix_counts_every_pair",
            "test_confusion_matrix_agrees_with_scikit_learn",
            "test_confusion_matrix_of_invalid_inputs_raises",
        ),
        wrong=(
            Wrong(
                "Rows are the true classes, columns the predicted ones.",
                old="true.long() * num_classes + predicted.long()",
                new="predicted.long() * num_classes + true.long()",
            ),
            Wrong(
                "A pair that occurs twice counts 2. `matrix[true, predicted] += 1` "
                "writes the same 1 both times.",
                old="torch.bincount(cells, minlength=num_classes**2)",
                new="torch.bincount(cells, minlength=num_classes**2).clamp(max=1)",
            ),
            Wrong(
                "Classes that never occur have rows and columns, too.",
                old=", minlength=num_classes**2",
                new="",
            ),
            Wrong(
                "8-bit integers overflow when multiplied: convert them to long first.",
                old="true.long() * num_classes + predicted.long()",
                new="true * num_classes + predicted",
            ),
            Wrong(
                "Return counts, not fractions.",
                old=".view(num_classes, num_classes)",
                new=".view(num_classes, num_classes) / len(true)",
            ),
            Wrong(
                "A class that does not exist lands in another cell, or in the row of "
                "another class: raise ValueError.",
                old="if len(outside):",
                new="if False:",
            ),
        ),
    ),
)
