#include "ray_marching.h"

#include <algorithm>

#include "pool.h"

namespace lumi {
namespace {

constexpr long RAYS = 64;  // rays per piece

}  // namespace

void march(const OccupancyGrid& grid, const MarchSettings& steps, const float* origin, const float* direction,
           const float* jitter, long rays, Marched& out) {
    const long pieces = (rays + RAYS - 1) / RAYS;
    out.pieces.resize(pieces);
    parallel((int)pieces, [&](int k) {
        Marched::Piece& piece = out.pieces[k];
        piece.distance.clear(), piece.length.clear(), piece.count.clear();
        for (long r = k * RAYS, end = std::min(rays, r + RAYS); r < end; r++) {
            const size_t before = piece.distance.size();
            march_ray(grid, steps, origin + 3 * r, direction + 3 * r, jitter[r], [&](float distance, float length) {
                piece.distance.push_back(distance), piece.length.push_back(length);
            });
            piece.count.push_back((int32_t)(piece.distance.size() - before));
        }
    });
    out.samples = 0;
    for (const Marched::Piece& piece : out.pieces) out.samples += (long)piece.distance.size();
}

void unpack(const Marched& in, int64_t* first, float* distance, float* length) {
    int64_t at = 0;
    *first++ = 0;
    for (const Marched::Piece& piece : in.pieces) {
        std::copy(piece.distance.begin(), piece.distance.end(), distance + at);
        std::copy(piece.length.begin(), piece.length.end(), length + at);
        for (int32_t n : piece.count) *first++ = at += n;
    }
}

}  // namespace lumi
