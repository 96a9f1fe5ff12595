#include "colour_baking.h"

#include <algorithm>
#include <vector>

#include "pool.h"

namespace lumi {
namespace {

constexpr long PATCHES = 1024;       // points per task
constexpr float STEEPEST = .25882f;  // cos 75 degrees
constexpr float SPREAD = .06f;       // colour difference at which the weight of a view is halved
constexpr float SLANT = 1.5f;        // pixels along the slope of the surface by which depth may differ

struct Look {
    float rgb[3], weight;
};

// The four pixels around (u, v): the first one, and the fractions between them.
struct Between {
    int x0, y0, x1, y1;
    float s, t;
    Between(float u, float v, int width, int height) {
        const float x = std::max(0.f, u - .5f), y = std::max(0.f, v - .5f);
        x0 = std::min((int)x, width - 1), y0 = std::min((int)y, height - 1);
        x1 = std::min(x0 + 1, width - 1), y1 = std::min(y0 + 1, height - 1);
        s = x - (float)x0, t = y - (float)y0;
    }
};

bool look(const Pictures& pictures, int i, const float* p, const float* n, float tolerance, Look& out) {
    const View& view = pictures.views[i];
    float u, v, z;
    if (!view.see(p, pictures.width, pictures.height, u, v, z)) return false;
    const size_t plane = (size_t)pictures.width * pictures.height;
    const float trust = pictures.weights[i * plane + (size_t)(int)v * pictures.width + (int)u];
    if (!(trust > 0)) return false;
    float eye[3], distance = 0, cosine = 0;
    view.position(eye);
    for (int a = 0; a < 3; a++) {
        const float d = eye[a] - p[a];
        distance += d * d, cosine += d * n[a];
    }
    cosine /= std::sqrt(distance);
    if (!(cosine > STEEPEST)) return false;
    const Between at(u, v, pictures.width, pictures.height);
    const float* depth = pictures.depth + i * plane;
    auto index = [&](int x, int y) { return (size_t)y * pictures.width + x; };
    const float nearest = std::min(std::min(depth[index(at.x0, at.y0)], depth[index(at.x1, at.y0)]),
                                   std::min(depth[index(at.x0, at.y1)], depth[index(at.x1, at.y1)]));
    const float pixel = z / std::min(view.fx, view.fy), slope = std::sqrt(1 - std::min(1.f, cosine * cosine)) / cosine;
    if (!(z < nearest + tolerance + SLANT * pixel * slope)) return false;
    const uint8_t* rgb = pictures.rgb + 3 * i * plane;
    for (int c = 0; c < 3; c++) {
        const float a = rgb[3 * index(at.x0, at.y0) + c], b = rgb[3 * index(at.x1, at.y0) + c];
        const float d = rgb[3 * index(at.x0, at.y1) + c], e = rgb[3 * index(at.x1, at.y1) + c];
        out.rgb[c] = ((1 - at.t) * ((1 - at.s) * a + at.s * b) + at.t * ((1 - at.s) * d + at.s * e)) / 255.f;
    }
    const float c2 = cosine * cosine;
    out.weight = trust * c2 * c2 * c2 / (pixel * pixel);
    return true;
}

void blend(const std::vector<Look>& looks, float* rgb, float& weight) {
    float mean[3] = {};
    weight = 0;
    for (int round = 0; round < 3; round++) {
        float sum[3] = {}, total = 0;
        for (const Look& l : looks) {
            float w = l.weight, off = 0;
            for (int c = 0; c < 3; c++) off += (l.rgb[c] - mean[c]) * (l.rgb[c] - mean[c]);
            if (round) w /= 1 + off / (SPREAD * SPREAD);
            total += w;
            for (int c = 0; c < 3; c++) sum[c] += w * l.rgb[c];
        }
        if (!(total > 0)) break;
        weight = total;
        for (int c = 0; c < 3; c++) mean[c] = sum[c] / total;
    }
    std::copy(mean, mean + 3, rgb);
}

}  // namespace

void bake(const Pictures& pictures, const Patches& patches, float tolerance, float* rgb, float* weight) {
    const long tasks = (patches.count + PATCHES - 1) / PATCHES;
    parallel((int)tasks, [&](int task) {
        std::vector<Look> looks;
        for (long k = task * PATCHES, end = std::min(patches.count, k + PATCHES); k < end; k++) {
            looks.clear();
            Look l;
            for (int i = 0; i < pictures.count; i++)
                if (look(pictures, i, patches.xyz + 3 * k, patches.normals + 3 * k, tolerance, l)) looks.push_back(l);
            blend(looks, rgb + 3 * k, weight[k]);
        }
    });
}

}  // namespace lumi
