// SSIM (Wang et al. 2004) of one pixel and its derivatives, from moments under an 11 x 11 Gaussian window of sigma 1.5.
// Shared by host and device, generic over F like gaussian.h.
#pragma once

namespace lumi {

constexpr int RADIUS = 5;
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;
// exp(-(i - 5)^2 / (2 1.5^2)), normalised to a sum of 1
constexpr float WINDOW[RADIUS + 1] = {0.00102838008f, 0.00759875814f, 0.0360007721f,
                                      0.10936069f,    0.213005538f,   0.266011725f};

template <class F> struct Moments {
    F x, y, xx, yy, xy;  // windowed means of u, v, u^2, v^2, u v
};
template <class F> struct Similarity {
    F value, d_x, d_xx, d_xy;  // S, dS/dE[u], dS/dE[u^2], dS/dE[u v]; each times the pixel's weight
};
template <class F> inline Similarity<F> similarity(const Moments<F>& e, F weight) {
    F var = e.xx - e.x * e.x, var2 = e.yy - e.y * e.y, cov = e.xy - e.x * e.y;
    F a1 = 2.f * e.x * e.y + C1, a2 = 2.f * cov + C2;
    F i1 = 1.f / (e.x * e.x + e.y * e.y + C1), i2 = 1.f / (var + var2 + C2), i12 = i1 * i2 * weight;
    Similarity<F> s;
    s.value = a1 * a2 * i12;
    s.d_x = 2.f * e.y * (a2 - a1) * i12 + 2.f * e.x * s.value * (i2 - i1);
    s.d_xx = -s.value * i2, s.d_xy = 2.f * a1 * i12;
    return s;
}

}  // namespace lumi
