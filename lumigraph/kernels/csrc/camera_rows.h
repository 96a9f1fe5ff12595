// Pinhole cameras of the mesh kernels: rows of 16 floats. Pixel centres at +0.5, depth along z.
#pragma once
#include <cmath>

namespace lumi {

struct View {
    float m[12], fx, fy, cx, cy;  // cam_from_world (3, 4); focal lengths and centre in pixels

    // World to camera axes; q[2] is the depth.
    void turn(const float* p, float* q) const {
        for (int a = 0; a < 3; a++) q[a] = m[4 * a] * p[0] + m[4 * a + 1] * p[1] + m[4 * a + 2] * p[2] + m[4 * a + 3];
    }
    // World to pixel and depth. False if the point is not in front of the camera or not in an image of this size.
    bool see(const float* p, int width, int height, float& u, float& v, float& z) const {
        float q[3];
        turn(p, q);
        if (!(q[2] > 1e-6f)) return false;
        u = q[0] / q[2] * fx + cx, v = q[1] / q[2] * fy + cy, z = q[2];
        return u >= 0 && v >= 0 && u < (float)width && v < (float)height;
    }
    void position(float* p) const {
        for (int a = 0; a < 3; a++) p[a] = -(m[a] * m[3] + m[4 + a] * m[7] + m[8 + a] * m[11]);
    }
};
static_assert(sizeof(View) == 64, "a view is a row of 16 floats");

}  // namespace lumi
