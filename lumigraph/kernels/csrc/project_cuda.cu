// Projection of gaussians, one per thread, and its derivative: into gradient rows, or directly into Adam.
#include "device.h"
#include "screen.h"

using namespace lumi;

namespace {

inline void load_row(const float* row, float* p) {
    const float4* from = reinterpret_cast<const float4*>(row);
    for (int j = 0; j < ROW / 4; j++) {
        const float4 v = from[j];
        p[4 * j] = v.x, p[4 * j + 1] = v.y, p[4 * j + 2] = v.z, p[4 * j + 3] = v.w;
    }
}
inline void load_sh(const float* row, int degree, float* sh) {
    const int groups = ((degree + 1) * (degree + 1) * 3) / 4;
    const float4* from = reinterpret_cast<const float4*>(row);
    for (int j = 0; j < SH_ROW / 4; j++) {
        const float4 v = j < groups ? from[j] : make_float4(0, 0, 0, 0);
        sh[4 * j] = v.x, sh[4 * j + 1] = v.y, sh[4 * j + 2] = v.z, sh[4 * j + 3] = v.w;
    }
}

struct Back {  // gradient of the row of one gaussian, from its sums
    Projection<float> o;
    ProjectionGradient<float> g;
    float p[ROW], d[3], colour[3], towards[3], extra;
};

inline void back(const Camera& cam, int i, int degree, const float* params, const float* sh_rest, const Splat& s,
                 const float* sums, bool depth, Back& b) {
    float sum[SUM_ROW], inverse_length;
    for (int j = 0; j < SUM_ROW / 4; j++) {
        const float4 v = reinterpret_cast<const float4*>(sums + (size_t)i * SUM_ROW)[j];
        sum[4 * j] = v.x, sum[4 * j + 1] = v.y, sum[4 * j + 2] = v.z, sum[4 * j + 3] = v.w;
    }
    load_row(params + (size_t)i * ROW, b.p);
    project(cam, b.p, b.o);
    project_backward(cam, b.o, sum, depth ? sum[S_EXTRA] : 0.f, b.g);
    b.extra = sum[S_EXTRA];
    b.colour[0] = s.red > 0 ? sum[S_RED] : 0.f;  // a colour clamped at zero passes no gradient
    b.colour[1] = s.green > 0 ? sum[S_GREEN] : 0.f;
    b.colour[2] = s.blue > 0 ? sum[S_BLUE] : 0.f;
    direction(cam, b.p, b.d, inverse_length);
    for (int c = 0; c < 3; c++) b.g.row[11 + c] = SH_C0 * b.colour[c], b.towards[c] = 0;
    b.g.row[14] = b.g.row[15] = 0;
    if (degree > 0) {
        float sh[SH_ROW];
        load_sh(sh_rest + (size_t)i * SH_ROW, degree, sh);
        sh_towards(degree, b.d, inverse_length, sh, b.colour, b.towards);
        for (int k = 0; k < 3; k++) b.g.row[k] += b.towards[k];
    }
}

// Factors of the SH gradients, basis (15) outer colour (3), of the 32 gaussians of a warp, which then processes rows
// together.
struct Rows {
    float basis[WARP][16], colour[WARP][3], first[WARP], second[WARP];
    int live[WARP];
};
inline void share_rows(Rows& rows, int degree, const Back& b, bool live) {
    const int l = lane();
    rows.live[l] = live;
    if (live) {
        sh_basis(degree, b.d[0], b.d[1], b.d[2], rows.basis[l]);
        for (int c = 0; c < 3; c++) rows.colour[l][c] = b.colour[c];
    }
}
// Element `column` of a row of 48.
inline float sh_gradient(const Rows& rows, int row, int column, int coefficients) {
    const int j = column / 3 + 1;
    return j < coefficients ? rows.basis[row][j] * rows.colour[row][column % 3] : 0.f;
}

}  // namespace

