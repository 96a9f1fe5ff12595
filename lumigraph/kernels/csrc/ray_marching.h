// Ray marching through an occupancy grid (sample.h) on the CPU.
#pragma once
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "sample.h"

namespace lumi {

// Samples of a batch, in pieces of a few rays each.
struct Marched {
    struct Piece {
        std::vector<float> distance, length;
        std::vector<int32_t> count;  // samples of each ray
    };
    std::vector<Piece> pieces;
    long samples = 0;
};

// origin, direction (R, 3), directions of length 1; jitter (R), 0..1, shifts the steps of a ray by this fraction of a
// step.
void march(const OccupancyGrid&, const MarchSettings&, const float* origin, const float* direction, const float* jitter,
           long rays, Marched& out);
// first (R + 1): ray offsets; distance (S): midpoint of each step; length (S): step length.
void unpack(const Marched&, int64_t* first, float* distance, float* length);

}  // namespace lumi
