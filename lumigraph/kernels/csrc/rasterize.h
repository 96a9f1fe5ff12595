// Triangles -> which of them is nearest at each pixel centre, and where in it that is.
#pragma once
#include <cstdint>

namespace lumi {

struct Triangles {
    const float* corners;  // (V, 3) x, y in pixels, depth z; triangles with a corner at z <= 0 are not drawn
    const int32_t* faces;  // (F, 3), either way round
    long count;
};

// face (H, W): -1 where there is none; depth (H, W): infinite there; weights (H, W, 3) of the corners, corrected for
// perspective, or null. Where two are equally near, the first in the list wins.
void raster(const Triangles&, int width, int height, int32_t* face, float* depth, float* weights);

}  // namespace lumi
