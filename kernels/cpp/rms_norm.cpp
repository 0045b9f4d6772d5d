// h = x + r, y = h / sqrt(mean(h^2) + eps) * w, a row at a time; what it computes is described in kernels/rms_norm.py.
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "pool.h"

namespace {

constexpr int64_t SMALL = 1 << 15;  // elements below which a second thread costs more than it saves

// Lanes from `at` on, zero beyond N.
INLINE f32x16 part(const float* x, int64_t at, int64_t N) {
    if (at + LANES <= N) return load<f32x16>(x + at);
    f32x16 v = {};
    std::memcpy(&v, x + at, (size_t)(N - at) * sizeof(float));
    return v;
}

INLINE void put(float* y, int64_t at, int64_t N, f32x16 v) {
    std::memcpy(y + at, &v, (size_t)std::min<int64_t>(LANES, N - at) * sizeof(float));
}

void row(const float* x, const float* r, float* h, const float* w, float* y, int64_t N, float eps) {
    f32x16 sum[4] = {};
    int64_t at = 0;
    for (int lane = 0; at < N; at += LANES, lane = (lane + 1) & 3) {
        f32x16 v = part(x, at, N);
        if (r) {
            v += part(r, at, N);
            put(h, at, N, v);
        }
        sum[lane] = multiply_add(v, v, sum[lane]);
    }
    float out[LANES];
    store(out, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) out[i] += out[i + width];
    const f32x16 inverse = splat(1.0f / std::sqrt(out[0] / (float)N + eps));
    const float* from = r ? h : x;
    for (at = 0; at < N; at += LANES) {
        f32x16 v = part(from, at, N) * inverse;
        if (w) v *= part(w, at, N);
        put(y, at, N, v);
    }
}

}  // namespace

// x, r, h and y are [M, N] with unit column stride; r and h are null without a residual, w where all weights are one.
// y may be x, h may be r.
extern "C" void rms_norm(const float* x, int64_t x_stride, const float* r, int64_t r_stride, float* h, int64_t h_stride,
                         const float* w, float* y, int64_t y_stride, int64_t M, int64_t N, float eps, int threads) {
    const int64_t each = std::max<int64_t>(1, SMALL / 2 / std::max<int64_t>(1, N));
    Pool::run(M * N <= SMALL ? 1 : threads, (M + each - 1) / each, [&](int64_t c) {
        for (int64_t m = c * each; m < std::min(M, (c + 1) * each); m++)
            row(x + m * x_stride, r ? r + m * r_stride : nullptr, r ? h + m * h_stride : nullptr, w, y + m * y_stride, N,
                eps);
    });
}
