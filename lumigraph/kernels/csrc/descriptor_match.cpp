// The table of all dot products is computed in tiles of ROWS x COLUMNS vectors that stay in registers. Each tile at
// once updates the best two scores of its rows and columns. Sums of products fit 16 bits (see the header), so a vector
// holds twice as many of them as floats. AVX2 and AVX-512 multiply and add 2 bytes per lane and instruction.
#include "descriptor_match.h"

#include <algorithm>
#include <cstring>

#include "buffer.h"
#include "lanes.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace lumi {
namespace {

constexpr int LANES = 2 * VL, ROWS = 4, COLUMNS = 2;  // rows and column vectors of a tile, which fits 16 registers
constexpr int WIDTH = LANES * COLUMNS;                // columns in a panel
constexpr int PAIRS = DESCRIPTOR_SIZE / 2;            // pairs of bytes that a lane multiplies and adds
constexpr int BLOCK = 256;                            // rows whose pairs fit the second-level cache
constexpr uint16_t NONE = 0xffff;

typedef uint16_t vh __attribute__((vector_size(VL * 4)));

inline vh minimum(vh a, vh b) { return a < b ? a : b; }
inline vh maximum(vh a, vh b) { return a > b ? a : b; }
inline vh spread_pair(uint32_t twice) { return (vh)((int32_t)twice - vi{}); }
inline vh spread_index(int index) { return (uint16_t)index - vh{}; }

// Returns sum + the products of the two bytes in each lane.
inline vh multiply_add(vh sum, vh a, vh b) {
#if defined(__AVX512BW__) && LUMI_LANES == 16
    return sum + (vh)_mm512_maddubs_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && LUMI_LANES == 8
    return sum + (vh)_mm256_maddubs_epi16((__m256i)a, (__m256i)b);
#else
    return sum + (a & 255) * (b & 255) + (a >> 8) * (b >> 8);
#endif
}

// The two largest scores of each lane, and the index of the largest; of equal scores the first.
struct BestTwo {
    vh best, next, index;
    static BestTwo none() { return {vh{}, vh{}, spread_index(NONE)}; }
    void offer(vh score, vh at) {
        vh top = maximum(best, score);
        next = maximum(next, minimum(best, score));
        index = top == best ? index : at;
        best = top;
    }
};

struct Best {
    uint16_t score = 0, next = 0;
    long index = -1;
    void offer(uint16_t other, uint16_t other_next, long at) {
        if (other > score || (other == score && at < index)) index = at;
        next = std::max({next, other_next, std::min(score, other)});
        score = std::max(score, other);
    }
    bool is_clear(const uint32_t* required) const { return index >= 0 && score >= required[next]; }
};

// Panels of WIDTH descriptors, pair by pair: [panel][pair][column][2]. Padded with zeros.
void pack_columns(Descriptors d, long panels, uint8_t* packed) {
    std::memset(packed, 0, (size_t)panels * WIDTH * DESCRIPTOR_SIZE);
    for (long column = 0; column < d.count; column++) {
        uint8_t* to = packed + (column / WIDTH * PAIRS * WIDTH + column % WIDTH) * 2;
        const uint8_t* from = d.values + column * DESCRIPTOR_SIZE;
        for (int p = 0; p < PAIRS; p++) std::memcpy(to + (size_t)p * WIDTH * 2, from + 2 * p, 2);
    }
}

// Groups of ROWS descriptors, each pair repeated twice in 32 bits: [group][pair][row].
void pack_rows(Descriptors d, long start, long groups, uint32_t* packed) {
    std::memset(packed, 0, (size_t)groups * ROWS * PAIRS * sizeof(uint32_t));
    const long end = std::min(d.count, start + groups * ROWS);
    for (long row = start; row < end; row++) {
        uint32_t* to = packed + (row - start) / ROWS * PAIRS * ROWS + (row - start) % ROWS;
        const uint8_t* from = d.values + row * DESCRIPTOR_SIZE;
        for (int p = 0; p < PAIRS; p++) {
            uint16_t pair;
            std::memcpy(&pair, from + 2 * p, 2);
            to[(size_t)p * ROWS] = pair * 0x10001u;
        }
    }
}

inline void tile(const uint32_t* rows, const vh* columns, vh (&sums)[ROWS][COLUMNS]) {
    vh sum[ROWS][COLUMNS] = {};
    for (int p = 0; p < PAIRS; p++)
        for (int r = 0; r < ROWS; r++) {
            vh row = spread_pair(rows[p * ROWS + r]);
            for (int c = 0; c < COLUMNS; c++) sum[r][c] = multiply_add(sum[r][c], row, columns[p * COLUMNS + c]);
        }
    std::memcpy(sums, sum, sizeof(sum));
}

// Returns the best of all lanes; lane l holds column index * LANES + l.
Best best_of_lanes(const BestTwo& lanes) {
    Best best;
    for (int l = 0; l < LANES; l++)
        if (lanes.index[l] != NONE) best.offer(lanes.best[l], lanes.next[l], (long)lanes.index[l] * LANES + l);
    return best;
}

struct Scratch {
    Buffer<uint8_t> columns;
    Buffer<uint32_t> rows;
    Buffer<BestTwo> best_in_row, best_in_column;
    Buffer<Best> best_column;
};

}  // namespace

