// y = x W^T for a float32 x and an int8 or int4 W; the layout of `tiles` is described in kernels/weight_only.py.
//
// A lane is a row of W, so no sum ever crosses lanes, and every output is one fixed chain of operations whatever the
// number of rows of x and of threads: the result is deterministic and batch-invariant.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "pool.h"
#include "vectors.h"

namespace {

constexpr int64_t GROUP = 32;           // columns that share a scale, of W where it has groups, of x in fast mode
constexpr int64_t SMALL_WORK = 1 << 16;  // bytes of W times rows of x below which a second thread costs more than it saves
constexpr int64_t CHUNK = 1 << 15;      // bytes of W a thread takes at a time

enum Format { INT8_CHANNEL = 0, INT8_GROUP = 1, INT4_GROUP = 2, INT4_AFFINE = 3 };

template <Format F>
struct Layout {
    static constexpr bool four_bits = F == INT4_GROUP || F == INT4_AFFINE;
    static constexpr bool grouped = F != INT8_CHANNEL;
    static constexpr bool affine = F == INT4_AFFINE;
    static constexpr int words = four_bits ? 4 : 8;             // 32-bit words a row and group
    static constexpr int64_t scale_bytes = affine ? 64 : 32;    // of one group: 16 halves, and 16 minima
    static int64_t header(int64_t groups) {
        return grouped ? (groups * scale_bytes + 63) / 64 * 64 : LANES * (int64_t)sizeof(float);
    }
    static int64_t tile(int64_t groups) { return header(groups) + groups * words * 64; }
};

// What is made of x before W is read: rows padded with zeros to whole groups, and in fast mode their codes.
struct Activations {
    const float* x;          // [M, stride], exact mode
    int64_t stride;
    const float* sums;       // [M, G]: sum of x (exact, affine) or of codes times their scale (fast, affine)
    const int32_t* codes;    // [M, G * 8] words of four int8, fast mode
    const int32_t* offsets;  // [M, G]: what the bias of the stored codes adds to the integer sum, negated
    const float* scales;     // [M, G], fast mode
};

struct Scratch {
    std::unique_ptr<char, decltype(&std::free)> bytes{nullptr, &std::free};
    size_t size = 0;
    char* at_least(size_t need) {
        if (need > size) {
            size = (need * 5 / 4 + 4095) / 4096 * 4096;
            bytes.reset((char*)std::aligned_alloc(64, size));
        }
        return bytes.get();
    }
};

float round_half_away(float v) {
    float whole = std::trunc(v);
    return std::fabs(v - whole) >= 0.5f ? whole + std::copysign(1.0f, v) : whole;
}

// Codes of one group of x: scale = max |x| / 127. A value that is not finite makes the scale, and so the output, NaN.
template <Format F>
void quantize_group(const float* x, int32_t* words, int32_t* offset, float* scale, float* sum) {
    f32x16 a = load<f32x16>(x), b = load<f32x16>(x + LANES), poison = a * 0.0f + b * 0.0f;
    float peak = 0, bad = 0;
    for (int i = 0; i < LANES; i++) {
        peak = std::max(peak, std::max(std::fabs(a[i]), std::fabs(b[i])));
        bad += poison[i];
    }
    const float step = bad == 0 ? peak / 127.0f : NAN;
    int8_t codes[GROUP];
    int32_t total = 0;
    for (int i = 0; i < GROUP; i++) {
        float q = step > 0 ? round_half_away(x[i] / step) : 0.0f;
        codes[i] = (int8_t)std::max(-127.0f, std::min(127.0f, q));
        total += codes[i];
    }
    if (Layout<F>::four_bits) {  // even columns, then odd ones, of each eight: as the nibbles of a word fall apart
        int8_t apart[GROUP];
        for (int w = 0; w < 4; w++)
            for (int i = 0; i < 4; i++) {
                apart[8 * w + i] = codes[8 * w + 2 * i];
                apart[8 * w + 4 + i] = codes[8 * w + 2 * i + 1];
            }
        std::memcpy(words, apart, GROUP);
    } else {
        std::memcpy(words, codes, GROUP);
    }
    *offset = (Layout<F>::four_bits ? -8 : -128) * total;
    *scale = step;
    *sum = step * (float)total;
}

// The sum of one group of x in a fixed order.
float sum_group(const float* x) {
    f32x16 v = load<f32x16>(x) + load<f32x16>(x + LANES);
    float out[LANES];
    store(out, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) out[i] += out[i + width];
    return out[0];
}

// Column `n` of the eight (four) in a word of codes, as floats: code + 8 (code + 128) is what is stored.
template <Format F>
INLINE f32x16 decode(u32x16 word, int n) {
    if constexpr (Layout<F>::four_bits) {
#if defined(__AVX512F__)
        const f32x16 table = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
        return (f32x16)_mm512_permutexvar_ps((__m512i)(word >> (4 * n)), (__m512)table);
#else
        return to_float((i32x16)((word >> (4 * n)) & 15)) - 8.0f;
#endif
    } else {
#if defined(__AVX512F__)
        // 2^23 + u has u in its lowest bits: one logical operation and one subtraction give u - 128
        const __m512i magic = _mm512_set1_epi32(0x4B000000), mask = _mm512_set1_epi32(255);
        __m512i bits = _mm512_ternarylogic_epi32((__m512i)(word >> (8 * n)), mask, magic, 0xEA);
        return (f32x16)bits - (0x1p23f + 128);
#else
        return to_float((i32x16)((word >> (8 * n)) & 255)) - 128.0f;
#endif
    }
}

// The loops below ask for codes AHEAD bytes before they need them, which leaves out as many bytes as a header has.
constexpr int64_t AHEAD = 2048;

INLINE void fetch_header(const uint8_t* tile, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(tile + AHEAD + at);
}

// What a code of zero stands for in an affine group, once codes are taken about 8: sums about the middle of the range
// cancel less than sums above its minimum.
INLINE f32x16 middle(const uint8_t* header) {
    return multiply_add(load_halves(header), splat(8.0f), load_halves(header + 32));
}

INLINE void write(float* to, f32x16 v, int64_t rows) {
    if (rows >= LANES)
        store(to, v);
    else
        std::memcpy(to, &v, (size_t)rows * sizeof(float));
}

// Rows m .. m + MB - 1 of y for one tile, float32 activations.
template <Format F, int MB>
INLINE void exact_tile(const uint8_t* tile, const Activations& in, float* y, int64_t y_stride, int64_t m, int64_t groups,
                       int64_t rows) {
    using L = Layout<F>;
    constexpr int in_word = L::four_bits ? 8 : 4;
    const uint8_t* codes = tile + L::header(groups);
    fetch_header(tile, L::header(groups));
    f32x16 total[MB] = {};
    for (int64_t g = 0; g < groups; g++) {
        f32x16 sum[MB][4] = {};
        for (int w = 0; w < L::words; w++, codes += 64) {
            __builtin_prefetch(codes + AHEAD);
            const u32x16 word = load<u32x16>(codes);
#pragma GCC unroll 8
            for (int n = 0; n < in_word; n++) {
                const f32x16 weight = decode<F>(word, n);
#pragma GCC unroll 4
                for (int i = 0; i < MB; i++) {
                    const float* x = in.x + (m + i) * in.stride + g * GROUP + w * in_word;
                    sum[i][n & 3] = multiply_add(weight, splat(x[n]), sum[i][n & 3]);
                }
            }
        }
        for (int i = 0; i < MB; i++) {
            const f32x16 part = (sum[i][0] + sum[i][1]) + (sum[i][2] + sum[i][3]);
            if constexpr (L::grouped)
                total[i] = multiply_add(part, load_halves(tile + g * L::scale_bytes), total[i]);
            else
                total[i] += part;
            if constexpr (L::affine)
                total[i] = multiply_add(middle(tile + g * L::scale_bytes),
                                        splat(in.sums[(m + i) * groups + g]), total[i]);
        }
    }
    for (int i = 0; i < MB; i++) {
        if constexpr (!L::grouped) total[i] *= load<f32x16>(tile);
        write(y + (m + i) * y_stride, total[i], rows);
    }
}

// The same with int8 activations: integer sums within a group, one float32 chain across groups.
template <Format F, int MB>
INLINE void fast_tile(const uint8_t* tile, const Activations& in, float* y, int64_t y_stride, int64_t m, int64_t groups,
                      int64_t rows) {
    using L = Layout<F>;
    const uint8_t* codes = tile + L::header(groups);
    fetch_header(tile, L::header(groups));
    f32x16 total[MB] = {};
    for (int64_t g = 0; g < groups; g++) {
        i32x16 sum[MB][2];
        for (int i = 0; i < MB; i++) {
            sum[i][0] = splat(in.offsets[(m + i) * groups + g]);
            sum[i][1] = i32x16{};
        }
        for (int w = 0; w < L::words; w++, codes += 64) {
            __builtin_prefetch(codes + AHEAD);
            const u32x16 word = load<u32x16>(codes);
#pragma GCC unroll 4
            for (int i = 0; i < MB; i++) {
                const int32_t* x = in.codes + ((m + i) * groups + g) * 8;
                if constexpr (L::four_bits) {
                    sum[i][0] = dot4(sum[i][0], word & 0x0f0f0f0f, splat(x[2 * w]));
                    sum[i][1] = dot4(sum[i][1], (word >> 4) & 0x0f0f0f0f, splat(x[2 * w + 1]));
                } else {
                    sum[i][w & 1] = dot4(sum[i][w & 1], word, splat(x[w]));
                }
            }
        }
        for (int i = 0; i < MB; i++) {
            const f32x16 part = to_float(sum[i][0] + sum[i][1]);
            f32x16 scale = splat(in.scales[(m + i) * groups + g]);
            if constexpr (L::grouped) scale *= load_halves(tile + g * L::scale_bytes);
            total[i] = multiply_add(part, scale, total[i]);
            if constexpr (L::affine)
                total[i] = multiply_add(middle(tile + g * L::scale_bytes),
                                        splat(in.sums[(m + i) * groups + g]), total[i]);
        }
    }
    for (int i = 0; i < MB; i++) {
        if constexpr (!L::grouped) total[i] *= load<f32x16>(tile);
        write(y + (m + i) * y_stride, total[i], rows);
    }
}

template <Format F, bool FAST>
void tile_rows(const uint8_t* tile, const Activations& in, float* y, int64_t y_stride, int64_t M, int64_t groups,
               int64_t rows) {
    int64_t m = 0;
    for (; m + 4 <= M; m += 4) {
        if constexpr (FAST)
            fast_tile<F, 4>(tile, in, y, y_stride, m, groups, rows);
        else
            exact_tile<F, 4>(tile, in, y, y_stride, m, groups, rows);
    }
    for (; m < M; m++) {
        if constexpr (FAST)
            fast_tile<F, 1>(tile, in, y, y_stride, m, groups, rows);
        else
            exact_tile<F, 1>(tile, in, y, y_stride, m, groups, rows);
    }
}

template <Format F, bool FAST>
struct Prepared : Activations {
    float* padded = nullptr;
    float* group_sums;
    int32_t *words, *bias;
    float* steps;

