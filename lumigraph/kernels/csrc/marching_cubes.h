// Marching cubes (Lorensen and Cline 1987) over sparse blocks of voxels, see tsdf.h.
//
// The table of the 256 cases is computed. On an ambiguous face the inside corners are separated, and both cells that
// share the face decide alike. No side of a triangle crosses a face. So the surface is a closed manifold wherever
// voxels are known; it ends at unknown voxels.
#pragma once
#include <cstdint>
#include <vector>

#include "tsdf.h"

namespace lumi {

struct Volume {
    const int32_t* blocks;  // (bz, by, bx): index into `values`, or UNKNOWN, OUTSIDE, INSIDE
    const float* values;    // (B, 8, 8, 8)
    int size[3];            // bx, by, bz
    float beyond;           // value of all voxels outside the volume
};
struct Surface {
    std::vector<float> vertices;  // (V, 3) x, y, z in voxels
    std::vector<int32_t> faces;   // (F, 3), counter-clockwise from outside
};

void march_cubes(const Volume&, Surface& out);

}  // namespace lumi
