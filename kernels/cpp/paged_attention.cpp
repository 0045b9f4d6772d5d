// Causal attention over a paged cache of keys and values; described in kernels/paged_attention.py.
//
// A query's keys are folded TILE at a time, counted from the sequence's first, whatever else is computed with it, so
// that a decoded token, one in a chunk and one in another batch have the same bits. A score is sixteen chains of
// products, of every sixteenth entry, joined by a tree. A few queries find it with a lane for each chain and shuffles; many
// turn the keys first, a lane is then a key, and the same sums in the same order need no shuffles.
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "pool.h"

namespace {

constexpr int64_t TILE = 64;        // keys folded together
constexpr int64_t MOST = 32;        // queries of some heads that meet a tile of keys together
constexpr int64_t HEADS = 8;        // heads among them, at most
constexpr int64_t TURNS = 6;        // so many of them are worth turning the keys
constexpr int64_t SMALL = 1 << 15;  // products below which a second thread costs more than it saves
constexpr int SUBS = TILE / LANES;

template <typename Entry>
struct Problem {
    const float* q;
    const Entry *keys, *values;
    float* out;
    const int32_t *tables, *lengths, *starts;
    int64_t q_token, q_head, o_token, o_head, k_page, k_slot, k_head, v_page, v_slot, v_head, table, page, group, window;
    float scale;
};

INLINE floats entries(const float* from) { return load<floats>(from); }
INLINE floats entries(const uint16_t* from) { return halves(from); }

INLINE f32x16 lanes(const float* from) { return load<f32x16>(from); }
INLINE f32x16 lanes(const uint16_t* from) {
    f32x16 out;
    for (int p = 0; p < PARTS; p++) store((float*)&out + p * WIDTH, halves(from + p * WIDTH));
    return out;
}

// --- sixteen lanes across ---

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

INLINE f32x16 larger(f32x16 a, f32x16 b) { return a < b ? b : a; }

template <int STEP>
INLINE f32x16 stepped(f32x16 v) {
    f32x16 out;
#if defined(__clang__)
    for (int i = 0; i < LANES; i++) out[i] = v[i ^ STEP];
#else
    i32x16 from;
    for (int i = 0; i < LANES; i++) from[i] = i ^ STEP;
    out = __builtin_shuffle(v, from);
#endif
    return out;
}

INLINE float largest(f32x16 v) {
    v = larger(v, stepped<8>(v));
    v = larger(v, stepped<4>(v));
    v = larger(v, stepped<2>(v));
    return larger(v, stepped<1>(v))[0];
}

INLINE float total(f32x16 v) {
    v += stepped<8>(v);
    v += stepped<4>(v);
    v += stepped<2>(v);
    return (v + stepped<1>(v))[0];
}

// --- a tile of keys ---

template <int VECTORS, typename Entry>
struct Keys {
    const Entry *k[TILE], *v[TILE];
    int64_t first, count;  // the tile's place in the sequence, and how many keys of it are seen by anyone
    alignas(64) float turned[SUBS][VECTORS * LANES][LANES];  // keys of sixteen: entry by key

    // Where the keys lie; those not seen repeat the last that is, so that what a page held before is never read.
    MEMBER void find(const Problem<Entry>& p, int64_t b, int64_t g, int64_t from, int64_t end) {
        first = from, count = std::min(TILE, end - from);
        const int32_t* table = p.tables + b * p.table + from / p.page;
        int64_t slot = from % p.page;
        for (int64_t j = 0; j < count; j++, slot++) {
            if (slot == p.page) table++, slot = 0;
            k[j] = p.keys + *table * p.k_page + slot * p.k_slot + g * p.k_head;
            v[j] = p.values + *table * p.v_page + slot * p.v_slot + g * p.v_head;
        }
        for (int64_t j = count; j < (count + LANES - 1) / LANES * LANES; j++) k[j] = k[count - 1];
    }

    MEMBER void fetch_values() const {
        for (int64_t j = 0; j < count; j++)
            for (size_t at = 0; at < VECTORS * LANES * sizeof(Entry); at += 64)
                __builtin_prefetch((const char*)v[j] + at);
    }

