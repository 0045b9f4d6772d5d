// y = (A B^T) a b for int8 A [M, K] and B [N, K] and the float32 scales of their rows; see kernels/int8_gemm.py.
//
// Sixteen rows of B are laid out so that a lane is a row, and meet the rows of A, which were laid out once, in blocks:
// products of four bytes a lane where the processor has them, of two 16-bit numbers else. Sums are exact, so neither
// blocks nor threads have any influence on the result.
#include <algorithm>

#include "blocks.h"
#include "pool.h"

namespace {

constexpr int64_t SMALL_WORK = 1 << 18;  // products below which a second thread costs more than it saves
constexpr int64_t SPAN = 256;            // rows of A that meet a tile of B where B has few tiles

struct Matrix {
    const int8_t* codes;
    int64_t stride;
    const float* scales;
    int64_t rows;
};

// What is made of A, in blocks of rows as `each_block` takes them: within a block of MB rows that starts at row m,
// `cells` is [C, MB], DEPTH codes of a row each, C = ceil(K / DEPTH).
struct Left {
    int32_t* cells;
    int32_t* offsets;  // [M]: what the bias of B's codes adds to the sum, negated
    const float* scales;
};

// DEPTH codes of a row from column `k` on, of which `left` exist.
INLINE int32_t cell(const int8_t* row, int64_t k, int64_t left, uint32_t flip) {
    int8_t codes[DEPTH] = {};
    if (left >= DEPTH)
        std::memcpy(codes, row + k, DEPTH);
    else
        std::memcpy(codes, row + k, (size_t)left);
    if constexpr (DEPTH == 4) {
        uint32_t word;
        std::memcpy(&word, codes, 4);
        return (int32_t)(word ^ flip);
    } else {
        return (int32_t)((uint32_t)codes[1] << 16 | (uint16_t)codes[0]);
    }
}

void lay_left(const Matrix& a, int64_t K, int64_t cells, Left& to, int64_t from, int64_t until) {
    for (int64_t m = from, MB; m < until; m += MB) {
        MB = block_rows(until - m);
        for (int64_t i = 0; i < MB; i++) {
            const int8_t* row = a.codes + (m + i) * a.stride;
            int32_t* out = to.cells + m * cells + i;
            for (int64_t c = 0; c < cells; c++) out[c * MB] = cell(row, c * DEPTH, K - c * DEPTH, 0);
            uint32_t sum = 0;
            for (int64_t k = 0; k < K; k++) sum += (uint32_t)row[k];
            to.offsets[m + i] = DEPTH == 4 ? (int32_t)(0u - 128u * sum) : 0;
        }
    }
}

#if defined(__SSE4_1__)
// Four cells of four rows, from column `k` on: out[c] holds cell c of each row.
INLINE void turn(const int8_t* const* rows, int64_t k, __m128i* out) {
    __m128i row[4];
    for (int i = 0; i < 4; i++) {
        if constexpr (DEPTH == 4)
            row[i] = _mm_xor_si128(load<__m128i>(rows[i] + k), _mm_set1_epi8((char)0x80));
        else
            row[i] = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i*)(rows[i] + k)));
    }
    const __m128i a = _mm_unpacklo_epi32(row[0], row[1]), b = _mm_unpacklo_epi32(row[2], row[3]);
    const __m128i c = _mm_unpackhi_epi32(row[0], row[1]), d = _mm_unpackhi_epi32(row[2], row[3]);
    out[0] = _mm_unpacklo_epi64(a, b), out[1] = _mm_unpackhi_epi64(a, b);
    out[2] = _mm_unpacklo_epi64(c, d), out[3] = _mm_unpackhi_epi64(c, d);
}
#endif

