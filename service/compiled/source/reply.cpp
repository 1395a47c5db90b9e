// The JSON of a reply to /score from the graph's logits; see reply.py for what the caller prepares.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "exported.h"

// A text in memory; the same fields in the same order in reply.py.
struct ReplyPiece {
    const char *start;
    int64_t length;
};

// What stands between one task's logit and its probability; the same fields in the same order in reply.py.
struct ReplyTask {
    ReplyPiece probabilities;  // what the members of the reply begin with
    ReplyPiece logits;
    double log_rate;  // z + log_rate, and then + serve_prior - train_prior
    double serve_prior;
    double train_prior;
    double slope;  // (slope z + offset) / temperature
    double offset;
    double temperature;
    int64_t knots;       // points of the curve from the sigmoid to the probability; 0 where there is none
    const double *from;  // (knots)
    const double *to;    // (knots)
};

// All that is the same for every reply; the same fields in the same order in reply.py.
struct ReplyForm {
    const ReplyTask *tasks;  // (K)
    int64_t count;      // K
    int64_t ctr;        // the tasks whose product is one more, or -1
    int64_t cvr;
    ReplyPiece product;
};

namespace {

constexpr double LOWEST = std::numeric_limits<double>::min();
constexpr double HIGHEST = 1.0 - std::numeric_limits<double>::epsilon() / 2;
constexpr int64_t LONGEST_NUMBER = 32;

constexpr int64_t ID_STARTS = 15;  // {"request_id":"

// Whether letters need no escape in JSON.
bool plain(const char *start, int64_t length) {
    for (int64_t i = 0; i < length; ++i) {
        if (start[i] < ' ' || start[i] > '~' || start[i] == '"' || start[i] == '\\') return false;
    }
    return true;
}

double bounded(double probability) { return std::min(std::max(probability, LOWEST), HIGHEST); }

// exp of what is not positive cannot overflow, and each half of the line has the form that loses no digits there.
double sigmoid(double z) {
    const double small = std::exp(-std::fabs(z));
    return (z >= 0 ? 1.0 : small) / (1.0 + small);
}

// Straight between the points of a curve, constant outside.
double along(const ReplyTask &task, double x) {
    const int64_t above = std::upper_bound(task.from, task.from + task.knots, x) - task.from;
    if (above == 0) return task.to[0];
    const int64_t below = above - 1;
    if (above == task.knots || task.from[below] == x) return task.to[below];
    const double slope = (task.to[above] - task.to[below]) / (task.from[above] - task.from[below]);
    return slope * (x - task.from[below]) + task.to[below];
}

double probability(const ReplyTask &task, double logit) {
    const double z = logit + task.log_rate + task.serve_prior - task.train_prior;
    const double p = sigmoid((task.slope * z + task.offset) / task.temperature);
    return bounded(task.knots > 0 ? along(task, p) : p);
}

class Writer {
public:
    Writer(const ReplyForm &form, const char *logits, int64_t candidates, char *out)
        : form_(form), logits_(logits), candidates_(candidates), at_(out) {}

    void text(const ReplyPiece &piece) {
        std::memcpy(at_, piece.start, piece.length);
        at_ += piece.length;
    }

    // An array of a number for each candidate, and their sum.
    template <typename Number>
    double array(Number number) {
        double sum = 0;
        for (int64_t candidate = 0; candidate < candidates_; ++candidate) {
            const double value = number(candidate);
            sum += value;
            write(value);
            *at_++ = ',';
        }
        at_[-1] = ']';
        return sum;
    }

    double logit(int64_t candidate, int64_t task) const {
        float value;
        std::memcpy(&value, logits_ + (candidate * form_.count + task) * sizeof value, sizeof value);
        return value;
    }

    bool finite() const {
        for (int64_t candidate = 0; candidate < candidates_; ++candidate) {
            for (int64_t task = 0; task < form_.count; ++task) {
                if (!std::isfinite(logit(candidate, task))) return false;
            }
        }
        return true;
    }

    // The sums of the probabilities go where the means are wanted.
    void probabilities(const ReplyTask *tasks, double *means) {
        for (int64_t task = 0; task < form_.count; ++task) {
            text(tasks[task].probabilities);
            *means++ = array([&](int64_t candidate) { return probability(tasks[task], logit(candidate, task)); });
        }
        if (form_.ctr < 0) return;
        text(form_.product);
        // Of the corrected factors: correcting the product would correct twice.
        *means = array([&](int64_t candidate) {
            return bounded(probability(tasks[form_.ctr], logit(candidate, form_.ctr)) *
                           probability(tasks[form_.cvr], logit(candidate, form_.cvr)));
        });
    }

    void logits(const ReplyTask *tasks) {
        for (int64_t task = 0; task < form_.count; ++task) {
            text(tasks[task].logits);
            array([&](int64_t candidate) { return logit(candidate, task); });
        }
    }

    char *at() const { return at_; }

private:
    const ReplyForm &form_;
    const char *logits_;
    int64_t candidates_;
    char *at_;

    // The shortest text that reads back as the same number; with a point or an exponent also where it is whole, so
    // that no reader takes it for an integer.
    void write(double value) {
        char *const start = at_;
        at_ = std::to_chars(at_, at_ + LONGEST_NUMBER, value).ptr;
        if (value == std::trunc(value) && std::find(start, at_, 'e') == at_) {
            *at_++ = '.';
            *at_++ = '0';
        }
    }
};

}  // namespace

// How many bytes the reply takes, or -1 where a logit is no finite number or the request's id could not stand in JSON
// as it is. The facts begin with ID_STARTS bytes and the id. The caller has made room for LONGEST_NUMBER a number and
// for all texts, and before them for the means.
EXPORTED int64_t ctrlift_write_reply(const ReplyForm *form, const char *logits, int64_t candidates, const char *facts,
                                     int64_t facts_length, int64_t id_length, int64_t raw, char *out) {
    const int64_t shown = form->count + (form->ctr >= 0);
    double *means = reinterpret_cast<double *>(out);
    char *start = out + shown * sizeof(double);
    Writer writer(*form, logits, candidates, start);
    if (!writer.finite() || !plain(facts + ID_STARTS, id_length)) return -1;
    writer.text({facts, facts_length});
    writer.probabilities(form->tasks, means);
    if (raw) {
        writer.text({"}", 1});
        writer.logits(form->tasks);
    }
    writer.text({"}}", 2});
    for (int64_t task = 0; task < shown; ++task) means[task] /= static_cast<double>(candidates);
    return writer.at() - start;
}
