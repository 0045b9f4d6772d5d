// The k best of N int8 rows for each of B int8 queries; the definition is in kernels/int8_topk.py.
//
// One pass: a threshold estimated from a sample lets through a little more than k rows, which are kept as 64-bit keys
// (score falling, then row rising); one selection and one sort of those follow. A threshold is trusted only if k rows
// passed it: else the query is scored again without one. Buffers that fill up are cut back to their best k, which
// raises the threshold, so the worst order of rows costs a constant factor and no more memory. Which thread scores a row
// has no influence on the result.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pool.h"
#include "vectors.h"

namespace {

using Key = uint64_t;
constexpr int64_t BLOCK = 2048;         // rows a thread takes at a time
constexpr int64_t SAMPLE_EVERY = 64;    // one block of 16 rows in this many is sampled
constexpr float NONE = -std::numeric_limits<float>::infinity();

struct Items {
    const int8_t* codes;  // [N, stride], the first `width` columns are scored
    const float* scales;  // [N]
    const uint8_t* allowed;  // [N] of a query, or null
    int64_t count, stride, width;
};

struct Query {
    std::vector<int8_t> codes;  // filled up with zeros to whole vectors
    int32_t bias;               // 128 * sum of codes: rows are read as code + 128
};

Query prepare(const int8_t* codes, int64_t width) {
    Query query{std::vector<int8_t>((size_t)(width + 63) / 64 * 64), 0};
    for (int64_t i = 0; i < width; i++) {
        query.codes[(size_t)i] = codes[i];
        query.bias += 128 * codes[i];
    }
    return query;
}

Key key_of(float score, int64_t row) {
    score += 0.0f;  // one zero
    uint32_t bits;
    std::memcpy(&bits, &score, 4);
    const uint32_t rising = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
    return (Key)~rising << 32 | (uint32_t)row;
}

float score_of(Key key) {
    const uint32_t rising = ~(uint32_t)(key >> 32);
    const uint32_t bits = rising ^ (rising >> 31 ? 0x80000000u : 0xffffffffu);
    float score;
    std::memcpy(&score, &bits, 4);
    return score;
}

int32_t dot(const int8_t* row, const int8_t* query, int64_t width) {
    int32_t sum = 0;
#if defined(__AVX2__)
    __m256i sums = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 32 <= width; i += 32)
        for (int half = 0; half < 2; half++) {
            __m256i a = _mm256_cvtepi8_epi16(load<__m128i>(row + i + 16 * half));
            __m256i b = _mm256_cvtepi8_epi16(load<__m128i>(query + i + 16 * half));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(a, b));
        }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    sum = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
    for (; i < width; i++) sum += (int32_t)row[i] * query[i];
#else
    for (int64_t i = 0; i < width; i++) sum += (int32_t)row[i] * query[i];
#endif
    return sum;
}

#if defined(__AVX512VNNI__)
// Sums of the sixteen lanes of each of sixteen vectors: lane i of the result is the sum of v[i].
INLINE __m512i sum_lanes(__m512i* v) {
    for (int i = 0; i < 16; i += 2)
        v[i / 2] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[i], v[i + 1]), _mm512_unpackhi_epi32(v[i], v[i + 1]));
    for (int i = 0; i < 8; i += 2)
        v[i / 2] = _mm512_add_epi32(_mm512_unpacklo_epi64(v[i], v[i + 1]), _mm512_unpackhi_epi64(v[i], v[i + 1]));
    // each 128-bit quarter of v[j] now holds a part of the sums 4j .. 4j + 3
    for (int i = 0; i < 4; i += 2)
        v[i / 2] = _mm512_add_epi32(_mm512_shuffle_i32x4(v[i], v[i + 1], 0x88), _mm512_shuffle_i32x4(v[i], v[i + 1], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xdd));
}

INLINE i32x16 dots(const Items& items, int64_t row, const Query& query) {
    const __m512i flip = _mm512_set1_epi8((char)0x80), start = _mm512_setzero_si512();
    const int8_t* from = items.codes + row * items.stride;
    const int64_t whole = items.width / 64 * 64;
    __m512i sums[16];
    for (int i = 0; i < 16; i++) sums[i] = start;
    for (int64_t at = 0; at < whole; at += 64) {
        const __m512i q = load<__m512i>(query.codes.data() + at);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const __m512i code = load<__m512i>(from + i * items.stride + at);
            sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_xor_si512(code, flip), q);
        }
    }
    if (whole < items.width) {
        const __mmask64 rest = ((__mmask64)1 << (items.width - whole)) - 1;
        const __m512i q = load<__m512i>(query.codes.data() + whole);
        for (int i = 0; i < 16; i++) {
            const __m512i code = _mm512_maskz_loadu_epi8(rest, from + i * items.stride + whole);
            sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_xor_si512(code, flip), q);
        }
    }
    return (i32x16)sum_lanes(sums) - query.bias;
}
#else
INLINE i32x16 dots(const Items& items, int64_t row, const Query& query) {
    int32_t sums[LANES];
    for (int i = 0; i < LANES; i++) sums[i] = dot(items.codes + (row + i) * items.stride, query.codes.data(), items.width);
    return load<i32x16>(sums);
}
#endif

