#include "tsdf.h"

#include <algorithm>
#include <limits>

#include "pool.h"

namespace lumi {
namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr int CELL = 4;  // pixels a side of the finest level
// Weight of a free-space measurement. A depth that is too large contradicts all voxels in front of it; one that is too
// small contradicts none behind it. With equal weight, random errors would erode surfaces at their silhouettes.
constexpr float FREE = .3f;

// Depth range in a rectangle of a depth map.
struct Span {
    float near = INF, far = 0;  // of known depths
    bool unknown = false, empty = false;
    void add(const Span& s) {
        near = std::min(near, s.near), far = std::max(far, s.far);
        unknown |= s.unknown, empty |= s.empty;
    }
};

// Spans of a depth map in a pyramid with cells of 4, 8, 16 .. pixels.
class Pyramid {
  public:
    void build(const float* depth, int width, int height) {
        levels_.clear();
        Level l{(width + CELL - 1) / CELL, (height + CELL - 1) / CELL, {}};
        l.cells.resize((size_t)l.width * l.height);
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                const float d = depth[(size_t)y * width + x];
                Span& s = l.cells[(size_t)(y / CELL) * l.width + x / CELL];
                if (d == INF)
                    s.empty = true;
                else if (d > 0)
                    s.near = std::min(s.near, d), s.far = std::max(s.far, d);
                else
                    s.unknown = true;
            }
        levels_.push_back(std::move(l));
        while (levels_.back().width > 1 || levels_.back().height > 1) {
            const Level& fine = levels_.back();
            Level coarse{(fine.width + 1) / 2, (fine.height + 1) / 2, {}};
            coarse.cells.resize((size_t)coarse.width * coarse.height);
            for (int y = 0; y < fine.height; y++)
                for (int x = 0; x < fine.width; x++)
                    coarse.cells[(size_t)(y / 2) * coarse.width + x / 2].add(fine.cells[(size_t)y * fine.width + x]);
            levels_.push_back(std::move(coarse));
        }
    }
    // Span of pixels x0..x1, y0..y1 (inclusive, within the image) and perhaps some around them.
    Span over(int x0, int y0, int x1, int y1) const {
        x0 /= CELL, y0 /= CELL, x1 /= CELL, y1 /= CELL;
        size_t k = 0;
        while (k + 1 < levels_.size() && (x1 - x0 > 3 || y1 - y0 > 3)) x0 /= 2, y0 /= 2, x1 /= 2, y1 /= 2, k++;
        Span s;
        for (int y = y0; y <= y1; y++)
            for (int x = x0; x <= x1; x++) s.add(levels_[k].cells[(size_t)y * levels_[k].width + x]);
        return s;
    }

  private:
    struct Level {
        int width, height;
        std::vector<Span> cells;
    };
    std::vector<Level> levels_;
};

// Evidence of a view about a block: none; all in front of surfaces, or no surface behind any of it; different between
// voxels; or near a surface.
enum class Says { nothing, front, empty, something, surface };

Says judge(const Maps& maps, int i, const Pyramid& pyramid, const float* low, float extent, float truncation) {
    const View& view = maps.views[i];
    float u0 = INF, v0 = INF, u1 = -INF, v1 = -INF, z0 = INF, z1 = -INF;
    for (int corner = 0; corner < 8; corner++) {
        float p[3], q[3];
        for (int a = 0; a < 3; a++) p[a] = low[a] + (corner >> a & 1 ? extent : 0.f);
        view.turn(p, q);
        z0 = std::min(z0, q[2]), z1 = std::max(z1, q[2]);
        const float u = q[0] / q[2] * view.fx + view.cx, v = q[1] / q[2] * view.fy + view.cy;
        u0 = std::min(u0, u), u1 = std::max(u1, u), v0 = std::min(v0, v), v1 = std::max(v1, v);
    }
    if (!(z1 > 1e-6f)) return Says::nothing;
    if (!(z0 > 1e-6f)) return Says::surface;  // the camera is inside or next to the block: test each voxel
    const float w = (float)maps.width, h = (float)maps.height;
    if (!(u1 >= 0 && v1 >= 0 && u0 < w && v0 < h)) return Says::nothing;
    const bool whole = u0 >= 0 && v0 >= 0 && u1 < w && v1 < h;
    auto pixel = [](float x, int size) { return std::min(size - 1, std::max(0, (int)x)); };
    const Span s = pyramid.over(pixel(u0 - 1, maps.width), pixel(v0 - 1, maps.height), pixel(u1 + 1, maps.width),
                                pixel(v1 + 1, maps.height));
    const bool hit = s.near <= s.far;
    if (hit && s.near <= z1 + truncation && s.far >= z0 - truncation) return Says::surface;
    const bool front = hit && s.near > z1;
    if (whole && !s.unknown && front && !s.empty) return Says::front;
    if (whole && !s.unknown && !hit && s.empty) return Says::empty;
    return front || s.empty || (hit && s.near < z0 && s.far > z1) ? Says::something : Says::nothing;
}

