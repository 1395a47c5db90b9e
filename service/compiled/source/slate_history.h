// One user's stored behaviours: checked, cut to the request's time, filtered, and written as the steps of streams.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "slate_plan.h"

// Behaviours that pass a filter, by their places; [first, stop) of them are visible to the request.
struct Kept {
    int32_t *places;
    int64_t count, first, stop;
};

// The arrays of the steps, and how wide the rows of each are.
struct Steps {
    int64_t *ids;
    float *numbers;
    uint8_t *mask;
};

class History {
public:
    static constexpr int64_t RECORD = 20;

    // Records of the newest behaviours, as they are stored.
    History(const Plan &plan, const char *records, int64_t count, double ts)
        : plan_(plan), records_(records), count_(count), time_(std::floor(ts)) {}

    // Whether nothing is wrong with any record.
    bool sound() const {
        for (int64_t event = 0; event < count_; ++event) {
            if (item(event) == NO_ID || std::isinf(value(event))) return false;
            if (event > 0 && ts(event) < ts(event - 1)) return false;
        }
        return true;
    }

    // Finds items and filters. `rows` has room for a behaviour each, `places` for one each and filter, `kept` for a
    // filter each.
    void cut(int64_t *rows, int32_t *places, Kept *kept) {
        rows_ = rows;
        kept_ = kept;
        find_all(plan_.items, plan_.item_count, [this](int64_t event) { return item(event); }, rows, count_);
        int64_t stop = count_;
        while (stop > 0 && static_cast<double>(ts(stop - 1)) >= time_) --stop;
        const int64_t first = stop > plan_.max_visible ? stop - plan_.max_visible : 0;
        for (int64_t number = 0; number < plan_.filter_count; ++number) {
            kept[number] = filtered(plan_.filters[number], first, stop, places + number * count_);
        }
    }

    const Kept &kept(int64_t filter) const { return kept_[filter]; }
    uint64_t item(int64_t event) const { return at<uint64_t>(event, 0); }
    double value(int64_t event) const { return at<float>(event, 16); }
    // Row of the item table; the last one where it does not list the item.
    int64_t row(int64_t event) const { return rows_[event] == UNKNOWN_ROW ? plan_.item_count : rows_[event]; }

    // The steps of one stream, oldest first; how many there are.
    int64_t write(const Stream &stream, int64_t mask_column, const Steps &steps, int64_t *unseen) const {
        const Kept &kept = kept_[stream.filter];
        const int64_t most = kept.stop - stream.max_len, start = most > kept.first ? most : kept.first;
        for (const StepId *field = stream.ids; field < stream.ids + stream.id_count; ++field) {
            if (field->unseen >= 0) unseen[field->unseen] = count_unseen(*field, kept);
            int64_t *cell = steps.ids + field->column;
            for (int64_t place = start; place < kept.stop; ++place, cell += plan_.step_id_width) {
                write_id(*field, kept, place, cell);
            }
        }
        for (const NumberField *field = stream.numbers; field < stream.numbers + stream.number_count; ++field) {
            float *row = steps.numbers;
            for (int64_t place = start; place < kept.stop; ++place, row += plan_.step_number_width) {
                write_number(*field, number(field->source, field->stored, kept, place), row);
            }
        }
        for (int64_t step = 0; step < kept.stop - start; ++step) steps.mask[step * plan_.masks + mask_column] = 1;
        return kept.stop - start;
    }

    // A number computed from the visible behaviours; NaN where there is nothing to compute it from.
    double statistic(const Statistic &asked) const {
        const Kept &kept = kept_[asked.filter];
        const int64_t count = kept.stop - kept.first;
        if (asked.kind == COUNT) return static_cast<double>(count);
        if (asked.kind == SINCE) return count == 0 ? NO_NUMBER : time_ - ts(kept.places[kept.stop - 1]);
        if (asked.kind == PER_HOUR) {
            return count == 0 ? NO_NUMBER : static_cast<double>(count) * 3600.0 / (time_ - ts(kept.places[kept.first]));
        }
        return of_values(asked, kept);
    }

private:
    const Plan &plan_;
    const char *records_;
    const int64_t count_;
    const double time_;
    int64_t *rows_ = nullptr;
    Kept *kept_ = nullptr;

