#include "marching_cubes.h"

#include <algorithm>
#include <limits>

#include "pool.h"

namespace lumi {
namespace {

// Corner c of a cell is at (c & 1, c >> 1 & 1, c >> 2); edge (c, axis) runs from c along `axis`.
constexpr int edge_id(int corner, int axis) { return axis * 8 + corner; }         // 24 indices, 12 in use
int edge_between(int a, int b) { return edge_id(std::min(a, b), (a ^ b) >> 1); }  // 1, 2, 4 -> axis 0, 1, 2

struct Case {
    int count = 0;  // triangles
    uint8_t edges[5][3];
};

class Table {
  public:
    static const Table& get() {
        static const Table table;
        return table;
    }
    Case cases[256];

  private:
    int face_[6][4];  // corners, counter-clockwise from outside the cell

    Table() {
        for (int axis = 0; axis < 3; axis++) {
            const int b = 1 << (axis + 1) % 3, c = 1 << (axis + 2) % 3, square[4] = {0, b, b | c, c};
            for (int side = 0; side < 2; side++)
                for (int i = 0; i < 4; i++) face_[2 * axis + side][i] = square[side ? i : 3 - i] | side << axis;
        }
        for (int bits = 0; bits < 256; bits++) derive(bits);
    }
    // On each face, the surface runs from the edge at which the face's border leaves the inside to the edge at which
    // that inside part began. The segments of all faces form closed loops.
    void derive(int bits) {
        int next[24];
        std::fill(next, next + 24, -1);
        for (const auto& face : face_)
            for (int i = 0; i < 4; i++) {
                const int a = face[i], b = face[(i + 1) % 4];
                if (!(bits >> a & 1) || (bits >> b & 1)) continue;
                int j = i;
                while (bits >> face[j] & 1) j = (j + 3) % 4;
                next[edge_between(face[j], face[(j + 1) % 4])] = edge_between(a, b);
            }
        for (int start = 0; start < 24; start++) {
            std::vector<int> loop;
            for (int e = start; next[e] >= 0;) {
                loop.push_back(e);
                const int to = next[e];
                next[e] = -1;
                e = to;
            }
            if (!loop.empty()) triangulate(loop, cases[bits]);
        }
    }
    bool share_face(int e, int f) const {
        for (const auto& face : face_) {
            auto on = [&](int edge) {
                const int a = edge & 7, b = a | 1 << (edge >> 3);
                return std::count(face, face + 4, a) && std::count(face, face + 4, b);
            };
            if (on(e) && on(f)) return true;
        }
        return false;
    }
    // Returns the first triangulation of `loop` without a side across a face of the cell; one always exists.
    bool triangulate(const std::vector<int>& loop, Case& out) const {
        const size_t n = loop.size();
        if (n < 3) return true;
        for (size_t k = 1; k + 1 < n; k++) {
            if ((k > 1 && share_face(loop[0], loop[k])) || (k + 2 < n && share_face(loop[k], loop[n - 1]))) continue;
            const Case before = out;
            if (triangulate({loop.begin(), loop.begin() + (long)k + 1}, out) &&
                triangulate({loop.begin() + (long)k, loop.end()}, out)) {
                uint8_t* t = out.edges[out.count++];
                t[0] = (uint8_t)loop[0], t[1] = (uint8_t)loop[k], t[2] = (uint8_t)loop[n - 1];
                return true;
            }
            out = before;
        }
        return false;
    }
};

constexpr int WIDE = SIDE + 1, PADDED = WIDE * WIDE * WIDE;

// Looks up blocks. The volume is padded with one block of `beyond` on each side, so that surfaces can close.
class Reader {
  public:
    explicit Reader(const Volume& v) : v_(v) {}
    int32_t block(const int* at) const {
        for (int a = 0; a < 3; a++)
            if (at[a] < 0 || at[a] >= v_.size[a]) return v_.beyond > 0 ? OUTSIDE : v_.beyond < 0 ? INSIDE : UNKNOWN;
        return v_.blocks[((size_t)at[2] * v_.size[1] + at[1]) * v_.size[0] + at[0]];
    }
    // Reads the voxels of a block and the first of the next blocks. False if it cannot contain a surface.
    bool padded(const int* at, float* out) const {
        int32_t ids[8];
        bool same = true;
        for (int c = 0; c < 8; c++) {
            const int to[3] = {at[0] + (c & 1), at[1] + (c >> 1 & 1), at[2] + (c >> 2)};
            ids[c] = block(to);
            same = same && ids[c] < 0 && ids[c] == ids[0];
        }
        if (same) return false;
        for (int z = 0; z < WIDE; z++)
            for (int y = 0; y < WIDE; y++)
                for (int x = 0; x < WIDE; x++) {
                    const int32_t id = ids[x / SIDE | y / SIDE << 1 | z / SIDE << 2];
                    const int k = ((z % SIDE) * SIDE + y % SIDE) * SIDE + x % SIDE;
                    *out++ = id >= 0         ? v_.values[(size_t)id * VOXELS + k]
                             : id == OUTSIDE ? 1.f
                             : id == INSIDE  ? -1.f
                                             : std::numeric_limits<float>::quiet_NaN();
                }
        return true;
    }

