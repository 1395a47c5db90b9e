// Compiled once for each instruction set, with CTRLIFT_SET as its name.
#include "extractor.h"
#include "interest.h"

#define CTRLIFT_JOIN(left, right) left##right
#define CTRLIFT_NAME(left, right) CTRLIFT_JOIN(left, right)

extern "C" {

void CTRLIFT_NAME(ctrlift_interest_, CTRLIFT_SET)(const Interest& model, const Shape& shape, const float* query,
                                                  const float* keys, const uint8_t* mask, float* out, Arena& arena) {
    CTRLIFT_SET::run_interest(model, shape, query, keys, mask, out, arena);
}

void CTRLIFT_NAME(ctrlift_extractor_, CTRLIFT_SET)(const Extractor& model, const Shape& shape, const float* sequence,
                                                   const uint8_t* mask, float* out, Arena& arena) {
    CTRLIFT_SET::run_extractor(model, shape, sequence, mask, out, arena);
}

}
