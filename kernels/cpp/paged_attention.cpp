// Causal attention over a paged cache of float32 keys and values; described in kernels/paged_attention.py.
//
// A query's keys are folded sixteen at a time, counted from the sequence's first, whatever else is computed with it, so
// that a decoded token, one in a chunk and one in another batch have the same bits. A lane is a key: sixteen products of
// a query with keys are summed across their lanes by a tree that leaves each sum in its key's lane.
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "pool.h"

namespace {

constexpr int64_t QUERIES = 8;       // of one head, which go through a tile of keys together
constexpr int64_t SMALL = 1 << 15;  // products below which a second thread costs more than it saves

struct Problem {
    const float *q, *keys, *values;
    float* out;
    const int32_t *tables, *lengths, *starts;
    int64_t q_token, q_head, o_token, o_head, k_page, k_slot, k_head, v_page, v_slot, v_head, table, page, group, window;
    float scale;
};

template <int RUN>
INLINE f32x16 joined(f32x16 a, f32x16 b) {
    // lanes in runs of RUN: of each pair of runs the first of a, then the first of b; and the second ones likewise
    i32x16 first, second;
    for (int i = 0; i < LANES; i++) {
        const int run = i / RUN, from = (run / 2 * 2) * RUN + i % RUN;
        first[i] = from + (run & 1 ? LANES : 0);
        second[i] = first[i] + RUN;
    }
#if defined(__clang__)
    f32x16 x, y;
    for (int i = 0; i < LANES; i++) {
        x[i] = first[i] < LANES ? a[first[i]] : b[first[i] - LANES];
        y[i] = second[i] < LANES ? a[second[i]] : b[second[i] - LANES];
    }
    return x + y;
#else
    return __builtin_shuffle(a, b, first) + __builtin_shuffle(a, b, second);
#endif
}

// Lane j of the result: the sum of the lanes of v[j].
INLINE f32x16 sums(f32x16* v) {
    for (int j = 0; j < 8; j++) v[j] = joined<8>(v[j], v[j + 8]);
    for (int j = 0; j < 4; j++) v[j] = joined<4>(v[j], v[j + 4]);
    for (int j = 0; j < 2; j++) v[j] = joined<2>(v[j], v[j + 2]);
    return joined<1>(v[0], v[1]);
}

INLINE float largest(f32x16 v) {
    float out[LANES];
    store(out, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) out[i] = out[i] < out[i + width] ? out[i + width] : out[i];
    return out[0];
}

INLINE float total(f32x16 v) {
    float out[LANES];
    store(out, v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) out[i] += out[i + width];
    return out[0];
}

template <int VECTORS>
struct Row {  // one query of one head: its numbers times the scale, and what has been folded so far
    f32x16 q[VECTORS], z[VECTORS];
    float peak, weight;
};

// Folds keys first .. count - 1 of a tile; `k`, `v`: where each of them lies.
template <int VECTORS>
INLINE void fold(Row<VECTORS>& row, const float* const* k, const float* const* v, int first, int count) {
    f32x16 products[LANES];
    for (int j = 0; j < LANES; j++) {
        const float* key = k[std::min(std::max(j, first), count - 1)];  // lanes without a key repeat one that is seen
        f32x16 sum = row.q[0] * load<f32x16>(key);
#pragma GCC unroll 16
        for (int i = 1; i < VECTORS; i++) sum = multiply_add(row.q[i], load<f32x16>(key + i * LANES), sum);
        products[j] = sum;
    }
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const i32x16 seen = (lane >= first) & (lane < count);
    f32x16 scores = sums(products);
    scores = seen ? scores : splat(-INFINITY);
    const float tile = largest(scores), peak = row.peak < tile ? tile : row.peak;
    if (peak > row.peak) {
        const float share = row.weight > 0 ? exponential(splat(row.peak - peak))[0] : 0.0f;
        row.weight *= share;
        for (int i = 0; i < VECTORS; i++) row.z[i] *= share;
        row.peak = peak;
    }
    f32x16 weights = exponential(scores - row.peak);
    weights = seen ? weights : f32x16{};
    row.weight += total(weights);
    float w[LANES];
    store(w, weights);
    for (int j = first; j < count; j++) {
#pragma GCC unroll 16
        for (int i = 0; i < VECTORS; i++)
            row.z[i] = multiply_add(splat(w[j]), load<f32x16>(v[j] + i * LANES), row.z[i]);
    }
}

// Queries from .. end - 1 of sequence b, for the heads that share key head g.
template <int VECTORS>
void block(const Problem& p, int64_t b, int64_t g, int64_t from, int64_t end) {
    const int64_t begin = p.starts ? p.starts[b] : b, n = p.starts ? p.starts[b + 1] - begin : 1;
    const int64_t length = p.lengths[b];
    Row<VECTORS> rows[QUERIES];
    for (int64_t h = g * p.group; h < (g + 1) * p.group; h++) {
        for (int64_t i = from; i < end; i++) {
            Row<VECTORS>& row = rows[i - from];
            const float* q = p.q + (begin + i) * p.q_token + h * p.q_head;
            for (int v = 0; v < VECTORS; v++) {
                row.q[v] = load<f32x16>(q + v * LANES) * p.scale;
                row.z[v] = f32x16{};
            }
            row.peak = -INFINITY, row.weight = 0;
        }
        const int64_t last = length - n + end;  // one past the last key that any of them sees
        const int64_t low = p.window ? std::max<int64_t>(0, length - n + from + 1 - p.window) : 0;
        for (int64_t tile = low / LANES * LANES; tile < last; tile += LANES) {
            const float *k[LANES], *v[LANES];
            for (int64_t j = 0; j < std::min<int64_t>(LANES, last - tile); j++) {
                const int64_t page = p.tables[b * p.table + (tile + j) / p.page], slot = (tile + j) % p.page;
                k[j] = p.keys + page * p.k_page + slot * p.k_slot + g * p.k_head;
                v[j] = p.values + page * p.v_page + slot * p.v_slot + g * p.v_head;
            }
            for (int64_t i = from; i < end; i++) {
                const int64_t sees = length - n + i + 1;  // keys before this one
                const int64_t first = p.window ? std::max<int64_t>(0, sees - p.window - tile) : 0;
                const int64_t count = std::min<int64_t>(LANES, sees - tile);
                if (first < count) fold<VECTORS>(rows[i - from], k, v, (int)first, (int)count);
            }
        }
        for (int64_t i = from; i < end; i++) {
            const Row<VECTORS>& row = rows[i - from];
            float* o = p.out + (begin + i) * p.o_token + h * p.o_head;
            const float weight = row.weight == 0 ? 1.0f : row.weight;  // no key seen: zeros
            for (int v = 0; v < VECTORS; v++) store(o + v * LANES, row.z[v] / weight);
        }
    }
}

template <int VECTORS>
void every(const Problem& p, int64_t B, int64_t G, int64_t longest, int threads) {
    int64_t work = 0;
    for (int64_t b = 0; b < B; b++) work += (int64_t)p.lengths[b] * (p.starts ? p.starts[b + 1] - p.starts[b] : 1);
    const int64_t parts = (longest + QUERIES - 1) / QUERIES;
    Pool::run(work * G * p.group * VECTORS <= SMALL / LANES ? 1 : threads, B * G * parts, [&](int64_t item) {
        const int64_t b = item / (G * parts), g = item / parts % G, from = item % parts * QUERIES;
        const int64_t n = p.starts ? p.starts[b + 1] - p.starts[b] : 1;
        if (from < n) block<VECTORS>(p, b, g, from, std::min(n, from + QUERIES));
    });
}

}  // namespace

// `starts` is null where every sequence has one query. `strides`: of q and out by token and head, of keys and values by
// page, slot and head, of tables by sequence: 11 numbers.
extern "C" void paged_attention(const float* q, const float* keys, const float* values, float* out, const int32_t* tables,
                                const int32_t* lengths, const int32_t* starts, const int64_t* strides, int64_t B,
                                int64_t H, int64_t G, int64_t D, int64_t page, int64_t longest, int64_t window,
                                float scale, int threads) {
    const int64_t* s = strides;
    const Problem p = {q,    keys, values, out,  tables, lengths, starts, s[0], s[1],  s[2], s[3],  s[4],
                       s[5], s[6], s[7],   s[8], s[9],   s[10],   page,   H / G, window, scale};
    switch (D / LANES) {
        case 1: return every<1>(p, B, G, longest, threads);
        case 2: return every<2>(p, B, G, longest, threads);
        case 4: return every<4>(p, B, G, longest, threads);
        case 6: return every<6>(p, B, G, longest, threads);
        case 8: return every<8>(p, B, G, longest, threads);
        case 16: return every<16>(p, B, G, longest, threads);
    }
}