  private:
    const Volume& v_;
};

constexpr int STEP[3] = {1, WIDE, WIDE * WIDE};

struct Piece {  // part of the surface in one block
    std::vector<float> values, vertices;
    std::vector<int32_t> number;  // vertex index of each edge (voxel, axis), -1 for none
    std::vector<int32_t> faces;
    int32_t first = 0;
};

void place_vertices(const int* at, Piece& piece) {
    const float* values = piece.values.data();
    piece.number.assign(3 * VOXELS, -1);
    for (int k = 0; k < VOXELS; k++) {
        const int p[3] = {k % SIDE, k / SIDE % SIDE, k / SIDE / SIDE};
        const int here = p[0] + WIDE * (p[1] + WIDE * p[2]);
        for (int axis = 0; axis < 3; axis++) {
            const float a = values[here], b = values[here + STEP[axis]];
            if (!((a < 0 && b >= 0) || (a >= 0 && b < 0))) continue;
            piece.number[3 * k + axis] = (int32_t)(piece.vertices.size() / 3);
            const float share = std::min(.999f, std::max(.001f, a / (a - b)));  // keeps vertices distinct
            for (int c = 0; c < 3; c++)
                piece.vertices.push_back((float)(SIDE * at[c] + p[c]) + (c == axis ? share : 0.f));
        }
    }
}

}  // namespace

void march_cubes(const Volume& volume, Surface& out) {
    const Table& table = Table::get();
    const Reader reader(volume);
    const int n[3] = {volume.size[0] + 2, volume.size[1] + 2, volume.size[2] + 2};  // including the padding
    const size_t total = (size_t)n[0] * n[1] * n[2];
    auto place = [&](size_t i, int* at) {
        at[0] = (int)(i % n[0]) - 1, at[1] = (int)(i / n[0] % n[1]) - 1, at[2] = (int)(i / n[0] / n[1]) - 1;
    };
    std::vector<std::unique_ptr<Piece>> pieces(total);
    parallel(n[1] * n[2], [&](int row) {
        float padded[PADDED];
        for (int x = 0; x < n[0]; x++) {
            const size_t i = (size_t)row * n[0] + x;
            int at[3];
            place(i, at);
            if (!reader.padded(at, padded)) continue;
            pieces[i] = std::make_unique<Piece>();
            pieces[i]->values.assign(padded, padded + PADDED);
            place_vertices(at, *pieces[i]);
        }
    });
    int64_t vertices = 0;
    std::vector<Piece*> filled;
    std::vector<size_t> where;
    for (size_t i = 0; i < total; i++)
        if (pieces[i]) {
            pieces[i]->first = (int32_t)vertices;
            vertices += (int64_t)pieces[i]->vertices.size() / 3;
            filled.push_back(pieces[i].get()), where.push_back(i);
        }
    if (vertices > std::numeric_limits<int32_t>::max()) throw std::length_error("too many vertices");

    const size_t stride[3] = {1, (size_t)n[0], (size_t)n[0] * n[1]};
    parallel((int)filled.size(), [&](int task) {
        Piece& piece = *filled[task];
        auto vertex = [&](const int* p, int corner, int axis) -> int32_t {  // of an edge of a cell, in any block
            size_t i = where[task];
            int k = 0;
            for (int a = 2; a >= 0; a--) {
                int q = p[a] + (corner >> a & 1);
                if (q == SIDE) i += stride[a], q = 0;
                k = k * SIDE + q;
            }
            return pieces[i]->first + pieces[i]->number[3 * k + axis];
        };
        for (int k = 0; k < VOXELS; k++) {
            const int p[3] = {k % SIDE, k / SIDE % SIDE, k / SIDE / SIDE};
            const float* here = piece.values.data() + p[0] + WIDE * (p[1] + WIDE * p[2]);
            int bits = 0;
            bool known = true;
            for (int c = 0; c < 8; c++) {
                const float value = here[(c & 1) + WIDE * ((c >> 1 & 1) + WIDE * (c >> 2))];
                known = known && value == value;
                bits |= (value < 0) << c;
            }
            if (!known) continue;
            const Case& found = table.cases[bits];
            for (int t = 0; t < found.count; t++)
                for (int j = 0; j < 3; j++)
                    piece.faces.push_back(vertex(p, found.edges[t][j] & 7, found.edges[t][j] >> 3));
        }
    });
    out.vertices.clear(), out.faces.clear();
    out.vertices.reserve((size_t)vertices * 3);
    for (const Piece* piece : filled) {
        out.vertices.insert(out.vertices.end(), piece->vertices.begin(), piece->vertices.end());
        out.faces.insert(out.faces.end(), piece->faces.begin(), piece->faces.end());
    }
}

}  // namespace lumi
