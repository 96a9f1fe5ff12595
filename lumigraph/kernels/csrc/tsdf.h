// Depth maps of many views -> a truncated signed distance field (Curless and Levoy 1996) in sparse blocks.
//
// The volume is a grid of blocks of 8^3 voxels. A block is kept only where a depth map passes near it; of all others
// one number says what they are. Values are distance / truncation, positive outside: mean over the views of the
// distance along z from the voxel to what the view sees, cut to 1 in front; more than the truncation behind, a view
// says nothing.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "camera_rows.h"

namespace lumi {

constexpr int SIDE = 8, VOXELS = SIDE * SIDE * SIDE;
// What a block is that has no values; others have the number of their values.
constexpr int32_t UNKNOWN = -1, OUTSIDE = -2, INSIDE = -3;

struct Maps {
    const float *depth, *weight;  // (N, H, W); depth 0: nothing is known, infinite: nothing is there
    const View* views;
    int count, width, height;
};
struct Lattice {
    float origin[3], voxel;  // the centre of voxel (0, 0, 0), and the distance to the next
    int blocks[3];           // x, y, z
};
struct Rule {
    float truncation;
    float least;  // weight that makes a voxel known
    int carve;    // views that see nothing through a voxel and so make it empty
    bool inside;  // what nobody sees is inside; else it is unknown
};
using Values = std::array<float, VOXELS>;  // z slowest; NaN: unknown

struct Fused {
    Fused() = default;
    Fused(const Fused&) = delete;
    std::vector<int32_t> blocks;  // (bz, by, bx)
    std::vector<std::unique_ptr<Values>> values;
};

void fuse(const Maps&, const Lattice&, const Rule&, Fused& out);

// Of each pixel, how many of the views `beside` (N, K) its own agree on its depth, and how many look through it;
// agreeing is to differ by less than `tolerance` (N, H, W) in depth. -1 in `beside`: no view.
void support(const Maps&, const int64_t* beside, int k, const float* tolerance, uint8_t* agree, uint8_t* against);

}  // namespace lumi
