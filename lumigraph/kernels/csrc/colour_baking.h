// Points of a surface -> their colours, from pictures of it.
//
// A picture counts where the point is the nearest of the surface along the pixel, seen at less than 75 degrees, by
// cos^6 of that angle and by how near the camera is. Of what is left the mean is taken, twice more with what lies far
// from it weighing less (Cauchy's weights), so that a gleam or a wisp in one view leaves no mark.
#pragma once
#include <cstdint>

#include "camera_rows.h"

namespace lumi {

struct Pictures {
    const uint8_t* rgb;            // (N, H, W, 3)
    const float *depth, *weights;  // (N, H, W) the surface's own depth, infinite where there is none; 0: do not look
    const View* views;
    int count, width, height;
};
struct Patches {
    const float *xyz, *normals;  // (P, 3), normals unit
    long count;
};

// rgb (P, 3) of 0..1, weight (P,): 0 where no picture shows the point, which is then black. `tolerance`: world units by
// which a point may lie behind the depth of its pixel.
void bake(const Pictures&, const Patches&, float tolerance, float* rgb, float* weight);

}  // namespace lumi
