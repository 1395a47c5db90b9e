// A slate and what is stored about its user to the arrays of a network. What the ordinary way would refuse, or count as
// damage, ends the encoding.
#pragma once

#include <algorithm>

#include "slate_matches.h"
#include "slate_stored.h"

enum Array { USER_IDS, USER_NUMBERS, CANDIDATE_IDS, CANDIDATE_NUMBERS, STEP_IDS, STEP_NUMBERS, MASK, ARRAYS };

// What the block begins with.
struct Head {
    int64_t length;  // behaviours that are used
    int64_t steps;   // T
    int64_t starts[ARRAYS];
    int64_t unseen, missing;  // whether any id is unseen, and how many features are missing
    int64_t counts, flags;    // where the counts of unseen ids begin, and the flags of missing features
};

// What the store has about the user; null where there is nothing.
struct Stored {
    const char *sequence;
    int64_t sequence_length;
    const char *features;
    int64_t features_length;
};

constexpr char FORMAT_BYTE = 1;
constexpr int64_t MOST_FEATURE_BYTES = 64 * 1024;
constexpr int64_t NULLS = -1;

// Cuts memory that holds zeros into pieces.
class Room {
public:
    Room(void *first, int64_t size) : first_(static_cast<char *>(first)), size_(size) {}

    template <typename T>
    T *take(int64_t count, int64_t *start = nullptr) {
        T *piece = reinterpret_cast<T *>(first_ + at_);
        if (start != nullptr) *start = at_;
        at_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
        if (at_ <= size_) return piece;
        at_ = size_ + 1;  // and so it stays
        return nullptr;
    }

    bool held() const { return at_ <= size_; }

private:
    char *first_;
    int64_t at_ = 0, size_;
};

class Encoding {
public:
    Encoding(const Plan &plan, const Slate &slate, const char *body, Room room)
        : plan_(plan), slate_(slate), body_(body), room_(room), ids_(cells_of(slate) + slate.first) {}

    bool run(const Stored &stored, int64_t max_events, double now) {
        const char *records;
        int64_t events;
        if (!newest(stored, max_events, records, events)) return false;
        History history(plan_, records, events, std::isnan(slate_.ts) ? now : slate_.ts);
        if (!make_room(events) || !history.sound() || !told() || !kept(stored)) return false;
        history.cut(event_rows_, event_places_, kept_);
        find_candidates();
        users(history);
        candidates(history);
        steps(history);
        for (int64_t field = 0; field < plan_.unseen_count; ++field) head_->unseen |= unseen_[field] > 0;
        for (int64_t flag = 0; flag < plan_.missing_count; ++flag) head_->missing += missing_[flag];
        return true;
    }

private:
    const Plan &plan_;
    const Slate &slate_;
    const char *body_;
    Room room_;
    const uint64_t *ids_;  // (C)

    Head *head_ = nullptr;
    int64_t *unseen_ = nullptr;
    uint8_t *missing_ = nullptr;
    int64_t *user_ids_ = nullptr, *candidate_ids_ = nullptr;
    float *user_numbers_ = nullptr, *candidate_numbers_ = nullptr;
    Steps steps_ = {nullptr, nullptr, nullptr};
    Values values_ = {nullptr, nullptr};
    int64_t *columns_ = nullptr;  // by candidates' feature: 1 + its first cell; 0 for none, NULLS for nothing but null
    int64_t *rows_ = nullptr;     // (C) of the item table
    int64_t *event_rows_ = nullptr;
    int32_t *event_places_ = nullptr;
    uint64_t *happened_ = nullptr;
    Kept *kept_ = nullptr;
    Tally *tallies_ = nullptr;  // (matches, C)

    // The newest records of a stored value; false where it is torn.
    static bool newest(const Stored &stored, int64_t most, const char *&records, int64_t &count) {
        records = nullptr;
        count = 0;
        if (stored.sequence == nullptr) return true;
        const int64_t bytes = stored.sequence_length - 1;
        if (bytes < 0 || stored.sequence[0] != FORMAT_BYTE || bytes % History::RECORD != 0) return false;
        count = bytes / History::RECORD < most ? bytes / History::RECORD : most;
        records = stored.sequence + stored.sequence_length - count * History::RECORD;
        return true;
    }

