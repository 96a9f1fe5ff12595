// Matches between two sets of local descriptors: best two in both directions, ratio test and cross check in one pass.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lumi {

constexpr int DESCRIPTOR_SIZE = 128;          // values of a descriptor (SIFT)
constexpr int MAX_DESCRIPTOR_VALUE = 127;     // signed bytes on x86
constexpr int MAX_SQUARED_NORM = 65535;       // so that no dot product overflows 16 bits, by Cauchy and Schwarz
constexpr long MAX_DESCRIPTOR_COUNT = 65535;  // rows; 16-bit indices

struct Descriptors {
    const uint8_t* values;  // (count, DESCRIPTOR_SIZE), within the limits above
    long count;
};

// The row of the first descriptor outside the limits, or -1.
long first_bad_descriptor(Descriptors);

// Writes rows of (index in `first`, index in `second`), ascending, into matches (min(first.count, second.count), 2) and
// returns their number. A match is the best of its row and of its column: the largest dot product, the lower index of
// equal ones. Its score must be at least required[second-best score] (65536 values) in both directions, and above 0.
long match_descriptors(Descriptors first, Descriptors second, const uint32_t* required, uint32_t* matches);

}  // namespace lumi
