#include "order.h"

#include <cstdio>

#include "../../../service/compiled/source/json.h"
#include "failing.h"

constexpr double MOST_CONNECTIONS = 256, MOST_REQUESTS = 1e6, LONGEST_S = 120, LAST_PORT = 65535, MOST_SEED = 1e15;

class OrderReader : public Json {
public:
    explicit OrderReader(const std::string &text) : Json(text.data(), static_cast<int64_t>(text.size())) {}

    bool read(Order &order) {
        const bool members = object([&](const Text &key) {
            if (named(key, "host")) return string(order.host);
            if (named(key, "requests")) return string(order.requests);
            if (named(key, "port")) return number(order.port);
            if (named(key, "warm_up")) return number(order.warm_up);
            if (named(key, "patience_s")) return number(order.patience_s);
            return named(key, "plan") && read(order.plan);
        });
        return members && at_the_end();
    }

private:
    using Json::number;

    bool read(Plan &plan) {
        return object([&](const Text &key) {
            if (named(key, "connections")) return number(plan.connections);
            if (named(key, "requests")) return number(plan.requests);
            if (named(key, "rate")) return number(plan.rate);
            if (named(key, "seconds")) return number(plan.seconds);
            return named(key, "seed") && number(plan.seed);
        });
    }

    template <class Member>
    bool object(Member member) {
        bool more = take('{') && !take('}');
        while (more) {
            Text key;
            if (!Json::string(key) || !take(':') || (blank(), !member(key)) || !next('}', more)) return false;
        }
        return true;
    }

    bool string(std::string &value) {
        Text text;
        if (!Json::string(text)) return false;
        value.assign(text.start, static_cast<size_t>(text.length));
        return true;
    }

    static bool named(const Text &key, const char *name) {
        return same(key, name, static_cast<int64_t>(std::strlen(name)));
    }
};

static void check(const char *name, double value, double least, double most) {
    if (value >= least && value <= most) return;
    fail(std::string("the order's ") + name + " is out of its bounds, got " + std::to_string(value));
}

Order read_order(const std::string &json) {
    Order order;
    if (!OrderReader(json).read(order)) fail("the order is not as expected: " + json);
    const Plan &plan = order.plan;
    check("port", order.port, 1, LAST_PORT);
    check("warm_up", order.warm_up, 0, MOST_REQUESTS);
    check("patience_s", order.patience_s, 0.001, LONGEST_S);
    check("connections", plan.connections, 1, MOST_CONNECTIONS);
    check("seed", plan.seed, 0, MOST_SEED);
    if (plan.rate == 0) {
        check("requests", plan.requests, 1, MOST_REQUESTS);
    } else {
        check("rate", plan.rate, 1e-9, MOST_REQUESTS);
        check("seconds", plan.seconds, 1e-9, LONGEST_S);
    }
    return order;
}

static uint32_t length_at(const std::string &content, size_t place) {
    uint32_t length = 0;
    for (size_t byte = sizeof length; byte-- > 0;) {
        length = length << 8 | static_cast<unsigned char>(content[place + byte]);
    }
    return length;
}

static std::string read_file(const std::string &path) {
    std::FILE *file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) fail_by_system(path + " cannot be opened");
    std::string content;
    char block[65536];
    for (size_t count; (count = std::fread(block, 1, sizeof block, file)) > 0;) content.append(block, count);
    if (std::ferror(file) != 0) fail_by_system(path + " cannot be read");
    std::fclose(file);
    return content;
}

std::vector<std::string> read_requests(const std::string &path) {
    const std::string content = read_file(path);
    std::vector<std::string> found;
    for (size_t place = 0; place < content.size();) {
        constexpr size_t SIZE = sizeof(uint32_t);
        const bool sized = content.size() - place >= SIZE;
        if (!sized || content.size() - place - SIZE < length_at(content, place)) fail(path + " ends in a request");
        const size_t length = length_at(content, place);
        found.push_back(content.substr(place + SIZE, length));
        place += SIZE + length;
    }
    if (found.empty()) fail(path + " holds no request");
    return found;
}
