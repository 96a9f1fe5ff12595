// Functions of a plain float for the shared headers, on CPU and GPU; lanes.h has the same for vectors.
//
// gaussian.h, screen.h and sample.h are compiled by a C++ compiler and by NVRTC, which has no system headers: they
// include only this header. They are the only implementation of the mathematics.
#pragma once

namespace lumi {

inline float minimum(float a, float b) { return a < b ? a : b; }
inline float maximum(float a, float b) { return a > b ? a : b; }
inline int minimum(int a, int b) { return a < b ? a : b; }
inline int maximum(int a, int b) { return a > b ? a : b; }
inline float keep(bool mask, float a) { return mask ? a : 0.f; }
#ifdef __CUDACC__
inline float root(float a) { return sqrtf(a); }
inline float exponential(float a) { return expf(a); }
inline float exp2_negative(float a) { return exp2f(a); }
inline float logarithm2(float a) { return log2f(a); }
inline int floor_int(float a) { return (int)floorf(a); }
inline int ceil_int(float a) { return (int)ceilf(a); }
#else
inline float root(float a) { return __builtin_sqrtf(a); }
inline float exponential(float a) { return __builtin_expf(a); }
inline float exp2_negative(float a) { return __builtin_exp2f(a); }
inline float logarithm2(float a) { return __builtin_log2f(a); }
inline int floor_int(float a) { return (int)__builtin_floorf(a); }
inline int ceil_int(float a) { return (int)__builtin_ceilf(a); }
#endif

}  // namespace lumi
