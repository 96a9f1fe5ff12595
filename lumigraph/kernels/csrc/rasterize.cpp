#include "rasterize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pool.h"

namespace lumi {
namespace {

constexpr int ROWS = 16;  // rows of a band; one thread draws a band

struct Rows {
    double from, to;  // columns of a triangle
};

bool rows_of(const Triangles& t, long f, Rows& out) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (int j = 0; j < 3; j++) {
        const float* p = t.corners + 3 * (size_t)t.faces[3 * f + j];
        if (!(p[2] > 0) || !std::isfinite(p[0]) || !std::isfinite(p[1])) return false;
        low = std::min(low, (double)p[1]), high = std::max(high, (double)p[1]);
    }
    out = {low, high};
    return true;
}

void draw(const Triangles& t, int32_t f, int width, int y0, int y1, int32_t* face, float* depth, float* weights) {
    double x[3], y[3], inverse[3];
    for (int j = 0; j < 3; j++) {
        const float* p = t.corners + 3 * (size_t)t.faces[3 * (size_t)f + j];
        x[j] = p[0], y[j] = p[1], inverse[j] = 1. / p[2];
    }
    const double area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]);
    if (area == 0) return;
    auto [low_y, high_y] = std::minmax({y[0], y[1], y[2]});
    y0 = (int)std::max<double>(y0, std::ceil(low_y - .5)), y1 = (int)std::min<double>(y1, std::floor(high_y - .5) + 1);
    for (int row = y0; row < y1; row++) {
        // The span of the row between the sides, one pixel wider; then each pixel is tested.
        const double py = row + .5;
        double left = std::numeric_limits<double>::infinity(), right = -left;
        for (int j = 0; j < 3; j++) {
            const int k = (j + 1) % 3;
            if (std::min(y[j], y[k]) > py || std::max(y[j], y[k]) < py) continue;
            const double dy = y[k] - y[j];
            const double a = dy == 0 ? x[j] : x[j] + (py - y[j]) / dy * (x[k] - x[j]), b = dy == 0 ? x[k] : a;
            left = std::min(left, std::min(a, b)), right = std::max(right, std::max(a, b));
        }
        const int x0 = (int)std::max(0., std::floor(left - 1)), x1 = (int)std::min<double>(width, std::ceil(right + 1));
        for (int column = x0; column < x1; column++) {
            const double px = column + .5;
            double w[3];
            for (int j = 0; j < 3; j++) {
                const int a = (j + 1) % 3, b = (j + 2) % 3;
                w[j] = ((x[b] - x[a]) * (py - y[a]) - (px - x[a]) * (y[b] - y[a])) / area;
            }
            if (w[0] < 0 || w[1] < 0 || w[2] < 0) continue;
            double sum = 0;
            for (int j = 0; j < 3; j++) sum += w[j] *= inverse[j];
            const float z = (float)(1 / sum);
            const size_t at = (size_t)row * width + column;
            if (!(z < depth[at])) continue;
            depth[at] = z, face[at] = f;
            if (weights)
                for (int j = 0; j < 3; j++) weights[3 * at + j] = (float)(w[j] / sum);
        }
    }
}

}  // namespace

void raster(const Triangles& t, int width, int height, int32_t* face, float* depth, float* weights) {
    const int bands = (height + ROWS - 1) / ROWS;
    std::vector<std::vector<int32_t>> in_band(bands);
    for (long f = 0; f < t.count; f++) {
        Rows rows;
        if (!rows_of(t, f, rows) || rows.to < 0 || rows.from >= height) continue;
        const int first = (int)(std::max(0., rows.from) / ROWS);
        const int last = std::min(bands - 1, (int)(std::min<double>(height, rows.to) / ROWS));
        for (int b = first; b <= last; b++) in_band[b].push_back((int32_t)f);
    }
    parallel(bands, [&](int b) {
        const int y0 = b * ROWS, y1 = std::min(height, y0 + ROWS);
        const size_t from = (size_t)y0 * width, to = (size_t)y1 * width;
        std::fill(face + from, face + to, -1);
        std::fill(depth + from, depth + to, std::numeric_limits<float>::infinity());
        if (weights) std::fill(weights + 3 * from, weights + 3 * to, 0.f);
        for (int32_t f : in_band[b]) draw(t, f, width, y0, y1, face, depth, weights);
    });
}

}  // namespace lumi