long first_bad_descriptor(Descriptors d) {
    for (long row = 0; row < d.count; row++) {
        const uint8_t* values = d.values + row * DESCRIPTOR_SIZE;
        int squares = 0, largest = 0;
        for (int i = 0; i < DESCRIPTOR_SIZE; i++) {
            squares += values[i] * values[i];
            largest = std::max<int>(largest, values[i]);
        }
        if (largest > MAX_DESCRIPTOR_VALUE || squares > MAX_SQUARED_NORM) return row;
    }
    return -1;
}

long match_descriptors(Descriptors first, Descriptors second, const uint32_t* required, uint32_t* matches) {
    static thread_local Scratch s;
    const long panels = (second.count + WIDTH - 1) / WIDTH;
    uint8_t* packed = s.columns.reserve((size_t)panels * WIDTH * DESCRIPTOR_SIZE);
    pack_columns(second, panels, packed);
    uint32_t* row_pairs = s.rows.reserve((size_t)BLOCK * PAIRS);
    BestTwo* in_row = s.best_in_row.reserve(BLOCK);
    BestTwo* in_column = s.best_in_column.reserve((size_t)panels * COLUMNS);
    Best* best_column = s.best_column.reserve(first.count);
    std::fill(in_column, in_column + panels * COLUMNS, BestTwo::none());

    for (long start = 0; start < first.count; start += BLOCK) {
        const long rows = std::min<long>(BLOCK, first.count - start), groups = (rows + ROWS - 1) / ROWS;
        pack_rows(first, start, groups, row_pairs);
        std::fill(in_row, in_row + groups * ROWS, BestTwo::none());
        for (long panel = 0; panel < panels; panel++) {
            const vh* columns = reinterpret_cast<const vh*>(packed + (size_t)panel * WIDTH * DESCRIPTOR_SIZE);
            for (long group = 0; group < groups; group++) {
                vh scores[ROWS][COLUMNS];
                tile(row_pairs + group * ROWS * PAIRS, columns, scores);
                for (int c = 0; c < COLUMNS; c++) {
                    BestTwo down = in_column[panel * COLUMNS + c];
                    for (int r = 0; r < ROWS; r++) down.offer(scores[r][c], spread_index(start + group * ROWS + r));
                    in_column[panel * COLUMNS + c] = down;
                }
                for (int r = 0; r < ROWS; r++) {
                    BestTwo along = in_row[group * ROWS + r];
                    for (int c = 0; c < COLUMNS; c++) along.offer(scores[r][c], spread_index(panel * COLUMNS + c));
                    in_row[group * ROWS + r] = along;
                }
            }
        }
        for (long row = 0; row < rows; row++) best_column[start + row] = best_of_lanes(in_row[row]);
    }

    long count = 0;
    for (long row = 0; row < first.count; row++) {
        if (!best_column[row].is_clear(required)) continue;
        const long column = best_column[row].index;
        const BestTwo& lanes = in_column[column / LANES];
        const int l = column % LANES;
        if (lanes.index[l] != row || lanes.best[l] < required[lanes.next[l]]) continue;
        matches[2 * count] = (uint32_t)row, matches[2 * count + 1] = (uint32_t)column;
        count++;
    }
    return count;
}

}  // namespace lumi