    void turn() {
        for (int64_t j = 0; j < count; j += LANES)
            for (int d = 0; d < VECTORS * LANES; d += WIDTH)
                for (int p = 0; p < PARTS; p++) {
                    floats cells[WIDTH];
                    for (int i = 0; i < WIDTH; i++) cells[i] = entries(k[j + p * WIDTH + i] + d);
                    turn_square(cells);
                    for (int i = 0; i < WIDTH; i++) store(&turned[j / LANES][d + i][p * WIDTH], cells[i]);
                }
    }
};

// --- rows: queries of a head each ---

template <int VECTORS>
struct Rows {
    alignas(64) float q[MOST][VECTORS * LANES], z[MOST][VECTORS * LANES];  // q times the scale; what has been folded
    alignas(64) f32x16 weight[MOST];
    float peak[MOST];
    int64_t begin[MOST], end[MOST];  // the keys that a row sees
};

// The sum of chains l, l + STEP, l + 2 STEP .. of `R` rows with WIDTH turned keys.
template <int VECTORS, int R, int L, int STEP>
INLINE void tree(const float* q, const float* keys, floats* out) {
    if constexpr (STEP == LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < VECTORS; i++) {
            const floats key = load<floats>(keys + (i * LANES + L) * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const floats x = all(q[r * VECTORS * LANES + i * LANES + L]);
                out[r] = i ? fused(x, key, out[r]) : x * key;
            }
        }
    } else {
        floats other[R];
        tree<VECTORS, R, L, STEP * 2>(q, keys, out);
        tree<VECTORS, R, L + STEP, STEP * 2>(q, keys, other);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) out[r] += other[r];
    }
}

// scores[r][s]: of rows from .. from + R - 1 with the keys of sixteen s, of `subs`.
template <int VECTORS, int R, bool TURNED, typename Entry>
INLINE void score(const Rows<VECTORS>& rows, int64_t from, const Keys<VECTORS, Entry>& keys, int64_t subs,
                  f32x16 (*scores)[SUBS]) {
    for (int64_t s = 0; s < subs; s++) {
        if constexpr (TURNED) {
            for (int p = 0; p < PARTS; p++) {
                floats out[R];
                tree<VECTORS, R, 0, 1>(rows.q[from], keys.turned[s][0] + p * WIDTH, out);
                for (int r = 0; r < R; r++) store((float*)&scores[r][s] + p * WIDTH, out[r]);
            }
        } else {
            for (int r = 0; r < R; r++) {
                f32x16 products[LANES];
                for (int j = 0; j < LANES; j++) {
                    const Entry* key = keys.k[s * LANES + j];
                    f32x16 sum = load<f32x16>(rows.q[from + r]) * lanes(key);
#pragma GCC unroll 16
                    for (int i = 1; i < VECTORS; i++)
                        sum = multiply_add(load<f32x16>(rows.q[from + r] + i * LANES), lanes(key + i * LANES), sum);
                    products[j] = sum;
                }
                scores[r][s] = sums(products);
            }
        }
    }
}

// z[r] += sum over keys first .. end - 1 of their weights times their values.
template <int VECTORS, int R, typename Entry>
INLINE void add_values(Rows<VECTORS>& rows, int64_t from, const Keys<VECTORS, Entry>& keys, int64_t first, int64_t end,
                       const f32x16 (*weights)[SUBS]) {
    constexpr int WHOLE = VECTORS * PARTS, MANY = WIDTH == 16 ? 4 : 2;
    constexpr int SLICE = WHOLE % MANY == 0 ? MANY : WHOLE % 2 == 0 ? 2 : 1;
    const float* w = (const float*)weights;
    for (int at = 0; at < WHOLE; at += SLICE) {
        floats z[R][SLICE];
        for (int r = 0; r < R; r++)
            for (int i = 0; i < SLICE; i++) z[r][i] = load<floats>(rows.z[from + r] + (at + i) * WIDTH);
        for (int64_t j = first; j < end; j++) {
            floats value[SLICE];
#pragma GCC unroll 4
            for (int i = 0; i < SLICE; i++) value[i] = entries(keys.v[j] + (at + i) * WIDTH);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                for (int i = 0; i < SLICE; i++) z[r][i] = fused(all(w[r * TILE + j]), value[i], z[r][i]);
        }
        for (int r = 0; r < R; r++)
            for (int i = 0; i < SLICE; i++) store(rows.z[from + r] + (at + i) * WIDTH, z[r][i]);
    }
}

