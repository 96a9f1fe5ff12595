// Triangle rasterization: the nearest triangle at each pixel centre, and the position inside it.
#pragma once
#include <cstdint>

namespace lumi {

struct Triangles {
    const float* corners;  // (V, 3) x, y in pixels, depth z; a triangle with a corner at z <= 0 is dropped
    const int32_t* faces;  // (F, 3), no back-face culling
    long count;
};

// face (H, W): -1 for background; depth (H, W): infinite for background; weights (H, W, 3): perspective-correct
// barycentric coordinates, or null. Of equal depths, the triangle with the lower index wins.
void raster(const Triangles&, int width, int height, int32_t* face, float* depth, float* weights);

}  // namespace lumi
