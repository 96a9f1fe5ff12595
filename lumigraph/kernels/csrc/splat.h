// The stages of splatting one view, and the data that they exchange.
//
//   project:  params -> Splat records and, per gaussian, the tiles that its 1/255 level set touches
//   bin:      depth order, then one front-to-back list of entries (tile intersections) per tile
//   composite:           lists -> image;      composite_backward: image gradient -> ten sums per entry
//   project_backward:    sums -> gradients, passed to a sink (a tensor, or Adam directly)
//
// No atomics on data: each entry owns an accumulation slot, and a gaussian adds up its slots in a fixed order.
#pragma once
#include <type_traits>
#include <vector>

#include "buffer.h"
#include "lanes.h"
#include "pool.h"
#include "screen.h"

namespace lumi {

constexpr int CHUNK = 1024;  // gaussians per task; fixed, so that sums do not depend on the thread count
constexpr int SLOT = 16;     // floats of an accumulation slot

struct Entry {
    int32_t id, slot;
};

// A set of blocks: one bit for each VL pixels of a tile, in the smallest sufficient integer.
typedef std::conditional_t<VL == 16, uint16_t, std::conditional_t<VL == 8, uint32_t, uint64_t>> Blocks;

struct View {  // results of forward that backward needs
    Camera camera;
    int count = 0, degree = 0;
    Buffer<Splat> splats;
    std::vector<std::vector<uint16_t>> chunk_tiles;  // tiles of each gaussian of a chunk, concatenated
    std::vector<int32_t> chunk_first;                // first slot of each chunk
    Buffer<uint32_t> keys, keys_swap;
    Buffer<int32_t> order, order_swap;
    int visible = 0;
    Buffer<Entry> entries;
    std::vector<int32_t> tile_start, tile_order;
    std::vector<int32_t> tile_end;  // entries processed before the tile was opaque or its list ended
    Buffer<Blocks> blocks;          // for each processed entry: the blocks of its tile that it was blended into
    std::vector<int32_t> tile_histogram;
    Buffer<float> sums;
    std::vector<int64_t> tile_lanes;  // evaluated pairs of pixel and gaussian, for benchmarks
    int tiles_x() const { return (camera.width + TILE - 1) / TILE; }
    int tiles_y() const { return (camera.height + TILE - 1) / TILE; }
    int tiles() const { return tiles_x() * tiles_y(); }
    int chunks() const { return (count + CHUNK - 1) / CHUNK; }
    int64_t lanes() const {
        int64_t total = 0;
        for (int64_t n : tile_lanes) total += n;
        return total;
    }
    long entry_count() const { return chunk_first.empty() ? 0 : chunk_first.back(); }
};

// An image, as planes of width x height floats.
struct Planes {
    float *rgb, *transmittance, *depth;  // depth may be null
    bool median = false;                 // depth at which transmittance falls to a half, 0 if it stays above
};
struct PlaneGradients {
    const float *rgb, *transmittance;  // transmittance may be null
    const float* extra;                // dL/ddepth, or an error map that weights gaussians, or null
    bool extra_is_depth;
};

struct Adam {
    float lr[ROW], lr_sh, beta1, beta2, epsilon;
    float *m, *v, *sh_m, *sh_v;  // moments; rows like params and sh_rest
    float* score;                // (N, 2): += sum of w * error, += |dL/dpixel|
    float max_logit;
};
struct GradientRows {
    float *params, *sh;  // (N, 16), (N, 48); rows of invisible gaussians are zeroed
    double* camera;      // 12: dL/d(camera from world) row-major, or null
};

void project(View& view, const float* params, const float* sh_rest);
void bin(View& view);
void composite(View& view, const float* background, const Planes& out);
void composite_backward(View& view, const Planes& image, const PlaneGradients& gradient);
void project_backward(const View& view, const float* params, const float* sh_rest, bool depth, const GradientRows& out);
void project_backward_adam(const View& view, float* params, float* sh_rest, const Adam& adam);

}  // namespace lumi
