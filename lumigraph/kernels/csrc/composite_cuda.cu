// Compositing, one warp per block of 8 x 4 pixels. A warp tests 32 entries of its tile at a time, one per lane, and
// keeps those whose level set touches its block. Only these are blended, front to back, one pixel per lane. Warps do
// not wait for each other.
#include "device.h"
#include "screen.h"

using namespace lumi;

namespace {

constexpr int ACROSS = 8, DOWN = WARP / ACROSS;  // pixels of a warp's block
constexpr float LOG_ALPHA_MIN = -LOG2_255;
static_assert(TILE * TILE == THREADS, "a pixel a thread");

struct Staged {      // u = p x + q y + u0, v = r y + v0, in pixels from the block's corner
    float4 a, b, c;  // p, q, u0, r; v0, lo, red, green; blue, z
};

struct Block {  // the block of this warp
    int x, y;   // corner in the image
    Block(int tile, int tiles_x) {
        x = tile % tiles_x * TILE + warp() % (TILE / ACROSS) * ACROSS;
        y = tile / tiles_x * TILE + warp() / (TILE / ACROSS) * DOWN;
    }
};

// Returns whether u^2 + v^2 <= reach at a pixel centre of the block, whose first centre is (dx, dy) away. The minimum
// of a convex quadratic over a rectangle is at its centre or on an edge that faces the centre.
inline bool touches(const Splat& s, float dx, float dy) {
    const float x1 = dx + ACROSS - 1, y1 = dy + DOWN - 1;
    const float nx = minimum(maximum(0.f, dx), x1), ny = minimum(maximum(0.f, dy), y1);
    const float along_y = minimum(maximum(-s.p * s.q * nx / (s.q * s.q + s.r * s.r), dy), y1);
    const float along_x = minimum(maximum(-s.q * ny / s.p, dx), x1);
    const float ua = s.p * nx + s.q * along_y, va = s.r * along_y, ub = s.p * along_x + s.q * ny, vb = s.r * ny;
    return minimum(ua * ua + va * va, ub * ub + vb * vb) <= s.reach * 1.0001f + 1e-3f;
}

// Stages the entries [at, at + 32) that touch the block and returns the bits of their lanes. ids, if not null: their
// ids.
inline u32 stage(const u32* entries, u32 at, u32 end, const Splat* splats, const Block& block, Staged* staged,
                 u32* ids) {
    bool keep = false;
    if (at + lane() < end) {
        const u32 id = entries[at + lane()];
        const float4* from = reinterpret_cast<const float4*>(splats + id);
        const float4 a = from[0], b = from[1], c = from[2];
        Splat s;
        s.p = a.z, s.q = a.w, s.r = b.x, s.reach = c.z;
        const float dx = (float)block.x - a.x,
                    dy = (float)block.y - a.y;  // from the splat's centre to the block's corner
        keep = touches(s, dx + .5f, dy + .5f);
        if (keep) {
            staged[lane()].a = make_float4(a.z, a.w, a.z * dx + a.w * dy, b.x);
            staged[lane()].b = make_float4(b.x * dy, b.y, b.z, b.w);
            staged[lane()].c = make_float4(c.x, c.y, 0, 0);
            if (ids) ids[lane()] = id;
        }
    }
    return __ballot_sync(ALL, keep);
}

enum { NO_DEPTH, EXPECTED, MEDIAN };

}  // namespace

// Planes of height x width floats: rgb (3), transmittance, depth (unless depth_kind is 0).
KERNEL(__launch_bounds__(THREADS) composite_tiles)
(int width, int height, int tiles_x, const u32* start, const u32* entries, const Splat* splats, float background_red,
 float background_green, float background_blue, float* rgb, float* transmittance, float* depth, int depth_kind) {
    __shared__ Staged shared[WARPS][WARP];
    Staged* staged = shared[warp()];
    const Block block((int)blockIdx.x, tiles_x);
    const float px = (float)(lane() % ACROSS) + .5f, py = (float)(lane() / ACROSS) + .5f;
    const int x = block.x + lane() % ACROSS, y = block.y + lane() / ACROSS;
    const bool inside = x < width && y < height;
    float T = inside ? 1.f : 0.f, red = 0, green = 0, blue = 0, z = 0;
    const u32 end = start[blockIdx.x + 1];
    for (u32 at = start[blockIdx.x]; at < end && __any_sync(ALL, T > T_STOP); at += WARP) {
        u32 left = stage(entries, at, end, splats, block, staged, nullptr);
        __syncwarp();
        for (; left; left &= left - 1) {
            const Staged s = staged[__ffs(left) - 1];
            const float u = s.a.x * px + (s.a.y * py + s.a.z), v = s.a.w * py + s.b.x;
            const float e = (s.b.y - u * u) - v * v;
            if (e >= LOG_ALPHA_MIN && T > T_STOP) {
                const float weight = minimum(exp2_negative(e), ALPHA_MAX) * T, after = T - weight;
                red += weight * s.b.z, green += weight * s.b.w, blue += weight * s.c.x;
                if (depth_kind == EXPECTED) z += weight * s.c.y;
                if (depth_kind == MEDIAN && T > .5f && after <= .5f) z = s.c.y;
                T = after;
            }
        }
        __syncwarp();
    }
    if (!inside) return;
    const size_t at = (size_t)y * width + x, plane = (size_t)width * height;
    rgb[at] = red + T * background_red, rgb[plane + at] = green + T * background_green;
    rgb[2 * plane + at] = blue + T * background_blue;
    transmittance[at] = T;
    if (depth_kind != NO_DEPTH) depth[at] = z;
}

