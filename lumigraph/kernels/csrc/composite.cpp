// Compositing of one tile after the other, gaussians front to back, SIMD across blocks of 4 x VL/4 pixels.
//
// The speed comes from skipped work. For each gaussian, the blocks that its 1/255 ellipse touches become set bits of a
// word. Blocks whose pixels are all opaque are masked out, and one loop runs over the remaining bits. Footprints are
// computed for a batch of gaussians ahead, so that the processor overlaps them, and saved for the backward pass.
#include <algorithm>

#include "splat.h"

namespace lumi {
namespace {

constexpr int ACROSS = TILE / 4, TALL = VL / 4;  // blocks in a row of blocks; pixel rows in a block
constexpr int BLOCKS = TILE * TILE / VL;
constexpr int BATCH = 8;
constexpr float LOG_ALPHA_MIN = -LOG2_255;
static_assert(BLOCKS == 8 * sizeof(Blocks) && TILE % VL == 0 && ACROSS == 4,
              "one bit a block in one word, four bits a row of blocks");

struct Lanes {
    vf x[BLOCKS], y[BLOCKS], row[TILE / VL];  // pixel centres inside the tile; centres of VL rows
    vi shift[TILE / VL];                      // positions of the bits of these rows, within 32
    Lanes() {
        for (int i = 0; i < BLOCKS; i++)
            for (int l = 0; l < VL; l++)
                x[i][l] = i % ACROSS * 4 + l % 4 + .5f, y[i][l] = i / ACROSS * TALL + l / 4 + .5f;
        for (int r = 0; r < TILE; r++) {
            row[r / VL][r % VL] = r + .5f;
            shift[r / VL][r % VL] = r / TALL * ACROSS % 32;
        }
    }
};
const Lanes LANES;

// Returns the live blocks of the tile at (ox, oy) that the level set touches. VL rows at a time; the span of a row
// solves a quadratic. Branch-free, so that the processor overlaps several footprints.
inline uint64_t footprint(const Splat& s, float ox, float oy, uint64_t live) {
    const float inv = 1.f / s.p, slope = -s.q * inv, qa = s.reach * inv * inv, k = s.r * s.r * inv * inv;
    const float centre = s.x - ox - .5f;
    uint64_t word = 0;
    for (int part = 0; part < TILE / VL; part++) {
        vf dy = LANES.row[part] + (oy - s.y);
        vf e = qa - dy * dy * k, h = root(maximum(e, vf{})), m = dy * slope + centre;
        vi left = __builtin_convertvector(minimum(maximum(m - h, spread(-1.f)), spread((float)TILE)) + .999f, vi);
        vi right = __builtin_convertvector(minimum(maximum(m + h, spread(-1.f)) + 1.001f, spread((float)TILE)), vi) - 1;
        vi bits = ((vi{} + 2) << ((right >> 2) & 31)) - ((vi{} + 1) << (left >> 2));
        bits &= (e >= 0.f) & (left <= right);
        word |= (join(bits << LANES.shift[part]) & 0xffffffffu) << (part * VL / TALL * ACROSS & 32);
    }
    return word & live;
}

// Affine maps of one splat in one tile: u = p x + q y + u0, v = r y + v0.
struct Map {
    float p, q, r, u0, v0, lo;
    Map(const Splat& s, float ox, float oy)
        : p(s.p), q(s.q), r(s.r), u0(-s.p * (s.x - ox) - s.q * (s.y - oy)), v0(-s.r * (s.y - oy)), lo(s.lo) {}
};

inline uint64_t look(const vf* T) {  // blocks that have a transparent pixel
    uint64_t live = 0;
    for (int i = 0; i < BLOCKS; i++) live |= (uint64_t)any(T[i] > T_STOP) << i;
    return live;
}

struct Tile {
    int x, y, width, height;  // pixels inside the image
    Tile(const View& view, int t) {
        x = t % view.tiles_x() * TILE, y = t / view.tiles_x() * TILE;
        width = std::min(TILE, view.camera.width - x), height = std::min(TILE, view.camera.height - y);
    }
    // calls f(index in the image, index in blocks, count) for each run of up to 4 pixels
    template <class F> void runs(int image_width, F f) const {
        for (int r = 0; r < height; r++)
            for (int c = 0; c < width; c += 4)
                f((size_t)(y + r) * image_width + x + c, (r / TALL * ACROSS + c / 4) * VL + r % TALL * 4,
                  std::min(4, width - c));
    }
    void load(const float* plane, int image_width, vf* blocks) const {
        float* to = reinterpret_cast<float*>(blocks);
        runs(image_width, [&](size_t p, int i, int n) {
            if (n == 4)
                std::memcpy(to + i, plane + p, 16);
            else
                std::memcpy(to + i, plane + p, (size_t)n * 4);
        });
    }
    void store(const vf* blocks, float* plane, int image_width) const {
        const float* from = reinterpret_cast<const float*>(blocks);
        runs(image_width, [&](size_t p, int i, int n) {
            if (n == 4)
                std::memcpy(plane + p, from + i, 16);
            else
                std::memcpy(plane + p, from + i, (size_t)n * 4);
        });
    }
    void open(vf* T) const {  // transmittance: 1 inside the image, 0 outside
        for (int i = 0; i < BLOCKS; i++) {
            vi in = (LANES.x[i] < (float)width) & (LANES.y[i] < (float)height);
            T[i] = keep(in, spread(1.f));
        }
    }
};

inline void prefetch(const View& view, int k, int end) {
    for (int j = 0; j < BATCH && k + j < end; j++) __builtin_prefetch(&view.splats[view.entries[k + j].id]);
}

enum class Depth { none, expected, median };

template <Depth DEPTH> void composite_tile(View& view, int t, const float* background, const Planes& out) {
    vf T[BLOCKS], red[BLOCKS] = {}, green[BLOCKS] = {}, blue[BLOCKS] = {},
                  depth[DEPTH == Depth::none ? 1 : BLOCKS] = {};
    const Tile tile(view, t);
    tile.open(T);
    const float ox = (float)tile.x, oy = (float)tile.y;
    uint64_t live = look(T);
    int64_t evaluated = 0;
    const int end = view.tile_start[t + 1];
    int k = view.tile_start[t];
    for (; k < end && live; k += BATCH) {
        const int n = std::min(BATCH, end - k);
        const Entry* entry = &view.entries[k];
        Blocks* blocks = &view.blocks[k];
        prefetch(view, k + BATCH, end);
        for (int j = 0; j < n; j++) blocks[j] = (Blocks)footprint(view.splats[entry[j].id], ox, oy, live);
        for (int j = 0; j < n; j++) {
            const Splat& s = view.splats[entry[j].id];
            const Map a(s, ox, oy);
            evaluated += __builtin_popcountll(blocks[j]);
            for (uint64_t m = blocks[j]; m; m &= m - 1) {
                const unsigned i = (unsigned)__builtin_ctzll(m);
                vf u = a.p * LANES.x[i] + (a.q * LANES.y[i] + a.u0), v = a.r * LANES.y[i] + a.v0;
                vf e = (a.lo - v * v) - u * u, before = T[i];
                vi ok = (e >= LOG_ALPHA_MIN) & (before > T_STOP);
                vf alpha = minimum(exp2_negative(e), spread(ALPHA_MAX)), weight = keep(ok, alpha * before);
                T[i] = before - weight;
                red[i] += weight * s.red, green[i] += weight * s.green, blue[i] += weight * s.blue;
                if (DEPTH == Depth::expected) depth[i] += weight * s.z;
                if (DEPTH == Depth::median) depth[i] += keep((before > .5f) & (T[i] <= .5f), spread(s.z));
            }
        }
        live &= look(T);
    }
    view.tile_end[t] = std::min(k, end);
    view.tile_lanes[t] = evaluated * VL;
    const int width = view.camera.width;
    const size_t plane = (size_t)width * view.camera.height;
    for (int i = 0; i < BLOCKS; i++)
        red[i] += T[i] * background[0], green[i] += T[i] * background[1], blue[i] += T[i] * background[2];
    tile.store(T, out.transmittance, width);
    tile.store(red, out.rgb, width), tile.store(green, out.rgb + plane, width),
        tile.store(blue, out.rgb + 2 * plane, width);
    if (DEPTH != Depth::none) tile.store(depth, out.depth, width);
}

inline void store_sums(vf* acc, float* slot) {
#if LUMI_LANES >= 8
    typedef float eight __attribute__((vector_size(32)));
    eight a[SUMS];
    for (int j = 0; j < SUMS; j++) {
        union {
            vf v;
            eight h[VL / 8];
        } x{acc[j]};
        a[j] = x.h[0];
        for (int k = 1; k < VL / 8; k++) a[j] += x.h[k];
    }
    // ten horizontal sums at once by pairwise adds of interleaved halves
    eight b[SUMS / 2], c[2];
    for (int j = 0; j < SUMS / 2; j++)
        b[j] = __builtin_shufflevector(a[2 * j], a[2 * j + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(a[2 * j], a[2 * j + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int j = 0; j < 2; j++)
        c[j] = __builtin_shufflevector(b[2 * j], b[2 * j + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(b[2 * j], b[2 * j + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    eight total = __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 8, 9, 10, 11) +
                  __builtin_shufflevector(c[0], c[1], 4, 5, 6, 7, 12, 13, 14, 15);
    eight last = b[4] + __builtin_shufflevector(b[4], b[4], 2, 3, 0, 1, 6, 7, 4, 5), none{};
    eight rest = __builtin_shufflevector(last, none, 0, 1, 8, 9, 10, 11, 12, 13) +
                 __builtin_shufflevector(last, none, 4, 5, 8, 9, 10, 11, 12, 13);
    std::memcpy(slot, &total, 32), std::memcpy(slot + 8, &rest, 32);
#else
    for (int j = 0; j < SLOT; j++) slot[j] = j < SUMS ? sum(acc[j]) : 0.f;
#endif
}

// Front to back, like the forward pass. `rest` is the colour behind the current depth of a pixel, weighted with the
// gradient of the pixel. It starts as the finished pixel and loses the share of each gaussian, so nothing is replayed.
//   dL/dalpha = T (c . g) - rest / (1 - alpha)
template <bool EXTRA, bool DEPTH>
void composite_backward_tile(View& view, int t, const Planes& image, const PlaneGradients& gradient) {
    vf T[BLOCKS], rest[BLOCKS], gr[BLOCKS] = {}, gg[BLOCKS] = {}, gb[BLOCKS] = {}, extra[EXTRA ? BLOCKS : 1] = {};
    const Tile tile(view, t);
    tile.open(T);
    const int width = view.camera.width;
    const size_t plane = (size_t)width * view.camera.height;
    {
        vf a[BLOCKS] = {}, b[BLOCKS] = {};
        auto times = [&](const float* x, const vf* y) {
            tile.load(x, width, a);
            for (int i = 0; i < BLOCKS; i++) b[i] += a[i] * y[i];
        };
        tile.load(gradient.rgb, width, gr), tile.load(gradient.rgb + plane, width, gg);
        tile.load(gradient.rgb + 2 * plane, width, gb);
        times(image.rgb, gr), times(image.rgb + plane, gg), times(image.rgb + 2 * plane, gb);
        if (EXTRA) tile.load(gradient.extra, width, extra);
        if (DEPTH) times(image.depth, extra);
        if (gradient.transmittance) {
            vf g[BLOCKS] = {};
            tile.load(gradient.transmittance, width, g);
            times(image.transmittance, g);
        }
        std::memcpy(rest, b, sizeof b);
    }
    const float ox = (float)tile.x, oy = (float)tile.y;
    float* sums = view.sums.data();
    const int opaque = view.tile_end[t], end = view.tile_start[t + 1];
    int k = view.tile_start[t];
    for (; k < opaque; k++) {
        if (k + BATCH < opaque) {
            const Entry& next = view.entries[k + BATCH];
            __builtin_prefetch(&view.splats[next.id]), __builtin_prefetch(sums + (size_t)next.slot * SLOT, 1);
        }
        const Splat& s = view.splats[view.entries[k].id];
        const Map a(s, ox, oy);
        vf acc[SUMS] = {};
        for (uint64_t m = view.blocks[k]; m; m &= m - 1) {
            const unsigned i = (unsigned)__builtin_ctzll(m);
            vf u = a.p * LANES.x[i] + (a.q * LANES.y[i] + a.u0), v = a.r * LANES.y[i] + a.v0;
            vf e = (a.lo - v * v) - u * u, before = T[i];
            vi ok = (e >= LOG_ALPHA_MIN) & (before > T_STOP);
            vf raw = exp2_negative(e), alpha = minimum(raw, spread(ALPHA_MAX)), weight = keep(ok, alpha * before);
            T[i] = before - weight;
            vf seen = gr[i] * s.red + gg[i] * s.green + gb[i] * s.blue;
            if (DEPTH) seen += extra[i] * s.z;
            vf behind = rest[i] - weight * seen;
            rest[i] = behind;
            acc[S_RED] += weight * gr[i], acc[S_GREEN] += weight * gg[i], acc[S_BLUE] += weight * gb[i];
            if (EXTRA) acc[S_EXTRA] += weight * extra[i];
            vf d = keep(ok & (raw == alpha), raw * (before * seen - behind * reciprocal(1.f - alpha)));
            vf du = d * u, dv = d * v;
            acc[S0] += d, acc[SU] += du, acc[SV] += dv;
            acc[SUU] += du * u, acc[SUV] += du * v, acc[SVV] += dv * v;
        }
        store_sums(acc, sums + (size_t)view.entries[k].slot * SLOT);
    }
    for (; k < end; k++) std::memset(sums + (size_t)view.entries[k].slot * SLOT, 0, SLOT * 4);
}

}  // namespace

void composite(View& view, const float* background, const Planes& out) {
    view.tile_lanes.resize(view.tiles()), view.tile_end.resize(view.tiles());
    view.blocks.reserve((size_t)view.entry_count());
    parallel(view.tiles(), [&](int i) {
        const int t = view.tile_order[i];
        if (!out.depth)
            composite_tile<Depth::none>(view, t, background, out);
        else if (out.median)
            composite_tile<Depth::median>(view, t, background, out);
        else
            composite_tile<Depth::expected>(view, t, background, out);
    });
}

void composite_backward(View& view, const Planes& image, const PlaneGradients& gradient) {
    view.sums.reserve((size_t)view.entry_count() * SLOT);
    parallel(view.tiles(), [&](int i) {
        int t = view.tile_order[i];
        if (!gradient.extra)
            composite_backward_tile<false, false>(view, t, image, gradient);
        else if (gradient.extra_is_depth)
            composite_backward_tile<true, true>(view, t, image, gradient);
        else
            composite_backward_tile<true, false>(view, t, image, gradient);
    });
}

}  // namespace lumi
