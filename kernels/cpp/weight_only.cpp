// y = x W^T for a float32 x and an int8 or int4 W; the layout of `tiles` is described in kernels/weight_formats.py.
//
// A lane is a row of W, so no sum ever crosses lanes, and every output is one fixed chain of operations whatever the
// number of rows of x and of threads: the result is deterministic and batch-invariant. Rows of x are taken ROWS at a time,
// so that a code is unpacked once for all of them; to keep unpacked tiles in the cache instead was measured to gain
// nothing with many rows and to lose half the speed with few.
#include <algorithm>
#include <cmath>

#include "blocks.h"
#include "pool.h"
#include "tiles.h"

namespace {

constexpr int64_t SMALL_WORK = 1 << 16;  // bytes of W times rows of x below which a second thread costs more than it saves
constexpr int64_t CHUNK = 1 << 15;       // bytes of W a thread takes at a time
constexpr int64_t AHEAD = 2048;          // codes are asked for so many bytes before they are needed

// --- sixteen rows of W ---

// The scales of a tile.
template <Format F>
struct Header {
    const uint8_t* at;

    MEMBER floats scale(int64_t g, int p) const { return halves(at + g * Layout<F>::scale_bytes + 2 * WIDTH * p); }

    // What a code of zero stands for in an affine group, once codes are taken about 8: sums about the middle of the
    // range cancel less than sums above its minimum.
    MEMBER floats middle(int64_t g, int p) const {
        return fused(scale(g, p), all(8.0f), halves(at + g * Layout<F>::scale_bytes + 32 + 2 * WIDTH * p));
    }

    MEMBER floats of_row(int p) const { return load<floats>(at + 4 * WIDTH * p); }
};

// A tile, unpacked in registers as it is met. `p`: which of the PARTS of its sixteen rows.
template <Format F>
struct Tile {
    using L = Layout<F>;
    Header<F> header;
    const uint8_t* codes;

    Tile(const uint8_t* tile, int64_t groups) : header{tile}, codes(tile + L::header(groups)) {
        for (int64_t at = 0; at < L::header(groups); at += 64) __builtin_prefetch(tile + AHEAD + at);
    }

    MEMBER void fetch(int64_t g) const {
        for (int w = 0; w < L::stored; w++) __builtin_prefetch(codes + (g * L::stored + w) * 64 + AHEAD);
    }

    MEMBER words word(int64_t g, int w, int p) const {
        return load<words>(codes + (g * L::stored + w) * 64 + 4 * WIDTH * p);
    }

    // The codes of column k of group g.
    MEMBER floats column(int64_t g, int k, int p) const {
        const words bits = word(g, k / L::in_word, p) >> (32 / L::in_word * (k % L::in_word));
        if constexpr (L::four_bits) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
            const floats table = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
            return (floats)_mm512_permutexvar_ps((__m512i)bits, (__m512)table);
#else
            return floats_of((ints)(bits & 15)) - 8.0f;
#endif
        } else {
            // 2^23 + u has u in its lowest bits: one logical operation and one subtraction give u - 128
            return (floats)((bits & 255) | 0x4B000000) - (0x1p23f + 128);
        }
    }

    // Cell c of group g for integer products: codes + `bias`, in the order that `cells_of` gives those of x.
    MEMBER ints cell(int64_t g, int c, int p) const {
        const int w = c * L::depth / 4;
        ints four;
        if constexpr (L::four_bits)
            four = (ints)((word(g, w / 2, p) >> (w % 2 * 4)) & 0x0f0f0f0f);
        else
            four = (ints)(word(g, w, p) ^ (L::depth == 4 ? 0 : 0x80808080));
        return L::depth == 4 ? four : c % 2 ? odd_bytes(four) : even_bytes(four);
    }
};

// --- rows of x ---

// What is made of x before W is read. Rows are taken in blocks of `block_rows`, and within a block of MB rows, which
// starts at row m, the numbers of all its rows for one place lie side by side: x is [K, MB], the others [G, MB].
struct Activations {
    float* x;          // exact mode
    int32_t* codes;    // [G * cells, MB], fast mode
    int32_t* offsets;  // what the bias of the stored codes adds to the integer sum, negated; fast mode
    float* scales;     // fast mode
    float* sums;       // sum of x (exact, affine) or of codes times their scale (fast, affine)
};

// The int8 codes of one group of x, and its scale max |x| / 127. A value that is not finite makes the scale, and so the
// output, NaN.
float quantize_group(const float* x, int8_t* codes) {
    int32_t peak = 0, whole[GROUP];
    for (int i = 0; i < GROUP; i++) {
        int32_t bits;
        std::memcpy(&bits, x + i, 4);
        peak = std::max(peak, bits & 0x7fffffff);  // floats without their sign have the order of integers
    }
    float step;
    std::memcpy(&step, &peak, 4);
    step = peak >= 0x7f800000 ? NAN : step / 127.0f;
    if (!(step > 0)) {
        std::memset(codes, 0, GROUP);
        return step;
    }
    for (int i = 0; i < GROUP; i++) {
        const float q = x[i] / step;
        const int32_t cut = (int32_t)q;
        const float rest = q - (float)cut;
        whole[i] = cut + (rest >= 0.5f) - (rest <= -0.5f);  // halves away from zero
    }
    for (int i = 0; i < GROUP; i++) codes[i] = (int8_t)std::max(-127, std::min(127, whole[i]));
    return step;
}

