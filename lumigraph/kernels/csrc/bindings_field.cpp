// Bindings of the volume kernels: hash grid field, volume rendering, ray marching, Adam.
#include <nanobind/stl/array.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <tuple>
#include <vector>

#include "adam.h"
#include "bindings.h"
#include "hashgrid.h"
#include "ray_marching.h"
#include "volume_rendering.h"

namespace {

using namespace lumi;

// Levels as (scale, side, first, entries, dense). The checks ensure that no position in the unit cube is outside the
// table.
Grid make_grid(const std::vector<std::tuple<float, uint32_t, uint32_t, uint32_t, bool>>& levels) {
    if (levels.size() != LEVELS) throw std::invalid_argument("a grid has " + std::to_string(LEVELS) + " levels");
    Grid grid{};
    for (int l = 0; l < LEVELS; l++) {
        const auto& [scale, side, first, entries, dense] = levels[l];
        const bool fits = dense ? side <= 1024 && (uint64_t)side * side * side <= entries
                                : entries > 0 && (entries & (entries - 1)) == 0;
        if (!fits || !(scale >= 1 && scale + 2 <= (float)side) || first != grid.entries || entries > (1u << 30))
            throw std::invalid_argument("level " + std::to_string(l) + " of the grid does not fit its table");
        grid.level[l] = {scale, side, first, entries, dense};
        grid.entries += entries;
    }
    return grid;
}

struct FieldArrays {
    const float *table, *weights;
    Samples samples;
};

FieldArrays arrays(const Grid& grid, const Floats& table, const Floats& weights, const Floats& xyz,
                   const Floats& direction) {
    const long n = (long)xyz.size() / 3;
    return {data(table, (size_t)grid.entries * FEATURES, "table"),
            data(weights, WEIGHTS, "weights"),
            {xyz.data(), data(direction, 3 * n, "direction"), n}};
}

struct Scratch {
    Buffer<float> kept;
};

void forward(const Grid& grid, Floats table, Floats weights, Floats xyz, Floats direction, Floats out, Floats encoded) {
    const FieldArrays a = arrays(grid, table, weights, xyz, direction);
    float *to = data(out, 4 * a.samples.count, "out"), *kept = data(encoded, ENCODED * a.samples.count, "encoded");
    nb::gil_scoped_release free;
    field_forward(grid, a.table, a.weights, a.samples, to, kept);
}

void density(const Grid& grid, Floats table, Floats weights, Floats xyz, Floats out, Scratch& scratch) {
    const FieldArrays a = arrays(grid, table, weights, xyz, xyz);
    float* to = data(out, a.samples.count, "out");
    nb::gil_scoped_release free;
    float* encoded = scratch.kept.reserve((size_t)a.samples.count * ENCODED);
    field_density(grid, a.table, a.weights, a.samples.xyz, a.samples.count, to, encoded);
}

void backward(const Grid& grid, Floats table, Floats weights, Floats xyz, Floats direction, Floats encoded,
              Floats g_out, Floats g_weights, Floats g_table, Scratch& scratch) {
    const FieldArrays a = arrays(grid, table, weights, xyz, direction);
    const float* kept = data(encoded, ENCODED * a.samples.count, "encoded");
    const float* g = data(g_out, 4 * a.samples.count, "g_out");
    float *gw = data(g_weights, WEIGHTS, "g_weights"), *gt = data(g_table, (size_t)grid.entries * FEATURES, "g_table");
    nb::gil_scoped_release free;
    field_backward(grid, a.weights, a.samples, kept, g, gw, gt, scratch.kept);
}

// Returns the packed samples. Throws unless `first` ascends from 0 and stays within them.
Packed packed(const Floats& density_rgb, const Floats& distance, const Floats& length, const Longs& first) {
    const long samples = (long)distance.size(), rays = (long)first.size() - 1;
    data(density_rgb, 4 * samples, "density_rgb"), data(length, samples, "length"), data(first, 1, "first");
    for (long r = 0; r < rays; r++)
        if (first.data()[r] < 0 || first.data()[r] > first.data()[r + 1])
            throw std::invalid_argument("first must not fall");
    if (first.data()[rays] > samples) throw std::invalid_argument("first points behind the samples");
    return {density_rgb.data(), distance.data(), length.data(), first.data(), rays};
}

Light planes(const Packed& p, size_t samples, const Floats& rgb, const Floats& transmittance, const Floats& depth,
             const Floats& weight) {
    return {data(rgb, 3 * p.rays, "rgb"), data(transmittance, p.rays, "transmittance"), data(depth, p.rays, "depth"),
            data(weight, samples, "weight")};
}

void render(Floats density_rgb, Floats distance, Floats length, Longs first, Floats rgb, Floats transmittance,
            Floats depth, Floats weight) {
    const Packed in = packed(density_rgb, distance, length, first);
    const Light out = planes(in, distance.size(), rgb, transmittance, depth, weight);
    nb::gil_scoped_release free;
    light(in, out);
}

void render_backward(Floats density_rgb, Floats distance, Floats length, Longs first, Floats transmittance,
                     Floats weight, Floats g_rgb, Floats g_transmittance, Floats g_depth, Floats g_weight, Floats out) {
    const Packed in = packed(density_rgb, distance, length, first);
    const Light result = planes(in, distance.size(), g_rgb, transmittance, g_depth, weight);
    const Light gradient = planes(in, distance.size(), g_rgb, g_transmittance, g_depth, g_weight);
    float* to = data(out, 4 * distance.size(), "out");
    nb::gil_scoped_release free;
    light_backward(in, result, gradient, to);
}

long march_rays(Marched& marched, Bytes cells, int levels, int side, std::array<float, 3> centre, float half,
                std::array<float, 4> steps, int most, Floats origin, Floats direction, Floats jitter) {
    const auto [near, far, shortest, growth] = steps;
    if (levels < 1 || levels > 16 || side < 1 || side > 1024 || !(half > 0) || most < 1)
        throw std::invalid_argument("bad grid of occupied cells");
    // A step must advance t even at the far end: a float has 2^24 steps.
    if (!(near >= 0 && shortest > 0 && growth >= 0) || !(far / shortest < (float)(1 << 22)))
        throw std::invalid_argument("bad steps: near >= 0, shortest > 0, growth >= 0, far < 4 million steps");
    OccupancyGrid grid{data(cells, (size_t)levels * side * side * side, "cells"), levels, side, {}, half};
    for (int a = 0; a < 3; a++) grid.centre[a] = centre[a];
    const long rays = (long)jitter.size();
    data(origin, 3 * rays, "origin"), data(direction, 3 * rays, "direction");
    nb::gil_scoped_release free;
    march(grid, {near, far, shortest, growth, most}, origin.data(), direction.data(), jitter.data(), rays, marched);
    return marched.samples;
}

void unpack_samples(const Marched& marched, Longs first, Floats distance, Floats length) {
    size_t rays = 0;
    for (const auto& piece : marched.pieces) rays += piece.count.size();
    unpack(marched, data(first, rays + 1, "first"), data(distance, marched.samples, "distance"),
           data(length, marched.samples, "length"));
}

void adam_step(Floats p, Floats g, Floats m, Floats v, float lr, float beta1, float beta2, float epsilon, long step) {
    const size_t n = p.size();
    data(g, n, "g"), data(m, n, "m"), data(v, n, "v");
    nb::gil_scoped_release free;
    adam((long)n, p.data(), g.data(), m.data(), v.data(), {lr, beta1, beta2, epsilon, step});
}

}  // namespace

void lumi::bind_field(nb::module_& m) {
    nb::class_<Grid>(m, "Grid").def(nb::new_(&make_grid), nb::arg("levels")).def_ro("entries", &Grid::entries);
    nb::class_<Scratch>(m, "Scratch").def(nb::init<>());
    nb::class_<Marched>(m, "Marched").def(nb::init<>());
    m.attr("field_weights") = WEIGHTS;
    m.def("field_forward", &forward);
    m.def("field_density", &density);
    m.def("field_backward", &backward);
    m.def("light", &render);
    m.def("light_backward", &render_backward);
    m.def("march", &march_rays);
    m.def("unpack", &unpack_samples);
    m.def("adam", &adam_step);
}
