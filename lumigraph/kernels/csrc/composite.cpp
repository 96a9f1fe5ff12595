// Compositing of one tile after the other, gaussians front to back, SIMD across the pixels of a row.
//
// The speed is in what is not done: for each gaussian the vectors of a tile that its 1/255 ellipse touches become set
// bits of a few 64-bit words, vectors whose pixels are all opaque are masked out, and one loop runs over the bits that
// remain. Short rows then cost no mispredicted branches, and covered pixels cost nothing.
#include <algorithm>

#include "splat.h"

namespace lumi {
namespace {

constexpr int NB = TILE / VL;              // vectors a row
constexpr int VECTORS = TILE * NB;         // vectors a tile
constexpr int WORD = VECTORS < 64 ? VECTORS : 64;  // bits of a word, one a vector
constexpr int WORDS = VECTORS / WORD;
constexpr int WORD_ROWS = TILE / WORDS;    // rows a word
constexpr int BATCH = 8;                   // entries whose footprints are found together, ahead of compositing
constexpr int LOG_VL = VL == 4 ? 2 : VL == 8 ? 3 : 4;
constexpr float LOG_ALPHA_MIN = -LOG2_255;
static_assert(WORD_ROWS % VL == 0, "a word holds whole vectors of rows");

struct Lanes {
    vf zero_up, half_up;
    vf x[NB];
    vi bit_shift;
    Lanes() {
        for (int l = 0; l < VL; l++) {
            zero_up[l] = (float)l, half_up[l] = l + .5f;
            bit_shift[l] = l * NB % 32;
        }
        for (int b = 0; b < NB; b++) x[b] = half_up + (float)(b * VL);
    }
};
const Lanes LANES;

struct Footprint {
    uint64_t mask[WORDS];
    alignas(64) float dy[TILE], b[TILE], c[TILE];  // a row's dy, B dy and lo - C dy^2
};

inline uint64_t join(vi bits) {  // OR of the lanes; lanes whose bits would pass 32 sit in the upper half
    uint64_t r = 0;
#if LUMI_LANES <= 8
    union { vi a; uint64_t u[VL / 2]; } x{bits};
    for (int i = 0; i < VL / 2; i++) r |= x.u[i];
    r = (r | r >> 32) & 0xffffffffu;
#else
    for (int l = 0; l < VL; l++) r |= (uint64_t)(uint32_t)bits[l];
#endif
    return r;
}

// Which of the live vectors of the tile at (ox, oy) the level set touches. VL rows at a time: a row's span solves a
// quadratic. No branches: the processor works on several footprints at once.
inline void footprint(const Splat& s, float ox, float oy, const uint64_t* live, Footprint& f) {
    const float inv = 1.f / s.A, slope = -.5f * s.B * inv, qa = s.q * inv, k = (s.A * s.C - .25f * s.B * s.B) * inv * inv;
    const float centre = s.x - ox - .5f;
    for (int w = 0; w < WORDS; w++) {
        uint64_t word = 0;
        for (int part = 0; part < WORD_ROWS / VL; part++) {
            const int row = w * WORD_ROWS + part * VL;
            vf dy = LANES.half_up + (oy + row - s.y);
            store(f.dy + row, dy);
            store(f.b + row, dy * s.B);
            store(f.c + row, s.lo - dy * dy * s.C);
            vf e = qa - dy * dy * k, h = root(maximum(e, vf{})), m = dy * slope + centre;
            vi left = __builtin_convertvector(minimum(maximum(m - h, spread(-1.f)), spread((float)TILE)) + .999f, vi);
            vi right = __builtin_convertvector(minimum(maximum(m + h, spread(-1.f)) + 1.001f, spread((float)TILE)), vi) - 1;
            vi b0 = left >> LOG_VL, b1 = right >> LOG_VL;
            vi bits = ((vi{} + 2) << (b1 & 31)) - ((vi{} + 1) << b0);
            bits &= (e >= 0.f) & (left <= right);
            word |= join(bits << LANES.bit_shift) << (part * VL * NB);
        }
        f.mask[w] = word & live[w];
    }
}

inline void look(const vf* T, uint64_t* live) {
    for (int w = 0; w < WORDS; w++) {
        uint64_t m = 0;
        for (int j = 0; j < WORD; j++) m |= (uint64_t)any(T[w * WORD + j] > T_STOP) << j;
        live[w] &= m;
    }
}
inline bool all_dead(const uint64_t* live) {
    uint64_t m = 0;
    for (int w = 0; w < WORDS; w++) m |= live[w];
    return m == 0;
}

struct Tile {
    int x, y, width, height;  // pixels inside the image
    Tile(const View& view, int t) {
        x = t % view.tiles_x() * TILE, y = t / view.tiles_x() * TILE;
        width = std::min(TILE, view.camera.width - x), height = std::min(TILE, view.camera.height - y);
    }
    template <class F> void rows(int image_width, F f) const {  // f(index in image, index in tile) for each row's start
        for (int r = 0; r < height; r++) f((size_t)(y + r) * image_width + x, r * TILE);
    }
    void open(vf* T, uint64_t* live, int image_width) const {  // T = 1 inside the image, 0 outside
        std::memset(T, 0, sizeof(vf) * VECTORS);
        rows(image_width, [&](size_t, int i) { std::fill_n(reinterpret_cast<float*>(T) + i, width, 1.f); });
        std::fill_n(live, WORDS, ~0ull);
        look(T, live);
    }
};

inline void prefetch(const View& view, int k, int end) {
    for (int j = 0; j < BATCH && k + j < end; j++) __builtin_prefetch(&view.splats[view.entries[k + j].id]);
}

template <bool DEPTH> void composite_tile(const View& view, int t, const float* background, const Planes& out) {
    alignas(64) vf T[VECTORS], red[VECTORS] = {}, green[VECTORS] = {}, blue[VECTORS] = {}, depth[DEPTH ? VECTORS : 1] = {};
    uint64_t live[WORDS];
    const Tile tile(view, t);
    tile.open(T, live, view.camera.width);
    const float ox = (float)tile.x, oy = (float)tile.y;
    Footprint batch[BATCH];
    const int end = view.tile_start[t + 1];
    for (int k = view.tile_start[t]; k < end && !all_dead(live); k += BATCH) {
        const int n = std::min(BATCH, end - k);
        const Entry* entry = &view.entries[k];
        prefetch(view, k + BATCH, end);
        for (int j = 0; j < n; j++) footprint(view.splats[entry[j].id], ox, oy, live, batch[j]);
        for (int j = 0; j < n; j++) {
            const Splat& s = view.splats[entry[j].id];
            const Footprint& f = batch[j];
            const float sx = s.x - ox;
            for (int w = 0; w < WORDS; w++)
                for (uint64_t m = f.mask[w]; m; m &= m - 1) {
                    const unsigned i = w * WORD + (unsigned)__builtin_ctzll(m), row = i / NB;
                    vf dx = LANES.x[i % NB] - sx, e = f.c[row] - (dx * s.A + f.b[row]) * dx, before = T[i];
                    vi ok = (e >= LOG_ALPHA_MIN) & (before > T_STOP);
                    vf alpha = minimum(exp2_negative(e), spread(ALPHA_MAX)), weight = keep(ok, alpha * before);
                    T[i] = before - weight;
                    red[i] += weight * s.red, green[i] += weight * s.green, blue[i] += weight * s.blue;
                    if (DEPTH) depth[i] += weight * s.z;
                }
        }
        look(T, live);
    }
    const size_t plane = (size_t)view.camera.width * view.camera.height;
    tile.rows(view.camera.width, [&](size_t p, int i) {
        const float *tr = (const float*)T + i, *r = (const float*)red + i, *g = (const float*)green + i, *b = (const float*)blue + i;
        for (int x = 0; x < tile.width; x++) {
            out.transmittance[p + x] = tr[x];
            out.rgb[p + x] = r[x] + tr[x] * background[0];
            out.rgb[plane + p + x] = g[x] + tr[x] * background[1];
            out.rgb[2 * plane + p + x] = b[x] + tr[x] * background[2];
        }
        if (DEPTH) std::memcpy(out.depth + p, (const float*)depth + i, (size_t)tile.width * 4);
    });
}

inline void store_sums(vf* acc, float* slot) {
#if LUMI_LANES == 8
    transpose(acc);
    vf a = (acc[0] + acc[1]) + (acc[2] + acc[3]), b = (acc[4] + acc[5]) + (acc[6] + acc[7]);
    store(slot, a + b);
    vf rest{};
    rest[0] = sum(acc[8]), rest[1] = sum(acc[9]);
    store(slot + 8, rest);
#else
    for (int j = 0; j < SLOT; j++) slot[j] = j < SUMS ? sum(acc[j]) : 0.f;
#endif
}

// Front to back, like the forward pass: `rest` is what is still to come behind a pixel's current depth, weighted with
// the pixel's gradient. It starts as the finished pixel and loses each gaussian's share, so nothing is replayed.
//   dL/dalpha = T (c . g) - rest / (1 - alpha)
template <bool EXTRA, bool DEPTH>
void composite_backward_tile(View& view, int t, const Planes& image, const PlaneGradients& gradient) {
    alignas(64) vf T[VECTORS], rest[VECTORS] = {}, gr[VECTORS] = {}, gg[VECTORS] = {}, gb[VECTORS] = {},
                               extra[EXTRA ? VECTORS : 1] = {};
    uint64_t live[WORDS];
    const Tile tile(view, t);
    tile.open(T, live, view.camera.width);
    const size_t plane = (size_t)view.camera.width * view.camera.height;
    tile.rows(view.camera.width, [&](size_t p, int i) {
        float *r = (float*)gr + i, *g = (float*)gg + i, *b = (float*)gb + i, *q = (float*)rest + i;
        std::memcpy(r, gradient.rgb + p, (size_t)tile.width * 4);
        std::memcpy(g, gradient.rgb + plane + p, (size_t)tile.width * 4);
        std::memcpy(b, gradient.rgb + 2 * plane + p, (size_t)tile.width * 4);
        for (int x = 0; x < tile.width; x++)
            q[x] = r[x] * image.rgb[p + x] + g[x] * image.rgb[plane + p + x] + b[x] * image.rgb[2 * plane + p + x];
        if (gradient.transmittance)
            for (int x = 0; x < tile.width; x++) q[x] += gradient.transmittance[p + x] * image.transmittance[p + x];
        if (EXTRA) std::memcpy((float*)extra + i, gradient.extra + p, (size_t)tile.width * 4);
        if (DEPTH)
            for (int x = 0; x < tile.width; x++) q[x] += gradient.extra[p + x] * image.depth[p + x];
    });
    const float ox = (float)tile.x, oy = (float)tile.y;
    Footprint batch[BATCH];
    float* sums = view.sums.data();
    const int end = view.tile_start[t + 1];
    int k = view.tile_start[t];
    for (; k < end && !all_dead(live); k += BATCH) {
        const int n = std::min(BATCH, end - k);
        const Entry* entry = &view.entries[k];
        prefetch(view, k + BATCH, end);
        for (int j = 0; j < n; j++) footprint(view.splats[entry[j].id], ox, oy, live, batch[j]);
        for (int j = 0; j < n; j++) {
            const Splat& s = view.splats[entry[j].id];
            const Footprint& f = batch[j];
            const float sx = s.x - ox;
            vf s0{}, s_x{}, s_y{}, s_xx{}, s_xy{}, s_yy{}, s_r{}, s_g{}, s_b{}, s_e{};
            for (int w = 0; w < WORDS; w++)
                for (uint64_t m = f.mask[w]; m; m &= m - 1) {
                    const unsigned i = w * WORD + (unsigned)__builtin_ctzll(m), row = i / NB;
                    vf dx = LANES.x[i % NB] - sx, e = f.c[row] - (dx * s.A + f.b[row]) * dx, before = T[i];
                    vi ok = (e >= LOG_ALPHA_MIN) & (before > T_STOP);
                    vf raw = exp2_negative(e), alpha = minimum(raw, spread(ALPHA_MAX)), weight = keep(ok, alpha * before);
                    T[i] = before - weight;
                    vf r = gr[i], g = gg[i], b = gb[i];
                    vf seen = r * s.red + g * s.green + b * s.blue;
                    if (DEPTH) seen += extra[i] * s.z;
                    vf behind = rest[i] - weight * seen;
                    rest[i] = behind;
                    s_r += weight * r, s_g += weight * g, s_b += weight * b;
                    if (EXTRA) s_e += weight * extra[i];
                    vf v = keep(ok & (raw == alpha), raw * (before * seen - behind / (1.f - alpha)));
                    vf vx = v * dx, vy = v * f.dy[row];
                    s0 += v, s_x += vx, s_y += vy;
                    s_xx += vx * dx, s_xy += vy * dx, s_yy += vy * f.dy[row];
                }
            vf acc[SUMS] = {s0, s_x, s_y, s_xx, s_xy, s_yy, s_r, s_g, s_b, s_e};
            store_sums(acc, sums + (size_t)entry[j].slot * SLOT);
        }
        look(T, live);
    }
    for (; k < end; k++) std::memset(sums + (size_t)view.entries[k].slot * SLOT, 0, SLOT * 4);
}

}  // namespace

void composite(const View& view, const float* background, const Planes& out) {
    parallel(view.tiles(), [&](int i) {
        if (out.depth) composite_tile<true>(view, view.tile_order[i], background, out);
        else composite_tile<false>(view, view.tile_order[i], background, out);
    });
}

void composite_backward(View& view, const Planes& image, const PlaneGradients& gradient) {
    view.sums.reserve((size_t)view.entry_count() * SLOT);
    parallel(view.tiles(), [&](int i) {
        int t = view.tile_order[i];
        if (!gradient.extra) composite_backward_tile<false, false>(view, t, image, gradient);
        else if (gradient.extra_is_depth) composite_backward_tile<true, true>(view, t, image, gradient);
        else composite_backward_tile<true, false>(view, t, image, gradient);
    });
}

}  // namespace lumi
