// Bindings of descriptor matching.
#include <algorithm>

#include "bindings.h"
#include "descriptor_match.h"

namespace {

using namespace lumi;
using Required = nb::ndarray<const uint32_t, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<uint32_t, nb::c_contig, nb::device::cpu>;

Descriptors descriptors_of(const Bytes& values, const char* name) {
    if (values.ndim() != 2 || values.shape(1) != DESCRIPTOR_SIZE)
        throw std::invalid_argument(std::string(name) + " is not (N, " + std::to_string(DESCRIPTOR_SIZE) + ")");
    Descriptors d{values.data(), (long)values.shape(0)};
    if (d.count > MAX_DESCRIPTOR_COUNT)
        throw std::invalid_argument(std::string(name) + " has more than " + std::to_string(MAX_DESCRIPTOR_COUNT) +
                                    " descriptors");
    const long bad = first_bad_descriptor(d);
    if (bad >= 0)
        throw std::invalid_argument(std::string(name) + " row " + std::to_string(bad) + " has a value above " +
                                    std::to_string(MAX_DESCRIPTOR_VALUE) + " or a squared norm above " +
                                    std::to_string(MAX_SQUARED_NORM));
    return d;
}

long match(Bytes first, Bytes second, Required required, Rows matches) {
    Descriptors a = descriptors_of(first, "first"), b = descriptors_of(second, "second");
    const uint32_t* table = data(required, MAX_SQUARED_NORM + 1, "required");
    uint32_t* out = data(matches, 2 * (size_t)std::min(a.count, b.count), "matches");
    nb::gil_scoped_release free;
    return match_descriptors(a, b, table, out);
}

}  // namespace

void lumi::bind_match(nb::module_& m) {
    m.attr("descriptor_size") = DESCRIPTOR_SIZE;
    m.def("match_descriptors", &match);
}
