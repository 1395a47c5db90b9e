// What was learned from training rows, as it is used: embedding tables and scalers; the same fields in the same order in
// fitted_parts.py.
#pragma once

#include <cmath>
#include <cstdint>

struct IdTable {
    int64_t kind;           // of TableKind
    const uint64_t *ids;    // VOCABULARY: sorted
    const double *bounds;   // INTERVALS: ascending
    int64_t count;          // of ids, buckets or bounds
    uint64_t offset;        // HASHED: what the seed adds to an id
};

struct Scaler {
    int64_t kind;  // of ScalerKind
    double shift, scale, limit, missing;
    const double *knots;  // RANKED: (count, 2)
    int64_t count;
};

enum TableKind { VOCABULARY, HASHED, INTERVALS };
enum ScalerKind { PLAIN, LOGARITHM, RANKED };

constexpr int64_t UNSEEN = 1, FIRST_REAL = 2;
constexpr uint64_t NO_ID = 0;

// How far into a sorted array of hashes one lies, by its size alone: hashes are spread evenly.
inline int64_t guessed(uint64_t id, int64_t count) {
    return static_cast<int64_t>((static_cast<unsigned __int128>(id) * static_cast<uint64_t>(count)) >> 64);
}

// A better guess, from what stands at the first one.
inline int64_t guessed_again(const uint64_t *ids, int64_t count, uint64_t id, int64_t guess) {
    const uint64_t there = ids[guess];
    const int64_t place = there < id ? guess + guessed(id - there, count) : guess - guessed(there - id, count);
    return place < 0 ? 0 : place < count ? place : count - 1;
}

// Place of an id, -1 if it is not there: in growing steps away from a guess, and then in halves.
inline int64_t found_near(const uint64_t *ids, int64_t count, uint64_t id, int64_t guess) {
    int64_t low = guess, high = guess;  // the first one that is not smaller lies in [low, high]
    if (ids[guess] < id) {
        for (int64_t step = 1; high < count && ids[high] < id; step *= 2) {
            low = high + 1;
            high += step;
        }
        if (high > count) high = count;
    } else {
        for (int64_t step = 1; low > 0 && ids[low] > id; step *= 2) {
            high = low;
            low -= step;
        }
        if (low < 0) low = 0;
    }
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (ids[middle] < id) low = middle + 1;
        else high = middle;
    }
    return low < count && ids[low] == id ? low : -1;
}

inline int64_t found(const uint64_t *ids, int64_t count, uint64_t id) {
    if (count == 0) return -1;
    return found_near(ids, count, id, guessed_again(ids, count, id, guessed(id, count)));
}

// Places of many ids. Each look into the array waits for memory, so they are made side by side and not one by one.
template <typename IdAt>
void find_all(const uint64_t *ids, int64_t count, IdAt id_at, int64_t *places, int64_t number) {
    if (count == 0) {
        for (int64_t row = 0; row < number; ++row) places[row] = -1;
        return;
    }
    for (int64_t row = 0; row < number; ++row) {
        places[row] = guessed(id_at(row), count);
        __builtin_prefetch(ids + places[row]);
    }
    for (int64_t row = 0; row < number; ++row) {
        places[row] = guessed_again(ids, count, id_at(row), places[row]);
        __builtin_prefetch(ids + places[row]);
    }
    for (int64_t row = 0; row < number; ++row) places[row] = found_near(ids, count, id_at(row), places[row]);
}

// Row of an id in its embedding table.
inline int64_t row_of(const IdTable &table, uint64_t id) {
    if (id == NO_ID) return UNSEEN;
    if (table.kind == HASHED) {
        uint64_t mixed = id + table.offset;
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
        return static_cast<int64_t>((mixed ^ (mixed >> 31)) % static_cast<uint64_t>(table.count)) + FIRST_REAL;
    }
    const int64_t place = found(table.ids, table.count, id);
    return place < 0 ? UNSEEN : place + FIRST_REAL;
}

// Row of the interval that a number falls into; one on a boundary belongs to the upper interval.
inline int64_t interval_of(const IdTable &table, double value) {
    if (std::isnan(value)) return UNSEEN;
    int64_t low = 0, high = table.count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (table.bounds[middle] <= value) low = middle + 1;
        else high = middle;
    }
    return low + FIRST_REAL;
}

// A number's rank among the training quantiles, between them on a straight line.
inline double rank_of(const Scaler &scaler, double value) {
    const double *knots = scaler.knots;
    const int64_t last = scaler.count - 1;
    if (value <= knots[0]) return knots[1];
    if (value >= knots[2 * last]) return knots[2 * last + 1];
    int64_t low = 0, high = last;  // knots[low] <= value < knots[high]
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (knots[2 * middle] <= value ? low : high) = middle;
    }
    const double *left = knots + 2 * low, *right = left + 2;
    return (right[1] - left[1]) / (right[0] - left[0]) * (value - left[0]) + left[1];
}

inline float scaled(const Scaler &scaler, double value) {
    if (std::isnan(value)) return static_cast<float>(scaler.missing);
    if (scaler.kind == RANKED) return static_cast<float>(rank_of(scaler, value) - 0.5);
    if (scaler.kind == LOGARITHM) value = std::copysign(std::log1p(std::fabs(value)), value);
    value = (value - scaler.shift) / scaler.scale;
    value = value < -scaler.limit ? -scaler.limit : value;
    return static_cast<float>(value > scaler.limit ? scaler.limit : value);
}