    bool make_room(int64_t events) {
        const int64_t count = slate_.candidates;
        int64_t steps = 1;
        for (int64_t number = 0; number < plan_.stream_count; ++number) {
            const int64_t most = plan_.streams[number].max_len < events ? plan_.streams[number].max_len : events;
            if (most > steps) steps = most;
        }
        int64_t starts[ARRAYS];
        head_ = room_.take<Head>(1);
        int64_t counts, flags;
        unseen_ = room_.take<int64_t>(plan_.unseen_count, &counts);
        missing_ = room_.take<uint8_t>(plan_.missing_count, &flags);
        user_ids_ = room_.take<int64_t>(plan_.user_id_width, starts + USER_IDS);
        user_numbers_ = room_.take<float>(plan_.user_number_width, starts + USER_NUMBERS);
        candidate_ids_ = room_.take<int64_t>(count * plan_.candidate_id_width, starts + CANDIDATE_IDS);
        candidate_numbers_ = room_.take<float>(count * plan_.candidate_number_width, starts + CANDIDATE_NUMBERS);
        steps_.ids = room_.take<int64_t>(steps * plan_.step_id_width, starts + STEP_IDS);
        steps_.numbers = room_.take<float>(steps * plan_.step_number_width, starts + STEP_NUMBERS);
        steps_.mask = room_.take<uint8_t>(steps * plan_.masks, starts + MASK);
        values_ = {room_.take<int64_t>(plan_.told_features), room_.take<uint64_t>(plan_.told_features)};
        columns_ = room_.take<int64_t>(plan_.feature_count);
        rows_ = room_.take<int64_t>(count);
        event_rows_ = room_.take<int64_t>(events);
        event_places_ = room_.take<int32_t>(events * plan_.filter_count);
        happened_ = room_.take<uint64_t>(events);
        kept_ = room_.take<Kept>(plan_.filter_count);
        tallies_ = room_.take<Tally>(plan_.match_count * count);
        if (!room_.held()) return false;
        std::memcpy(head_->starts, starts, sizeof starts);
        head_->counts = counts;
        head_->flags = flags;
        return true;
    }

    // What the body says, by feature; false for a name that is not one of its side, and for a value of another kind.
    bool told() {
        const int64_t first_of[] = {0, plan_.user_features, plan_.told_features};
        const int64_t end_of[] = {plan_.user_features, plan_.told_features, plan_.feature_count};
        int64_t likely = 0;
        for (int32_t number = 1; number <= slate_.members; ++number) {
            const Member *member = members_of(slate_) - number;
            const Text name = {body_ + member->name_start, member->name_length};
            const int64_t place = find(name, first_of[member->side], end_of[member->side], likely);
            if (place < 0 || !fits(plan_.features[place].kind, member->kind)) return false;
            likely = place + 1;
            if (member->side == CANDIDATE) {
                columns_[place] = member->kind == NOTHING ? NULLS : 1 + static_cast<int64_t>(member->value);
            } else {
                const uint64_t none = plan_.features[place].kind == A_NUMBER ? bits_of(NO_NUMBER) : NO_ID;
                values_.told[place] = GIVEN;
                values_.bits[place] = member->kind == NOTHING ? none : member->value;
            }
        }
        return true;
    }

    // Features are mostly told in one order, so the one behind the last one is looked at first.
    int64_t find(const Text &name, int64_t first, int64_t end, int64_t likely) const {
        if (likely > first && likely < end && is_called(plan_.features[likely], name)) return likely;
        for (int64_t place = first; place < end; ++place) {
            if (is_called(plan_.features[place], name)) return place;
        }
        return -1;
    }

    static bool fits(int64_t declared, int32_t kind) {
        return kind == NOTHING || (declared == A_NUMBER && kind == NUMBER) || (declared == ONE_ID && kind == TEXT);
    }

    // What the store keeps besides, and which features nobody told.
    bool kept(const Stored &stored) {
        if (stored.features != nullptr) {
            const int64_t length = stored.features_length;
            if (length > MOST_FEATURE_BYTES || !valid_utf8(stored.features, length)) return false;
            if (!StoredFeatures(stored.features, length, plan_, values_).read()) return false;
        }
        for (int64_t place = 0; place < plan_.feature_count; ++place) {
            const int64_t flag = plan_.features[place].missing;
            if (flag >= 0) missing_[flag] = place < plan_.told_features ? !known(place) : columns_[place] == 0;
        }
        if (plan_.user_missing >= 0) missing_[plan_.user_missing] = slate_.user_start < 0;
        return true;
    }

    bool known(int64_t place) const { return values_.told[place] == GIVEN || values_.told[place] == KEPT; }

    void find_candidates() {
        find_all(plan_.items, plan_.item_count, [this](int64_t row) { return ids_[row]; }, rows_, slate_.candidates);
        for (int64_t row = 0; row < slate_.candidates; ++row) {
            if (rows_[row] == UNKNOWN_ROW) rows_[row] = plan_.item_count;
        }
    }

    void users(const History &history) {
        for (const IdField *field = plan_.user_ids; field < plan_.user_ids + plan_.user_id_count; ++field) {
            const bool own = field->feature < 0, given = own ? slate_.user_start >= 0 : known(field->feature);
            const uint64_t id = !given ? NO_ID : own ? slate_.user : values_.bits[field->feature];
            const int64_t code = row_of(*field->table, id);
            user_ids_[field->column] = code;
            unseen_[field->unseen] = given ? code == UNSEEN && id != NO_ID : -1;
        }
        const NumberField *end = plan_.user_numbers + plan_.user_number_count;
        for (const NumberField *field = plan_.user_numbers; field < end; ++field) {
            const double value = field->computed        ? history.statistic(plan_.statistics[field->source])
                                 : known(field->source) ? number_of(values_.bits[field->source])
                                                        : NO_NUMBER;
            write_number(*field, value, user_numbers_);
        }
    }

