// Helpers shared by the binding files.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace lumi {

namespace nb = nanobind;
using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<double, nb::c_contig, nb::device::cpu>;
using Longs = nb::ndarray<int64_t, nb::c_contig, nb::device::cpu>;

// Returns the data of `a` (any shape). Throws if it has fewer than `count` elements.
template <class A> auto* data(const A& a, size_t count, const char* name) {
    if (a.size() < count)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(a.size()) + " values, needs " +
                                    std::to_string(count));
    return a.data();
}

void bind_field(nb::module_& m);
void bind_match(nb::module_& m);
void bind_mesh(nb::module_& m);

}  // namespace lumi
