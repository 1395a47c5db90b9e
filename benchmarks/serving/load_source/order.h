// What a generator was told to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// A rate above 0 means requests that arrive by themselves, else every connection sends when it was answered.
struct Plan {
    double connections = 0, requests = 0, rate = 0, seconds = 0, seed = 0;
};

struct Order {
    std::string host, requests;
    double port = 0, warm_up = 0, patience_s = 0;
    Plan plan;
};

// An order within its bounds; the program ends at any other.
Order read_order(const std::string &json);

// The requests that a file holds, each behind its length as a little-endian uint32.
std::vector<std::string> read_requests(const std::string &path);
