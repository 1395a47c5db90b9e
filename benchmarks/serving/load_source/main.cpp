// The load generator's program. It opens its connections, uses each a few times and says so; for every line that it
// is sent then, it puts the load on and says what it saw. The order is the first argument, as JSON.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "failing.h"
#include "run.h"

static double cpu_s() {
    timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

static Connections connect_all(const Order &order, const std::vector<std::string> &requests) {
    Connections connections;
    for (size_t place = 0; place < static_cast<size_t>(order.plan.connections); ++place) {
        connections.push_back(std::make_unique<Connection>(order));
    }
    for (size_t place = 0; place < connections.size(); ++place) {
        for (size_t round = 0; round < static_cast<size_t>(order.warm_up); ++round) {
            connections[place]->send(requests[place % requests.size()], 0);
            while (!connections[place]->receive(true)) {
            }
        }
    }
    return connections;
}

// The smallest value that at least this share of the values does not exceed.
static double percentile_ms(const std::vector<double> &ordered_s, double share) {
    if (ordered_s.empty()) return 0;
    const auto place = static_cast<size_t>(share * static_cast<double>(ordered_s.size()));
    return ordered_s[std::min(ordered_s.size() - 1, place)] * 1e3;
}

static void put_load(Run &run) {
    const double started = now_s(), cpu = cpu_s();
    const Seen &seen = run.go();
    const double seconds = now_s() - started, taken = cpu_s() - cpu;
    std::vector<double> ordered = seen.latencies_s;
    std::sort(ordered.begin(), ordered.end());
    std::printf("{\"requests\": %zu, \"errors\": %zu, \"seconds\": %.9f, \"generator_cpu_s\": %.9f, "
                "\"p50_ms\": %.6f, \"p99_ms\": %.6f}\n",
                ordered.size(), seen.errors, seconds, taken, percentile_ms(ordered, 0.50),
                percentile_ms(ordered, 0.99));
    std::fflush(stdout);
}

int main(int count, char **arguments) {
    if (count != 2) fail("one argument was expected, the order as JSON");
    const Order order = read_order(arguments[1]);
    const std::vector<std::string> requests = read_requests(order.requests);
    const Connections connections = connect_all(order, requests);
    std::puts("{\"ready\": true}");
    std::fflush(stdout);
    Run run(order, connections, requests);
    char *line = nullptr;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) put_load(run);
    std::free(line);
    return 0;
}