    Prepared(Scratch& scratch, const float* from, int64_t from_stride, int64_t M, int64_t K, int64_t groups) {
        const bool copy = !FAST && K % GROUP != 0;
        const size_t cells = (size_t)(M * groups);
        char* at = scratch.at_least(cells * (GROUP * 4 + 16) + 64);
        if (copy) padded = (float*)at;
        words = (int32_t*)at;
        at += cells * GROUP * 4;
        group_sums = (float*)at;
        bias = (int32_t*)(at + cells * 4);
        steps = (float*)(at + cells * 8);
        x = copy ? padded : from;
        stride = copy ? groups * GROUP : from_stride;
        sums = group_sums, codes = words, offsets = bias, scales = steps;
    }

    void row(int64_t m, const float* from, int64_t K, int64_t groups) {
        for (int64_t g = 0; g < groups; g++) {
            float ragged[GROUP] = {};
            const float* group = from + g * GROUP;
            if ((g + 1) * GROUP > K) {
                std::memcpy(ragged, group, (size_t)(K - g * GROUP) * sizeof(float));
                group = ragged;
            }
            const int64_t cell = m * groups + g;
            if constexpr (FAST) {
                quantize_group<F>(group, words + cell * 8, bias + cell, steps + cell, group_sums + cell);
            } else {
                if (padded) std::memcpy(padded + cell * GROUP, group, sizeof ragged);
                if (Layout<F>::affine) group_sums[cell] = sum_group(group);
            }
        }
    }
};

template <Format F, bool FAST>
void linear(const uint8_t* tiles, const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t M, int64_t N,
            int64_t K, int threads) {
    static thread_local Scratch scratch;
    const int64_t groups = (K + GROUP - 1) / GROUP, count = (N + LANES - 1) / LANES;
    const int64_t bytes = Layout<F>::tile(groups);
    Prepared<F, FAST> in(scratch, x, x_stride, M, K, groups);
    if (M * count * bytes <= SMALL_WORK) threads = 1;
    if (FAST || in.padded || Layout<F>::affine) {
        Pool::run(M < 8 ? 1 : threads, M, [&](int64_t m) { in.row(m, x + m * x_stride, K, groups); });
    }
    const int64_t chunk = std::max<int64_t>(1, std::min(CHUNK / std::max<int64_t>(1, bytes), count / (2 * threads)));
    Pool::run(threads, (count + chunk - 1) / chunk, [&](int64_t c) {
        for (int64_t t = c * chunk; t < std::min(count, (c + 1) * chunk); t++)
            tile_rows<F, FAST>(tiles + t * bytes, in, y + t * LANES, y_stride, M, groups, N - t * LANES);
    });
}

template <Format F>
void either(bool fast, const uint8_t* tiles, const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t M,
            int64_t N, int64_t K, int threads) {
    if (fast)
        linear<F, true>(tiles, x, x_stride, y, y_stride, M, N, K, threads);
    else
        linear<F, false>(tiles, x, x_stride, y, y_stride, M, N, K, threads);
}

}  // namespace

// x [M, K] and y [M, N] with unit column stride; `kind` is 2 * format + fast.
extern "C" void weight_only_linear(const uint8_t* tiles, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                                   int64_t M, int64_t N, int64_t K, int kind, int threads) {
    const bool fast = kind & 1;
    switch (kind >> 1) {
        case INT8_CHANNEL: return either<INT8_CHANNEL>(fast, tiles, x, x_stride, y, y_stride, M, N, K, threads);
        case INT8_GROUP: return either<INT8_GROUP>(fast, tiles, x, x_stride, y, y_stride, M, N, K, threads);
        case INT4_GROUP: return either<INT4_GROUP>(fast, tiles, x, x_stride, y, y_stride, M, N, K, threads);
        case INT4_AFFINE: return either<INT4_AFFINE>(fast, tiles, x, x_stride, y, y_stride, M, N, K, threads);
    }
}