struct AdamRows {
    float lr[ROW], lr_sh, beta1, beta2, epsilon, max_logit, log_beta1, log_beta2;
    float *m, *v, *sh_m, *sh_v;
    float* score;  // (N, 2)
};
static_assert(sizeof(AdamRows) == 136, "AdamRowsStruct of splatting_cuda.py");

// counts[2] = count. Sets sums to zero. keys: bits of the depth, all ones if not visible.
KERNEL(project_splats)
(Camera cam, int count, int degree, const float* params, const float* sh_rest, Splat* splats, float* sums, u32* keys,
 u32* ids, u32* counts) {
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i == 0) counts[2] = (u32)count;
    if (i >= count) return;
    for (int j = 0; j < SUM_ROW / 4; j++)
        reinterpret_cast<float4*>(sums + (size_t)i * SUM_ROW)[j] = make_float4(0, 0, 0, 0);
    float p[ROW];
    load_row(params + (size_t)i * ROW, p);
    Projection<float> o;
    project(cam, p, o);
    const Extent<float> e = extent(o);
    Splat s;
    s.count = 0, s.first = 0, s.unused = 0;
    if (on_screen(cam, o, e)) {
        float d[3], length, sh[SH_ROW], rgb[3];
        direction(cam, p, d, length);
        load_sh(sh_rest + (size_t)i * SH_ROW, degree, sh);
        sh_colour(degree, d, p + 11, sh, rgb);
        float all = rgb[0] + rgb[1] + rgb[2];  // NaN or infinite if any value is; the clamps hide that
        for (int j = 0; j < 14; j++) all += p[j];
        const Factor<float> l = factor(o);
        s.x = o.x, s.y = o.y, s.p = l.p, s.q = l.q, s.r = l.r, s.lo = e.lo, s.z = o.z;
        s.red = maximum(rgb[0], 0.f), s.green = maximum(rgb[1], 0.f), s.blue = maximum(rgb[2], 0.f);
        s.reach = e.reach, s.hx = e.hx, s.hy = e.hy;
        if (all - all == 0.f)
            for_tile_rows(s, cam.width, cam.height, [&](int, int left, int right) { s.count += right - left + 1; });
        splats[i] = s;
    } else
        splats[i].count = 0;
    keys[i] = s.count ? __float_as_uint(o.z) : ALL;
    ids[i] = (u32)i;
}

// camera: 15 doubles as in camera_gradient, or null; added to.
KERNEL(project_splats_backward)
(Camera cam, int count, int degree, const float* params, const float* sh_rest, const Splat* splats, const float* sums,
 int depth, float* out_params, float* out_sh, double* camera) {
    __shared__ Rows shared[WARPS];
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), first = i - lane();
    const bool live = i < count && splats[i].count > 0;
    Back b;
    float own[15];
    if (live) {
        back(cam, i, degree, params, sh_rest, splats[i], sums, depth != 0, b);
        camera_gradient(b.o, b.g, b.p, b.towards, own);
    }
    if (i < count)
        for (int j = 0; j < ROW; j++) out_params[(size_t)i * ROW + j] = live ? b.g.row[j] : 0.f;
    if (camera)
        for (int k = 0; k < 15; k++) {
            const double sum = warp_sum(live ? (double)own[k] : 0.0);
            if (lane() == 0 && sum != 0) atomicAdd(camera + k, sum);
        }
    Rows& rows = shared[warp()];
    share_rows(rows, degree, b, live);
    __syncwarp();
    for (int j = lane(); j < WARP * SH_ROW; j += WARP) {
        const int row = j / SH_ROW, column = j % SH_ROW;
        if (first + row >= count) continue;
        out_sh[(size_t)(first + row) * SH_ROW + column] =
            rows.live[row] ? sh_gradient(rows, row, column, (degree + 1) * (degree + 1)) : 0.f;
    }
}

