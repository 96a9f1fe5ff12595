// Mathematics of samples along rays: ray marching, hash grid lookup, volume rendering, and the Adam step. Shared by
// host and device like gaussian.h.
#pragma once
#include "gaussian.h"

namespace lumi {

// ---- the field of instant-NGP (Mueller et al. 2022)
//
//   encode:   16 levels x 2 features, trilinear                                          -> 32
//   density:  32 -> 64 relu -> 16; density = exp(output 0), all 16 outputs continue
//   colour:   16 + 16 spherical harmonics of the direction -> 64 relu -> 64 relu -> 3; colour = sigmoid

constexpr int LEVELS = 16, FEATURES = 2, ENCODED = LEVELS * FEATURES, HIDDEN = 64, LATENT = 16, HARMONICS = 16;
constexpr int MIXED = LATENT + HARMONICS;
constexpr float MAX_LOG_DENSITY = 15.f;

// Offset of each matrix (out, in), row-major, in the flat weights.
constexpr int W1 = 0, W2 = W1 + HIDDEN * ENCODED, W3 = W2 + LATENT * HIDDEN, W4 = W3 + HIDDEN * MIXED,
              W5 = W4 + HIDDEN * HIDDEN, WEIGHTS = W5 + 3 * HIDDEN;

// One level of the grid: `side` vertices along each axis and `entries` rows of the table, beginning at `first`. A
// `dense` level has one row per vertex; other levels hash vertices, and `entries` is a power of two.
struct Level {
    float scale;
    unsigned side, first, entries;
    bool dense;
};
static_assert(sizeof(Level) == 20, "LevelStruct of hashgrid.py");

// The row of vertex (x, y, z) is of(x, y * step_y, z * step_z).
struct Dense {
    unsigned step_y, step_z;
    explicit Dense(const Level& level) : step_y(level.side), step_z(level.side * level.side) {}
    unsigned of(unsigned x, unsigned y, unsigned z) const { return x + y + z; }
};
struct Hashed {
    unsigned step_y = 2654435761u, step_z = 805459861u, mask;
    explicit Hashed(const Level& level) : mask(level.entries - 1) {}
    unsigned of(unsigned x, unsigned y, unsigned z) const { return (x ^ y ^ z) & mask; }
};

inline float in_cube(float p) { return p > 0.f ? (p < 1.f ? p : 1.f) : 0.f; }  // NaN becomes 0

// Calls f(corner, row, trilinear weight) for the eight corners around a position within 0..1.
template <class Entries, class F>
inline void corners(float scale, const Entries& entries, float x, float y, float z, F f) {
    const float px = x * scale + .5f, py = y * scale + .5f, pz = z * scale + .5f;
    const int ix = (int)px, iy = (int)py, iz = (int)pz;
    const float fx = px - (float)ix, fy = py - (float)iy, fz = pz - (float)iz;
    const unsigned x0 = (unsigned)ix, x1 = x0 + 1;
    const unsigned y0 = (unsigned)iy * entries.step_y, y1 = y0 + entries.step_y;
    const unsigned z0 = (unsigned)iz * entries.step_z, z1 = z0 + entries.step_z;
    const float gx = 1.f - fx, gy = 1.f - fy, gz = 1.f - fz;
    f(0, entries.of(x0, y0, z0), gx * gy * gz), f(1, entries.of(x1, y0, z0), fx * gy * gz);
    f(2, entries.of(x0, y1, z0), gx * fy * gz), f(3, entries.of(x1, y1, z0), fx * fy * gz);
    f(4, entries.of(x0, y0, z1), gx * gy * fz), f(5, entries.of(x1, y0, z1), fx * gy * fz);
    f(6, entries.of(x0, y1, z1), gx * fy * fz), f(7, entries.of(x1, y1, z1), fx * fy * fz);
}

template <class F> inline F density_of(F x) { return exponential(minimum(x, F{} + MAX_LOG_DENSITY)); }

// Gradients of the raw outputs from those of density and colour. Above its cap, the density has the gradient of exp, so
// that too large a density can shrink again.
inline float raw_density_gradient(float density, float g) { return g * density; }
inline float raw_colour_gradient(float colour, float g) { return g * colour * (1.f - colour); }

// ---- ray marching
//
// The grid has `levels` cascades of side^3 cells around one centre; cascade k spans 2^k times the first (Mueller et al.
// 2022, appendix C). A point belongs to the smallest cascade that contains it.

struct OccupancyGrid {
    const unsigned char* cells;  // (levels, side, side, side), z slowest; nonzero = occupied
    int levels, side;
    float centre[3], half;  // half: half extent of the first cascade
};
static_assert(sizeof(OccupancyGrid) == 32, "OccupancyGridStruct of ray_marching.py");
struct MarchSettings {
    float near, far, shortest;  // distances from the ray origin, and the shortest step
    float growth;               // a step is max(shortest, growth x distance) long
    int most;                   // samples per ray
    float length(float at) const { return maximum(growth * at, shortest); }
};
static_assert(sizeof(MarchSettings) == 20, "MarchSettingsStruct of ray_marching.py");

// Clips t0 < t1 to the cube of half extent `half` around the centre. False if nothing remains.
inline bool clip(const float* o, const float* d, const float* centre, float half, float& t0, float& t1) {
    for (int a = 0; a < 3; a++) {
        if (!(o[a] - o[a] == 0 && d[a] - d[a] == 0)) return false;  // not finite
        const float inverse = 1.f / d[a];  // infinite if d is 0, and the comparisons still hold
        const float u = (centre[a] - half - o[a]) * inverse, v = (centre[a] + half - o[a]) * inverse;
        const float low = u > v ? v : u, high = u > v ? u : v;
        if (low > t0) t0 = low;  // a ray within a face gives NaN, which changes nothing
        if (high < t1) t1 = high;
    }
    return t0 < t1;
}

// Calls take(distance, length) for the steps of a ray whose midpoints are in occupied cells. The steps t_{k+1} = t_k +
// max(shortest, growth t_k) do not depend on the cells, so skipping an empty cell does not move later steps.
template <class F>
inline void march_ray(const OccupancyGrid& grid, const MarchSettings& steps, const float* o, const float* d,
                      float jitter, F take) {
    float t = steps.near, end = steps.far;
    const float outermost = grid.half * (float)(1 << (grid.levels - 1));
    if (!clip(o, d, grid.centre, outermost, t, end)) return;
    t += jitter * steps.length(t);
    int taken = 0;
    while (t < end) {
        const float dt = steps.length(t), middle = t + .5f * dt;
        float p[3], reach = 0;
        for (int a = 0; a < 3; a++) {
            p[a] = o[a] + middle * d[a] - grid.centre[a];
            reach = maximum(p[a] < 0 ? -p[a] : p[a], reach);
        }
        int level = 0;
        float half = grid.half;
        while (reach > half && level + 1 < grid.levels) half *= 2, level++;
        if (!(reach <= half)) {  // the midpoint of this step is outside the outermost cascade
            if (!(middle < end)) return;
            t += dt;
            continue;
        }
        const float cell = 2 * half / (float)grid.side;
        int at[3];
        for (int a = 0; a < 3; a++) at[a] = minimum(grid.side - 1, maximum(0, (int)((p[a] + half) / cell)));
        const unsigned char* cells = grid.cells + (size_t)level * grid.side * grid.side * grid.side;
        if (cells[((size_t)at[2] * grid.side + at[1]) * grid.side + at[0]]) {
            take(middle, dt);
            if (++taken >= steps.most) return;
            t += dt;
            continue;
        }
        float leave = end;  // where the ray leaves this empty cell
        for (int a = 0; a < 3; a++)
            if (d[a] != 0) {
                const float face = (float)(at[a] + (d[a] > 0)) * cell - half;
                leave = minimum(middle + (face - p[a]) / d[a], leave);
            }
        do t += steps.length(t);
        while (t + .5f * steps.length(t) < leave);
    }
}

// ---- volume rendering (Max 1995; Mildenhall et al. 2020, eq. 3)
//
//   alpha_i = 1 - exp(-density_i length_i),  T_i = prod_{j<i} (1 - alpha_j),  w_i = T_i alpha_i

// 1 - alpha
inline float let_through(float density, float length) { return exponential(-density * length); }

// dL/dw_i of a sample (density, red, green, blue), from the gradients of the rendered ray.
inline float weight_gradient(const float* sample, float distance, const float* g_rgb, float g_depth, float g_weight) {
    return sample[1] * g_rgb[0] + sample[2] * g_rgb[1] + sample[3] * g_rgb[2] + distance * g_depth + g_weight;
}
// With G_i = dL/dw_i:  dL/d(density_i) = length_i (T_{i+1} G_i - sum_{j>i} w_j G_j - T_end dL/dT_end).
// after: T_{i+1}; behind: both sums.
inline float density_gradient(float length, float after, float G, float behind) {
    return length * (after * G - behind);
}

// ---- Adam (Kingma and Ba 2015)

struct AdamStep {
    float rate, scale;  // learning rate / (1 - beta1^step), 1 / sqrt(1 - beta2^step)
    float beta1, beta2, epsilon;
};
static_assert(sizeof(AdamStep) == 20, "AdamStep of adam.py");
inline void adam(float& p, float& g, float& m, float& v, const AdamStep& s) {
    const float x = g;
    m += (1 - s.beta1) * (x - m);
    v += (1 - s.beta2) * (x * x - v);
    p -= s.rate * m / (root(v) * s.scale + s.epsilon);
    g = 0;
}

}  // namespace lumi
