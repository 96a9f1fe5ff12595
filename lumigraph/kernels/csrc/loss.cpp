// (1 - a - b) |x - y| + a (1 - SSIM(x, y)) + b (x - y)^2 and its gradient (SSIM: Wang et al. 2004, 11 x 11 Gaussian,
// sigma 1.5, zero padding). Two separable passes: five moments in, three partial derivatives out.
#include "loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lanes.h"
#include "pool.h"

namespace lumi {
namespace {

constexpr int RADIUS = 5, COLUMNS = 128, ROWS = 48, RING = 16;
constexpr int PADDED = COLUMNS + 2 * RADIUS + VL;  // a row of input, with what the last vector reads beyond
constexpr float C1 = 0.01f * 0.01f, C2 = 0.03f * 0.03f;

struct Window {
    float w[RADIUS + 1];
    Window() {
        double total = 0, v[2 * RADIUS + 1];
        for (int i = 0; i <= 2 * RADIUS; i++) total += v[i] = std::exp(-(i - RADIUS) * (i - RADIUS) / (2 * 1.5 * 1.5));
        for (int i = 0; i <= RADIUS; i++) w[i] = (float)(v[i] / total);
    }
};
const Window WINDOW;

inline void blur_row(const float* in, float* out) {  // in[i] sits RADIUS left of out[i]
    const float* w = WINDOW.w;
    for (int x = 0; x < COLUMNS; x += VL) {
        const float* p = in + x;
        vf a = load(p + 5) * w[5];
        for (int k = 0; k < RADIUS; k++) a += (load(p + k) + load(p + 10 - k)) * w[k];
        store(out + x, a);
    }
}

// Slides down a block of columns, keeping the last rows of N horizontally blurred maps.
template <int N> struct Slider {
    alignas(64) float ring[RING][N][COLUMNS];
    alignas(64) float input[N][PADDED];
    void push(int y) {
        for (int n = 0; n < N; n++) blur_row(input[n], ring[y & (RING - 1)][n]);
    }
    void push_zero(int y) { std::memset(ring[y & (RING - 1)], 0, sizeof ring[0]); }
    vf column(int n, int y, int x) const {
        const float* w = WINDOW.w;
        auto at = [&](int k) { return load(&ring[(y + k) & (RING - 1)][n][x]); };
        vf a = at(0) * w[5];
        for (int k = 1; k <= RADIUS; k++) a += (at(k) + at(-k)) * w[5 - k];
        return a;
    }
};

struct Block {  // of one channel
    int channel, y0, y1, x0, x1, width, height;
    size_t plane;
    Block(const LossInput& in, int task, int across, int down) {
        channel = task / (across * down), task %= across * down;
        width = in.width, height = in.height, plane = (size_t)width * height;
        y0 = task / across * ROWS, y1 = std::min(height, y0 + ROWS);
        x0 = task % across * COLUMNS, x1 = std::min(width, x0 + COLUMNS);
    }
    // f(image x, position in a padded row) over the columns that exist, halo included
    template <class F> void columns(F f) const {
        for (int x = std::max(0, x0 - RADIUS), end = std::min(width, x1 + RADIUS); x < end; x++) f(x, x - x0 + RADIUS);
    }
};

struct Sums {
    double l1 = 0, square = 0, ssim = 0, gain = 0, bias = 0;
};

// dS/dmu, dS/dE[x^2], dS/dE[xy] of each pixel, already weighted by the mask.
double moments_pass(const LossInput& in, const Block& b, float* partial) {
    Slider<5> s;
    std::memset(s.input, 0, sizeof s.input);
    const float gain = in.gain[b.channel], bias = in.bias[b.channel];
    const size_t base = b.channel * b.plane;
    double total = 0;
    for (int y = b.y0 - RADIUS; y < b.y1 + RADIUS; y++) {
        if (y < 0 || y >= b.height) s.push_zero(y);
        else {
            const float* rgb = in.rgb + base + (size_t)y * b.width;
            const uint8_t* target = in.target + base + (size_t)y * b.width;
            b.columns([&](int x, int i) {
                float u = gain * rgb[x] + bias, v = target[x] * (1.f / 255);
                s.input[0][i] = u, s.input[1][i] = v, s.input[2][i] = u * u, s.input[3][i] = v * v, s.input[4][i] = u * v;
            });
            s.push(y);
        }
        const int c = y - RADIUS;  // the row whose window is complete
        if (c < b.y0) continue;
        alignas(64) float out[4][COLUMNS];
        for (int x = 0; x < b.x1 - b.x0; x += VL) {
            vf mu = s.column(0, c, x), nu = s.column(1, c, x);
            vf var = s.column(2, c, x) - mu * mu, var2 = s.column(3, c, x) - nu * nu, cov = s.column(4, c, x) - mu * nu;
            vf a1 = 2.f * mu * nu + C1, a2 = 2.f * cov + C2, i1 = 1.f / (mu * mu + nu * nu + C1), i2 = 1.f / (var + var2 + C2);
            vf i12 = i1 * i2, S = a1 * a2 * i12;
            store(out[0] + x, 2.f * nu * (a2 - a1) * i12 + 2.f * mu * S * (i2 - i1));
            store(out[1] + x, -S * i2);
            store(out[2] + x, 2.f * a1 * i12);
            store(out[3] + x, S);
        }
        const size_t row = (size_t)c * b.width + b.x0;
        float sum = 0;
        for (int x = 0; x < b.x1 - b.x0; x++) {
            float m = in.mask ? in.mask[row + x] * (1.f / 255) : 1.f;
            for (int k = 0; k < 3; k++) out[k][x] *= m;
            sum += out[3][x] * m;
        }
        total += sum;
        if (partial)
            for (int k = 0; k < 3; k++)
                std::memcpy(partial + (3 * k + b.channel) * b.plane + row, out[k], (size_t)(b.x1 - b.x0) * 4);
    }
    return total;
}

Sums gradient_pass(const LossInput& in, const LossOutput& out, const Block& b, float inverse_count) {
    Slider<3> s;
    std::memset(s.input, 0, sizeof s.input);
    Sums sums;
    const bool structural = in.ssim > 0;
    const float gain = in.gain[b.channel], bias = in.bias[b.channel], absolute = 1 - in.ssim - in.square;
    const size_t base = b.channel * b.plane;
    for (int y = b.y0 - RADIUS; y < b.y1 + RADIUS; y++) {
        if (structural) {
            if (y < 0 || y >= b.height) s.push_zero(y);
            else {
                for (int k = 0; k < 3; k++) {
                    const float* p = out.scratch + (3 * k + b.channel) * b.plane + (size_t)y * b.width;
                    b.columns([&](int x, int i) { s.input[k][i] = p[x]; });
                }
                s.push(y);
            }
        }
        const int c = y - RADIUS;
        if (c < b.y0) continue;
        alignas(64) float blurred[3][COLUMNS] = {};
        if (structural)
            for (int x = 0; x < b.x1 - b.x0; x += VL)
                for (int k = 0; k < 3; k++) store(blurred[k] + x, s.column(k, c, x));
        const size_t row = (size_t)c * b.width + b.x0;
        const float* rgb = in.rgb + base + row;
        const uint8_t *target = in.target + base + row, *mask = in.mask ? in.mask + row : nullptr;
        float* gradient = out.gradient ? out.gradient + base + row : nullptr;
        float l1 = 0, square = 0, to_gain = 0, to_bias = 0;
        for (int x = 0; x < b.x1 - b.x0; x++) {
            float u = gain * rgb[x] + bias, v = target[x] * (1.f / 255), d = u - v, m = mask ? mask[x] * (1.f / 255) : 1.f;
            l1 += m * std::fabs(d), square += m * d * d;
            if (!gradient) continue;
            float g = m * (absolute * (d > 0 ? 1.f : d < 0 ? -1.f : 0.f) + 2 * in.square * d);
            g -= in.ssim * (blurred[0][x] + 2 * u * blurred[1][x] + v * blurred[2][x]);
            g *= inverse_count;
            to_gain += g * rgb[x], to_bias += g;
            gradient[x] = g * gain;
        }
        sums.l1 += l1, sums.square += square, sums.gain += to_gain, sums.bias += to_bias;
    }
    return sums;
}

void error_map(const LossInput& in, float* error) {
    const size_t plane = (size_t)in.width * in.height;
    parallel((in.height + ROWS - 1) / ROWS, [&](int task) {
        for (int y = task * ROWS, end = std::min(in.height, y + ROWS); y < end; y++) {
            const size_t row = (size_t)y * in.width;
            for (int x = 0; x < in.width; x++) error[row + x] = 0;
            for (int c = 0; c < 3; c++) {
                const float* rgb = in.rgb + c * plane + row;
                const uint8_t* target = in.target + c * plane + row;
                for (int x = 0; x < in.width; x++)
                    error[row + x] += std::fabs(in.gain[c] * rgb[x] + in.bias[c] - target[x] * (1.f / 255));
            }
            if (in.mask)
                for (int x = 0; x < in.width; x++) error[row + x] *= in.mask[row + x] * (1.f / 255);
        }
    });
}

}  // namespace

void photometric_loss(const LossInput& in, LossOutput& out) {
    const int across = (in.width + COLUMNS - 1) / COLUMNS, down = (in.height + ROWS - 1) / ROWS, tasks = 3 * across * down;
    const double count = 3.0 * in.width * in.height;
    std::vector<Sums> parts(tasks);
    if (in.ssim > 0 || !out.gradient)
        parallel(tasks, [&](int t) {
            parts[t].ssim = moments_pass(in, Block(in, t, across, down), out.gradient ? out.scratch : nullptr);
        });
    parallel(tasks, [&](int t) {
        double ssim = parts[t].ssim;
        parts[t] = gradient_pass(in, out, Block(in, t, across, down), (float)(1 / count));
        parts[t].ssim = ssim;
    });
    if (out.error) error_map(in, out.error);
    out.l1 = out.mse = out.ssim = 0;
    for (int c = 0; c < 3; c++) out.gain[c] = out.bias[c] = 0;
    for (int t = 0; t < tasks; t++) {
        const int c = t / (across * down);
        out.l1 += parts[t].l1 / count, out.mse += parts[t].square / count, out.ssim += parts[t].ssim / count;
        out.gain[c] += parts[t].gain, out.bias[c] += parts[t].bias;
    }
}

}  // namespace lumi