// Depth at a pixel: bilinear if the four depths belong to one surface, else the nearest, which may be 0 or infinite.
float depth_at(const float* depth, int width, int height, float u, float v, float jump) {
    const float nearest = depth[(size_t)(int)v * width + (int)u];
    if (!(nearest > 0) || nearest == INF) return nearest;
    const float x = u - .5f, y = v - .5f;
    const int x0 = (int)std::floor(x), y0 = (int)std::floor(y);
    if (x0 < 0 || y0 < 0 || x0 + 1 >= width || y0 + 1 >= height) return nearest;
    const float* d = depth + (size_t)y0 * width + x0;
    const float a = d[0], b = d[1], c = d[width], e = d[width + 1];
    const float least = std::min(std::min(a, b), std::min(c, e)), most = std::max(std::max(a, b), std::max(c, e));
    if (!(least > 0) || !(most - least < jump)) return nearest;
    const float s = x - (float)x0, t = y - (float)y0;
    return (1 - t) * ((1 - s) * a + s * b) + t * ((1 - s) * c + s * e);
}

// Measurements of each voxel, in bins of the distance. Bins keep far outliers from dominating the mean.
constexpr int BINS = 16, AROUND = 4;
struct Tally {
    float sum[VOXELS][BINS] = {}, weight[VOXELS][BINS] = {};
    uint16_t hits[VOXELS] = {}, empty[VOXELS] = {};
};

// Least known depth within one pixel of each pixel. Rays that pass a silhouette by less than a pixel are no evidence of
// free space; otherwise thin parts and outlines would lose half a pixel on all sides.
std::vector<float> nearest_around(const float* depth, int width, int height) {
    const size_t plane = (size_t)width * height;
    std::vector<float> across(plane), found(plane);
    auto known = [](float d) { return d > 0 ? d : INF; };
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const float* d = depth + (size_t)y * width + x;
            across[(size_t)y * width + x] =
                std::min(known(*d), std::min(x ? known(d[-1]) : INF, x + 1 < width ? known(d[1]) : INF));
        }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const float* d = across.data() + (size_t)y * width + x;
            found[(size_t)y * width + x] = std::min(*d, std::min(y ? d[-width] : INF, y + 1 < height ? d[width] : INF));
        }
    return found;
}

void add_view(const Maps& maps, int i, const float* nearest, const float* low, float voxel, float truncation,
              Tally& tally) {
    const View& view = maps.views[i];
    const size_t plane = (size_t)maps.width * maps.height;
    const float *depth = maps.depth + i * plane, *weight = maps.weight + i * plane;
    for (int k = 0; k < VOXELS; k++) {
        const float p[3] = {low[0] + voxel * (float)(k % SIDE), low[1] + voxel * (float)(k / SIDE % SIDE),
                            low[2] + voxel * (float)(k / SIDE / SIDE)};
        float u, v, z;
        if (!view.see(p, maps.width, maps.height, u, v, z)) continue;
        const float d = depth_at(depth, maps.width, maps.height, u, v, truncation);
        if (!(d > 0)) continue;
        const float s = d - z;
        if (s >= truncation && nearest[(size_t)(int)v * maps.width + (int)u] - z < truncation) continue;
        if (d == INF) {
            tally.empty[k]++;
            continue;
        }
        if (s <= -truncation) continue;
        float w = weight[(size_t)(int)v * maps.width + (int)u];
        if (s < -voxel) w *= (s + truncation) / (truncation - voxel);  // walls may be thin
        if (s < truncation) tally.hits[k]++;
        if (s >= truncation) w *= FREE;
        const float value = std::min(1.f, s / truncation);
        const int bin = std::min(BINS - 1, (int)((value + 1) * (BINS / 2.f)));
        tally.sum[k][bin] += w * value, tally.weight[k][bin] += w;
    }
}

// Mean of the measurements within a quarter of the range around the median. False if their total weight is too small.
bool middle(const float* sum, const float* weight, float least, float& out) {
    float total = 0, below = 0;
    for (int b = 0; b < BINS; b++) total += weight[b];
    if (!(total > least)) return false;
    int median = 0;
    while (median < BINS - 1 && (below += weight[median]) < total / 2) median++;
    float s = 0, w = 0;
    for (int b = std::max(0, median - AROUND); b <= std::min(BINS - 1, median + AROUND); b++)
        s += sum[b], w += weight[b];
    out = s / w;
    return true;
}