    const uint64_t *column(int64_t feature) const {
        return feature < 0 || columns_[feature] <= 0 ? nullptr : cells_of(slate_) + columns_[feature] - 1;
    }

    void candidates(const History &history) {
        for (int64_t number = 0; number < plan_.match_count; ++number) {
            const Match &match = plan_.matches[number];
            const Compared compared = {ids_, rows_, column(match.feature), slate_.candidates};
            Agreement(match, history).count(compared, happened_, tallies_ + number * slate_.candidates);
        }
        const IdField *last = plan_.candidate_ids + plan_.candidate_id_count;
        for (const IdField *field = plan_.candidate_ids; field < last; ++field) {
            const bool own = field->feature < 0;
            unseen_[field->unseen] = own ? item_ids(*field) : candidate_ids(*field, column(field->feature));
        }
        const NumberField *end = plan_.candidate_numbers + plan_.candidate_number_count;
        for (const NumberField *field = plan_.candidate_numbers; field < end; ++field) {
            if (field->computed) computed_numbers(*field, history);
            else candidate_numbers(*field, column(field->source));
        }
    }

    // The candidates themselves; how many their table does not know.
    int64_t item_ids(const IdField &field) {
        int64_t unseen = 0, *cell = candidate_ids_ + field.column;
        for (int64_t row = 0; row < slate_.candidates; ++row, cell += plan_.candidate_id_width) {
            const bool listed = field.stored != nullptr && rows_[row] != plan_.item_count;
            *cell = listed ? field.stored[rows_[row]] : row_of(*field.table, ids_[row]);
            unseen += *cell == UNSEEN && ids_[row] != NO_ID;
        }
        return unseen;
    }

    // A feature of the candidates: what the body gives, and else the item table; how many given ids are unknown, -1
    // where none are given.
    int64_t candidate_ids(const IdField &field, const uint64_t *given) {
        int64_t unseen = 0, *cell = candidate_ids_ + field.column;
        for (int64_t row = 0; row < slate_.candidates; ++row, cell += plan_.candidate_id_width) {
            const uint64_t id = given == nullptr ? NO_ID : given[row];
            if (id != NO_ID || field.stored == nullptr) {
                *cell = row_of(*field.table, id);
                unseen += *cell == UNSEEN && id != NO_ID;
            } else {
                const int64_t *stored = field.stored + rows_[row] * field.width;
                for (int64_t slot = 0; slot < field.width; ++slot) cell[slot] = stored[slot];
            }
        }
        return columns_[field.feature] == 0 ? -1 : unseen;
    }

    void candidate_numbers(const NumberField &field, const uint64_t *given) {
        float *numbers = candidate_numbers_;
        for (int64_t row = 0; row < slate_.candidates; ++row, numbers += plan_.candidate_number_width) {
            double value = given == nullptr ? NO_NUMBER : number_of(given[row]);
            if (std::isnan(value) && field.stored != nullptr) value = field.stored[rows_[row]];
            write_number(field, value, numbers);
        }
    }

    void computed_numbers(const NumberField &field, const History &history) {
        const Statistic &asked = plan_.statistics[field.source];
        const Kept &kept = history.kept(asked.filter);
        const Tally *tally = tallies_ + asked.match * slate_.candidates;
        float *numbers = candidate_numbers_;
        for (int64_t row = 0; row < slate_.candidates; ++row, ++tally, numbers += plan_.candidate_number_width) {
            write_number(field, Agreement::statistic(asked.kind, *tally, kept), numbers);
        }
    }

    void steps(const History &history) {
        for (int64_t number = 0; number < plan_.stream_count; ++number) {
            const int64_t length = history.write(plan_.streams[number], number, steps_, unseen_);
            if (length > head_->length) head_->length = length;
        }
        head_->steps = head_->length > 0 ? head_->length : 1;
    }
};

constexpr int64_t PIECES = 24, ALIGNED = 64;  // that the block is cut into, at most

// Room for all that Encoding takes.
inline int64_t room_for(const Plan &plan, int64_t candidates, int64_t events) {
    int64_t steps = 1;
    for (int64_t number = 0; number < plan.stream_count; ++number) {
        steps = std::max(steps, std::min(plan.streams[number].max_len, events));
    }
    const int64_t fixed = sizeof(Head) + plan.unseen_count * 8 + plan.missing_count + plan.user_id_width * 8 +
                          plan.user_number_width * 4 + plan.feature_count * 24 +
                          plan.filter_count * static_cast<int64_t>(sizeof(Kept)) + PIECES * ALIGNED;
    const int64_t of_candidate = plan.candidate_id_width * 8 + plan.candidate_number_width * 4 + 8 +
                                 plan.match_count * static_cast<int64_t>(sizeof(Tally));
    const int64_t of_event = 16 + 4 * plan.filter_count;
    const int64_t of_step = plan.step_id_width * 8 + plan.step_number_width * 4 + plan.masks;
    return fixed + candidates * of_candidate + events * of_event + steps * of_step;
}
