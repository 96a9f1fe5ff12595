// The module `_native_*`: checks arrays and calls the C++ stages. There is one module per instruction set; Python
// selects one. This file binds splats, bindings_field.cpp volumes, bindings_mesh.cpp meshes.
#include <nanobind/stl/array.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>

#include "bindings.h"
#include "loss.h"
#include "peak.h"
#include "splat.h"

using namespace lumi;

namespace {

using Optional = std::optional<Floats>;

float* data_or_null(const Optional& a, size_t count, const char* name) { return a ? data(*a, count, name) : nullptr; }

Camera make_camera(const std::array<float, 12>& m, float fx, float fy, float cx, float cy, int width, int height,
                   float near, bool antialiased) {
    if (width < 1 || height < 1 || (long)((width + TILE - 1) / TILE) * ((height + TILE - 1) / TILE) > 65535)
        throw std::invalid_argument("image of " + std::to_string(width) + "x" + std::to_string(height) +
                                    " pixels: this renderer takes 1 to 67 million");
    if (!(fx > 0 && fy > 0)) throw std::invalid_argument("the focal length must be positive");
    Camera c{};
    for (int r = 0; r < 3; r++) {
        for (int k = 0; k < 3; k++) c.R[3 * r + k] = m[4 * r + k];
        c.t[r] = m[4 * r + 3];
    }
    for (int k = 0; k < 3; k++) c.position[k] = -(c.R[k] * c.t[0] + c.R[3 + k] * c.t[1] + c.R[6 + k] * c.t[2]);
    c.fx = fx, c.fy = fy, c.cx = cx, c.cy = cy, c.width = width, c.height = height, c.near = near,
    c.antialiased = antialiased;
    return c;
}

struct Clock {
    std::map<std::string, double>& seconds;
    std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
    void lap(const char* stage) {
        auto now = std::chrono::steady_clock::now();
        seconds[stage] += std::chrono::duration<double>(now - last).count();
        last = now;
    }
};

struct State {  // a View, and the buffers of a training step
    View view;
    std::map<std::string, double> seconds;
    Buffer<float> rgb, transmittance, gradient, error, scratch;
};

void begin(State& s, const Camera& camera, const Floats& params, const Floats& sh_rest, long count, int degree) {
    if (degree < 0 || degree > 3) throw std::invalid_argument("the SH degree must be 0, 1, 2 or 3");
    if (count < 0 || count > (1l << 30)) throw std::invalid_argument("bad number of gaussians");
    data(params, (size_t)count * ROW, "params");
    data(sh_rest, (size_t)count * SH_ROW, "sh_rest");
    s.view.camera = camera, s.view.count = (int)count, s.view.degree = degree;
}

void forward(State& s, const Camera& camera, Floats params, Floats sh_rest, long count, int degree,
             std::array<float, 3> background, Floats rgb, Floats transmittance, Optional depth, bool median) {
    begin(s, camera, params, sh_rest, count, degree);
    const size_t plane = (size_t)camera.width * camera.height;
    Planes out{data(rgb, 3 * plane, "rgb"), data(transmittance, plane, "transmittance"),
               data_or_null(depth, plane, "depth"), median};
    nb::gil_scoped_release free;
    Clock clock{s.seconds};
    project(s.view, params.data(), sh_rest.data());
    clock.lap("project");
    bin(s.view);
    clock.lap("bin");
    composite(s.view, background.data(), out);
    clock.lap("composite");
}

void backward(State& s, Floats params, Floats sh_rest, Floats rgb, Floats transmittance, Optional depth, Floats g_rgb,
              Optional g_transmittance, Optional g_depth, Floats out_params, Floats out_sh,
              std::optional<Doubles> out_camera) {
    const size_t plane = (size_t)s.view.camera.width * s.view.camera.height, n = s.view.count;
    Planes image{data(rgb, 3 * plane, "rgb"), data(transmittance, plane, "transmittance"),
                 data_or_null(depth, plane, "depth")};
    PlaneGradients gradient{data(g_rgb, 3 * plane, "g_rgb"), data_or_null(g_transmittance, plane, "g_transmittance"),
                            data_or_null(g_depth, plane, "g_depth"), true};
    if (gradient.extra && !image.depth) throw std::invalid_argument("g_depth needs depth");
    data(params, n * ROW, "params"), data(sh_rest, n * SH_ROW, "sh_rest");
    GradientRows out{data(out_params, n * ROW, "out_params"), data(out_sh, n * SH_ROW, "out_sh"),
                     out_camera ? data(*out_camera, 12, "out_camera") : nullptr};
    nb::gil_scoped_release free;
    Clock clock{s.seconds};
    composite_backward(s.view, image, gradient);
    clock.lap("composite_backward");
    project_backward(s.view, params.data(), sh_rest.data(), gradient.extra != nullptr, out);
    clock.lap("project_backward");
}

struct Optimizer {
    Floats m, v, sh_m, sh_v, score;
    std::array<float, ROW> lr{};
    float lr_sh = 0, beta1 = .9f, beta2 = .999f, epsilon = 1e-15f, max_logit = 1e9f;
    Optimizer(Floats m, Floats v, Floats sh_m, Floats sh_v, Floats score)
        : m(std::move(m)), v(std::move(v)), sh_m(std::move(sh_m)), sh_v(std::move(sh_v)), score(std::move(score)) {}
    Adam rows(size_t n) const {
        Adam a{};
        std::copy(lr.begin(), lr.end(), a.lr);
        a.lr_sh = lr_sh, a.beta1 = beta1, a.beta2 = beta2, a.epsilon = epsilon, a.max_logit = max_logit;
        a.m = data(m, n * ROW, "m"), a.v = data(v, n * ROW, "v");
        a.sh_m = data(sh_m, n * SH_ROW, "sh_m"), a.sh_v = data(sh_v, n * SH_ROW, "sh_v");
        a.score = data(score, n * 2, "score");
        return a;
    }
};

struct Photometric {
    float ssim = 0.2f, square = 0;
    std::array<float, 3> gain{1, 1, 1}, bias{};
};

LossInput loss_input(int width, int height, const float* rgb, const Bytes& target, const std::optional<Bytes>& mask,
                     const Photometric& w) {
    const size_t plane = (size_t)width * height;
    LossInput in{
        width,    height, rgb, data(target, 3 * plane, "target"), mask ? data(*mask, plane, "mask") : nullptr, w.ssim,
        w.square, {},     {}};
    std::copy(w.gain.begin(), w.gain.end(), in.gain);
    std::copy(w.bias.begin(), w.bias.end(), in.bias);
    return in;
}

nb::dict loss_dict(const LossOutput& out) {
    nb::dict d;
    d["l1"] = out.l1, d["mse"] = out.mse, d["ssim"] = out.ssim;
    d["gain"] = std::array<double, 3>{out.gain[0], out.gain[1], out.gain[2]};
    d["bias"] = std::array<double, 3>{out.bias[0], out.bias[1], out.bias[2]};
    return d;
}

nb::dict step(State& s, const Camera& camera, Floats params, Floats sh_rest, long count, int degree,
              std::array<float, 3> background, Bytes target, std::optional<Bytes> mask, const Photometric& weights,
              const Optimizer& optimizer) {
    begin(s, camera, params, sh_rest, count, degree);
    const size_t plane = (size_t)camera.width * camera.height;
    Planes image{s.rgb.reserve(3 * plane), s.transmittance.reserve(plane), nullptr};
    LossInput in = loss_input(camera.width, camera.height, image.rgb, target, mask, weights);
    LossOutput out{
        s.gradient.reserve(3 * plane), s.error.reserve(plane), s.scratch.reserve(9 * plane), 0, 0, 0, {}, {}};
    Adam adam = optimizer.rows(count);
    {
        nb::gil_scoped_release free;
        Clock clock{s.seconds};
        project(s.view, params.data(), sh_rest.data());
        clock.lap("project");
        bin(s.view);
        clock.lap("bin");
        composite(s.view, background.data(), image);
        clock.lap("composite");
        photometric_loss(in, out);
        clock.lap("loss");
        composite_backward(s.view, image, PlaneGradients{out.gradient, nullptr, out.error, false});
        clock.lap("composite_backward");
        project_backward_adam(s.view, params.data(), sh_rest.data(), adam);
        clock.lap("project_backward");
    }
    nb::dict d = loss_dict(out);
    d["entries"] = s.view.entry_count(), d["visible"] = s.view.visible;
    return d;
}

nb::dict loss(Floats rgb, Bytes target, std::optional<Bytes> mask, int width, int height, const Photometric& weights,
              Optional gradient, Optional error) {
    const size_t plane = (size_t)width * height;
    LossInput in = loss_input(width, height, data(rgb, 3 * plane, "rgb"), target, mask, weights);
    Buffer<float> scratch;
    LossOutput out{data_or_null(gradient, 3 * plane, "gradient"),
                   data_or_null(error, plane, "error"),
                   scratch.reserve(9 * plane),
                   0,
                   0,
                   0,
                   {},
                   {}};
    {
        nb::gil_scoped_release free;
        photometric_loss(in, out);
    }
    return loss_dict(out);
}

bool cpu_supports(const std::string& level) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (level == "v3")
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (level == "v4")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd");
#endif
    return level == "base";
}

}  // namespace

