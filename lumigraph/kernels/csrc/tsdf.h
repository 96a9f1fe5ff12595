// Fusion of depth maps into a truncated signed distance field (Curless and Levoy 1996) in sparse blocks.
//
// The volume is a grid of blocks of 8^3 voxels. Values are stored only for blocks near a depth map; any other block has
// one state. A view measures a voxel as its distance along z to the surface seen behind it, divided by the truncation,
// positive in front of the surface and clipped to 1. A voxel farther behind than the truncation gets no measurement.
// The value is the mean of the measurements.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "camera_rows.h"

namespace lumi {

constexpr int SIDE = 8, VOXELS = SIDE * SIDE * SIDE;
// States of a block without values; other blocks have the index of their values.
constexpr int32_t UNKNOWN = -1, OUTSIDE = -2, INSIDE = -3;

struct Maps {
    const float *depth, *weight;  // (N, H, W); depth 0: unknown, infinite: no surface
    const View* views;
    int count, width, height;
};
struct Lattice {
    float origin[3], voxel;  // centre of voxel (0, 0, 0); voxel spacing
    int blocks[3];           // x, y, z
};
struct Rule {
    float truncation;
    float least;  // least total weight of a known voxel
    int carve;    // views that must see no surface behind a voxel to make it empty
    bool inside;  // voxels that no view measures are inside instead of unknown
};
using Values = std::array<float, VOXELS>;  // z slowest; NaN: unknown

struct Fused {
    Fused() = default;
    Fused(const Fused&) = delete;
    std::vector<int32_t> blocks;  // (bz, by, bx)
    std::vector<std::unique_ptr<Values>> values;
};

void fuse(const Maps&, const Lattice&, const Rule&, Fused& out);

// Counts, for each pixel, the neighbour views `beside` (N, K) that agree on its depth and those that see through it.
// Depths agree if they differ by less than `tolerance` (N, H, W). -1 in `beside`: no view.
void support(const Maps&, const int64_t* beside, int k, const float* tolerance, uint8_t* agree, uint8_t* against);

}  // namespace lumi
