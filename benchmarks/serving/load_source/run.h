// Putting a load on through open connections.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "connection.h"
#include "order.h"

using Connections = std::vector<std::unique_ptr<Connection>>;

// What a run saw: as many latencies as answers, and how many of those were no 200.
struct Seen {
    std::vector<double> latencies_s;
    size_t errors = 0;
};

class Run {
public:
    Run(const Order &order, const Connections &connections, const std::vector<std::string> &requests);
    ~Run();
    Run(const Run &) = delete;
    Run &operator=(const Run &) = delete;

    // Puts the load on once. What was seen stands until the next time.
    const Seen &go();

private:
    void closed();
    void open();
    void send(Connection &connection, double since_s);
    bool answered(double pause_s);

    const Order &order_;
    const Connections &connections_;
    const std::vector<std::string> &requests_;
    int waiter_;
    size_t sent_ = 0;
    std::deque<Connection *> free_;
    Seen seen_;
};
