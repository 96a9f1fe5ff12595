// Mathematics of one gaussian: activation, EWA projection (Zwicker et al. 2001; Kerbl et al. 2023), spherical
// harmonics, and their derivatives. Host and device share it: it is generic over F, a float or a vector with one
// gaussian per lane, and uses no standard library. `minimum maximum root exponential logarithm2` come with F.
//
// Conventions: OpenCV camera axes, pixel centres at +0.5, quaternions (w, x, y, z) of any length, logit opacity, log
// scales. alpha = min(0.99, o exp(-d'Cd/2)); pairs with alpha < 1/255 are skipped; a pixel stops at T <= 1e-3.
#pragma once
#ifdef __CUDACC__
#include "math.h"
#else
#include "lanes.h"
#endif

namespace lumi {

constexpr float ALPHA_MIN = 1.f / 255, ALPHA_MAX = 0.99f, T_STOP = 1e-3f;
constexpr float LOG2E = 1.44269504f, LN2 = 0.693147181f, LOG2_255 = 7.99435344f;
constexpr int ROW = 16, SH_ROW = 48;     // floats: a row of params, of sh_rest
constexpr float BLUR = 0.3f;             // 2D low-pass filter, pixels^2
constexpr float MAX_COVARIANCE = 1e12f;  // pixels^2
constexpr float SLOPE_MARGIN = .3f;  // fraction of half the image size; slopes are clamped this far outside the image

struct Camera {
    float R[9], t[3], position[3];  // camera from world; camera centre in the world
    float fx, fy, cx, cy;
    int width, height;
    float near;
    bool antialiased;  // scale opacity by the area that the filter adds (Mip-Splatting, Yu et al. 2024)
};
static_assert(sizeof(Camera) == 92, "CameraStruct of splatting_cuda.py");

template <class F> struct Projection {
    F x, y, z;           // pixel; depth along the camera's z axis
    F a, b, c;           // 2D covariance, low-pass filtered
    F opacity, filter;   // filter: opacity compensation, 1 if not antialiased
    F Q[9], M[9], T[6];  // rotation; R Q S; J M
    F X, Y, u, v, J00, J11, J02, J12, scale[3], quat[4], quat_length, det, det0;
    F slope_u, slope_v;  // u, v = X/z, Y/z, clamped for the Jacobian
};

// Slopes X/z are clamped in the Jacobian, as in other 3DGS renderers. Far outside the image the affine approximation of
// the perspective fails, and unclamped ellipses grow without bound.
struct SlopeLimits {
    float u0, u1, v0, v1;
    inline explicit SlopeLimits(const Camera& cam) {
        const float w = (float)cam.width, h = (float)cam.height;
        u1 = (w - cam.cx + .5f * SLOPE_MARGIN * w) / cam.fx, u0 = -(cam.cx + .5f * SLOPE_MARGIN * w) / cam.fx;
        v1 = (h - cam.cy + .5f * SLOPE_MARGIN * h) / cam.fy, v0 = -(cam.cy + .5f * SLOPE_MARGIN * h) / cam.fy;
    }
};

template <class F> inline F sigmoid(F x) { return 1.f / (1.f + exponential(-x)); }

// p: the 16 values of a row of `params`.
template <class F> inline void project(const Camera& cam, const F* p, Projection<F>& o) {
    const float* R = cam.R;
    o.X = R[0] * p[0] + R[1] * p[1] + R[2] * p[2] + cam.t[0];
    o.Y = R[3] * p[0] + R[4] * p[1] + R[5] * p[2] + cam.t[1];
    o.z = R[6] * p[0] + R[7] * p[1] + R[8] * p[2] + cam.t[2];
    F iz = 1.f / o.z;
    o.u = o.X * iz, o.v = o.Y * iz;
    o.x = cam.fx * o.u + cam.cx, o.y = cam.fy * o.v + cam.cy;
    for (int k = 0; k < 3; k++) o.scale[k] = exponential(p[3 + k]);
    o.quat_length = 1.f / root(p[6] * p[6] + p[7] * p[7] + p[8] * p[8] + p[9] * p[9]);
    F w = o.quat[0] = p[6] * o.quat_length, x = o.quat[1] = p[7] * o.quat_length;
    F y = o.quat[2] = p[8] * o.quat_length, z = o.quat[3] = p[9] * o.quat_length;
    F* Q = o.Q;
    Q[0] = 1.f - 2.f * (y * y + z * z), Q[1] = 2.f * (x * y - w * z), Q[2] = 2.f * (x * z + w * y);
    Q[3] = 2.f * (x * y + w * z), Q[4] = 1.f - 2.f * (x * x + z * z), Q[5] = 2.f * (y * z - w * x);
    Q[6] = 2.f * (x * z - w * y), Q[7] = 2.f * (y * z + w * x), Q[8] = 1.f - 2.f * (x * x + y * y);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            o.M[3 * i + j] = (R[3 * i] * Q[j] + R[3 * i + 1] * Q[3 + j] + R[3 * i + 2] * Q[6 + j]) * o.scale[j];
    const SlopeLimits limits(cam);
    o.slope_u = minimum(maximum(o.u, F{} + limits.u0), F{} + limits.u1);
    o.slope_v = minimum(maximum(o.v, F{} + limits.v0), F{} + limits.v1);
    o.J00 = cam.fx * iz, o.J11 = cam.fy * iz, o.J02 = -cam.fx * o.slope_u * iz, o.J12 = -cam.fy * o.slope_v * iz;
    for (int j = 0; j < 3; j++) {
        o.T[j] = o.J00 * o.M[j] + o.J02 * o.M[6 + j];
        o.T[3 + j] = o.J11 * o.M[3 + j] + o.J12 * o.M[6 + j];
    }
    const F* T = o.T;
    F a0 = T[0] * T[0] + T[1] * T[1] + T[2] * T[2], c0 = T[3] * T[3] + T[4] * T[4] + T[5] * T[5];
    o.b = T[0] * T[3] + T[1] * T[4] + T[2] * T[5];
    o.a = a0 + BLUR, o.c = c0 + BLUR;
    // |T row 0 x T row 1|^2 equals a0 c0 - b^2 without the cancellation that affects large gaussians
    F n0 = T[1] * T[5] - T[2] * T[4], n1 = T[2] * T[3] - T[0] * T[5], n2 = T[0] * T[4] - T[1] * T[3];
    o.det0 = n0 * n0 + n1 * n1 + n2 * n2;
    o.det = o.det0 + BLUR * (a0 + c0) + BLUR * BLUR;
    o.opacity = sigmoid(p[10]);
    o.filter = F{} + 1.f;
    if (cam.antialiased) {
        o.filter = root(o.det0 / o.det);
        o.opacity = o.opacity * o.filter;
    }
}

// Gradient sums of one gaussian over its pixels, from compositing. (u, v) = L'd is the scaled offset from its centre,
// with log2 alpha = log2 opacity - u^2 - v^2. s = alpha dL/dalpha; w = alpha T.
enum Sum { S0, SU, SV, SUU, SUV, SVV, S_RED, S_GREEN, S_BLUE, S_EXTRA, SUMS };
// S_EXTRA: sum of w times an image: dL/ddepth if depth is differentiated, an error map in training.

// Lower Cholesky factor of conic / (2 ln 2), [p 0; q r].
template <class F> struct Factor {
    F p, q, r;
};
template <class F> inline Factor<F> factor(const Projection<F>& o) {
    Factor<F> l;
    F half = F{} + .5f * LOG2E;
    l.p = root(half * o.c / o.det);
    l.q = -root(half / (o.c * o.det)) * o.b;
    l.r = root(half / o.c);
    return l;
}

// Footprint of a gaussian: the level set alpha = 1/255 is u^2 + v^2 = reach, with half extents hx, hy.
template <class F> struct Extent {
    F lo, reach, hx, hy;  // lo = log2 opacity
};
template <class F> inline Extent<F> extent(const Projection<F>& o) {
    Extent<F> e;
    e.lo = logarithm2(o.opacity), e.reach = e.lo + LOG2_255;
    F k = maximum(e.reach * (2.f * LN2), F{});
    e.hx = root(k * o.a), e.hy = root(k * o.c);
    return e;
}

// A mask of F: in front of the camera, not too faint to show, and overlapping the image. The centre may be anywhere.
template <class F> inline auto on_screen(const Camera& cam, const Projection<F>& o, const Extent<F>& e) {
    const float w = (float)cam.width, h = (float)cam.height;
    auto real = (o.z > cam.near) & (e.reach > 0.f) & (o.a < MAX_COVARIANCE) & (o.c < MAX_COVARIANCE);
    return real & (o.x + e.hx > 0.f) & (o.x - e.hx < w) & (o.y + e.hy > 0.f) & (o.y - e.hy < h);
}

template <class F> struct ProjectionGradient {
    F row[16];          // dL/d row of params; the caller adds the colour part
    F camera[3], M[9];  // dL/d position in camera axes; dL/d(R Q S)
    F screen[2];        // dL/d pixel position
};

template <class F>
inline void project_backward(const Camera& cam, const Projection<F>& o, const F* S, F dz, ProjectionGradient<F>& g) {
    const float* R = cam.R;
    F id = 1.f / o.det, A = o.c * id, B = -o.b * id, C = o.a * id;  // conic = 2 ln 2 L L'
    Factor<F> l = factor(o);
    const float k = 2 * LN2;
    F vx = g.screen[0] = k * l.p * S[SU], vy = g.screen[1] = k * (l.q * S[SU] + l.r * S[SV]);
    // dL/dcovariance = conic (sum s d d') conic / 2, symmetric; conic d = k L (u, v)'
    const float h = .5f * k * k;
    F ca = h * l.p * l.p * S[SUU], cb = h * l.p * (l.q * S[SUU] + l.r * S[SUV]);
    F cc = h * (l.q * l.q * S[SUU] + 2.f * l.q * l.r * S[SUV] + l.r * l.r * S[SVV]);
    F plain = o.opacity / o.filter;
    g.row[10] = S[S0] * (1.f - plain);
    if (cam.antialiased) {  // d log filter = (cov0^-1 - conic) / 2 . dcov
        F i0 = .5f * S[S0] / maximum(o.det0, F{} + 1e-30f), i1 = .5f * S[S0];
        ca += (o.c - BLUR) * i0 - A * i1, cb += -o.b * i0 - B * i1, cc += (o.a - BLUR) * i0 - C * i1;
    }
    F vT[6], J00 = F{}, J02 = F{}, J11 = F{}, J12 = F{};
    for (int j = 0; j < 3; j++) {
        vT[j] = 2.f * (ca * o.T[j] + cb * o.T[3 + j]);
        vT[3 + j] = 2.f * (cb * o.T[j] + cc * o.T[3 + j]);
        J00 += vT[j] * o.M[j], J02 += vT[j] * o.M[6 + j];
        J11 += vT[3 + j] * o.M[3 + j], J12 += vT[3 + j] * o.M[6 + j];
        g.M[j] = o.J00 * vT[j], g.M[3 + j] = o.J11 * vT[3 + j], g.M[6 + j] = o.J02 * vT[j] + o.J12 * vT[3 + j];
    }
    F V[9];  // dL/d(Q S), then dL/dQ
    for (int k = 0; k < 3; k++)
        for (int j = 0; j < 3; j++) V[3 * k + j] = R[k] * g.M[j] + R[3 + k] * g.M[3 + j] + R[6 + k] * g.M[6 + j];
    for (int j = 0; j < 3; j++) {
        g.row[3 + j] = (o.Q[j] * V[j] + o.Q[3 + j] * V[3 + j] + o.Q[6 + j] * V[6 + j]) * o.scale[j];
        for (int k = 0; k < 3; k++) V[3 * k + j] *= o.scale[j];
    }
    F w = o.quat[0], x = o.quat[1], y = o.quat[2], z = o.quat[3];
    F gw = 2.f * (x * (V[7] - V[5]) + y * (V[2] - V[6]) + z * (V[3] - V[1]));
    F gx = 2.f * (-2.f * x * (V[4] + V[8]) + y * (V[1] + V[3]) + z * (V[2] + V[6]) + w * (V[7] - V[5]));
    F gy = 2.f * (x * (V[1] + V[3]) - 2.f * y * (V[0] + V[8]) + z * (V[5] + V[7]) + w * (V[2] - V[6]));
    F gz = 2.f * (x * (V[2] + V[6]) + y * (V[5] + V[7]) - 2.f * z * (V[0] + V[4]) + w * (V[3] - V[1]));
    F along = gw * w + gx * x + gy * y + gz * z;  // the length of a quaternion has no effect
    g.row[6] = (gw - along * w) * o.quat_length, g.row[7] = (gx - along * x) * o.quat_length;
    g.row[8] = (gy - along * y) * o.quat_length, g.row[9] = (gz - along * z) * o.quat_length;
    F iz = 1.f / o.z;
    // x = fx u, J00 = fx/z, J02 = -fx clamp(u)/z with u = X/z
    F du = cam.fx * (vx - keep(o.slope_u == o.u, iz * J02)), dv = cam.fy * (vy - keep(o.slope_v == o.v, iz * J12));
    g.camera[0] = iz * du, g.camera[1] = iz * dv;
    g.camera[2] = dz - iz * (o.u * du + o.v * dv + o.J00 * J00 + o.J11 * J11 + o.J02 * J02 + o.J12 * J12);
    for (int k = 0; k < 3; k++) g.row[k] = R[k] * g.camera[0] + R[3 + k] * g.camera[1] + R[6 + k] * g.camera[2];
}

// Real spherical harmonics with the Condon-Shortley signs of 3DGS; basis[0] is C0. K = (degree + 1)^2 values.
constexpr float SH_C0 = 0.28209479177387814f;
template <class F> inline void sh_basis(int degree, F x, F y, F z, F* basis) {
    basis[0] = F{} + SH_C0;
    if (degree < 1) return;
    basis[1] = -0.4886025119029199f * y, basis[2] = 0.4886025119029199f * z, basis[3] = -0.4886025119029199f * x;
    if (degree < 2) return;
    F xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
    basis[4] = 1.0925484305920792f * xy, basis[5] = -1.0925484305920792f * yz;
    basis[6] = 0.31539156525252005f * (2.f * zz - xx - yy);
    basis[7] = -1.0925484305920792f * xz, basis[8] = 0.5462742152960396f * (xx - yy);
    if (degree < 3) return;
    basis[9] = -0.5900435899266435f * y * (3.f * xx - yy), basis[10] = 2.890611442640554f * xy * z;
    basis[11] = -0.4570457994644658f * y * (4.f * zz - xx - yy);
    basis[12] = 0.3731763325901154f * z * (2.f * zz - 3.f * xx - 3.f * yy);
    basis[13] = -0.4570457994644658f * x * (4.f * zz - xx - yy);
    basis[14] = 1.445305721320277f * z * (xx - yy), basis[15] = -0.5900435899266435f * x * (xx - 3.f * yy);
}

// v = sum_k g[k] d basis[k] / d(x, y, z), with x y z taken as independent.
template <class F> inline void sh_direction_gradient(int degree, F x, F y, F z, const F* g, F* v) {
    F vx = F{}, vy = F{}, vz = F{};
    if (degree > 0)
        vy -= 0.4886025119029199f * g[1], vz += 0.4886025119029199f * g[2], vx -= 0.4886025119029199f * g[3];
    if (degree > 1) {
        const float a = 1.0925484305920792f, b = 0.31539156525252005f, c = 0.5462742152960396f;
        vx += a * (y * g[4] - z * g[7]) - 2.f * b * x * g[6] + 2.f * c * x * g[8];
        vy += a * (x * g[4] - z * g[5]) - 2.f * b * y * g[6] - 2.f * c * y * g[8];
        vz += -a * (y * g[5] + x * g[7]) + 4.f * b * z * g[6];
    }
    if (degree > 2) {
        const float a = 0.5900435899266435f, b = 2.890611442640554f, c = 0.4570457994644658f, d = 0.3731763325901154f,
                    e = 1.445305721320277f;
        F xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
        vx += -6.f * a * xy * g[9] + b * yz * g[10] + 2.f * c * xy * g[11] - 6.f * d * xz * g[12] -
              c * (4.f * zz - 3.f * xx - yy) * g[13] + 2.f * e * xz * g[14] - 3.f * a * (xx - yy) * g[15];
        vy += -3.f * a * (xx - yy) * g[9] + b * xz * g[10] - c * (4.f * zz - xx - 3.f * yy) * g[11] -
              6.f * d * yz * g[12] + 2.f * c * xy * g[13] - 2.f * e * yz * g[14] + 6.f * a * xy * g[15];
        vz += b * xy * g[10] - 8.f * c * yz * g[11] + 3.f * d * (2.f * zz - xx - yy) * g[12] - 8.f * c * xz * g[13] +
              e * (xx - yy) * g[14];
    }
    v[0] = vx, v[1] = vy, v[2] = vz;
}

// Direction from the camera to a gaussian's mean p.
template <class F> inline void direction(const Camera& cam, const F* p, F* d, F& inverse_length) {
    for (int k = 0; k < 3; k++) d[k] = p[k] - cam.position[k];
    inverse_length = 1.f / root(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    for (int k = 0; k < 3; k++) d[k] *= inverse_length;
}

// rgb before the clamp at zero. dc: 3 values; sh: the higher coefficients x RGB.
template <class F> inline void sh_colour(int degree, const F* d, const F* dc, const F* sh, F* rgb) {
    F basis[16];
    sh_basis(degree, d[0], d[1], d[2], basis);
    const int coefficients = (degree + 1) * (degree + 1);
    for (int c = 0; c < 3; c++) rgb[c] = SH_C0 * dc[c] + .5f;
    for (int j = 1; j < 16; j++)
        if (j < coefficients)
            for (int c = 0; c < 3; c++) rgb[c] += basis[j] * sh[3 * j - 3 + c];
}

// v = dL/d(mean - camera position) through the colour alone, for a unit direction d.
template <class F>
inline void sh_towards(int degree, const F* d, F inverse_length, const F* sh, const F* colour, F* towards) {
    F along[16], v[3];
    const int coefficients = (degree + 1) * (degree + 1);
    for (int j = 1; j < 16; j++)
        if (j < coefficients)
            along[j] = sh[3 * j - 3] * colour[0] + sh[3 * j - 2] * colour[1] + sh[3 * j - 1] * colour[2];
    sh_direction_gradient(degree, d[0], d[1], d[2], along, v);
    F radial = v[0] * d[0] + v[1] * d[1] + v[2] * d[2];
    for (int k = 0; k < 3; k++) towards[k] = (v[k] - radial * d[k]) * inverse_length;
}

// Contribution of one gaussian to dL/d(camera from world): R row-major (9), t (3), camera centre (3).
template <class F>
inline void camera_gradient(const Projection<F>& o, const ProjectionGradient<F>& g, const F* p, const F* towards,
                            F* camera) {
    for (int r = 0; r < 3; r++) {
        for (int k = 0; k < 3; k++) {
            F through = g.camera[r] * p[k];
            for (int j = 0; j < 3; j++) through += g.M[3 * r + j] * o.Q[3 * k + j] * o.scale[j];
            camera[3 * r + k] = through;
        }
        camera[9 + r] = g.camera[r], camera[12 + r] = -towards[r];
    }
}

}  // namespace lumi
