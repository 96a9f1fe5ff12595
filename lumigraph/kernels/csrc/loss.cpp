// (1 - a - b) |x - y| + a (1 - SSIM(x, y)) + b (x - y)^2 and its gradient (SSIM: Wang et al. 2004, 11 x 11 Gaussian,
// sigma 1.5, zero padding). Two separable passes: five moments in, three partial derivatives out.
#include "loss.h"

#include <algorithm>
#include <vector>

#include "lanes.h"
#include "pool.h"
#include "similarity.h"

namespace lumi {
namespace {

constexpr int COLUMNS = 128, ROWS = 80, RING = 16;
constexpr int PADDED = (COLUMNS + 2 * RADIUS + 15) / 16 * 16;  // a row with its halo, in whole vectors

inline void blur_row(const float* in, float* out, int columns) {  // in[i] is RADIUS left of out[i]
    const float* w = WINDOW;
    for (int x = 0; x < columns; x += VL) {
        const float* p = in + x;
        vf a = load(p + 5) * w[5];
        for (int k = 0; k < RADIUS; k++) a += (load(p + k) + load(p + 10 - k)) * w[k];
        store(out + x, a);
    }
}

// Slides down a block of columns with the last rows of N horizontally blurred maps.
template <int N> struct Slider {
    alignas(64) float ring[RING][N][COLUMNS];
    alignas(64) float input[N][PADDED];
    void push(int y, int columns) {
        for (int n = 0; n < N; n++) blur_row(input[n], ring[y & (RING - 1)][n], columns);
    }
    void push_zero(int y) { std::memset(ring[y & (RING - 1)], 0, sizeof ring[0]); }
    vf column(int n, int y, int x) const {
        const float* w = WINDOW;
        auto at = [&](int k) { return load(&ring[(y + k) & (RING - 1)][n][x]); };
        vf a = at(0) * w[5];
        for (int k = 1; k <= RADIUS; k++) a += (at(k) + at(-k)) * w[5 - k];
        return a;
    }
};

// One channel of a block of rows and columns. Rows are copied to padded buffers, so that all loops run over whole
// vectors. `inside` (padded) and `own` are 1 if a column is in the image and in the block, else 0.
struct Block {
    int channel, y0, y1, x0, x1, width, height;
    size_t plane;
    alignas(64) float inside[PADDED] = {}, own[COLUMNS] = {};
    Block(const LossInput& in, int task, int across, int down) {
        channel = task / (across * down), task %= across * down;
        width = in.width, height = in.height, plane = (size_t)width * height;
        y0 = task / across * ROWS, y1 = std::min(height, y0 + ROWS);
        x0 = task % across * COLUMNS, x1 = std::min(width, x0 + COLUMNS);
        std::fill(inside + halo(begin()), inside + halo(end()), 1.f);
        std::fill_n(own, x1 - x0, 1.f);
    }
    int begin() const { return std::max(0, x0 - RADIUS); }
    int end() const { return std::min(width, x1 + RADIUS); }
    int halo(int x) const { return x - x0 + RADIUS; }
    size_t row(int y) const { return (size_t)y * width; }
    // copies part of an image row with its halo into a padded row with zero borders
    template <class T> void copy(const T* image_row, T* padded) const {
        std::memcpy(padded + halo(begin()), image_row + begin(), sizeof(T) * (size_t)(end() - begin()));
    }
};

inline vf load_bytes(const uint8_t* p) {  // VL bytes -> 0..1
    typedef uint8_t bytes __attribute__((vector_size(VL)));
    bytes b;
    std::memcpy(&b, p, VL);
    return __builtin_convertvector(__builtin_convertvector(b, vi), vf) * (1.f / 255);
}

struct Sums {
    double l1 = 0, square = 0, ssim = 0, gain = 0, bias = 0;
};

// dS/dmu, dS/dE[x^2], dS/dE[xy] of each pixel, weighted by the mask.
double moments_pass(const LossInput& in, const Block& b, float* partial) {
    Slider<5> s;
    std::memset(s.input, 0, sizeof s.input);
    alignas(64) float rgb[PADDED] = {};
    alignas(64) uint8_t target[PADDED] = {}, mask[PADDED];
    std::fill_n(mask, PADDED, 255);
    const float gain = in.gain[b.channel], bias = in.bias[b.channel];
    const size_t base = b.channel * b.plane;
    double total = 0;
    for (int y = b.y0 - RADIUS; y < b.y1 + RADIUS; y++) {
        if (y < 0 || y >= b.height)
            s.push_zero(y);
        else {
            b.copy(in.rgb + base + b.row(y), rgb);
            b.copy(in.target + base + b.row(y), target);
            for (int i = 0; i < b.x1 - b.x0 + 2 * RADIUS; i += VL) {
                vf u = (gain * load(rgb + i) + bias) * load(b.inside + i), v = load_bytes(target + i);
                store(s.input[0] + i, u), store(s.input[1] + i, v);
                store(s.input[2] + i, u * u), store(s.input[3] + i, v * v), store(s.input[4] + i, u * v);
            }
            s.push(y, b.x1 - b.x0);
        }
        const int c = y - RADIUS;  // the row whose window is complete
        if (c < b.y0) continue;
        if (in.mask) b.copy(in.mask + b.row(c), mask);
        alignas(64) float out[3][COLUMNS];
        vf row_total{};
        for (int x = 0; x < b.x1 - b.x0; x += VL) {
            const Moments<vf> e{s.column(0, c, x), s.column(1, c, x), s.column(2, c, x), s.column(3, c, x),
                                s.column(4, c, x)};
            const Similarity<vf> S = similarity(e, load_bytes(mask + x + RADIUS));
            store(out[0] + x, S.d_x), store(out[1] + x, S.d_xx), store(out[2] + x, S.d_xy);
            row_total += S.value * load(b.own + x);
        }
        total += sum(row_total);
        if (partial)
            for (int k = 0; k < 3; k++)
                std::memcpy(partial + (3 * k + b.channel) * b.plane + b.row(c) + b.x0, out[k],
                            (size_t)(b.x1 - b.x0) * 4);
    }
    return total;
}

Sums gradient_pass(const LossInput& in, const LossOutput& out, const Block& b, float inverse_count) {
    Slider<3> s;
    std::memset(s.input, 0, sizeof s.input);
    alignas(64) float rgb[PADDED] = {}, gradient[COLUMNS];
    alignas(64) uint8_t target[PADDED] = {}, mask[PADDED];
    std::fill_n(mask, PADDED, 255);
    const bool structural = in.ssim > 0;
    const float gain = in.gain[b.channel], bias = in.bias[b.channel], absolute = 1 - in.ssim - in.square;
    const size_t base = b.channel * b.plane;
    Sums sums;
    for (int y = b.y0 - RADIUS; y < b.y1 + RADIUS; y++) {
        if (structural) {
            if (y < 0 || y >= b.height)
                s.push_zero(y);
            else {
                for (int k = 0; k < 3; k++) b.copy(out.scratch + (3 * k + b.channel) * b.plane + b.row(y), s.input[k]);
                s.push(y, b.x1 - b.x0);
            }
        }
        const int c = y - RADIUS;
        if (c < b.y0) continue;
        b.copy(in.rgb + base + b.row(c), rgb);
        b.copy(in.target + base + b.row(c), target);
        if (in.mask) b.copy(in.mask + b.row(c), mask);
        vf l1{}, square{}, to_gain{}, to_bias{};
        for (int x = 0; x < b.x1 - b.x0; x += VL) {
            vf raw = load(rgb + x + RADIUS), u = gain * raw + bias, v = load_bytes(target + x + RADIUS), d = u - v;
            vf m = load_bytes(mask + x + RADIUS) * load(b.own + x), sign = select(d > 0.f, spread(1.f), spread(-1.f));
            sign = keep(d != 0.f, sign);
            l1 += m * d * sign, square += m * d * d;
            vf g = m * (absolute * sign + 2.f * in.square * d);
            if (structural) g -= in.ssim * (s.column(0, c, x) + 2.f * u * s.column(1, c, x) + v * s.column(2, c, x));
            g *= load(b.own + x) * inverse_count;
            to_gain += g * raw, to_bias += g;
            store(gradient + x, g * gain);
        }
        sums.l1 += sum(l1), sums.square += sum(square), sums.gain += sum(to_gain), sums.bias += sum(to_bias);
        if (out.gradient) std::memcpy(out.gradient + base + b.row(c) + b.x0, gradient, (size_t)(b.x1 - b.x0) * 4);
    }
    return sums;
}

void error_map(const LossInput& in, float* error) {
    const size_t plane = (size_t)in.width * in.height;
    parallel((in.height + ROWS - 1) / ROWS, [&](int task) {
        const size_t begin = (size_t)task * ROWS * in.width, end = std::min(plane, begin + (size_t)ROWS * in.width);
        for (size_t i = begin; i < end; i += VL) {
            const int n = (int)std::min<size_t>(VL, end - i);
            alignas(64) float raw[VL] = {}, result[VL];
            alignas(64) uint8_t bytes[VL] = {};
            vf total{};
            for (int c = 0; c < 3; c++) {
                std::memcpy(raw, in.rgb + c * plane + i, (size_t)n * 4),
                    std::memcpy(bytes, in.target + c * plane + i, n);
                vf d = in.gain[c] * load(raw) + in.bias[c] - load_bytes(bytes);
                total += maximum(d, -d);
            }
            if (in.mask) {
                std::memcpy(bytes, in.mask + i, n);
                total *= load_bytes(bytes);
            }
            store(result, total);
            std::memcpy(error + i, result, (size_t)n * 4);
        }
    });
}

}  // namespace

void photometric_loss(const LossInput& in, LossOutput& out) {
    const int across = (in.width + COLUMNS - 1) / COLUMNS, down = (in.height + ROWS - 1) / ROWS,
              tasks = 3 * across * down;
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