NB_MODULE(LUMI_MODULE, m) {
    nb::set_leak_warnings(false);  // at exit Python may destroy objects in any order
    m.attr("lanes") = VL;
    m.attr("tile") = TILE;
    m.def("cpu_supports", &cpu_supports);
    m.def("set_threads", [](int n) { Pool::shared().resize(n); });
    m.def("threads", [] { return Pool::shared().threads(); });
    m.def("fma_peak", &fma_peak, nb::arg("seconds") = 0.2, nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Camera>(m, "Camera")
        .def(
            "__init__",
            [](Camera* c, std::array<float, 12> world_to_cam, float fx, float fy, float cx, float cy, int width,
               int height, float near, bool antialiased) {
                new (c) Camera(make_camera(world_to_cam, fx, fy, cx, cy, width, height, near, antialiased));
            },
            nb::arg("world_to_cam"), nb::arg("fx"), nb::arg("fy"), nb::arg("cx"), nb::arg("cy"), nb::arg("width"),
            nb::arg("height"), nb::arg("near") = 0.01f, nb::arg("antialiased") = false)
        .def_ro("width", &Camera::width)
        .def_ro("height", &Camera::height);
    nb::class_<State>(m, "State")
        .def(nb::init<>())
        .def_prop_ro("entries", [](const State& s) { return s.view.entry_count(); })
        .def_prop_ro("lanes", [](const State& s) { return s.view.lanes(); })
        .def_prop_ro("visible", [](const State& s) { return s.view.visible; })
        .def("take_seconds", [](State& s) {
            auto t = s.seconds;
            s.seconds.clear();
            return t;
        });
    nb::class_<Optimizer>(m, "Optimizer")
        .def(nb::init<Floats, Floats, Floats, Floats, Floats>())
        .def_rw("lr", &Optimizer::lr)
        .def_rw("lr_sh", &Optimizer::lr_sh)
        .def_rw("beta1", &Optimizer::beta1)
        .def_rw("beta2", &Optimizer::beta2)
        .def_rw("epsilon", &Optimizer::epsilon)
        .def_rw("max_logit", &Optimizer::max_logit);
    nb::class_<Photometric>(m, "Photometric")
        .def(nb::init<>())
        .def_rw("ssim", &Photometric::ssim)
        .def_rw("square", &Photometric::square)
        .def_rw("gain", &Photometric::gain)
        .def_rw("bias", &Photometric::bias);
    m.def("forward", &forward, nb::arg("state"), nb::arg("camera"), nb::arg("params"), nb::arg("sh_rest"),
          nb::arg("count"), nb::arg("degree"), nb::arg("background"), nb::arg("rgb"), nb::arg("transmittance"),
          nb::arg("depth").none(), nb::arg("median") = false);
    m.def("backward", &backward, nb::arg("state"), nb::arg("params"), nb::arg("sh_rest"), nb::arg("rgb"),
          nb::arg("transmittance"), nb::arg("depth").none(), nb::arg("g_rgb"), nb::arg("g_transmittance").none(),
          nb::arg("g_depth").none(), nb::arg("out_params"), nb::arg("out_sh"), nb::arg("out_camera").none());
    m.def("step", &step, nb::arg("state"), nb::arg("camera"), nb::arg("params"), nb::arg("sh_rest"), nb::arg("count"),
          nb::arg("degree"), nb::arg("background"), nb::arg("target"), nb::arg("mask").none(), nb::arg("weights"),
          nb::arg("optimizer"));
    m.def("loss", &loss, nb::arg("rgb"), nb::arg("target"), nb::arg("mask").none(), nb::arg("width"), nb::arg("height"),
          nb::arg("weights"), nb::arg("gradient").none(), nb::arg("error").none());
    bind_field(m);
    bind_match(m);
    bind_mesh(m);
}
