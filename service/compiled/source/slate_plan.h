// What a fitted declaration asks of a slate, prepared once by slate_plan.py: the same fields in the same order there.
#pragma once

#include <cmath>
#include <cstdint>

#include "fitted.h"
#include "json.h"
#include "slate.h"

struct Feature {
    const char *name;
    int64_t length;
    int64_t kind;     // of FeatureKind
    int64_t missing;  // place of its flag; -1 where it need not be given
};

// One id field of user and context, or of the candidates.
struct IdField {
    int64_t feature;  // -1: the user's own id, or the item's
    int64_t column, width;
    const IdTable *table;
    const int64_t *stored;  // (I + 1, width), of the item table; may be null
    int64_t unseen;         // place of its count
};

// One number; of the candidates, of user and context, or of the steps of a stream.
struct NumberField {
    int64_t source;  // feature or statistic; of a step, of StepSource
    int64_t computed;  // 1: `source` is a statistic
    int64_t column, flag;  // flag -1: none
    Scaler scaler;
    const double *stored;  // (I + 1), of the item table; may be null
};

// One id of the steps of a stream.
struct StepId {
    int64_t source;  // of StepSource
    int64_t column, width;
    const IdTable *table;
    const int64_t *stored;
    int64_t unseen;  // place of its count; -1: not counted
};

struct Filter {
    double lowest, highest;  // NaN: no such bound
    const uint32_t *types;
    int64_t type_count;  // -1: any type
};

struct Stream {
    int64_t filter, max_len;
    const StepId *ids;
    int64_t id_count;
    const NumberField *numbers;
    int64_t number_count;
};

struct Statistic {
    int64_t kind;  // of StatisticKind
    int64_t filter;
    int64_t newest;           // values that are looked at, at most; 0: all
    double half_life_days;
    int64_t match;            // place of what is compared; -1: nothing
};

// What candidates and behaviours are compared by.
struct Match {
    int64_t filter;
    int64_t feature;           // given with the candidates, or -1
    const uint64_t *values;    // (I + 1, width) id64, null: the items themselves
    const uint64_t *sets;      // (I + 1) bit sets, or null
    const uint64_t *alphabet;  // of the bits, sorted
    int64_t letters, width;
};

struct Plan {
    const uint64_t *items;  // (I) sorted
    int64_t item_count;
    const Feature *features;  // of the user, then of the context, then of the candidates
    int64_t user_features, told_features, feature_count;
    int64_t user_missing;  // flag of the user's own id; -1: no feature reads it
    const IdField *user_ids;
    int64_t user_id_count, user_id_width;
    const NumberField *user_numbers;
    int64_t user_number_count, user_number_width;
    const IdField *candidate_ids;
    int64_t candidate_id_count, candidate_id_width;
    const NumberField *candidate_numbers;
    int64_t candidate_number_count, candidate_number_width;
    const Filter *filters;
    int64_t filter_count;
    const Stream *streams;
    int64_t stream_count, step_id_width, step_number_width, masks;
    const Statistic *statistics;
    int64_t statistic_count;
    const Match *matches;
    int64_t match_count;
    int64_t unseen_count, missing_count;
    int64_t max_visible;  // behaviours that any feature may look at
};

enum FeatureKind { ONE_ID, SEVERAL_IDS, A_NUMBER };
enum StepSource { ITEM, ITEM_COLUMN, TYPE, VALUE, AGE, GAP };
enum StatisticKind { COUNT, SINCE, PER_HOUR, MEAN, DEVIATION, DECAYED, SHARE };

inline bool is_called(const Feature &feature, const Text &name) { return same(name, feature.name, feature.length); }

constexpr int64_t UNKNOWN_ROW = -1;

inline void write_number(const NumberField &field, double value, float *row) {
    row[field.column] = scaled(field.scaler, value);
    if (field.flag >= 0) row[field.flag] = std::isnan(value) ? 1.0f : 0.0f;
}