// The best k rows seen by one thread: at least the best k, unordered.
struct Kept {
    std::vector<Key> keys;
    float threshold;   // a row below it is not among the best k
    Key worst = ~(Key)0;  // nor one whose key is above this

    void add(float score, int64_t row, int64_t k) {
        const Key key = key_of(score, row);
        if (key > worst) return;
        keys.push_back(key);
        if ((int64_t)keys.size() >= 2 * k + 4096) cut(k);
    }

    void cut(int64_t k) {
        if ((int64_t)keys.size() <= k) return;
        std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end());
        keys.resize((size_t)k);
        worst = keys[(size_t)k - 1];
        threshold = std::max(threshold, score_of(worst));
    }
};

INLINE uint32_t at_least(f32x16 scores, float threshold) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)scores, _mm512_set1_ps(threshold), _CMP_GE_OQ);
#elif defined(__AVX2__)
    uint32_t mask = 0;
    for (int half = 0; half < 2; half++) {
        const __m256 some = load<__m256>((const char*)&scores + 32 * half);
        mask |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(some, _mm256_set1_ps(threshold), _CMP_GE_OQ)) << 8 * half;
    }
    return mask;
#else
    uint32_t mask = 0;
    for (int i = 0; i < LANES; i++) mask |= (uint32_t)(scores[i] >= threshold) << i;
    return mask;
#endif
}

INLINE uint32_t bits_of(const uint8_t* allowed) {
#if defined(__SSE2__)
    const __m128i none = _mm_cmpeq_epi8(load<__m128i>(allowed), _mm_setzero_si128());
    return (uint32_t)~_mm_movemask_epi8(none) & 0xffff;
#else
    uint32_t mask = 0;
    for (int i = 0; i < LANES; i++) mask |= (uint32_t)(allowed[i] != 0) << i;
    return mask;
#endif
}

void scan(const Items& items, const Query& query, int64_t from, int64_t to, int64_t k, Kept& kept) {
    int64_t row = from;
    for (; row + LANES <= to; row += LANES) {
        uint32_t open = items.allowed ? bits_of(items.allowed + row) : 0xffff;
        if (!open) continue;
        const f32x16 scores = to_float(dots(items, row, query)) * load<f32x16>(items.scales + row);
        for (open &= at_least(scores, kept.threshold); open; open &= open - 1) {
            const int i = __builtin_ctz(open);
            kept.add(scores[i], row + i, k);
        }
    }
    for (; row < to; row++) {
        if (items.allowed && !items.allowed[row]) continue;
        const int32_t sum = dot(items.codes + row * items.stride, query.codes.data(), items.width);
        const float score = (float)sum * items.scales[row];
        if (score >= kept.threshold) kept.add(score, row, k);
    }
}

// A score that somewhat more than k of the items are expected to reach; minus infinity where a sample cannot tell.
float estimate(const Items& items, const Query& query, int64_t k) {
    const int64_t step = LANES * SAMPLE_EVERY, blocks = items.count / step;
    const double share = (double)k / (double)std::max<int64_t>(1, items.count), expected = share * (double)(blocks * LANES);
    const int64_t rank = (int64_t)(expected + 4 * std::sqrt(expected)) + 4;
    if (rank * 2 > blocks * LANES) return NONE;
    std::vector<float> scores;
    scores.reserve((size_t)(blocks * LANES));
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t row = b * step;
        uint32_t open = items.allowed ? bits_of(items.allowed + row) : 0xffff;
        if (!open) continue;
        const f32x16 block = to_float(dots(items, row, query)) * load<f32x16>(items.scales + row);
        for (int i = 0; i < LANES; i++)
            if (open >> i & 1 && block[i] == block[i]) scores.push_back(block[i]);
    }
    if ((int64_t)scores.size() < rank) return NONE;
    std::nth_element(scores.begin(), scores.begin() + (rank - 1), scores.end(), std::greater<float>());
    return scores[(size_t)rank - 1];
}

// Sorts keys by their upper half, in three passes of 11 bits; the order of equal ones is kept.
void sort_by_score(std::vector<Key>& keys) {
    std::vector<Key> other(keys.size());
    for (int shift = 32; shift < 64; shift += 11) {
        uint32_t starts[2048] = {};
        for (Key key : keys) starts[key >> shift & 2047]++;
        uint32_t at = 0;
        for (uint32_t& start : starts) {
            const uint32_t count = start;
            start = at;
            at += count;
        }
        for (Key key : keys) other[starts[key >> shift & 2047]++] = key;
        keys.swap(other);
    }
}