// Turns a row's scores of keys first .. end - 1 into weights about the highest score so far.
template <int VECTORS>
INLINE void weigh(Rows<VECTORS>& rows, int64_t row, f32x16* scores, int64_t first, int64_t end) {
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int64_t subs = (end + LANES - 1) / LANES;
    f32x16 top = splat(-INFINITY);
    for (int64_t s = 0; s < subs; s++) {
        const int low = (int)(first - s * LANES), high = (int)(end - s * LANES);
        if (low > 0 || high < LANES) scores[s] = (lane >= low) & (lane < high) ? scores[s] : splat(-INFINITY);
        top = larger(top, scores[s]);
    }
    const float tile = largest(top), before = rows.peak[row], peak = before < tile ? tile : before;
    if (peak > before) {
        const f32x16 share = exponential(splat(before - peak));  // zero at first, when nothing has been folded
        rows.weight[row] *= share;
        for (int i = 0; i < VECTORS; i++)
            store(rows.z[row] + i * LANES, load<f32x16>(rows.z[row] + i * LANES) * share);
        rows.peak[row] = peak;
    }
    f32x16 sum = rows.weight[row];
    for (int64_t s = 0; s < subs; s++) {
        const int low = (int)(first - s * LANES), high = (int)(end - s * LANES);
        scores[s] = exponential(scores[s] - splat(peak));
        if (low > 0 || high < LANES) scores[s] = (lane >= low) & (lane < high) ? scores[s] : f32x16{};
        sum += scores[s];
    }
    rows.weight[row] = sum;
}

// Folds a tile into rows from .. from + R - 1.
template <int VECTORS, int R, bool TURNED, typename Entry>
INLINE void fold(Rows<VECTORS>& rows, int64_t from, const Keys<VECTORS, Entry>& keys) {
    int64_t first[R], end[R], highest = 0, lowest = TILE, common = 0;  // keys common .. lowest - 1 are seen by all
    for (int r = 0; r < R; r++) {
        first[r] = std::max<int64_t>(0, rows.begin[from + r] - keys.first);
        end[r] = std::max<int64_t>(first[r], std::min(keys.count, rows.end[from + r] - keys.first));
        if (first[r] >= end[r]) first[r] = end[r] = 0;
        highest = std::max(highest, end[r]), lowest = std::min(lowest, end[r]), common = std::max(common, first[r]);
    }
    if (highest == 0) return;
    alignas(64) f32x16 scores[R][SUBS];
    score<VECTORS, R, TURNED>(rows, from, keys, (highest + LANES - 1) / LANES, scores);
    for (int r = 0; r < R; r++)
        if (first[r] < end[r]) weigh(rows, from + r, scores[r], first[r], end[r]);
    lowest = std::max(common, lowest);
    const auto own = [&](int r, int64_t a, int64_t b) {
        if (R > 1 && a < b) add_values<VECTORS, 1>(rows, from + r, keys, a, b, scores + r);
    };
    for (int r = 0; r < R; r++) own(r, first[r], std::min(common, end[r]));
    if (common < lowest) add_values<VECTORS, R>(rows, from, keys, common, lowest, scores);
    for (int r = 0; r < R; r++) own(r, lowest, end[r]);
}

template <int VECTORS, bool TURNED, typename Entry>
void fold_all(Rows<VECTORS>& rows, int64_t count, Keys<VECTORS, Entry>& keys) {
    if constexpr (TURNED) keys.turn();
    int64_t row = 0;
    if constexpr (TURNED)
        for (; row + 4 <= count; row += 4) fold<VECTORS, 4, TURNED>(rows, row, keys);
    for (; row < count; row++) fold<VECTORS, 1, TURNED>(rows, row, keys);
}

// --- a block of queries ---

