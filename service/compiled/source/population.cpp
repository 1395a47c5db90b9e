// Users by column to the tensors of a graph; see population.py for what the caller prepares.

#include "exported.h"
#include "fitted.h"

// One number of the tensor; the same fields in the same order in population.py.
struct NumberColumn {
    int64_t feature;  // row of the numbers
    int64_t column;   // of the tensor
    int64_t flag;     // column of the flag that says where it is missing, or -1
    Scaler scaler;
};

// One id of the tensor.
struct IdColumn {
    int64_t feature;  // row of the ids
    int64_t column;   // of the tensor
    IdTable table;
};

struct Tensors {
    const NumberColumn *numbers;
    const IdColumn *ids;
    int64_t number_columns, id_columns;  // how many there are
    int64_t number_width, id_width;      // of the tensors
};

// U users and their tensors.
struct Population {
    int64_t users, room;    // U, and the length of a column
    const double *numbers;  // (F, room)
    const uint64_t *ids;    // (F, room)
    float *user_numbers;    // (U, number width)
    int64_t *user_ids;      // (U, id width)
    int64_t *missing;       // by number column and then by id column, how many users have none
    int64_t *unseen;        // by id column, how many have one that the table does not know
};

namespace {

int64_t encode_numbers(const NumberColumn &by, const Population &of, int64_t width) {
    const double *values = of.numbers + by.feature * of.room;
    float *out = of.user_numbers;
    int64_t missing = 0;
    for (int64_t row = 0; row < of.users; ++row, out += width) {
        const bool absent = std::isnan(values[row]);
        missing += absent;
        out[by.column] = scaled(by.scaler, values[row]);
        if (by.flag >= 0) out[by.flag] = absent;
    }
    return missing;
}

int64_t encode_ids(const IdColumn &by, const Population &of, int64_t width, int64_t &unseen) {
    const uint64_t *ids = of.ids + by.feature * of.room;
    int64_t *out = of.user_ids + by.column, missing = 0;
    unseen = 0;
    for (int64_t row = 0; row < of.users; ++row, out += width) {
        *out = row_of(by.table, ids[row]);
        missing += ids[row] == NO_ID;
        unseen += *out == UNSEEN && ids[row] != NO_ID;
    }
    return missing;
}

}  // namespace

EXPORTED void ctrlift_encode_users(const Tensors *by, const Population *of) {
    int64_t *missing = of->missing;
    for (int64_t place = 0; place < by->number_columns; ++place) {
        *missing++ = encode_numbers(by->numbers[place], *of, by->number_width);
    }
    for (int64_t place = 0; place < by->id_columns; ++place) {
        *missing++ = encode_ids(by->ids[place], *of, by->id_width, of->unseen[place]);
    }
}
