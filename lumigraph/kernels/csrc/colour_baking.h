// Colours of surface points, blended from images of the surface.
//
// An image contributes to a point if the point is the nearest surface along its pixel and is seen at less than 75
// degrees from the normal. Its weight is cos^6 of that angle times the square of the pixels per world unit. The colour
// is the weighted mean. Two more rounds lower the weight of outliers (Cauchy weights), so that a highlight or a floater
// in one view leaves no trace.
#pragma once
#include <cstdint>

#include "camera_rows.h"

namespace lumi {

struct Pictures {
    const uint8_t* rgb;            // (N, H, W, 3)
    const float *depth, *weights;  // (N, H, W): depth of the surface, infinite if none; pixel weights, 0 = ignore
    const View* views;
    int count, width, height;
};
struct Patches {
    const float *xyz, *normals;  // (P, 3), normals unit
    long count;
};

// rgb (P, 3) in 0..1, weight (P,). A point that no image shows has weight 0 and is black. `tolerance`: world units that
// a point may be behind the depth of its pixel.
void bake(const Pictures&, const Patches&, float tolerance, float* rgb, float* weight);

}  // namespace lumi