namespace {

// Ten sums over 32 lanes in twelve exchanges: at each step a lane keeps every other value and passes the others to its
// partner. Value k ends in the lanes whose bits 4, 3, 2, 1 spell k from its lowest bit up.
inline float sum_transposed(const float* values) {
    float five[6], three[4], two[2];
    const bool b4 = lane() & 16, b3 = lane() & 8, b2 = lane() & 4, b1 = lane() & 2;
    for (int k = 0; k < 5; k++)
        five[k] =
            (b4 ? values[2 * k + 1] : values[2 * k]) + __shfl_xor_sync(ALL, b4 ? values[2 * k] : values[2 * k + 1], 16);
    five[5] = 0;
    for (int k = 0; k < 3; k++)
        three[k] = (b3 ? five[2 * k + 1] : five[2 * k]) + __shfl_xor_sync(ALL, b3 ? five[2 * k] : five[2 * k + 1], 8);
    three[3] = 0;
    for (int k = 0; k < 2; k++)
        two[k] = (b2 ? three[2 * k + 1] : three[2 * k]) + __shfl_xor_sync(ALL, b2 ? three[2 * k] : three[2 * k + 1], 4);
    float one = (b1 ? two[1] : two[0]) + __shfl_xor_sync(ALL, b1 ? two[0] : two[1], 2);
    return one + __shfl_xor_sync(ALL, one, 1);
}
inline int transposed_index() {
    const int l = lane();
    return (l >> 4 & 1) | (l >> 3 & 1) << 1 | (l >> 2 & 1) << 2 | (l >> 1 & 1) << 3;
}

}  // namespace

// Front to back, like the forward pass. `rest` is the colour behind the current depth of a pixel, weighted with the
// gradient of the pixel. It starts as the finished pixel and loses the share of each gaussian, so nothing is replayed.
//   dL/dalpha = T (c . g) - rest / (1 - alpha)
// g_transmittance and extra may be null. extra: dL/ddepth if depth is not null, else an error map that weights
// gaussians.
KERNEL(__launch_bounds__(THREADS) composite_tiles_backward)
(int width, int height, int tiles_x, const u32* start, const u32* entries, const Splat* splats, const float* rgb,
 const float* transmittance, const float* depth, const float* g_rgb, const float* g_transmittance, const float* extra,
 float* sums) {
    __shared__ Staged shared[WARPS][WARP];
    __shared__ u32 shared_ids[WARPS][WARP];
    Staged* staged = shared[warp()];
    u32* ids = shared_ids[warp()];
    const Block block((int)blockIdx.x, tiles_x);
    const float px = (float)(lane() % ACROSS) + .5f, py = (float)(lane() / ACROSS) + .5f;
    const int x = block.x + lane() % ACROSS, y = block.y + lane() / ACROSS;
    float T = 0, rest = 0, gr = 0, gg = 0, gb = 0, ge = 0;
    if (x < width && y < height) {
        const size_t at = (size_t)y * width + x, plane = (size_t)width * height;
        T = 1;
        gr = g_rgb[at], gg = g_rgb[plane + at], gb = g_rgb[2 * plane + at];
        rest = rgb[at] * gr + rgb[plane + at] * gg + rgb[2 * plane + at] * gb;
        if (extra) ge = extra[at];
        if (depth) rest += depth[at] * ge;
        if (g_transmittance) rest += transmittance[at] * g_transmittance[at];
    }
    const float in_depth = depth ? ge : 0.f;
    const int value = transposed_index();
    const bool writes = !(lane() & 1) && value < SUMS;
    const u32 end = start[blockIdx.x + 1];
    for (u32 at = start[blockIdx.x]; at < end && __any_sync(ALL, T > T_STOP); at += WARP) {
        u32 left = stage(entries, at, end, splats, block, staged, ids);
        __syncwarp();
        for (; left; left &= left - 1) {
            const int from = __ffs(left) - 1;
            const Staged s = staged[from];
            const float u = s.a.x * px + (s.a.y * py + s.a.z), v = s.a.w * py + s.b.x;
            const float e = (s.b.y - u * u) - v * v;
            const bool ok = e >= LOG_ALPHA_MIN && T > T_STOP;
            if (!__any_sync(ALL, ok)) continue;
            float sum[SUMS];
            for (int k = 0; k < SUMS; k++) sum[k] = 0;
            if (ok) {
                const float raw = exp2_negative(e), alpha = minimum(raw, ALPHA_MAX), weight = alpha * T;
                const float seen = gr * s.b.z + gg * s.b.w + gb * s.c.x + in_depth * s.c.y;
                rest -= weight * seen;
                sum[S_RED] = weight * gr, sum[S_GREEN] = weight * gg, sum[S_BLUE] = weight * gb;
                sum[S_EXTRA] = weight * ge;
                if (raw == alpha) {
                    const float d = raw * (T * seen - rest / (1.f - alpha)), du = d * u, dv = d * v;
                    sum[S0] = d, sum[SU] = du, sum[SV] = dv, sum[SUU] = du * u, sum[SUV] = du * v, sum[SVV] = dv * v;
                }
                T -= weight;
            }
            const float total = sum_transposed(sum);
            if (writes) atomicAdd(sums + (size_t)ids[from] * SUM_ROW + value, total);
        }
        __syncwarp();
    }
}