namespace {

inline float adam(float& x, float& m, float& v, float g, float rate, float c2, const AdamRows& a) {
    m = m * a.beta1 + g * (1 - a.beta1);
    v = v * a.beta2 + g * g * (1 - a.beta2);
    x -= rate * m / (root(v) * c2 + a.epsilon);
    return x;
}

inline void adam4(float4& x, float4& m, float4& v, const float* g, const float* rate, float c2, const AdamRows& a) {
    adam(x.x, m.x, v.x, g[0], rate[0], c2, a), adam(x.y, m.y, v.y, g[1], rate[1], c2, a);
    adam(x.z, m.z, v.z, g[2], rate[2], c2, a), adam(x.w, m.w, v.w, g[3], rate[3], c2, a);
}

}  // namespace

// Adam for the visible gaussians. If the tile lists overflowed (counts[0] > counts[1]), nothing is updated.
KERNEL(project_splats_adam)
(Camera cam, int count, int degree, float* params, float* sh_rest, const Splat* splats, const float* sums,
 const u32* counts, AdamRows a) {
    __shared__ Rows shared[WARPS];
    if (counts[0] > counts[1]) return;
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x), first = i - lane();
    bool live = false;
    if (i < count && splats[i].count > 0) {
        const float* sum = sums + (size_t)i * SUM_ROW;
        // occluded gaussians keep their moments
        live = !(sum[S0] == 0.f && sum[S_GREEN] == 0.f);
    }
    Rows& rows = shared[warp()];
    Back b;
    if (live) {
        back(cam, i, degree, params, sh_rest, splats[i], sums, false, b);
        const float steps = b.p[14] + 1;
        const float c1 = -1.f / expm1f(steps * a.log_beta1), c2 = 1.f / sqrtf(-expm1f(steps * a.log_beta2));
        float4* x = reinterpret_cast<float4*>(params + (size_t)i * ROW);
        float4* m = reinterpret_cast<float4*>(a.m + (size_t)i * ROW);
        float4* v = reinterpret_cast<float4*>(a.v + (size_t)i * ROW);
        for (int j = 0; j < ROW / 4; j++) {
            float4 value = make_float4(b.p[4 * j], b.p[4 * j + 1], b.p[4 * j + 2], b.p[4 * j + 3]);
            float4 first_moment = m[j], second_moment = v[j];
            float rate[4];
            for (int k = 0; k < 4; k++) rate[k] = a.lr[4 * j + k] * c1;
            adam4(value, first_moment, second_moment, b.g.row + 4 * j, rate, c2, a);
            if (j == 2) value.z = minimum(value.z, a.max_logit);
            if (j == 3) value.z = steps;
            x[j] = value, m[j] = first_moment, v[j] = second_moment;
        }
        a.score[2 * i] += b.extra;
        a.score[2 * i + 1] += sqrtf(b.g.screen[0] * b.g.screen[0] + b.g.screen[1] * b.g.screen[1]);
        rows.first[lane()] = c1, rows.second[lane()] = c2;
    }
    if (degree == 0) return;
    share_rows(rows, degree, b, live);
    __syncwarp();
    const int coefficients = (degree + 1) * (degree + 1), groups = (coefficients * 3) / 4;  // groups of four columns
    for (int j = lane(); j < WARP * groups; j += WARP) {
        const int row = j / groups, column = j % groups * 4;
        if (!rows.live[row]) continue;
        const size_t at = (size_t)(first + row) * SH_ROW + column;
        float4* x = reinterpret_cast<float4*>(sh_rest + at);
        float4* m = reinterpret_cast<float4*>(a.sh_m + at);
        float4* v = reinterpret_cast<float4*>(a.sh_v + at);
        float g[4], rate[4];
        for (int k = 0; k < 4; k++)
            g[k] = sh_gradient(rows, row, column + k, coefficients), rate[k] = a.lr_sh * rows.first[row];
        float4 value = *x, first_moment = *m, second_moment = *v;
        adam4(value, first_moment, second_moment, g, rate, rows.second[row], a);
        *x = value, *m = first_moment, *v = second_moment;
    }
}