// Codes of one group in the order in which those of W fall out of their words, to every `step`-th place of `to`.
template <Format F>
void cells_of(const int8_t* codes, int32_t* to, int64_t step) {
    int8_t apart[GROUP];
    for (int w = 0; w < 8; w++)
        for (int i = 0; i < 4; i++)  // of four bits: even columns, then odd ones, of each eight
            apart[4 * w + i] = codes[Layout<F>::four_bits ? w / 2 * 8 + w % 2 + 2 * i : 4 * w + i];
    for (int w = 0; w < 8; w++) {
        const int8_t* four = apart + 4 * w;
        if constexpr (Layout<F>::depth == 4) {
            std::memcpy(to + w * step, four, 4);
        } else {
            to[2 * w * step] = (int32_t)((uint32_t)four[2] << 16 | (uint16_t)four[0]);
            to[(2 * w + 1) * step] = (int32_t)((uint32_t)four[3] << 16 | (uint16_t)four[1]);
        }
    }
}

// The sum of one group of x in a fixed order.
float sum_group(const float* x) {
    float out[LANES];
    for (int i = 0; i < LANES; i++) out[i] = x[i] + x[i + LANES];
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) out[i] += out[i + width];
    return out[0];
}

template <Format F, bool FAST>
void prepare_group(const float* x, Activations& in, int64_t m, int MB, int i, int64_t g, int64_t groups) {
    const int64_t cell = m * groups + g * MB + i;
    if constexpr (FAST) {
        int8_t codes[GROUP];
        const float step = quantize_group(x, codes);
        int32_t total = 0;
        for (int c = 0; c < GROUP; c++) total += codes[c];
        cells_of<F>(codes, in.codes + (m * groups + g * MB) * Layout<F>::cells + i, MB);
        in.offsets[cell] = -Layout<F>::bias * total;
        in.scales[cell] = step;
        in.sums[cell] = step * (float)total;
    } else {
        float* to = in.x + (m * groups + g * MB) * GROUP + i;
        for (int k = 0; k < GROUP; k++) to[k * MB] = x[k];
        if (Layout<F>::affine) in.sums[cell] = sum_group(x);
    }
}

// Rows `from` .. `to` - 1, which begin and end with a block.
template <Format F, bool FAST>
void prepare(const float* x, int64_t stride, int64_t K, int64_t groups, Activations& in, int64_t from, int64_t to) {
    for (int64_t m = from, MB; m < to; m += MB) {
        MB = block_rows(to - m);
        for (int64_t i = 0; i < MB; i++)
            for (int64_t g = 0; g < groups; g++) {
                const float* group = x + (m + i) * stride + g * GROUP;
                float ragged[GROUP] = {};
                if ((g + 1) * GROUP > K) {
                    std::memcpy(ragged, group, (size_t)(K - g * GROUP) * sizeof(float));
                    group = ragged;
                }
                prepare_group<F, FAST>(group, in, m, (int)MB, (int)i, g, groups);
            }
    }
}

// --- products ---

// Rows m .. m + MB - 1 of y for one tile, float32 activations: one chain of sums in each group, one across groups.
template <Format F, int MB>
INLINE void exact_block(const Tile<F>& tile, const Activations& in, float* y, int64_t y_stride, int64_t m, int64_t groups,
                        int64_t rows) {
    using L = Layout<F>;
    floats total[MB][PARTS] = {};
    const float* x = in.x + m * groups * GROUP;
    for (int64_t g = 0; g < groups; g++, x += GROUP * MB) {
        tile.fetch(g);
        floats sum[MB][PARTS] = {};
#pragma GCC unroll 32
        for (int k = 0; k < GROUP; k++) {
            floats weight[PARTS];
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) weight[p] = tile.column(g, k, p);
#pragma GCC unroll 8
            for (int i = 0; i < MB; i++)
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++) sum[i][p] = fused(weight[p], all(x[k * MB + i]), sum[i][p]);
        }
        for (int p = 0; p < PARTS; p++) {
            const floats scale = L::grouped ? tile.header.scale(g, p) : all(1.0f);
            for (int i = 0; i < MB; i++) {
                total[i][p] = L::grouped ? fused(sum[i][p], scale, total[i][p]) : total[i][p] + sum[i][p];
                if constexpr (L::affine)
                    total[i][p] = fused(tile.header.middle(g, p), all(in.sums[m * groups + g * MB + i]), total[i][p]);
            }
        }
    }
    for (int i = 0; i < MB; i++) {
        for (int p = 0; p < PARTS; p++)
            if constexpr (!L::grouped) total[i][p] *= tile.header.of_row(p);
        write_lanes(y + (m + i) * y_stride, total[i], rows);
    }
}