// Returns whether all voxels have one state, and writes it to `uniform`.
bool conclude(const Tally& tally, const Rule& rule, Values& out, int32_t& uniform) {
    bool known = false, other = false, in = false, gap = false;
    for (int k = 0; k < VOXELS; k++) {
        float value = rule.inside ? -1.f : std::numeric_limits<float>::quiet_NaN();
        middle(tally.sum[k], tally.weight[k], rule.least, value);
        if (tally.empty[k] >= rule.carve && tally.empty[k] > tally.hits[k]) value = 1;
        out[k] = value;
        if (value != value)
            gap = true;
        else if (value >= 1)
            known = true;
        else if (value <= -1)
            in = true;
        else
            other = true;
    }
    uniform = known ? OUTSIDE : in ? INSIDE : UNKNOWN;
    return !other && known + in + gap == 1;
}

}  // namespace

void fuse(const Maps& maps, const Lattice& lattice, const Rule& rule, Fused& out) {
    std::vector<Pyramid> pyramids(maps.count);
    const size_t plane = (size_t)maps.width * maps.height;
    std::vector<std::vector<float>> nearest(maps.count);
    parallel(maps.count, [&](int i) {
        pyramids[i].build(maps.depth + i * plane, maps.width, maps.height);
        nearest[i] = nearest_around(maps.depth + i * plane, maps.width, maps.height);
    });

    const int bx = lattice.blocks[0], by = lattice.blocks[1], bz = lattice.blocks[2];
    std::vector<std::unique_ptr<Values>> found((size_t)bx * by * bz);
    out.blocks.assign(found.size(), UNKNOWN);
    parallel(by * bz, [&](int row) {
        std::vector<Says> says(maps.count);
        auto tally = std::make_unique<Tally>();
        for (int x = 0; x < bx; x++) {
            const int at[3] = {x, row % by, row / by};
            float low[3];
            for (int a = 0; a < 3; a++) low[a] = lattice.origin[a] + lattice.voxel * (float)(SIDE * at[a]);
            int surface = 0, front = 0, empty = 0, something = 0;
            for (int i = 0; i < maps.count; i++) {
                says[i] = judge(maps, i, pyramids[i], low, lattice.voxel * (SIDE - 1), rule.truncation);
                surface += says[i] == Says::surface, front += says[i] == Says::front;
                empty += says[i] == Says::empty, something += says[i] == Says::something;
            }
            int32_t& block = out.blocks[(size_t)row * bx + x];
            if (!surface) {
                block = front || empty >= rule.carve ? OUTSIDE : rule.inside ? INSIDE : UNKNOWN;
                if (block == OUTSIDE || !something) continue;
            }
            *tally = Tally{};
            for (int i = 0; i < maps.count; i++)
                if (says[i] != Says::nothing)
                    add_view(maps, i, nearest[i].data(), low, lattice.voxel, rule.truncation, *tally);
            auto values = std::make_unique<Values>();
            if (!conclude(*tally, rule, *values, block)) found[(size_t)row * bx + x] = std::move(values);
        }
    });
    out.values.clear();
    for (size_t i = 0; i < found.size(); i++)
        if (found[i]) out.blocks[i] = (int32_t)out.values.size(), out.values.push_back(std::move(found[i]));
}

void support(const Maps& maps, const int64_t* beside, int k, const float* tolerance, uint8_t* agree, uint8_t* against) {
    const size_t plane = (size_t)maps.width * maps.height;
    parallel(maps.count * maps.height, [&](int row) {
        const int i = row / maps.height, y = row % maps.height;
        const View& own = maps.views[i];
        float eye[3];
        own.position(eye);
        for (int x = 0; x < maps.width; x++) {
            const size_t at = i * plane + (size_t)y * maps.width + x;
            const float d = maps.depth[at];
            uint8_t yes = 0, no = 0;
            if (d > 0 && d < INF) {
                const float q[2] = {((float)x + .5f - own.cx) / own.fx * d, ((float)y + .5f - own.cy) / own.fy * d};
                float p[3];
                for (int a = 0; a < 3; a++) p[a] = eye[a] + own.m[a] * q[0] + own.m[4 + a] * q[1] + own.m[8 + a] * d;
                for (int j = 0; j < k; j++) {
                    const int64_t other = beside[(size_t)i * k + j];
                    float u, v, z;
                    if (other < 0 || !maps.views[other].see(p, maps.width, maps.height, u, v, z)) continue;
                    const float there = maps.depth[other * plane + (size_t)(int)v * maps.width + (int)u];
                    if (!(there > 0)) continue;
                    if (std::fabs(there - z) < tolerance[at])
                        yes++;
                    else if (there > z)
                        no++;
                }
            }
            agree[at] = yes, against[at] = no;
        }
    });
}

}  // namespace lumi
