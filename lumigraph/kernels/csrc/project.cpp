// Projection of all gaussians, VL at a time, and its derivative. Gradients go to rows of a tensor, or directly to Adam,
// which avoids a pass through memory.
#include <algorithm>
#include <new>

#include "splat.h"

namespace lumi {
namespace {

constexpr vf LANE_ZERO{};

struct Block {  // columns of VL gaussians
    vf p[ROW], sh[SH_ROW];
};

inline int sh_groups(int degree) { return ((degree + 1) * (degree + 1) * 3 - 3 + ROW - 1) / ROW; }

inline void load_params(const float* params, int first, int n, vf* columns) {
    if (n == VL) return load_rows(params + (size_t)first * ROW, ROW, columns);
    alignas(64) float rows[VL * ROW];
    for (int l = 0; l < VL; l++)
        std::memcpy(rows + l * ROW, params + (size_t)(first + std::min(l, n - 1)) * ROW, ROW * 4);
    load_rows(rows, ROW, columns);
}
inline void load_sh(const float* sh, int first, int n, int groups, vf* columns) {
    for (int g = 0; g < groups; g++) {
        if (n == VL) {
            load_rows(sh + (size_t)first * SH_ROW + g * ROW, SH_ROW, columns + g * ROW);
            continue;
        }
        alignas(64) float rows[VL * ROW];
        for (int l = 0; l < VL; l++)
            std::memcpy(rows + l * ROW, sh + (size_t)(first + std::min(l, n - 1)) * SH_ROW + g * ROW, ROW * 4);
        load_rows(rows, ROW, columns + g * ROW);
    }
}

void project_block(View& view, const float* params, const float* sh_rest, int first, int n,
                   std::vector<uint16_t>& tiles) {
    const Camera& cam = view.camera;
    vf p[ROW], record[ROW];
    load_params(params, first, n, p);
    Projection<vf> o;
    project(cam, p, o);
    const Extent<vf> reach = extent(o);
    vi ok = on_screen(cam, o, reach);
    if (!any(ok)) {
        for (int l = 0; l < n; l++) view.splats[first + l].count = 0;
        return;
    }
    vf d[3], length, sh[SH_ROW], rgb[3];
    direction(cam, p, d, length);
    load_sh(sh_rest, first, n, sh_groups(view.degree), sh);
    sh_colour(view.degree, d, p + 11, sh, rgb);
    record[0] = o.x, record[1] = o.y;
    Factor<vf> l = factor(o);
    record[2] = l.p, record[3] = l.q, record[4] = l.r, record[5] = reach.lo;
    for (int c = 0; c < 3; c++) record[6 + c] = maximum(rgb[c], LANE_ZERO);
    vf all = rgb[0] + rgb[1] + rgb[2];  // NaN or infinite if any value is; the clamps above hide that
    for (int j = 0; j < 14; j++) all += p[j];
    ok &= all - all == 0.f;
    record[9] = o.z, record[10] = reach.reach, record[11] = reach.hx, record[12] = reach.hy;
    record[13] = record[14] = record[15] = LANE_ZERO;
    alignas(64) float rows[VL * ROW];
    store_rows(rows, ROW, record);
    for (int l = 0; l < n; l++) {
        Splat& s = view.splats[first + l];
        std::memcpy(&s, rows + l * ROW, sizeof s);
        s.first = (int32_t)tiles.size();
        if (ok[l])
            for_tile_rows(s, cam.width, cam.height, [&](int row, int left, int right) {
                for (int t = left; t <= right; t++) tiles.push_back((uint16_t)(row * view.tiles_x() + t));
            });
        s.count = (int32_t)tiles.size() - s.first;
    }
}

// Adds up the slots of VL gaussians. False if none of them has a slot.
inline bool gather(const View& view, int first, int n, vf* sums) {
    alignas(64) float rows[VL * ROW];
    bool some = false;
    const float* base = view.sums.data() + (size_t)view.chunk_first[first / CHUNK] * SLOT;
    for (int l = 0; l < VL; l++) {
        vf a[SLOT / VL] = {};
        if (l < n) {
            const Splat& s = view.splats[first + l];
            const float* slot = base + (size_t)s.first * SLOT;
            for (int m = 0; m < s.count; m++, slot += SLOT)
                for (int j = 0; j < SLOT / VL; j++) a[j] += load(slot + j * VL);
            some |= s.count > 0;
        }
        for (int j = 0; j < SLOT / VL; j++) store(rows + l * ROW + j * VL, a[j]);
    }
    if (some) load_rows(rows, ROW, sums);
    return some;
}

struct BlockGradient {
    ProjectionGradient<vf> projection;
    vf sums[ROW], basis[16], colour[3], towards[3];  // towards: dL/d(mean - camera position) through the colour
};

inline bool block_backward(const View& view, const float* params, const float* sh_rest, int first, int n, bool depth,
                           BlockGradient& g) {
    if (!gather(view, first, n, g.sums)) return false;
    const Camera& cam = view.camera;
    vf p[ROW];
    load_params(params, first, n, p);
    Projection<vf> o;
    project(cam, p, o);
    project_backward(cam, o, g.sums, depth ? g.sums[S_EXTRA] : LANE_ZERO, g.projection);
    for (int l = 0; l < VL; l++) {  // a colour clamped at zero passes no gradient
        const Splat& s = view.splats[first + std::min(l, n - 1)];
        g.colour[0][l] = s.red > 0 ? g.sums[S_RED][l] : 0.f;
        g.colour[1][l] = s.green > 0 ? g.sums[S_GREEN][l] : 0.f;
        g.colour[2][l] = s.blue > 0 ? g.sums[S_BLUE][l] : 0.f;
    }
    vf d[3], inverse_length;
    direction(cam, p, d, inverse_length);
    sh_basis(view.degree, d[0], d[1], d[2], g.basis);
    for (int c = 0; c < 3; c++) g.projection.row[11 + c] = SH_C0 * g.colour[c];
    g.projection.row[14] = g.projection.row[15] = LANE_ZERO;
    if (view.degree == 0) {
        for (auto& t : g.towards) t = LANE_ZERO;
        return true;
    }
    vf sh[SH_ROW];
    load_sh(sh_rest, first, n, sh_groups(view.degree), sh);
    sh_towards(view.degree, d, inverse_length, sh, g.colour, g.towards);
    for (int k = 0; k < 3; k++) g.projection.row[k] += g.towards[k];
    return true;
}

// SH gradients as rows of 48: basis (15) outer colour (3).
inline void sh_gradient_rows(const BlockGradient& g, int degree, float* rows) {
    int coefficients = (degree + 1) * (degree + 1);
    vf columns[SH_ROW];
    for (int j = 1; j < 16; j++)
        for (int c = 0; c < 3; c++) columns[3 * j - 3 + c] = j < coefficients ? g.basis[j] * g.colour[c] : LANE_ZERO;
    for (int c = 45; c < SH_ROW; c++) columns[c] = LANE_ZERO;
    for (int group = 0; group < SH_ROW; group += ROW) store_rows(rows + group, SH_ROW, columns + group);
}

// 1 / (1 - beta^t) by table; beyond it the correction is 1 to float precision.
struct BiasCorrection {
    static constexpr int LAST = 32767;
    float beta = -1, power = 1;
    std::vector<float> table;
    void prepare(float b, double exponent) {
        if (beta == b) return;
        beta = b;
        table.resize(LAST + 1);
        double product = 1;
        for (int t = 0; t <= LAST; t++) {
            product *= b;
            table[t] = (float)std::pow(1 - product, -exponent);
        }
    }
    float operator()(float step) const { return table[step < LAST ? (int)step : LAST]; }
};
BiasCorrection first_moment, second_moment;

inline void adam_row(float* x, float* m, float* v, const float* gradient, const vf* lr, int vectors, float c1, float c2,
                     const Adam& adam) {
    for (int j = 0; j < vectors; j++) {
        vf g = load(gradient + j * VL);
        vf m1 = load(m + j * VL) * adam.beta1 + g * (1 - adam.beta1);
        vf v1 = load(v + j * VL) * adam.beta2 + g * g * (1 - adam.beta2);
        store(m + j * VL, m1);
        store(v + j * VL, v1);
        store(x + j * VL, load(x + j * VL) - lr[j] * c1 * m1 / (root(v1) * c2 + adam.epsilon));
    }
}

}  // namespace

void project(View& view, const float* params, const float* sh_rest) {
    view.splats.reserve(view.count);
    view.chunk_tiles.resize(view.chunks());
    parallel(view.chunks(), [&](int c) {
        auto tiles = std::move(view.chunk_tiles[c]);  // keeps the header away from those that other threads write
        tiles.clear();
        int end = std::min(view.count, (c + 1) * CHUNK);
        for (int i = c * CHUNK; i < end; i += VL) project_block(view, params, sh_rest, i, std::min(VL, end - i), tiles);
        view.chunk_tiles[c] = std::move(tiles);
    });
    view.chunk_first.assign(1, 0);
    for (auto& tiles : view.chunk_tiles) view.chunk_first.push_back(view.chunk_first.back() + (int32_t)tiles.size());
}

void project_backward(const View& view, const float* params, const float* sh_rest, bool depth,
                      const GradientRows& out) {
    std::vector<double> camera_parts(out.camera ? (size_t)view.chunks() * 15 : 0);
    parallel(view.chunks(), [&](int c) {
        int end = std::min(view.count, (c + 1) * CHUNK);
        vf camera[15] = {};  // dL/dR (9), dL/dt (3), dL/dposition (3)
        for (int i = c * CHUNK; i < end; i += VL) {
            int n = std::min(VL, end - i);
            alignas(64) float rows[VL * ROW] = {}, sh_rows[VL * SH_ROW] = {};
            BlockGradient g;
            if (block_backward(view, params, sh_rest, i, n, depth, g)) {
                vi seen;
                for (int l = 0; l < VL; l++) seen[l] = l < n && view.splats[i + l].count > 0 ? -1 : 0;
                if (out.camera) {
                    vf p[ROW], own[15];
                    load_params(params, i, n, p);
                    Projection<vf> o;
                    project(view.camera, p, o);
                    camera_gradient(o, g.projection, p, g.towards, own);
                    for (int k = 0; k < 15; k++) camera[k] += keep(seen, own[k]);
                }
                for (auto& column : g.projection.row) column = keep(seen, column);
                for (auto& column : g.colour) column = keep(seen, column);
                sh_gradient_rows(g, view.degree, sh_rows);
                store_rows(rows, ROW, g.projection.row);
            }
            std::memcpy(out.params + (size_t)i * ROW, rows, (size_t)n * ROW * 4);
            std::memcpy(out.sh + (size_t)i * SH_ROW, sh_rows, (size_t)n * SH_ROW * 4);
        }
        if (out.camera)
            for (int k = 0; k < 15; k++) camera_parts[(size_t)c * 15 + k] = sum(camera[k]);
    });
    if (!out.camera) return;
    double total[15] = {};
    for (int c = 0; c < view.chunks(); c++)
        for (int k = 0; k < 15; k++) total[k] += camera_parts[(size_t)c * 15 + k];
    // position = -R' t
    for (int r = 0; r < 3; r++) {
        double dt = total[9 + r];
        for (int k = 0; k < 3; k++) {
            dt -= view.camera.R[3 * r + k] * total[12 + k];
            out.camera[4 * r + k] = total[3 * r + k] - view.camera.t[r] * total[12 + k];
        }
        out.camera[4 * r + 3] = dt;
    }
}

void project_backward_adam(const View& view, float* params, float* sh_rest, const Adam& adam) {
    first_moment.prepare(adam.beta1, 1.0);
    second_moment.prepare(adam.beta2, 0.5);
    const int sh_vectors = ((view.degree + 1) * (view.degree + 1) * 3 - 3 + VL - 1) / VL;
    vf lr[ROW / VL], lr_sh[SH_ROW / VL];
    for (int j = 0; j < ROW / VL; j++) lr[j] = load(adam.lr + j * VL);
    for (auto& x : lr_sh) x = spread(adam.lr_sh);
    parallel(view.chunks(), [&](int c) {
        int end = std::min(view.count, (c + 1) * CHUNK);
        for (int i = c * CHUNK; i < end; i += VL) {
            int n = std::min(VL, end - i);
            BlockGradient g;
            if (!block_backward(view, params, sh_rest, i, n, false, g)) continue;
            vf screen =
                root(g.projection.screen[0] * g.projection.screen[0] + g.projection.screen[1] * g.projection.screen[1]);
            alignas(64) float rows[VL * ROW], sh_rows[VL * SH_ROW];
            if (sh_vectors) sh_gradient_rows(g, view.degree, sh_rows);
            store_rows(rows, ROW, g.projection.row);
            for (int l = 0; l < n; l++) {
                size_t id = i + l;
                // Adam only for visible gaussians: occluded ones keep their moments
                if (view.splats[id].count == 0 || (g.sums[S0][l] == 0.f && g.sums[S_GREEN][l] == 0.f)) continue;
                float* x = params + id * ROW;
                float c1 = first_moment(x[14]), c2 = second_moment(x[14]);
                adam_row(x, adam.m + id * ROW, adam.v + id * ROW, rows + l * ROW, lr, ROW / VL, c1, c2, adam);
                x[14] += 1.f;
                x[10] = std::min(x[10], adam.max_logit);
                if (sh_vectors)
                    adam_row(sh_rest + id * SH_ROW, adam.sh_m + id * SH_ROW, adam.sh_v + id * SH_ROW,
                             sh_rows + l * SH_ROW, lr_sh, sh_vectors, c1, c2, adam);
                adam.score[2 * id] += g.sums[S_EXTRA][l];
                adam.score[2 * id + 1] += screen[l];
            }
        }
    });
}

}  // namespace lumi
