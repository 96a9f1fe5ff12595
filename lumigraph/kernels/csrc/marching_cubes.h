// Marching cubes (Lorensen and Cline 1987) over sparse blocks of voxels, see tsdf.h.
//
// The table of the 256 cases is derived, not copied: on a face whose diagonals differ the inside corners are cut apart,
// whichever of the two cells looks, and no triangle's side runs across a face. So the surface is a closed manifold
// wherever voxels are known; it ends where a voxel is not.
#pragma once
#include <cstdint>
#include <vector>

#include "tsdf.h"

namespace lumi {

struct Volume {
    const int32_t* blocks;  // (bz, by, bx): the number of its values, or UNKNOWN, OUTSIDE, INSIDE
    const float* values;    // (B, 8, 8, 8)
    int size[3];            // bx, by, bz
    float beyond;           // the value of what is not in the volume
};
struct Surface {
    std::vector<float> vertices;  // (V, 3) x, y, z in voxels
    std::vector<int32_t> faces;   // (F, 3), counter-clockwise from outside
};

void march_cubes(const Volume&, Surface& out);

}  // namespace lumi
