// A kept-alive connection to this machine with at most one request under way.
#pragma once

#include <string>

#include "order.h"
#include "reply.h"

// Seconds of a clock that only goes forward.
double now_s();

class Connection {
public:
    // Connects; the program ends if that fails, or if the host may mean another machine.
    explicit Connection(const Order &order);
    ~Connection();
    Connection(const Connection &) = delete;
    Connection &operator=(const Connection &) = delete;

    int descriptor() const { return descriptor_; }

    // Where the latency of what is under way counts from.
    double since_s() const { return since_s_; }

    // Of the last complete answer.
    int status() const { return reply_.status(); }

    void send(const std::string &request, double since_s);

    // Reads what is there, or waits for something; whether the answer is complete with it.
    bool receive(bool waiting);

private:
    int descriptor_ = -1;
    double since_s_ = 0;
    bool under_way_ = false;
    Reply reply_;
};
