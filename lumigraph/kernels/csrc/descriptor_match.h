// Matches between two sets of local descriptors: ratio test in both directions and cross check in one pass.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lumi {

constexpr int DESCRIPTOR_SIZE = 128;          // values of a descriptor (SIFT)
constexpr int MAX_DESCRIPTOR_VALUE = 127;     // signed bytes on x86
constexpr int MAX_SQUARED_NORM = 65535;       // no dot product overflows 16 bits (Cauchy-Schwarz)
constexpr long MAX_DESCRIPTOR_COUNT = 65535;  // rows; 16-bit indices

struct Descriptors {
    const uint8_t* values;  // (count, DESCRIPTOR_SIZE), within the limits above
    long count;
};

// Returns the first row outside the limits, or -1.
long first_bad_descriptor(Descriptors);

// Writes ascending rows (index in `first`, index in `second`) to matches (min(first.count, second.count), 2) and
// returns their number. A match has the best score of its row and of its column: the largest dot product; of equal
// scores, the lower index wins. The score must be above 0 and at least required[second-best score] (65536 values) in
// both directions.
long match_descriptors(Descriptors first, Descriptors second, const uint32_t* required, uint32_t* matches);

}  // namespace lumi
