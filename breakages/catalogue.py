"""One-line breakages: what would go wrong unnoticed in production, and the tests that have to notice it.

`old` stands exactly once in its file; the drill says so where code has moved on. Keep the tests named here quick: they
run once for every breakage.
"""

from __future__ import annotations

from typing import Final

from breakages.breakage import Breakage
from breakages.effects import EFFECT_BREAKAGES
from breakages.fast_path import FAST_PATH_BREAKAGES
from breakages.fast_uplift import FAST_UPLIFT_BREAKAGES
from breakages.graphs import GRAPH_BREAKAGES
from breakages.requests import REQUEST_BREAKAGES

BREAKAGES: Final[tuple[Breakage, ...]] = (
    # ids
    Breakage(
        "ids shifted by one",
        "bundle/tables.py",
        "np.where(found, position + FIRST_REAL, UNSEEN)",
        "np.where(found, position + FIRST_REAL - 1, UNSEEN)",
        ("tests/bundle/test_encode_values.py::test_id_zero_one_and_real",),
    ),
    Breakage(
        "unseen shares the padding row",
        "bundle/tables.py",
        "UNSEEN: Final = 1",
        "UNSEEN: Final = 0",
        ("tests/bundle/test_encode_values.py::test_id_zero_one_and_real",),
    ),
    Breakage(
        "an unseen value gets its neighbour's row",
        "bundle/tables.py",
        'self.vocabulary.take(position, mode="clip") == ids',
        'self.vocabulary.take(position, mode="clip") >= ids',
        ("tests/bundle/test_encode_values.py::test_id_zero_one_and_real",),
    ),
    Breakage(
        "the seed of a hash encoder is forgotten",
        "bundle/tables.py",
        "mix(ids, self.encoder.seed)",
        "mix(ids, 0)",
        ("tests/bundle/test_encode_values.py::test_hash_encoder_takes_the_mixed_hash",),
    ),
    Breakage(
        "a boundary falls into the lower bucket",
        "bundle/tables.py",
        'side="right"',
        'side="left"',
        ("tests/bundle/test_encode_values.py::test_buckets_put_a_boundary_into_the_upper_interval",),
    ),
    # histories
    Breakage(
        "truncation keeps the oldest",
        "bundle/behaviours.py",
        "return Behaviours(self.events, np.maximum(self.start, self.stop - count), self.stop)",
        "return Behaviours(self.events, self.start, np.minimum(self.stop, self.start + count))",
        ("tests/bundle/test_encode_values.py::test_sequences_keep_the_newest_after_the_filter",),
    ),
    Breakage(
        "behaviours of the row's own second are admitted",
        "bundle/behaviours.py",
        "(times[np.minimum(middle, len(times) - 1)] < limit)",
        "(times[np.minimum(middle, len(times) - 1)] <= limit)",
        ("tests/bundle/test_behaviours.py::test_before_is_strictly_earlier_in_whole_seconds",),
    ),
    Breakage(
        "histories are not cut to their row's time",
        "bundle/histories.py",
        "visible = behaviours.before(time).newest(MAX_EVENTS)",
        "visible = behaviours.newest(MAX_EVENTS)",
        ("tests/bundle/test_encode_equality.py::test_a_future_behaviour_changes_nothing",),
    ),
    Breakage(
        "the mask of padded steps is dropped",
        "bundle/streams.py",
        "mask = position < (self.stop[rows] - start)[:, None]",
        "mask = position < np.full_like(start, length)[:, None]",
        ("tests/bundle/test_encode_equality.py::test_single_rows_equal_one_batch",),
    ),
    Breakage(
        "a filter's bound excludes its own value",
        "bundle/histories.py",
        "keep &= value >= where.min_value",
        "keep &= value > where.min_value",
        ("tests/bundle/test_encode_values.py::test_history_numbers",),
    ),
    # corrections
    Breakage(
        "the sign of the sampling correction is flipped",
        "bundle/correct.py",
        "np.asarray(logit, dtype=np.float64) + np.log(_rates(rate))",
        "np.asarray(logit, dtype=np.float64) - np.log(_rates(rate))",
        ("tests/bundle/test_correct.py::test_undoing_in_logits_equals_undoing_in_probabilities",),
    ),
    Breakage(
        "the sampling correction is applied twice",
        "bundle/correct.py",
        'if self.mode == "serving":',
        'if self.mode in ("serving", "training"):',
        ("tests/bundle/test_correct.py::test_sampling_is_undone_at_serving_only_in_serving_mode",),
    ),
    Breakage(
        "the priors are swapped",
        "bundle/correct.py",
        "z = prior_shift_logit(z, settings.train_prior, settings.serve_prior)",
        "z = prior_shift_logit(z, settings.serve_prior, settings.train_prior)",
        ("tests/bundle/test_correct.py::test_order_is_sampling_then_prior_then_calibrator",),
    ),
    Breakage(
        "the calibrator is skipped",
        "bundle/correct.py",
        "np.maximum(calibrator.apply(z), LOWEST)",
        "np.maximum(sigmoid(z), LOWEST)",
        ("tests/bundle/test_correct.py::test_order_is_sampling_then_prior_then_calibrator",),
    ),
    Breakage(
        "a lost history gets the usual calibrator",
        "bundle/correct.py",
        "calibrator = lost if without_history and lost is not None else settings.calibrator",
        "calibrator = settings.calibrator",
        ("tests/bundle/test_correct.py::test_a_lost_history_has_its_own_calibrator",),
    ),
    # bundles
    Breakage(
        "digests are not compared",
        "bundle/loading.py",
        "    if digest != entry.sha256:",
        "    if False:",
        ("tests/bundle/test_bundle_refused.py::test_bit_flips_in_any_file",),
    ),
    Breakage(
        "links are followed",
        "bundle/loading.py",
        "entry.stat(follow_symlinks=False)",
        "entry.stat(follow_symlinks=True)",
        ("tests/bundle/test_bundle_refused.py::test_only_plain_files_are_read",),
    ),
    Breakage(
        "a published version is overwritten",
        "bundle/store.py",
        "    if os.path.lexists(target):",
        "    if False:",
        ("tests/bundle/test_store.py::test_the_same_version_again_is_refused_and_nothing_changes",),
    ),
    Breakage(
        "a half-built bundle has a version's name",
        "bundle/store.py",
        'temporary = folder / f".{version}.tmp',
        'temporary = folder / f"{version}-tmp',
        ("tests/bundle/test_store.py::test_a_killed_export_is_never_picked_up",),
    ),
    Breakage(
        "aliases are not replaced atomically",
        "bundle/store.py",
        "replace_file(self._model(name) / ALIASES_FILE, text.encode())",
        "(self._model(name) / ALIASES_FILE).write_bytes(text.encode())",
        ("tests/bundle/test_store.py::test_aliases_are_replaced_atomically",),
    ),
    # training
    Breakage(
        "vocabulary and scalers are fitted on all rows",
        "training/datasets/dataset.py",
        "FitColumns(rows=rows,",
        "FitColumns(rows=self.whole.rows,",
        ("tests/training/test_no_leak.py::test_vocabulary_and_scalers_come_from_training_rows",),
    ),
    Breakage(
        "row weights are ignored",
        "training/objectives/click.py",
        "total = (losses * weights).sum(dim=0)",
        "total = (losses * counted).sum(dim=0)",
        ("tests/training/test_objectives.py::test_weight_two_is_the_row_twice",),
    ),
    Breakage(
        "a negative may be in the history",
        "training/negatives.py",
        "pending = pending[self.history.holds(owners[pending], drawn[pending])]",
        "pending = pending[:0]",
        ("tests/training/test_negatives.py::test_an_item_met_before_the_row_is_never_drawn_and_every_other_one_is",),
    ),
    Breakage(
        "negatives tell the future",
        "training/negatives.py",
        "base + self.stop[rows]",
        "base + self.events",
        ("tests/training/test_negatives.py::test_what_the_user_does_after_the_row_may_still_be_drawn",),
    ),
    Breakage(
        "ties count for the positive",
        "training/metrics/ranking.py",
        "below = np.cumsum(negatives, axis=-1) - 0.5 * negatives",
        "below = np.cumsum(negatives, axis=-1) - 0.0 * negatives",
        ("tests/training/test_metrics.py::test_auc_counts_ties_half",),
    ),
    # networks
    Breakage(
        "the softmax sees padding",
        "models/layers/masks.py",
        "    real = mask if mask.dtype == torch.bool else mask >= 1",
        "    real = torch.ones_like(mask, dtype=torch.bool)",
        ("tests/models/test_basic_layers.py::test_masked_softmax_is_a_distribution_over_real_steps",),
    ),
    Breakage(
        "update and reset gates are swapped",
        "models/layers/attention_gru.py",
        "            squashed[:, :width],\n            squashed[:, split - width :],\n",
        "            squashed[:, split - width :],\n            squashed[:, :width],\n",
        ("tests/models/test_recurrent.py::test_attention_gru_equals_a_loop_in_numpy",),
    ),
    Breakage(
        "the reset gate is dropped",
        "models/layers/attention_gru.py",
        "torch.addcmul(shared_n, r, from_h, out=n).tanh_()",
        "torch.add(shared_n, from_h, out=n).tanh_()",
        ("tests/models/test_recurrent.py::test_attention_gru_equals_a_loop_in_numpy",),
    ),
    Breakage(
        "the scripted loop forgets the reset gate",
        "models/layers/attention_gru.py",
        "squashed[split - width :] * recurrent_n",
        "recurrent_n",
        ("tests/models/test_recurrent.py::test_dynamic_static_and_scripted_runs_agree",),
    ),
    Breakage(
        "the auxiliary loss is not shifted by one step",
        "models/layers/auxiliary_loss.py",
        "clicked = click_seq.reshape(-1, self.input_size).index_select(0, before + 1)",
        "clicked = click_seq.reshape(-1, self.input_size).index_select(0, before)",
        ("tests/models/test_attention.py::test_auxiliary_loss_of_three_steps_by_hand",),
    ),
    Breakage(
        "a user's history is paired with another user's candidates",
        "models/layers/pairs.py",
        "torch.matmul(queries.unsqueeze(2) * keys.unsqueeze(1), of_product)",
        "torch.matmul(queries.unsqueeze(2) * keys.flip(0).unsqueeze(1), of_product)",
        ("tests/models/test_attention.py::test_many_targets_equal_tiled_rows",),
    ),
    # the service
    Breakage(
        "golden requests are not compared",
        "service/core/version.py",
        "if not difference <= GOLDEN_TOLERANCE:",
        "if False:",
        ("tests/service/test_registry.py::test_a_graph_that_gives_other_logits_than_in_training_is_refused",),
    ),
    Breakage(
        "scores come back in reversed order",
        "service/api/scoring.py",
        "values[0] for task, values in scored.probabilities.items()",
        "np.ascontiguousarray(values[0][::-1]) for task, values in scored.probabilities.items()",
        ("tests/service/test_score.py::test_a_request_gets_the_scores_of_the_core",),
    ),
    Breakage(
        "the request's time is ignored",
        "service/api/score_body.py",
        "ts=asked.ts if isinstance(asked.ts, float) else time.time(),",
        "ts=time.time(),",
        ("tests/service/test_score.py::test_behaviours_at_or_after_the_time_of_the_request_are_ignored",),
    ),
    Breakage(
        "a lost history is not said",
        "service/behaviours/histories.py",
        'return History("empty", None, (NO_HISTORY,), lost=True)',
        'return History("empty", None, (), lost=True)',
        ("tests/service/test_histories.py::test_the_rungs_in_order",),
    ),
    Breakage(
        "a lost history is corrected like an empty one",
        "service/behaviours/histories.py",
        'return History("empty", None, (NO_HISTORY,), lost=True)',
        'return History("empty", None, (NO_HISTORY,), lost=False)',
        ("tests/service/test_histories.py::test_the_rungs_in_order",),
    ),
    Breakage(
        "an equal event is stored twice",
        "service/behaviours/redis.py",
        "if record(old, k) == row then found = true break end",
        "if false then found = true break end",
        ("tests/service/test_stores.py::test_the_script_appends_as_the_reference_does",),
    ),
    Breakage(
        "the calibrator for lost histories is not used",
        "service/core/scorer.py",
        "return version.finish(prepared, ran, without_history=history.lost)",
        "return version.finish(prepared, ran, without_history=False)",
        ("tests/service/test_score.py::test_a_lost_store_is_scored_with_the_calibrator_for_lost_histories",),
    ),
    # the command line
    Breakage(
        "rows without a store are scored as users without history",
        "cli/score.py",
        "scored(chunks, version, opening, lost=lost, workers=workers)",
        "scored(chunks, version, opening, lost=False, workers=workers)",
        (
            "tests/cli/test_score.py::test_without_store_and_history_it_says_so_and_scores_as_the_service_without_its_store",
        ),
    ),
    Breakage(
        "a store's password is written beside the file",
        "cli/loading.py",
        'xxhash.xxh3_64_hexdigest(f"{store_url} {prefix}".encode())',
        'f"{store_url} {prefix}"',
        ("tests/cli/test_store_commands.py::test_a_note_about_another_file_or_store_is_not_believed",),
    ),
    *EFFECT_BREAKAGES,
    *GRAPH_BREAKAGES,
    *REQUEST_BREAKAGES,
    *FAST_PATH_BREAKAGES,
    *FAST_UPLIFT_BREAKAGES,
)