    template <typename T>
    T at(int64_t event, int64_t offset) const {
        T found;
        std::memcpy(&found, records_ + event * RECORD + offset, sizeof found);
        return found;
    }

    uint32_t ts(int64_t event) const { return at<uint32_t>(event, 8); }
    uint32_t type(int64_t event) const { return at<uint32_t>(event, 12); }

    bool passes(const Filter &filter, int64_t event) const {
        const double given = value(event);
        if (!std::isnan(filter.lowest) && !(given >= filter.lowest)) return false;
        if (!std::isnan(filter.highest) && !(given <= filter.highest)) return false;
        if (filter.type_count < 0) return true;
        for (int64_t number = 0; number < filter.type_count; ++number) {
            if (filter.types[number] == type(event)) return true;
        }
        return false;
    }

    Kept filtered(const Filter &filter, int64_t first, int64_t stop, int32_t *places) const {
        Kept kept = {places, 0, 0, 0};
        for (int64_t event = 0; event < count_; ++event) {
            if (event == first) kept.first = kept.count;
            if (event == stop) kept.stop = kept.count;
            if (passes(filter, event)) places[kept.count++] = static_cast<int32_t>(event);
        }
        if (stop == count_) kept.stop = kept.count;
        return kept;
    }

    // A number of one step: of its behaviour, of its item, or of the time between.
    double number(int64_t source, const double *stored, const Kept &kept, int64_t place) const {
        const int64_t event = kept.places[place];
        if (source == VALUE) return value(event);
        if (source == AGE) return time_ - ts(event);
        if (source != GAP) return stored[row(event)];
        return place == kept.first ? NO_NUMBER : static_cast<double>(ts(event)) - ts(kept.places[place - 1]);
    }

    // Row of a behaviour's item or type in an embedding table.
    int64_t code(const StepId &field, int64_t event) const {
        if (field.source == TYPE) return row_of(*field.table, type(event));
        const bool listed = field.stored != nullptr && rows_[event] != UNKNOWN_ROW;
        return listed ? field.stored[rows_[event]] : row_of(*field.table, item(event));
    }

    void write_id(const StepId &field, const Kept &kept, int64_t place, int64_t *cell) const {
        const int64_t event = kept.places[place];
        if (field.source == ITEM || field.source == TYPE) {
            *cell = code(field, event);
        } else if (field.source == ITEM_COLUMN) {
            std::memcpy(cell, field.stored + row(event) * field.width, static_cast<size_t>(field.width) * sizeof *cell);
        } else {
            *cell = interval_of(*field.table, number(field.source, nullptr, kept, place));
        }
    }

    // All that the store keeps counts here, and not only the steps.
    int64_t count_unseen(const StepId &field, const Kept &kept) const {
        int64_t count = 0;
        for (int64_t place = 0; place < kept.count; ++place) count += code(field, kept.places[place]) == UNSEEN;
        return count;
    }

    // Mean, deviation or decayed mean of the values that there are.
    double of_values(const Statistic &asked, const Kept &kept) const {
        int64_t begin = kept.stop, valued = 0, newest = -1;
        while (begin > kept.first && (asked.newest == 0 || valued < asked.newest)) {
            const int64_t event = kept.places[--begin];
            if (std::isnan(value(event))) continue;
            if (newest < 0) newest = event;
            ++valued;
        }
        if (valued == 0) return NO_NUMBER;
        double weights = 0, sum = 0, squares = 0;
        for (int64_t place = begin; place < kept.stop; ++place) {
            const int64_t event = kept.places[place];
            if (std::isnan(value(event))) continue;
            const double days = (static_cast<double>(ts(newest)) - ts(event)) / 86400.0;
            const double weight = asked.kind == DECAYED ? std::exp2(days / -asked.half_life_days) : 1.0;
            weights += weight;
            sum += weight * value(event);
        }
        const double mean = sum / weights;
        if (asked.kind != DEVIATION) return mean;
        for (int64_t place = begin; place < kept.stop; ++place) {
            const double off = value(kept.places[place]) - mean;
            if (!std::isnan(off)) squares += off * off;
        }
        return std::sqrt(squares / weights);
    }
};