// Queries from .. end - 1 of sequence b, for heads h .. h + many - 1, which share key head g.
template <int VECTORS, typename Entry>
void block(const Problem<Entry>& p, int64_t b, int64_t g, int64_t h, int64_t many, int64_t from, int64_t end) {
    const int64_t begin = p.starts ? p.starts[b] : b, n = p.starts ? p.starts[b + 1] - begin : 1;
    const int64_t before = p.lengths[b] - n, count = (end - from) * many;
    Rows<VECTORS> rows;
    for (int64_t r = 0; r < count; r++) {
        const int64_t i = from + r / many;
        const float* q = p.q + (begin + i) * p.q_token + (h + r % many) * p.q_head;
        for (int v = 0; v < VECTORS; v++) {
            store(rows.q[r] + v * LANES, load<f32x16>(q + v * LANES) * p.scale);
            store(rows.z[r] + v * LANES, f32x16{});
        }
        rows.peak[r] = -INFINITY, rows.weight[r] = f32x16{};
        rows.end[r] = before + i + 1;
        rows.begin[r] = p.window ? std::max<int64_t>(0, rows.end[r] - p.window) : 0;
    }
    Keys<VECTORS, Entry> keys;
    for (int64_t tile = rows.begin[0] / TILE * TILE; tile < before + end; tile += TILE) {
        keys.find(p, b, g, tile, before + end);
        if (count >= TURNS) {
            fold_all<VECTORS, true>(rows, count, keys);
        } else {
            keys.fetch_values();
            fold_all<VECTORS, false>(rows, count, keys);
        }
    }
    for (int64_t r = 0; r < count; r++) {
        float* o = p.out + (begin + from + r / many) * p.o_token + (h + r % many) * p.o_head;
        const float whole = total(rows.weight[r]), weight = whole == 0 ? 1.0f : whole;  // no key seen: zeros
        for (int v = 0; v < VECTORS; v++) store(o + v * LANES, load<f32x16>(rows.z[r] + v * LANES) / weight);
    }
}

template <int VECTORS, typename Entry>
void every(const Problem<Entry>& p, int64_t B, int64_t G, int64_t longest, int threads) {
    int64_t work = 0;
    for (int64_t b = 0; b < B; b++) work += (int64_t)p.lengths[b] * (p.starts ? p.starts[b + 1] - p.starts[b] : 1);
    if (work * G * p.group * VECTORS <= SMALL / LANES) threads = 1;
    int64_t many = std::min(p.group, HEADS), each = std::min(longest, std::max<int64_t>(1, MOST / many));
    const auto slices = [&] { return (p.group + many - 1) / many; };
    const auto parts = [&] { return (longest + each - 1) / each; };
    const auto few = [&] { return B * G * slices() * parts() < 4 * threads; };  // items, to be shared out evenly
    while (each > 4 && few()) each = (each + 1) / 2;
    while (threads > 1 && each == 1 && many > 1 && few()) many = (many + 1) / 2;
    const int64_t heads = slices(), blocks = parts();
    Pool::run(threads, B * G * heads * blocks, [&](int64_t item) {
        const int64_t at = item / blocks, from = (blocks - 1 - item % blocks) * each;  // those with most keys first
        const int64_t b = at / (G * heads), g = at / heads % G, h = at % heads * many;
        const int64_t n = p.starts ? p.starts[b + 1] - p.starts[b] : 1;
        if (from < n)
            block<VECTORS>(p, b, g, g * p.group + h, std::min(many, p.group - h), from, std::min(n, from + each));
    });
}

template <typename Entry>
void attention(const Problem<Entry>& p, int64_t B, int64_t G, int64_t D, int64_t longest, int threads) {
    switch (D / LANES) {
        case 1: return every<1>(p, B, G, longest, threads);
        case 2: return every<2>(p, B, G, longest, threads);
        case 4: return every<4>(p, B, G, longest, threads);
        case 6: return every<6>(p, B, G, longest, threads);
        case 8: return every<8>(p, B, G, longest, threads);
        case 16: return every<16>(p, B, G, longest, threads);
    }
}

}  // namespace

// `starts` is null where every sequence has one query. `strides`: of q and out by token and head, of keys and values by
// page, slot and head, of tables by sequence: 11 numbers.
extern "C" void paged_attention(const float* q, const float* keys, const float* values, float* out, const int32_t* tables,
                                const int32_t* lengths, const int32_t* starts, const int64_t* strides, int64_t B,
                                int64_t H, int64_t G, int64_t D, int64_t page, int64_t longest, int64_t window,
                                float scale, int threads) {
    const int64_t* s = strides;
    const Problem<float> p = {q,    keys, values, out,  tables, lengths, starts, s[0], s[1],  s[2], s[3],  s[4],
                              s[5], s[6], s[7],   s[8], s[9],   s[10],   page,   H / G, window, scale};
    attention(p, B, G, D, longest, threads);
}
