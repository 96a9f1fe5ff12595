#include "march.h"

#include <algorithm>
#include <cmath>

#include "pool.h"

namespace lumi {
namespace {

constexpr long RAYS = 64;  // a piece

// Where the ray is inside the cube of half side `half` around the centre: t0 < t1, or nothing.
bool clip(const float* o, const float* d, const float* centre, float half, float& t0, float& t1) {
    for (int a = 0; a < 3; a++) {
        if (!std::isfinite(o[a]) || !std::isfinite(d[a])) return false;
        const float inverse = 1.f / d[a];  // of 0: infinite, and the comparisons still hold
        float u = (centre[a] - half - o[a]) * inverse, v = (centre[a] + half - o[a]) * inverse;
        if (u > v) std::swap(u, v);
        if (u > t0) t0 = u;  // NaN, of a ray within a face, changes nothing
        if (v < t1) t1 = v;
    }
    return t0 < t1;
}

// Steps lie on a lattice of the ray's own, t_{k+1} = t_k + max(shortest, growth t_k), so that what is skipped never
// moves what is not.
void march_ray(const Occupancy& grid, const Steps& steps, const float* o, const float* d, float jitter,
               Marched::Piece& out) {
    float t = steps.near, end = steps.far;
    const float outermost = grid.half * (float)(1 << (grid.levels - 1));
    if (!clip(o, d, grid.centre, outermost, t, end)) return;
    auto length = [&](float at) { return std::max(steps.shortest, steps.growth * at); };
    t += jitter * length(t);
    const size_t before = out.distance.size();
    while (t < end) {
        const float dt = length(t), middle = t + .5f * dt;
        float p[3], reach = 0;
        for (int a = 0; a < 3; a++) {
            p[a] = o[a] + middle * d[a] - grid.centre[a];
            reach = std::max(reach, std::fabs(p[a]));
        }
        int level = 0;
        float half = grid.half;
        while (reach > half && level + 1 < grid.levels) half *= 2, level++;
        if (!(reach <= half)) {  // this step's middle is beyond the outermost cube, or not a number
            if (!(middle < end)) break;
            t += dt;
            continue;
        }
        const float cell = 2 * half / (float)grid.side;
        int at[3];
        for (int a = 0; a < 3; a++) at[a] = std::min(grid.side - 1, std::max(0, (int)((p[a] + half) / cell)));
        const uint8_t* cells = grid.cells + (size_t)level * grid.side * grid.side * grid.side;
        if (cells[((size_t)at[2] * grid.side + at[1]) * grid.side + at[0]]) {
            out.distance.push_back(middle), out.length.push_back(dt);
            if (out.distance.size() - before >= (size_t)steps.most) return;
            t += dt;
            continue;
        }
        float leave = end;  // where the ray leaves this empty cell
        for (int a = 0; a < 3; a++)
            if (d[a] != 0) {
                const float face = (float)(at[a] + (d[a] > 0)) * cell - half;
                leave = std::min(leave, middle + (face - p[a]) / d[a]);
            }
        do t += length(t);
        while (t + .5f * length(t) < leave);
    }
}

}  // namespace

void march(const Occupancy& grid, const Steps& steps, const float* origin, const float* direction, const float* jitter,
           long rays, Marched& out) {
    const long pieces = (rays + RAYS - 1) / RAYS;
    out.pieces.resize(pieces);
    parallel((int)pieces, [&](int k) {
        Marched::Piece& piece = out.pieces[k];
        piece.distance.clear(), piece.length.clear(), piece.count.clear();
        for (long r = k * RAYS, end = std::min(rays, r + RAYS); r < end; r++) {
            const size_t before = piece.distance.size();
            march_ray(grid, steps, origin + 3 * r, direction + 3 * r, jitter[r], piece);
            piece.count.push_back((int32_t)(piece.distance.size() - before));
        }
    });
    out.samples = 0;
    for (const Marched::Piece& piece : out.pieces) out.samples += (long)piece.distance.size();
}

void unpack(const Marched& in, int64_t* first, float* distance, float* length) {
    int64_t at = 0;
    *first++ = 0;
    for (const Marched::Piece& piece : in.pieces) {
        std::copy(piece.distance.begin(), piece.distance.end(), distance + at);
        std::copy(piece.length.begin(), piece.length.end(), length + at);
        for (int32_t n : piece.count) *first++ = at += n;
    }
}

}  // namespace lumi