// Sixteen rows of B as [C, 16] cells, codes + 128 where products take unsigned bytes. Rows that do not exist repeat the
// last one.
void lay_tile(const Matrix& b, int64_t first, int64_t K, int64_t cells, int32_t* to) {
    const int8_t* rows[LANES];
    for (int64_t i = 0; i < LANES; i++) rows[i] = b.codes + std::min(first + i, b.rows - 1) * b.stride;
    int64_t c = 0;
#if defined(__SSE4_1__)
    for (; (c + 4) * DEPTH <= K; c += 4)
        for (int quarter = 0; quarter < 4; quarter++) {
            __m128i turned[4];
            turn(rows + 4 * quarter, c * DEPTH, turned);
            for (int i = 0; i < 4; i++) store(to + (c + i) * LANES + 4 * quarter, turned[i]);
        }
#endif
    for (; c < cells; c++)
        for (int i = 0; i < LANES; i++) to[c * LANES + i] = cell(rows[i], c * DEPTH, K - c * DEPTH, 0x80808080);
}

template <int MB>
INLINE void block(const int32_t* tile, const float* scales, const Left& left, int64_t m, int64_t cells, float* y,
                  int64_t y_stride, int64_t rows) {
    ints sum[MB][PARTS];
    for (int i = 0; i < MB; i++)
        for (int p = 0; p < PARTS; p++) sum[i][p] = all(left.offsets[m + i]);
    const int32_t* a = left.cells + m * cells;
    for (int64_t c = 0; c < cells; c++, a += MB) {
        ints b[PARTS];
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; p++) b[p] = load<ints>(tile + c * LANES + p * WIDTH);
#pragma GCC unroll 8
        for (int i = 0; i < MB; i++)
#pragma GCC unroll 4
            for (int p = 0; p < PARTS; p++) sum[i][p] = add_products(sum[i][p], b[p], all(a[i]));
    }
    for (int i = 0; i < MB; i++) {
        floats out[PARTS];
        for (int p = 0; p < PARTS; p++)
            out[p] = floats_of(sum[i][p]) * (all(left.scales[m + i]) * load<floats>(scales + p * WIDTH));
        write_lanes(y + (m + i) * y_stride, out, rows);
    }
}

}  // namespace

// y [M, N] and both matrices with unit column stride.
extern "C" void int8_gemm(const int8_t* a, int64_t a_stride, const float* a_scales, const int8_t* b, int64_t b_stride,
                          const float* b_scales, float* y, int64_t y_stride, int64_t M, int64_t N, int64_t K,
                          int threads) {
    static thread_local Scratch scratch;
    const int64_t cells = (K + DEPTH - 1) / DEPTH, tiles = (N + LANES - 1) / LANES;
    if (M * N * K <= SMALL_WORK) threads = 1;
    const Matrix left_matrix{a, a_stride, a_scales, M}, right{b, b_stride, b_scales, N};
    char* memory = scratch.at_least((size_t)(M * (cells + 1) * 4));
    Left left{(int32_t*)memory, (int32_t*)memory + M * cells, a_scales};
    constexpr int64_t whole = 2 * ROWS;  // rows of A a thread lays out at a time
    Pool::run(M < 2 * whole ? 1 : threads, (M + whole - 1) / whole, [&](int64_t c) {
        lay_left(left_matrix, K, cells, left, c * whole, std::min(M, (c + 1) * whole));
    });
    const int64_t span = tiles < 2 * threads ? SPAN : (M + ROWS - 1) / ROWS * ROWS, spans = (M + span - 1) / span;
    Pool::run(threads, tiles * spans, [&](int64_t job) {
        static thread_local Scratch of_tile;
        const int64_t first = job / spans * LANES, from = job % spans * span, rows = std::min(LANES + 0L, N - first);
        int32_t* tile = (int32_t*)of_tile.at_least((size_t)(cells * LANES * 4));
        float scales[LANES] = {};
        std::memcpy(scales, b_scales + first, (size_t)rows * sizeof(float));
        lay_tile(right, first, K, cells, tile);
        each_block(std::min(span, M - from), [&](auto size, int64_t m) {
            block<decltype(size)::value>(tile, scales, left, from + m, cells, y + first, y_stride, rows);
        });
    });
}
