// Times at which requests that nobody waits for arrive.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>

// A Poisson process: the gaps are exponential, -log(1 - u) / rate with u the upper 53 bits of a draw of the 64-bit
// Mersenne twister. The C++ standard fixes that generator's numbers, so a seed means the same times with any compiler.
class Arrivals {
public:
    Arrivals(double rate, uint64_t seed) : rate_(rate), draws_(seed) {}

    // The next one, in seconds from the start.
    double next() {
        const double uniform = static_cast<double>(draws_() >> 11) * 0x1p-53;
        return at_ -= std::log1p(-uniform) / rate_;
    }

private:
    double rate_, at_ = 0;
    std::mt19937_64 draws_;
};
