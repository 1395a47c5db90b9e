// What a graph returns about users and treatments, in the units of the data, and which treatment each user gets; see
// treating.py for what the caller prepares, and which questions this is an answer to: none about doses, intervals,
// budgets. Whatever is no number ends it, and the answer is worked out in another way.

#include <cmath>
#include <cstdint>

#include "exported.h"

// Letters: U users, K treatments of the graph with the control first, A treatments asked for. The same fields in the
// same order in treating.py.
struct Treating {
    int64_t users, arms, asked;  // U, K, A
    const int64_t *columns;      // (1 + A) of the graph, the control's first
    const float *outcomes;       // (U, K) on the scale of the loss
    const float *propensity;     // (U, K) logits, or null
    const uint8_t *lost;         // (U) who must not get any treatment, or null
    double mean, sd;             // of the outcome; sd 0: it is binary
    double weak, violated;       // bounds of propensities
    int64_t extrapolates;        // treatments are recommended whatever their propensity
    double *numbers;             // (U, 1 + A outcomes, A effects, 1 + A propensities where there are any, 1 gain)
    int8_t *overlap;             // (U, A)
    int64_t *recommended;        // (U) -1 nothing, 0 the control, 1 + place of a treatment
    double *effect_sums;         // (A)
    int64_t *overlap_counts;     // (4)
    int64_t *arm_counts;         // (2 + A) of recommended + 1
};

namespace {

enum Overlap { OK, WEAK, VIOLATED, UNKNOWN };
constexpr int64_t MOST_ARMS = 64;

inline double sigmoid(double z) {
    const double small = std::exp(-std::fabs(z));
    return (z >= 0 ? 1.0 : small) / (1.0 + small);
}

class User {
public:
    User(const Treating &by, int64_t row, double *out) : by_(by), row_(row), out_(out) {}

    // Whether every outcome is a number.
    bool outcomes() {
        const float *given = by_.outcomes + row_ * by_.arms;
        bool finite = true;
        for (int64_t place = 0; place <= by_.asked; ++place) {
            const double value = given[by_.columns[place]];
            out_[place] = by_.sd == 0 ? sigmoid(value) : value * by_.sd + by_.mean;
            finite &= std::isfinite(value) && std::isfinite(out_[place]);
        }
        for (int64_t place = 1; place <= by_.asked; ++place) out_[by_.asked + place] = out_[place] - out_[0];
        return finite;
    }

    // Whether every probability is a number.
    bool propensities() {
        const float *logits = by_.propensity + row_ * by_.arms;
        double shares[MOST_ARMS], sum = 0;
        float most = logits[0];
        for (int64_t arm = 1; arm < by_.arms; ++arm) most = logits[arm] > most ? logits[arm] : most;
        for (int64_t arm = 0; arm < by_.arms; ++arm) sum += shares[arm] = std::exp(double{logits[arm]} - most);
        double *out = out_ + 1 + 2 * by_.asked;
        for (int64_t place = 0; place <= by_.asked; ++place) out[place] = shares[by_.columns[place]] / sum;
        return std::isfinite(sum);
    }

    void overlap() {
        int8_t *flags = by_.overlap + row_ * by_.asked;
        const double *shares = out_ + 2 + 2 * by_.asked;
        for (int64_t place = 0; place < by_.asked; ++place) {
            int8_t flag = UNKNOWN;
            if (by_.propensity != nullptr) flag = (shares[place] < by_.weak) + (shares[place] < by_.violated);
            flags[place] = flag;
            ++by_.overlap_counts[flag];
            by_.effect_sums[place] += out_[1 + by_.asked + place];
        }
    }

    // The best of what is open, ties to the control and to what was named first; its gain, NaN for nothing.
    double recommend() {
        const int8_t *flags = by_.overlap + row_ * by_.asked;
        const double *effects = out_ + 1 + by_.asked;
        const bool closed = by_.lost != nullptr && by_.lost[row_];
        int64_t best = 0;
        bool any = false;
        double gain = 0;
        for (int64_t place = 0; place < by_.asked && !closed; ++place) {
            if (flags[place] == VIOLATED && !by_.extrapolates) continue;
            any = true;
            if (effects[place] > gain) {
                best = place + 1;
                gain = effects[place];
            }
        }
        by_.recommended[row_] = any ? best : -1;
        ++by_.arm_counts[any ? best + 1 : 0];
        return any ? gain : std::nan("");
    }

private:
    const Treating &by_;
    const int64_t row_;
    double *out_;
};

}  // namespace

// 0, or -1 where something is no number.
EXPORTED int64_t ctrlift_treat(const Treating *by) {
    if (by->arms > MOST_ARMS) return -1;
    const bool estimated = by->propensity != nullptr;
    const int64_t width = 2 + 2 * by->asked + (estimated ? 1 + by->asked : 0);
    for (int64_t row = 0; row < by->users; ++row) {
        double *out = by->numbers + row * width;
        User user(*by, row, out);
        if (!user.outcomes() || (estimated && !user.propensities())) return -1;
        user.overlap();
        out[width - 1] = user.recommend();
    }
    return 0;
}
