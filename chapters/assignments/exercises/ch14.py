"""The exercises of chapter 14: sound."""

from .exercise import Exercise, Wrong

EXERCISES = (
    Exercise(
        chapter=14,
        module="audio",
        parts=("resample", "_sinc_filters"),
        title="another sample rate",
        points=10,
        minutes=60,
        difficulty="hard",
        tests=(
            "test_resampling_is_the_sum_of_its_formula",
            "test_tones_above_the_new_nyquist_frequency_are_60_db_down",
            "test_tones_below_it_keep_their_phase",
            "test_resampling_keeps_the_dtype_and_leading_axes",
            "test_equal_rates_return_the_waveform",
        ),
        wrong=(
            Wrong(
                "If the rate falls, the cutoff must fall as well: c = 0.96 min(1, "
                "new / old).",
                old="ROLLOFF * min(1, new / old)",
                new="ROLLOFF",
            ),
            Wrong(
                "Let the filter end before the Nyquist frequency: c = 0.96 min(1, "
                "new / old).",
                old="ROLLOFF * min(1, new / old)",
                new="min(1, new / old)",
            ),
            Wrong(
                "A sinc that ends suddenly lets other tones through: multiply it "
                "by the Kaiser window.",
                old="times.sinc() * kaiser",
                new="times.sinc()",
            ),
            Wrong(
                "The filter is c sinc(c t): without the factor, a lower rate is louder.",
                old="cutoff * times.sinc()",
                new="times.sinc()",
            ),
            Wrong(
                "Outputs lie between the samples of the input: their filters differ.",
                old="phases.double() * old / new",
                new="(phases * old // new).double()",
            ),
            Wrong(
                "The result has ceil(S · new / old) samples.",
                old="-(-waveform.size(-1) * new // old)",
                new="max(1, waveform.size(-1) * new // old)",
            ),
            Wrong(
                "With equal rates, return the waveform as it is.",
                old="if old == new or waveform.numel() == 0:",
                new="if waveform.numel() == 0:",
            ),
            Wrong(
                "Resample each waveform of a batch, and keep the leading axes.",
                old="y.reshape(*waveform.shape[:-1], length)",
                new="y",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="audio",
        parts=("frames",),
        title="25 ms at a time",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_frames_are_centred_every_hop",
            "test_very_short_sounds_have_a_frame",
            "test_a_waveform_without_samples_has_no_frames",
        ),
        wrong=(
            Wrong(
                "Frame i is centred at sample i · hop: the first one reaches half "
                "a frame over the start.",
                old="(half, half)",
                new="(0, size)",
            ),
            Wrong(
                "At both ends, the waveform continues as its mirror image, not "
                "with zeros.",
                old='"reflect" if num_samples > half else "constant"',
                new='"constant"',
            ),
            Wrong(
                "In a mirror image, the first sample is not repeated.",
                old='"reflect"',
                new='"replicate"',
            ),
            Wrong(
                "A mirror image must not be longer than the sound: then use zeros.",
                old='"reflect" if num_samples > half else "constant"',
                new='"reflect"',
            ),
            Wrong(
                "There are S // hop frames: one more would begin at the end.",
                old="max(1, num_samples // hop)",
                new="num_samples // hop + 1",
            ),
            Wrong(
                "A sound shorter than a hop has one frame, not none.",
                old="max(1, num_samples // hop)",
                new="num_samples // hop",
            ),
            Wrong(
                "Frames overlap: a new one starts at every hop.",
                old="x.unfold(-1, size, hop)",
                new="x.unfold(-1, size, size)",
            ),
            Wrong(
                "Keep the leading axes: (…, S) becomes (…, F, size).",
                old=(
                    "x.unflatten(0, waveform.shape[:-1]) if waveform.dim() > 1 else x[0]"
                ),
                new="x",
            ),
            Wrong(
                "Without any sample there is nothing to cut, and nothing to mirror: "
                "raise ValueError.",
                old="if num_samples == 0:",
                new="if False:",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="audio",
        parts=("dft_matrix",),
        title="the Fourier transform as a matrix",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=("test_dft_matrix_is_the_fourier_transform",),
        wrong=(
            Wrong(
                "The exponent is negative: exp(-2πi k n / N).",
                old="-2 * math.pi",
                new="2 * math.pi",
            ),
            Wrong(
                "k and n start from 0: the first row is the sum of the samples.",
                old="torch.arange(size)",
                new="torch.arange(1, size + 1)",
            ),
            Wrong(
                "No factor in front: torch.fft.fft has none either.",
                old="torch.ones_like(turns)",
                new="torch.full_like(turns, size**-0.5)",
            ),
            Wrong(
                "A whole turn is 2π, not π.",
                old="-2 * math.pi",
                new="-math.pi",
            ),
            Wrong(
                "The matrix is complex128: compute in float64.",
                old="torch.float64",
                new="torch.float32",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="audio",
        parts=("mel_filters",),
        title="bands as the ear hears them",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_mel_filters_equal_triangles_one_by_one",
            "test_mel_filters_have_an_area_of_one",
        ),
        wrong=(
            Wrong(
                "Each triangle has an area of 1: its height is 2 / (right - left).",
                old="2 / (right - left) * triangles",
                new="triangles",
            ),
            Wrong(
                "The corners are equally far apart in mel, not in Hz.",
                old="mel_to_hertz(mels)",
                new="mels / mels[-1] * nyquist",
            ),
            Wrong(
                "The triangles are straight lines in Hz, not in mel.",
                old="rising = (frequencies - left) / (peak - left)",
                new=(
                    "rising = (hertz_to_mel(frequencies) - hertz_to_mel(left)) / "
                    "(hertz_to_mel(peak) - hertz_to_mel(left))"
                ),
            ),
            Wrong(
                "Outside its triangle, a filter is 0, not negative.",
                old=".clamp(min=0)",
                new="",
            ),
            Wrong(
                "A triangle is below both of its lines: take the smaller one.",
                old="torch.minimum",
                new="torch.maximum",
            ),
            Wrong(
                "The bands end at the Nyquist frequency, half of the sample rate.",
                old="sample_rate / 2",
                new="sample_rate",
            ),
            Wrong(
                "Row k of the spectrum is at k · sample_rate / size Hz.",
                old="* sample_rate / size",
                new="* sample_rate / (size // 2 + 1)",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="audio",
        parts=("log_mel",),
        title="a sound becomes a picture",
        points=5,
        minutes=25,
        difficulty="medium",
        tests=(
            "test_log_mel_is_its_formula_with_the_dft_matrix",
            "test_silence_is_at_the_floor",
            "test_very_short_sounds_have_a_frame",
            "test_faint_sounds_are_above_the_floor_by_the_formula",
            "test_log_mel_stays_on_the_device_of_the_waveform",
        ),
        wrong=(
            Wrong(
                "Multiply each frame by the Hann window before the transform.",
                old="x * torch.hann_window(size, device=x.device)",
                new="x",
            ),
            Wrong(
                "The window is periodic: its last sample is not 0.",
                old="size, device=x.device",
                new="size, periodic=False, device=x.device",
            ),
            Wrong(
                "The filters sum up power: the square of the absolute value.",
                old="power @",
                new="power.sqrt() @",
            ),
            Wrong(
                "The logarithm has base 10.",
                old=".log10()",
                new=".log()",
            ),
            Wrong(
                "The logarithm of 0 is -inf: the smallest power is 1e-10.",
                old=".clamp(min=1e-10)",
                new="",
            ),
            Wrong(
                "First sum up the power of a band, then take the logarithm.",
                old="mel = power @ mel_filters(num_mels, size, sample_rate).to(x.device)",
                new=(
                    "mel = 10 ** (power.clamp(min=1e-10).log10() @ "
                    "mel_filters(num_mels, size, sample_rate).to(x.device))"
                ),
            ),
            Wrong(
                "A new frame starts every 10 ms.",
                old="0.010",
                new="0.0125",
            ),
            Wrong(
                "A frame has 25 ms.",
                old="0.025",
                new="0.020",
            ),
            Wrong(
                "Times depend on the sample rate: 160 samples are 10 ms at 16 kHz only.",
                old="round(0.010 * sample_rate)",
                new="160",
            ),
            Wrong(
                "The floor is a maximum, not a sum: adding 1e-10 raises all faint "
                "sounds.",
                old="mel.clamp(min=1e-10).log10()",
                new="(mel + 1e-10).log10()",
            ),
            Wrong(
                "The window must be on the device of the waveform.",
                old="torch.hann_window(size, device=x.device)",
                new="torch.hann_window(size)",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="audio",
        parts=("augment_spectrogram", "_masked"),
        title="SpecAugment",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_augmentation_masks_what_its_draws_say",
            "test_augmentation_stays_within_its_limits",
            "test_augmentation_with_draws_of_zero_changes_nothing",
        ),
        wrong=(
            Wrong(
                "Blank a part of the sound, not of its padding: use its own length.",
                old="(lengths - widths + 1)",
                new="(size - widths + 1)",
            ),
            Wrong(
                "A stretch has at most a fifth of the sound.",
                old="(lengths // 5).clamp(max=100)",
                new="lengths.clamp(max=100)",
            ),
            Wrong(
                "A stretch has at most 100 frames.",
                old=".clamp(max=100)",
                new="",
            ),
            Wrong(
                "A band has at most a third of the mels.",
                old="mels // 3",
                new="mels // 2",
            ),
            Wrong(
                "There are two stretches and two bands: blank both of each.",
                old="inside.any(2)",
                new="inside[..., 0]",
            ),
            Wrong(
                "Blank the stretches and the bands, not only where they cross.",
                old="times.unsqueeze(2) | bands.unsqueeze(1)",
                new="times.unsqueeze(2) & bands.unsqueeze(1)",
            ),
            Wrong(
                "A stretch of width w has w frames: the one at start + w is not in it.",
                old="positions < starts + widths.unsqueeze(1)",
                new="positions <= starts + widths.unsqueeze(1)",
            ),
            Wrong(
                "The first four draws are for time, the last four for mels.",
                old="draws[:, :4]",
                new="draws[:, 4:].clone()",
                more=(("_masked(draws[:, 4:],", "_masked(draws[:, :4],"),),
            ),
            Wrong(
                "Draws come in pairs: width, place, width, place.",
                old="draws[:, ::2]",
                new="draws[:, :2]",
                more=(("draws[:, 1::2]", "draws[:, 2:]"),),
            ),
            Wrong(
                "The widest width occurs as well: draw among max_width + 1 numbers.",
                old="draws[:, ::2] * (max_width + 1)",
                new="draws[:, ::2] * max_width",
            ),
            Wrong(
                "Do not change the sound that you got.",
                old="sound.masked_fill(",
                new="sound.masked_fill_(",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="hearing",
        parts=("AudioEncoder.forward",),
        title="padding changes nothing",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_outputs_are_those_of_torchs_layers",
            "test_encoder_may_have_a_width_of_its_own",
            "test_padding_changes_nothing",
            "test_padding_changes_no_gradient",
            "test_dropout_is_applied_in_training_only",
            "test_memory_is_on_the_device_of_the_sound",
        ),
        wrong=(
            Wrong(
                "What conv₁ makes of padding is its bias, not zero: set it to zero "
                "again before conv₂.",
                old="x = x.masked_fill(padding.unsqueeze(1), 0.0)",
                new="x = x",
            ),
            Wrong(
                "Padding may hold anything: set it to zero before conv₁.",
                old="sound.masked_fill(padding.unsqueeze(2), 0.0)",
                new="sound.nan_to_num()",
            ),
            Wrong(
                "No position may attend to padding: pass the mask to the blocks.",
                old="block(x, mask.unsqueeze(1))",
                new="block(x)",
            ),
            Wrong(
                "A sound of 5 frames has 3 positions: ceil(F / 2), not F // 2.",
                old="~padding[:, ::2]",
                new="F.pad(~padding, (0, padding.size(1) % 2))[:, 1::2]",
            ),
            Wrong(
                "A position is two frames: the mask has one entry for each position.",
                old="~padding[:, ::2]",
                new="~padding[:, : x.size(1)]",
            ),
            Wrong(
                "A width of its own is not that of the memory: apply `projection`.",
                old="self.projection(self.norm(x))",
                new="self.norm(x)",
            ),
            Wrong(
                "Without positions, the blocks do not know the order: add them.",
                old="x + self.positions[: x.size(1)]",
                new="x",
            ),
            Wrong(
                "Positions are added after conv₂ and its GELU.",
                old="F.gelu(self.conv2(x)).transpose(1, 2)  # (B, N, D)",
                new="self.conv2(x).transpose(1, 2)",
                more=(
                    (
                        "x + self.positions[: x.size(1)]",
                        "F.gelu(x + self.positions[: x.size(1)])",
                    ),
                ),
            ),
            Wrong(
                "A GELU follows each convolution.",
                old="F.gelu(self.conv1(x))",
                new="self.conv1(x)",
            ),
            Wrong(
                "A LayerNorm comes after the last block.",
                old="self.norm(x)",
                new="x",
            ),
            Wrong(
                "Dropout is for training only.",
                old="self.dropout, self.training",
                new="self.dropout, True",
            ),
            Wrong(
                "The blocks apply their dropout themselves, but not that after the "
                "positions.",
                old="F.dropout(x, self.dropout, self.training)",
                new="x",
            ),
            Wrong(
                "The mask must be made on the device of the sound.",
                old="torch.arange(num_frames, device=sound.device)",
                new="torch.arange(num_frames)",
                more=(
                    (
                        "torch.full((B,), num_frames, device=sound.device)",
                        "torch.full((B,), num_frames)",
                    ),
                ),
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="metrics",
        parts=("edit_counts", "_edit_distances"),
        title="the fewest edits",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_edits_are_fewest_by_brute_force",
            "test_edit_counts_by_hand",
            "test_edit_distance_is_a_metric_and_counts_add_up",
        ),
        wrong=(
            Wrong(
                "A token that only the hypothesis has is an insertion; one that "
                "only the reference has is a deletion.",
                old="EditCounts(substitutions, insertions, deletions, hits)",
                new="EditCounts(substitutions, deletions, insertions, hits)",
            ),
            Wrong(
                "A substitution is one edit, not a deletion and an insertion.",
                old="if diagonal < left:",
                new="if diagonal + 1 < left:",
                more=(("left = diagonal  # a substitution", "left = diagonal + 1"),),
            ),
            Wrong(
                "Equal tokens need no edit.",
                old="left = diagonal  # a hit",
                new="left = diagonal + 1",
            ),
            Wrong(
                "Do not delete all or insert all: the first row and column count "
                "up from 0.",
                old="left = above[0] + 1",
                new="left = 0",
            ),
            Wrong(
                "Hits count as well, also those that both begin or end with.",
                old="hits = start + end",
                new="hits = 0",
            ),
            Wrong(
                "Of equally short ways, take the one that deletes where it can.",
                old=("elif i == 0 or distances[i][j - 1] < distances[i - 1][j - 1]:"),
                new=(
                    "elif i == 0 or (j and distances[i][j] == distances[i][j - 1] + 1):"
                ),
            ),
            Wrong(
                "Tokens at equal positions need not belong together: a missing "
                "word shifts all that follow.",
                old="distances = _edit_distances(hypothesis, reference)",
                new=(
                    "same = sum(a == b for a, b in zip(hypothesis, reference))\n"
                    "    common = min(len(hypothesis), len(reference))\n"
                    "    extra = len(hypothesis) - common\n"
                    "    lost = len(reference) - common\n"
                    "    return EditCounts(common - same, extra, lost, hits + same)"
                ),
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="metrics",
        parts=("word_error_rate", "_error_rate"),
        title="errors of a corpus",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_error_rate_of_a_corpus_is_not_the_mean_over_its_sentences",
            "test_error_rate_exceeds_1_with_many_insertions",
            "test_error_rates_of_empty_references_are_numbers",
            "test_the_reference_with_the_fewest_edits_counts",
        ),
        wrong=(
            Wrong(
                "Sum up over the corpus first: the mean over sentences gives short "
                "ones too much weight.",
                old="return ErrorRate(_error_rate(sums), *sums.tolist())",
                new=(
                    "rates = [_error_rate(row) for row in "
                    "error_statistics(hypotheses, references)]\n"
                    "    mean = sum(rates) / max(len(rates), 1)\n"
                    "    return ErrorRate(mean, *sums.tolist())"
                ),
            ),
            Wrong(
                "Divide by the words of the references: hits, substitutions and "
                "deletions.",
                old="max(substitutions + deletions + hits, 1)",
                new="max(substitutions + insertions + hits, 1)",
            ),
            Wrong(
                "Insertions are errors, too.",
                old="edits = substitutions + insertions + deletions",
                new="edits = substitutions + deletions",
            ),
            Wrong(
                "The denominator is the length of the references, without insertions.",
                old="max(substitutions + deletions + hits, 1)",
                new="max(substitutions + deletions + insertions + hits, 1)",
            ),
            Wrong(
                "Do not divide by 0: an empty reference counts as one word.",
                old="edits / max(substitutions + deletions + hits, 1)",
                new="edits / (substitutions + deletions + hits)",
            ),
            Wrong(
                "A rate above 1 is possible: do not cut it off.",
                old="edits / max(substitutions + deletions + hits, 1)",
                new="min(edits / max(substitutions + deletions + hits, 1), 1)",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="ctc",
        parts=("ctc_states", "skip_mask"),
        title="a blank around each label",
        points=4,
        minutes=20,
        difficulty="medium",
        tests=(
            "test_states_of_a_target_are_its_labels_between_blanks",
            "test_a_target_needs_a_frame_per_label_and_one_between_equal_labels",
        ),
        wrong=(
            Wrong(
                "Two equal labels need a blank between them, or they are merged.",
                old="may_skip[:, 2:] &= states[:, 2:] != states[:, :-2]",
                new="pass",
            ),
            Wrong(
                "A blank is never skipped to: the label before it would be lost.",
                old="may_skip = states != blank",
                new="may_skip = torch.ones_like(states, dtype=torch.bool)",
            ),
            Wrong(
                "The label before the last blank is two states away, not one.",
                old="states[:, 2:] != states[:, :-2]",
                new="states[:, 2:] != states[:, 1:-1]",
            ),
            Wrong(
                "Blanks are at the even states, labels at the odd ones.",
                old="states[:, 1::2]",
                new="states[:, :-1:2]",
            ),
            Wrong(
                "What follows a target's end is ignored: its states are blanks.",
                old="targets.masked_fill(positions >= target_lengths, blank)",
                new="targets",
            ),
            Wrong(
                "The blank is a label like any other: it need not be 0.",
                old="targets.new_full((B, 2 * T + 1), blank)",
                new="targets.new_zeros((B, 2 * T + 1))",
            ),
            Wrong(
                "The targets are the caller's: blanks belong into a new tensor only.",
                old="targets.masked_fill(positions",
                new="targets.masked_fill_(positions",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="ctc",
        parts=("forward_variables",),
        title="the sum over all alignments",
        points=8,
        minutes=40,
        difficulty="hard",
        tests=(
            "test_loss_sums_over_all_alignments",
            "test_forward_and_backward_variables_give_the_likelihood_at_every_frame",
            "test_padded_frames_have_no_effect_and_no_gradient",
            "test_long_sounds_do_not_underflow",
        ),
        wrong=(
            Wrong(
                "Add up probabilities, not logarithms: logsumexp.",
                old="torch.stack([alpha, step, skip]).logsumexp(0)",
                new="torch.stack([alpha, step, skip]).sum(0)",
            ),
            Wrong(
                "CTC sums over all alignments; it does not take the best one.",
                old="torch.stack([alpha, step, skip]).logsumexp(0)",
                new="torch.stack([alpha, step, skip]).amax(0)",
            ),
            Wrong(
                "An alignment may stay in its state.",
                old="torch.stack([alpha, step, skip])",
                new="torch.stack([step, skip])",
            ),
            Wrong(
                "A label may skip the blank before it.",
                old="torch.stack([alpha, step, skip])",
                new="torch.stack([alpha, step])",
            ),
            Wrong(
                "Not every state may be skipped to: use `may_skip`.",
                old=".masked_fill(~may_skip, LOG_ZERO)",
                new="",
            ),
            Wrong(
                "Alignments go from left to right: s - 1 and s - 2 come before s.",
                old="F.pad(alpha, (2, 0), value=LOG_ZERO)",
                new="F.pad(alpha, (0, 2), value=LOG_ZERO).roll(-1, 1)",
            ),
            Wrong(
                "Before the first frame, only state 0 is possible.",
                old="alpha[:, 0] = 0.0",
                new="alpha[:, :] = 0.0",
            ),
            Wrong(
                "Padded frames must not change α.",
                old="torch.where(t < input_lengths, reached + emissions[:, t], alpha)",
                new="reached + emissions[:, t]",
            ),
            Wrong(
                "The frame's own probability counts, not that of the first frame.",
                old="reached + emissions[:, t]",
                new="reached + emissions[:, 0]",
            ),
            Wrong(
                "Stay with logarithms: products of many probabilities underflow.",
                old="torch.stack([alpha, step, skip]).logsumexp(0)",
                new="torch.stack([alpha, step, skip]).exp().sum(0).log().clamp(LOG_ZERO)",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="ctc",
        parts=("backward_variables",),
        title="the same from the other end",
        points=6,
        minutes=30,
        difficulty="medium",
        tests=(
            "test_forward_and_backward_variables_give_the_likelihood_at_every_frame",
            "test_gradient_by_hand_is_that_of_autograd_through_the_forward_variables",
            "test_padded_frames_have_no_effect_and_no_gradient",
        ),
        wrong=(
            Wrong(
                "A path ends in the last label or the blank after it: start from "
                "`final`.",
                old="beta = final",
                new="beta = torch.zeros_like(final)",
            ),
            Wrong(
                "From a state, the path stays, or goes on to s + 1 or s + 2.",
                old="F.pad(stay, (0, 1), value=LOG_ZERO)[:, 1:]",
                new="F.pad(stay, (1, 0), value=LOG_ZERO)[:, :-1]",
            ),
            Wrong(
                "`may_skip` belongs to the state that is skipped to: mask before "
                "you shift.",
                old="skip = stay.masked_fill(~may_skip, LOG_ZERO)",
                new="skip = stay",
                more=(
                    (
                        "skip = F.pad(skip, (0, 2), value=LOG_ZERO)[:, 2:]",
                        "skip = F.pad(skip, (0, 2), value=LOG_ZERO)[:, "
                        "2:].masked_fill(~may_skip, LOG_ZERO)",
                    ),
                ),
            ),
            Wrong(
                "The emission is that of the state reached: add it before you shift.",
                old="stay = beta + emissions[:, t]",
                new="stay = beta",
                more=(
                    (
                        "torch.stack([stay, step, skip]).logsumexp(0)",
                        "torch.stack([stay, step, skip]).logsumexp(0) + "
                        "emissions[:, t]",
                    ),
                ),
            ),
            Wrong(
                "Start from the last frame.",
                old="reversed(range(emissions.size(1)))",
                new="range(emissions.size(1))",
            ),
            Wrong(
                "Return β in the order of the frames.",
                old="betas[::-1]",
                new="betas",
            ),
            Wrong(
                "Padded frames must not change β.",
                old="torch.where(t < input_lengths, completed, beta)",
                new="completed",
            ),
        ),
    ),
    Exercise(
        chapter=14,
        module="ctc",
        parts=("ctc_decode",),
        title="merge, then drop",
        points=3,
        minutes=15,
        difficulty="easy",
        tests=(
            "test_equal_labels_with_a_blank_between_them_stay_two",
            "test_decoding_merges_repeats_and_then_drops_blanks",
            "test_training_on_the_loss_makes_decoding_right",
        ),
        wrong=(
            Wrong(
                "Merge repeats first, then drop blanks: a blank keeps two equal "
                "labels apart.",
                old="merged = labels[:length].unique_consecutive().tolist()",
                new=(
                    "kept = labels[:length]\n"
                    "        merged = kept[kept != blank].unique_consecutive().tolist()"
                ),
            ),
            Wrong(
                "Neighbouring equal labels are one.",
                old=".unique_consecutive()",
                new="",
            ),
            Wrong(
                "Only neighbours are merged: a label may come again later.",
                old=".unique_consecutive()",
                new=".unique()",
            ),
            Wrong(
                "Blanks are dropped.",
                old="[label for label in merged if label != blank]",
                new="merged",
            ),
            Wrong(
                "The blank need not be 0.",
                old="label != blank",
                new="label != 0",
            ),
            Wrong(
                "What follows a sound's end is padding: use its length.",
                old="labels[:length]",
                new="labels",
            ),
            Wrong(
                "The most probable label of each frame: the largest over the labels.",
                old="argmax(2)",
                new="argmin(2)",
            ),
        ),
    ),
)