// The same with int8 activations: integer sums within a group, one float32 chain across groups.
template <Format F, int MB>
INLINE void fast_block(const Tile<F>& tile, const Activations& in, float* y, int64_t y_stride, int64_t m, int64_t groups,
                       int64_t rows) {
    using L = Layout<F>;
    using Sum = std::conditional_t<L::narrow, shorts, ints>;
    floats total[MB][PARTS] = {};
    const int32_t* x = in.codes + m * groups * L::cells;
    for (int64_t g = 0; g < groups; g++, x += L::cells * MB) {
        const int64_t first = m * groups + g * MB;
        tile.fetch(g);
        Sum sum[MB][PARTS];
        for (int i = 0; i < MB; i++)
            for (int p = 0; p < PARTS; p++) sum[i][p] = L::narrow ? Sum{} : (Sum)all(in.offsets[first + i]);
#pragma GCC unroll 16
        for (int c = 0; c < L::cells; c++) {
            ints weight[PARTS];
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) weight[p] = tile.cell(g, c, p);
#pragma GCC unroll 8
            for (int i = 0; i < MB; i++)
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++) {
                    const ints codes = all(x[c * MB + i]);
                    if constexpr (L::narrow)
                        sum[i][p] = add_narrow(sum[i][p], weight[p], codes);
                    else
                        sum[i][p] = add_products(sum[i][p], weight[p], codes);
                }
        }
        for (int p = 0; p < PARTS; p++) {
            const floats scale = L::grouped ? tile.header.scale(g, p) : all(1.0f);
            for (int i = 0; i < MB; i++) {
                const floats step = all(in.scales[first + i]);
                const ints whole = L::narrow ? widened((shorts)sum[i][p]) + in.offsets[first + i] : (ints)sum[i][p];
                total[i][p] = fused(floats_of(whole), L::grouped ? scale * step : step, total[i][p]);
                if constexpr (L::affine)
                    total[i][p] = fused(tile.header.middle(g, p), all(in.sums[first + i]), total[i][p]);
            }
        }
    }
    for (int i = 0; i < MB; i++) {
        for (int p = 0; p < PARTS; p++)
            if constexpr (!L::grouped) total[i][p] *= tile.header.of_row(p);
        write_lanes(y + (m + i) * y_stride, total[i], rows);
    }
}

template <Format F, bool FAST>
void tile_rows(const Tile<F>& tile, const Activations& in, float* y, int64_t y_stride, int64_t M, int64_t groups,
               int64_t rows) {
    const auto block = [&](auto size, int64_t m) {
        if constexpr (FAST)
            fast_block<F, decltype(size)::value>(tile, in, y, y_stride, m, groups, rows);
        else
            exact_block<F, decltype(size)::value>(tile, in, y, y_stride, m, groups, rows);
    };
    each_block(M, block);
}

template <Format F, bool FAST>
void linear(const uint8_t* tiles, const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t M, int64_t N,
            int64_t K, int threads) {
    static thread_local Scratch scratch;
    const int64_t groups = (K + GROUP - 1) / GROUP, count = (N + LANES - 1) / LANES;
    const int64_t bytes = Layout<F>::tile(groups), cells = M * groups;
    if (M * count * bytes <= SMALL_WORK) threads = 1;
    char* at = scratch.at_least((size_t)(cells * (GROUP * 4 + 12) + 64));
    const auto part = [&](int64_t a_group) { return at += a_group * cells, at - a_group * cells; };
    Activations in;
    in.x = (float*)part(FAST ? Layout<F>::cells * 4 : GROUP * 4);
    in.codes = (int32_t*)in.x;
    in.offsets = (int32_t*)part(4), in.scales = (float*)part(4), in.sums = (float*)part(4);
    if (M == 1 && K % GROUP == 0 && !FAST && !Layout<F>::affine) {
        in.x = (float*)x;
    } else {
        constexpr int64_t whole = 2 * ROWS;  // rows of x a thread takes at a time
        Pool::run(M < 2 * whole ? 1 : threads, (M + whole - 1) / whole, [&](int64_t c) {
            prepare<F, FAST>(x, x_stride, K, groups, in, c * whole, std::min(M, (c + 1) * whole));
        });
    }
    const int64_t chunk = std::max<int64_t>(1, std::min(CHUNK / std::max<int64_t>(1, bytes), count / (2 * threads)));
    Pool::run(threads, (count + chunk - 1) / chunk, [&](int64_t c) {
        for (int64_t t = c * chunk; t < std::min(count, (c + 1) * chunk); t++)
            tile_rows<F, FAST>(Tile<F>(tiles + t * bytes, groups), in, y + t * LANES, y_stride, M, groups, N - t * LANES);
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
