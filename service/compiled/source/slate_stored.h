// Features of a user as the store keeps them: one JSON object of scalars and lists of scalars.
#pragma once

#include "json.h"
#include "slate_plan.h"
#include "xxh3.h"

// Who told a feature: nobody, the request, the store, or the store with a value that is of no use.
enum Told : int64_t { SILENT, GIVEN, KEPT, PASSED };

// The features of user and context, by their places in the declaration.
struct Values {
    int64_t *told;
    uint64_t *bits;
};

class StoredFeatures : public Json {
public:
    StoredFeatures(const char *text, int64_t length, const Plan &plan, const Values &values)
        : Json(text, length), plan_(plan), values_(values) {}

    // Takes what the request leaves open; false where the text is not plain or says something twice.
    bool read() {
        if (!take('{')) return false;
        bool more = !take('}');
        while (more) {
            Text key;
            if (!string(key) || !take(':') || !member(find(key)) || !next('}', more)) return false;
        }
        return at_the_end();
    }

private:
    const Plan &plan_;
    const Values &values_;

    int64_t find(const Text &key) const {
        for (int64_t place = 0; place < plan_.told_features; ++place) {
            if (is_called(plan_.features[place], key)) return place;
        }
        return -1;
    }

    bool member(int64_t place) {
        if (place < 0 || values_.told[place] == GIVEN) return pass_over();
        if (values_.told[place] != SILENT) return false;
        values_.told[place] = PASSED;
        const int64_t kind = plan_.features[place].kind;
        const char first = ahead();
        if (kind == SEVERAL_IDS && first != 'n') return false;
        if (kind == ONE_ID && first == '"') {
            Text text;
            values_.told[place] = KEPT;
            return string(text) && id64(text.start, text.length, values_.bits[place]);
        }
        if (kind == A_NUMBER && (first == '-' || (first >= '0' && first <= '9'))) {
            double number;
            values_.told[place] = KEPT;
            if (!modest_number(number)) return false;
            values_.bits[place] = bits_of(number);
            return true;
        }
        return pass_over();
    }

    bool pass_over() {
        if (ahead() != '[') return ahead() != '{' && skip();
        bool more = take('[') && !take(']');
        while (more) {
            const char first = ahead();
            if (first == '[' || first == '{' || !skip() || !next(']', more)) return false;
        }
        return true;
    }
};