void sort_keys(std::vector<Key>& keys) {
    if (keys.size() < 2048) return std::sort(keys.begin(), keys.end());
    sort_by_score(keys);
    for (size_t from = 0, to; from < keys.size(); from = to) {  // rows within equal scores
        for (to = from + 1; to < keys.size() && keys[to] >> 32 == keys[from] >> 32; to++) {
        }
        if (to - from > 1) std::sort(keys.begin() + (int64_t)from, keys.begin() + (int64_t)to);
    }
}

// Writes the best k of `keys`, missing ones as (-inf, -1).
void finish(std::vector<Key>& keys, int64_t k, float query_scale, float* scores, int64_t* rows) {
    if ((int64_t)keys.size() > k) {
        std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end());
        keys.resize((size_t)k);
    }
    sort_keys(keys);
    const int64_t found = (int64_t)keys.size();
    for (int64_t i = 0; i < k; i++) {
        scores[i] = i < found ? score_of(keys[(size_t)i]) * query_scale : NONE;
        rows[i] = i < found ? (int64_t)(uint32_t)keys[(size_t)i] : -1;
    }
}

}  // namespace

// queries [B, width] int8 with `query_scales` [B] > 0; `allowed` null, or [N] bytes of a query every `allowed_stride`
// (0: the same for all); scores and rows [B, k].
extern "C" void int8_topk(const int8_t* codes, int64_t stride, const float* scales, int64_t count, int64_t width,
                          const int8_t* queries, const float* query_scales, int64_t B, const uint8_t* allowed,
                          int64_t allowed_stride, int64_t k, float* scores, int64_t* rows, int threads) {
    const int64_t blocks = (count + BLOCK - 1) / BLOCK;
    std::vector<Query> prepared;
    std::vector<Items> items;
    for (int64_t b = 0; b < B; b++) {
        prepared.push_back(prepare(queries + b * width, width));
        items.push_back({codes, scales, allowed ? allowed + b * allowed_stride : nullptr, count, stride, width});
    }
    std::vector<float> thresholds((size_t)B, NONE);
    Pool::run(threads, B, [&](int64_t b) { thresholds[(size_t)b] = estimate(items[(size_t)b], prepared[(size_t)b], k); });
    // A thread leases one of `threads` sets of buffers for a block: it need not know which thread it is.
    std::vector<std::vector<Kept>> kept((size_t)threads);
    for (auto& set : kept) {
        set.resize((size_t)B);
        for (int64_t b = 0; b < B; b++) set[(size_t)b].threshold = thresholds[(size_t)b];
    }
    std::vector<std::atomic<bool>> leased((size_t)threads);
    Pool::run(threads, blocks, [&](int64_t block) {
        size_t mine = 0;
        while (leased[mine].exchange(true, std::memory_order_acquire)) mine = (mine + 1) % leased.size();
        for (int64_t b = 0; b < B; b++)
            scan(items[(size_t)b], prepared[(size_t)b], block * BLOCK, std::min(count, (block + 1) * BLOCK), k,
                 kept[mine][(size_t)b]);
        leased[mine].store(false, std::memory_order_release);
    });
    Pool::run(threads, B, [&](int64_t b) {
        std::vector<Key> keys;
        for (auto& set : kept) keys.insert(keys.end(), set[(size_t)b].keys.begin(), set[(size_t)b].keys.end());
        if ((int64_t)keys.size() < k && thresholds[(size_t)b] > NONE) {  // the sample promised too much
            Kept all{{}, NONE};
            scan(items[(size_t)b], prepared[(size_t)b], 0, count, k, all);
            keys.swap(all.keys);
        }
        finish(keys, k, query_scales[b], scores + b * k, rows + b * k);
    });
}

// The best k of the rows named in `candidates` [B, C] (-1: none), scored on the first `width` columns.
extern "C" void int8_rescore(const int8_t* codes, int64_t stride, const float* scales, int64_t width,
                             const int8_t* queries, const float* query_scales, int64_t B, const int64_t* candidates,
                             int64_t C, int64_t k, float* scores, int64_t* rows, int threads) {
    Pool::run(threads, B, [&](int64_t b) {
        std::vector<Key> keys;
        keys.reserve((size_t)C);
        const int8_t* query = queries + b * width;
        for (int64_t i = 0; i < C; i++) {
            const int64_t row = candidates[b * C + i];
            if (i + 8 < C && candidates[b * C + i + 8] >= 0)
                __builtin_prefetch(codes + candidates[b * C + i + 8] * stride);
            if (row < 0) continue;
            const float score = (float)dot(codes + row * stride, query, width) * scales[row];
            if (score >= NONE) keys.push_back(key_of(score, row));
        }
        finish(keys, k, query_scales[b], scores + b * k, rows + b * k);
    });
}
