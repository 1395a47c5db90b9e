// Candidates compared with behaviours: how many agree with each, and the mean of their values.
#pragma once

#include <cstdint>

#include "slate_history.h"

// For each candidate: behaviours that agree, those of them that have a value, and the sum of the values.
struct Tally {
    double agreeing, valued, sum;
};

// What the candidates have in the compared column: `own` (C) or null goes before what the item table has.
struct Compared {
    const uint64_t *ids;   // (C) of the candidates
    const int64_t *rows;   // (C) of the item table
    const uint64_t *own;
    int64_t count;
};

class Agreement {
public:
    Agreement(const Match &match, const History &history)
        : match_(match), history_(history), kept_(history.kept(match.filter)) {}

    // `happened` has room for a behaviour each.
    void count(const Compared &candidates, uint64_t *happened, Tally *tallies) const {
        const int64_t first = kept_.first, events = kept_.stop - first;
        for (int64_t place = 0; place < events; ++place) happened[place] = brought(kept_.places[first + place]);
        for (int64_t row = 0; row < candidates.count; ++row) {
            const uint64_t own = candidates.own == nullptr ? NO_ID : candidates.own[row];
            const uint64_t wanted = wanted_by(candidates, own, row);
            Tally tally = {0, 0, 0};
            for (int64_t place = 0; place < events; ++place) {
                if (!agree(wanted, own, happened[place])) continue;
                const double value = history_.value(kept_.places[first + place]);
                tally.agreeing += 1;
                if (std::isnan(value)) continue;
                tally.valued += 1;
                tally.sum += value;
            }
            tallies[row] = tally;
        }
    }

    static double statistic(int64_t kind, const Tally &tally, const Kept &kept) {
        if (kind == COUNT) return tally.agreeing;
        const auto total = static_cast<double>(kept.stop - kept.first);
        if (kind == SHARE) return tally.agreeing / (total > 1 ? total : 1);
        return tally.valued > 0 ? tally.sum / tally.valued : NO_NUMBER;
    }

private:
    const Match &match_;
    const History &history_;
    const Kept &kept_;

    bool of_items() const { return match_.values == nullptr; }

    // An item, a set of bits, or the row of the values.
    uint64_t brought(int64_t event) const {
        if (of_items()) return history_.item(event);
        const int64_t row = history_.row(event);
        return match_.sets != nullptr ? match_.sets[row] : static_cast<uint64_t>(row);
    }

    uint64_t wanted_by(const Compared &candidates, uint64_t own, int64_t row) const {
        if (of_items()) return candidates.ids[row];
        if (match_.sets == nullptr) return static_cast<uint64_t>(candidates.rows[row]);
        if (own == NO_ID) return match_.sets[candidates.rows[row]];
        const int64_t letter = found(match_.alphabet, match_.letters, own);
        return letter < 0 ? 0 : uint64_t{1} << letter;
    }

    bool agree(uint64_t wanted, uint64_t own, uint64_t happened) const {
        if (of_items()) return wanted == happened;
        if (match_.sets != nullptr) return (wanted & happened) != 0;
        const uint64_t *past = match_.values + static_cast<int64_t>(happened) * match_.width;
        const uint64_t *mine = own == NO_ID ? match_.values + static_cast<int64_t>(wanted) * match_.width : &own;
        const int64_t width = own == NO_ID ? match_.width : 1;
        for (int64_t slot = 0; slot < width; ++slot) {
            for (int64_t other = 0; mine[slot] != NO_ID && other < match_.width; ++other) {
                if (past[other] == mine[slot]) return true;
            }
        }
        return false;
    }
};
