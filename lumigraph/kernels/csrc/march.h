// Where along rays there may be something: steps through a grid of occupied cells.
//
// The grid has `levels` nested cubes of side^3 cells; level k spans 2^k times the first around the same centre (the
// cascades of Mueller et al. 2022). A point belongs to the smallest cube that holds it.
#pragma once
#include <cstdint>
#include <vector>

#include "buffer.h"

namespace lumi {

struct Occupancy {
    const uint8_t* cells;  // (levels, side, side, side), z slowest; not 0: occupied
    int levels, side;
    float centre[3], half;  // of the first cube
};
struct Steps {
    float near, far, shortest;  // lengths along the ray
    float growth;               // a step is max(shortest, growth x distance) long
    int most;                   // samples a ray
};

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
void march(const Occupancy&, const Steps&, const float* origin, const float* direction, const float* jitter, long rays,
           Marched& out);
// first (R + 1), distance (S) of each step's middle, length (S).
void unpack(const Marched&, int64_t* first, float* distance, float* length);

}  // namespace lumi
