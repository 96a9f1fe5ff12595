// Bindings of the mesh kernels: depth map fusion, marching cubes, rasterization, colour baking.
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "colour_baking.h"
#include "bindings.h"
#include "marching_cubes.h"
#include "rasterize.h"
#include "tsdf.h"

namespace {

using namespace lumi;
using Ints = nb::ndarray<int32_t, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;

const View* views_of(const Floats& rows, size_t count) {
    return reinterpret_cast<const View*>(data(rows, 16 * count, "views"));
}

void check_picture(long count, int width, int height) {
    if (count < 0 || count > 4096 || width < 1 || height < 1 || width > 32768 || height > 32768)
        throw std::invalid_argument("bad number or size of pictures");
}

Maps maps_of(const Floats& depth, const Floats& weight, const Floats& views, int width, int height) {
    const size_t plane = (size_t)std::max(1, width) * std::max(1, height), count = depth.size() / plane;
    check_picture((long)count, width, height);
    return {depth.data(), data(weight, count * plane, "weight"), views_of(views, count), (int)count, width, height};
}

size_t volume_of(const std::array<int, 3>& blocks) {
    size_t total = 1;
    for (int n : blocks) {
        if (n < 1 || n > 512) throw std::invalid_argument("a volume has 1 to 512 blocks a side");
        total *= (size_t)n;
    }
    return total;
}

long fuse_maps(Fused& fused, Floats depth, Floats weight, Floats views, int width, int height,
               std::array<float, 3> origin, float voxel, std::array<int, 3> blocks, float truncation, float least,
               int carve, bool inside) {
    const Maps maps = maps_of(depth, weight, views, width, height);
    volume_of(blocks);
    if (!(voxel > 0) || !(truncation > voxel) || !(least >= 0) || carve < 1)
        throw std::invalid_argument("0 < voxel < truncation, least >= 0, carve >= 1");
    Lattice lattice{{}, voxel, {}};
    std::copy(origin.begin(), origin.end(), lattice.origin);
    std::copy(blocks.begin(), blocks.end(), lattice.blocks);
    nb::gil_scoped_release free;
    fuse(maps, lattice, {truncation, least, carve, inside}, fused);
    return (long)fused.values.size();
}

void unpack_fused(const Fused& fused, Ints blocks, Floats values) {
    std::copy(fused.blocks.begin(), fused.blocks.end(), data(blocks, fused.blocks.size(), "blocks"));
    float* to = data(values, fused.values.size() * VOXELS, "values");
    for (const auto& block : fused.values) to = std::copy(block->begin(), block->end(), to);
}

void support_maps(Floats depth, Floats views, int width, int height, Longs beside, Floats tolerance, BytesOut agree,
                  BytesOut against) {
    const Maps maps = maps_of(depth, depth, views, width, height);
    const size_t k = maps.count ? beside.size() / maps.count : 0, pixels = depth.size();
    if (k > 255) throw std::invalid_argument("a view is compared with 255 others at most");
    for (size_t i = 0; i < beside.size(); i++)
        if (beside.data()[i] < -1 || beside.data()[i] >= maps.count) throw std::invalid_argument("no such view");
    const float* within = data(tolerance, pixels, "tolerance");
    uint8_t *yes = data(agree, pixels, "agree"), *no = data(against, pixels, "against");
    nb::gil_scoped_release free;
    support(maps, beside.data(), (int)k, within, yes, no);
}

std::array<long, 2> cubes(Surface& surface, Ints blocks, Floats values, std::array<int, 3> size, float beyond) {
    const size_t total = volume_of(size), stored = values.size() / VOXELS;
    data(blocks, total, "blocks");
    for (size_t i = 0; i < total; i++)
        if (blocks.data()[i] < INSIDE || blocks.data()[i] >= (long)stored) throw std::invalid_argument("no such block");
    Volume volume{blocks.data(), values.data(), {}, beyond};
    std::copy(size.begin(), size.end(), volume.size);
    nb::gil_scoped_release free;
    march_cubes(volume, surface);
    return {(long)surface.vertices.size() / 3, (long)surface.faces.size() / 3};
}

void unpack_surface(const Surface& surface, Floats vertices, Ints faces) {
    std::copy(surface.vertices.begin(), surface.vertices.end(), data(vertices, surface.vertices.size(), "vertices"));
    std::copy(surface.faces.begin(), surface.faces.end(), data(faces, surface.faces.size(), "faces"));
}

void draw(Floats corners, Ints faces, int width, int height, Ints face, Floats depth, Floats weights) {
    check_picture(1, width, height);
    const size_t pixels = (size_t)width * height, count = corners.size() / 3;
    for (size_t i = 0; i < faces.size(); i++)
        if (faces.data()[i] < 0 || faces.data()[i] >= (long)count) throw std::invalid_argument("no such corner");
    const Triangles triangles{corners.data(), faces.data(), (long)faces.size() / 3};
    int32_t* to = data(face, pixels, "face");
    float *z = data(depth, pixels, "depth"), *w = weights.size() ? data(weights, 3 * pixels, "weights") : nullptr;
    nb::gil_scoped_release free;
    raster(triangles, width, height, to, z, w);
}

void bake_patches(Bytes pictures, Floats depth, Floats trust, Floats views, int width, int height, Floats xyz,
                  Floats normals, float tolerance, Floats rgb, Floats weight) {
    const Maps maps = maps_of(depth, trust, views, width, height);
    const long count = (long)xyz.size() / 3;
    const Pictures from{
        data(pictures, 3 * depth.size(), "rgb"), depth.data(), trust.data(), maps.views, maps.count, width, height};
    const Patches patches{xyz.data(), data(normals, 3 * count, "normals"), count};
    float *to = data(rgb, 3 * count, "out"), *w = data(weight, count, "weight");
    nb::gil_scoped_release free;
    bake(from, patches, tolerance, to, w);
}

}  // namespace

void lumi::bind_mesh(nb::module_& m) {
    nb::class_<Fused>(m, "Fused").def(nb::init<>());
    nb::class_<Surface>(m, "Surface").def(nb::init<>());
    m.def("fuse", &fuse_maps);
    m.def("unpack_fused", &unpack_fused);
    m.def("support", &support_maps);
    m.def("march_cubes", &cubes);
    m.def("unpack_surface", &unpack_surface);
    m.def("raster", &draw);
    m.def("bake", &bake_patches);
}
