#include "run.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "arrivals.h"
#include "failing.h"

constexpr double PAUSE_S = 0.05;
constexpr int MOST_EVENTS = 64;

static std::string seconds(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g s", value);
    return text;
}

Run::Run(const Order &order, const Connections &connections, const std::vector<std::string> &requests)
    : order_(order), connections_(connections), requests_(requests), waiter_(epoll_create1(EPOLL_CLOEXEC)) {
    if (waiter_ < 0) fail_by_system("nothing to wait with");
    for (const auto &connection : connections_) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = connection.get();
        if (epoll_ctl(waiter_, EPOLL_CTL_ADD, connection->descriptor(), &event) != 0) fail_by_system("no waiting");
    }
    const Plan &plan = order_.plan;
    const double expected = plan.rate * plan.seconds;
    seen_.latencies_s.reserve(static_cast<size_t>(std::max(plan.requests, expected + 10 * std::sqrt(expected))));
}

Run::~Run() { close(waiter_); }

const Seen &Run::go() {
    seen_.latencies_s.clear();
    seen_.errors = sent_ = 0;
    free_.clear();
    for (const auto &connection : connections_) free_.push_back(connection.get());
    if (order_.plan.rate > 0) {
        open();
    } else {
        closed();
    }
    return seen_;
}

void Run::send(Connection &connection, double since_s) {
    connection.send(requests_[sent_ % requests_.size()], since_s);
    ++sent_;
}

// Waits for answers and counts them; false where nothing came in time.
bool Run::answered(double pause_s) {
    epoll_event events[MOST_EVENTS];
    const int count = epoll_wait(waiter_, events, MOST_EVENTS, static_cast<int>(std::ceil(pause_s * 1e3)));
    if (count < 0 && errno != EINTR) fail_by_system("waiting for answers");
    for (int place = 0; place < count; ++place) {
        auto &connection = *static_cast<Connection *>(events[place].data.ptr);
        if (!connection.receive(false)) continue;
        seen_.latencies_s.push_back(now_s() - connection.since_s());
        seen_.errors += connection.status() != 200;
        free_.push_back(&connection);
    }
    return count != 0;
}

// Every connection sends again as soon as it is answered.
void Run::closed() {
    const auto requests = static_cast<size_t>(order_.plan.requests);
    while (true) {
        for (; !free_.empty() && sent_ < requests; free_.pop_front()) send(*free_.front(), now_s());
        if (seen_.latencies_s.size() == requests) return;
        if (!answered(order_.patience_s)) fail("nothing was answered for " + seconds(order_.patience_s));
    }
}

// The clock that epoll waits by counts milliseconds, and a request shall not be late by one.
static bool ready_within(int descriptor, double pause_s) {
    const double whole = std::floor(pause_s);
    const timespec time{static_cast<time_t>(whole), static_cast<long>((pause_s - whole) * 1e9)};
    pollfd wanted{descriptor, POLLIN, 0};
    const int count = ppoll(&wanted, 1, &time, nullptr);
    if (count < 0 && errno != EINTR) fail_by_system("waiting for answers");
    return count > 0;
}

// Requests at random times; those that find no free connection wait for one, and their latency has begun.
void Run::open() {
    const Plan &plan = order_.plan;
    Arrivals arrivals(plan.rate, static_cast<uint64_t>(plan.seed));
    std::deque<double> late;
    const double started = now_s();
    double due = arrivals.next();
    while (due < plan.seconds || !late.empty() || free_.size() < connections_.size()) {
        const double now = now_s() - started;
        if (now > plan.seconds + order_.patience_s) {
            const std::string missing = std::to_string(late.size() + connections_.size() - free_.size());
            fail(missing + " requests were not answered " + seconds(order_.patience_s) + " after the end");
        }
        for (; due <= now && due < plan.seconds; due = arrivals.next()) late.push_back(due);
        for (; !late.empty() && !free_.empty(); late.pop_front(), free_.pop_front()) {
            send(*free_.front(), started + late.front());
        }
        const double until = due < plan.seconds ? due - (now_s() - started) : PAUSE_S;
        if (ready_within(waiter_, std::clamp(until, 0.0, PAUSE_S))) answered(0);
    }
}
