"""Breakages of the compiled way of a request for treatment effects."""

from __future__ import annotations

from typing import Final

from breakages.breakage import Breakage

FAST_UPLIFT_BREAKAGES: Final[tuple[Breakage, ...]] = (
    Breakage(
        "a value that is not plain is taken for silence",
        "service/compiled/source/users.cpp",
        "if (silent == 2) return false;",
        "",
        ("tests/service/compiled/test_population.py::test_a_value_that_is_not_plain_spoils_nothing",),
    ),
    Breakage(
        "plain stored values are never taken",
        "service/compiled/source/users.cpp",
        "if (silent == 0) return flat();",
        "",
        ("tests/service/compiled/test_population.py::test_plain_stored_values_are_taken",),
    ),
    Breakage(
        "a text of any length is taken",
        "service/compiled/source/users.cpp",
        "if (at_ - start > longest_) return false;",
        "",
        ("tests/service/compiled/test_population.py::test_stored_values_are_taken_as_one_by_one_or_not_at_all",),
    ),
    Breakage(
        "what was read of a value that is not plain stays",
        "service/compiled/users.py",
        "self.numbers[before], self.ids[before] = np.nan, 0",
        "pass",
        ("tests/service/compiled/test_population.py::test_a_value_that_is_not_plain_spoils_nothing",),
    ),
    Breakage(
        "a missing number is not flagged",
        "service/compiled/source/population.cpp",
        "out[by.flag] = absent",
        "out[by.flag] = 0",
        ("tests/service/compiled/test_population.py::test_users_are_encoded_as_the_bundle_says",),
    ),
    Breakage(
        "a tie goes to the treatment",
        "service/compiled/source/treating.cpp",
        "if (effects[place] > gain) {",
        "if (effects[place] >= gain) {",
        ("tests/service/compiled/test_answers.py::test_ties_go_to_the_control_and_to_what_was_named_first",),
    ),
    Breakage(
        "a treatment outside of what was seen is recommended",
        "service/compiled/source/treating.cpp",
        "if (flags[place] == VIOLATED && !by_.extrapolates) continue;",
        "",
        ("tests/service/compiled/test_answers.py::test_answers_are_the_ordinary_ones",),
    ),
    Breakage(
        "an estimate that is no number is answered",
        "service/compiled/source/treating.cpp",
        "finite &= std::isfinite(value) && std::isfinite(out_[place]);",
        "",
        ("tests/service/compiled/test_answers.py::test_what_is_no_number_is_worked_out_in_the_ordinary_way",),
    ),
    Breakage(
        "the control has an effect of its own",
        "service/compiled/source/answers.cpp",
        "if (arm >= 0) out = copy(out, number, stop - number);",
        "out = copy(out, number, stop - number);",
        ("tests/service/compiled/test_answers.py::test_plain_replies_are_written_like_all_others",),
    ),
    Breakage(
        "copies of features never grow old",
        "service/behaviours/feature_copies.py",
        "if copy.at < oldest or not missing:",
        "if not missing:",
        ("tests/service/test_feature_copies.py::test_without_the_store_copies_answer_for_a_while",),
    ),
    Breakage(
        "a deleted user's copy stays",
        "service/behaviours/feature_copies.py",
        "values.pop(user_id, None)",
        "pass",
        ("tests/service/test_feature_copies.py::test_a_deleted_user_has_no_copy",),
    ),
    Breakage(
        "after a wiped store everybody is new",
        "service/behaviours/histories.py",
        'return FeatureBlock("store", found.values, (STORE_WIPED,), [value is None for value in found.values])',
        'return FeatureBlock("store", found.values)',
        ("tests/service/test_feature_copies.py::test_a_wiped_store_is_told_from_a_new_user",),
    ),
    Breakage(
        "damaged features are not told",
        "service/core/uplifter.py",
        "lost[place] = bool(data.corrupt) or",
        "lost[place] =",
        ("tests/service/test_uplift_degraded.py::test_damaged_features_are_left_out_and_said",),
    ),
)
