// What the compiled load generator's parts say, for the tests: "arrivals RATE SEED COUNT" prints times of arrival;
// "replies" reads a line for each answer, its pieces in hexadecimal, and prints after how many it was complete.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>

#include "arrivals.h"
#include "reply.h"

static std::string bytes_of(const std::string &digits) {
    std::string bytes;
    for (size_t place = 0; place + 1 < digits.size(); place += 2) {
        bytes += static_cast<char>(std::strtol(digits.substr(place, 2).c_str(), nullptr, 16));
    }
    return bytes;
}

static void print_replies() {
    Reply reply;  // one for all, as a connection has it
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream pieces(line);
        int taken = 0;
        bool complete = false;
        reply.clear();
        for (std::string digits; !complete && pieces >> digits; ++taken) complete = reply.take(bytes_of(digits));
        std::printf("%d %d\n", complete ? taken : -1, reply.status());
    }
}

int main(int count, char **arguments) {
    if (count == 2 && std::strcmp(arguments[1], "replies") == 0) {
        print_replies();
        return 0;
    }
    if (count != 5 || std::strcmp(arguments[1], "arrivals") != 0) return 2;
    Arrivals arrivals(std::atof(arguments[2]), std::strtoull(arguments[3], nullptr, 10));
    for (int left = std::atoi(arguments[4]); left > 0; --left) std::printf("%.17g\n", arrivals.next());
    return 0;
}
