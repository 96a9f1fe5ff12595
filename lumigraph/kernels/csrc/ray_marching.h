// Where along rays there may be something: steps through a grid of occupied cells (sample.h), on the CPU.
#pragma once
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "sample.h"

namespace lumi {

// The marched samples of a batch, in pieces of a few rays each.
struct Marched {
    struct Piece {
        std::vector<float> distance, length;
        std::vector<int32_t> count;  // of each ray
    };
    std::vector<Piece> pieces;
    long samples = 0;
};

// origin, direction (R, 3), directions of length 1; jitter (R), 0..1, shifts a ray's steps by that share of one.
void march(const OccupancyGrid&, const MarchSettings&, const float* origin, const float* direction, const float* jitter,
           long rays, Marched& out);
// first (R + 1), distance (S) of each step's middle, length (S).
void unpack(const Marched&, int64_t* first, float* distance, float* length);

}  // namespace lumi
