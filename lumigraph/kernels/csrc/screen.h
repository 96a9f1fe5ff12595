// A projected splat and the tiles that it touches; shared by host and device.
#pragma once
#include "gaussian.h"

namespace lumi {

constexpr int TILE = 16;     // pixels
constexpr int SUM_ROW = 12;  // floats of the gradient sums of a gaussian on a device

// log2 alpha = lo - u^2 - v^2 with u = p dx + q dy, v = r dy. (p, q, r) is the Cholesky factor of the conic:
// compositing needs two affine maps of the pixel, and backward sums moments in (u, v). The level set alpha = 1/255 is
// u^2 + v^2 = reach, with half extents hx, hy.
struct alignas(64) Splat {
    float x, y, p, q, r, lo, red, green, blue, z, reach, hx, hy;  // compositing reads up to reach
    int first, count;  // accumulation slots, relative to the chunk; count 0: not visible
    float unused;
};
static_assert(sizeof(Splat) == 64, "one cache line a splat");

// Calls f(tile row, first, last) for the tiles that the splat's level set touches. Exact in x for every row.
template <class S, class F> inline void for_tile_rows(const S& s, int width, int height, F f) {
    const int i0 = ceil_int(maximum(s.y - s.hy - .5f, 0.f)),
              i1 = floor_int(minimum(s.y + s.hy - .5f, (float)height - 1.f));
    if (i0 > i1) return;
    // a row at dy: u^2 <= reach - v^2, dx = (u - q dy) / p
    const float inv = 1.f / s.p, slope = -s.q * inv, qa = s.reach * inv * inv, k = s.r * s.r * inv * inv;
    const float y_right =
        slope * s.hx * s.p * s.p / (s.q * s.q + s.r * s.r);  // where the ellipse extends farthest right
    for (int ty = i0 / TILE; ty <= i1 / TILE; ty++) {
        const float d0 = (float)maximum(i0, ty * TILE) + .5f - s.y,
                    d1 = (float)minimum(i1, ty * TILE + TILE - 1) + .5f - s.y;
        const float dr = minimum(d1, maximum(d0, y_right)), dl = minimum(d1, maximum(d0, -y_right));
        const float er = qa - k * dr * dr, el = qa - k * dl * dl;
        if (!(er >= 0 && el >= 0)) continue;
        const float left = s.x + slope * dl - root(el) - .501f, right = s.x + slope * dr + root(er) - .499f;
        const int j0 = ceil_int(maximum(left, 0.f)), j1 = floor_int(minimum(right, (float)width - 1.f));
        if (j0 <= j1) f(ty, j0 / TILE, j1 / TILE);
    }
}

}  // namespace lumi
