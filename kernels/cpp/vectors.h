// Sixteen-lane vectors. GCC and Clang lower them to AVX-512, two AVX2 halves or four NEON quarters; intrinsics are used
// only where the compiler would not find the instruction. Nothing here depends on a library but the standard one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));

constexpr int LANES = 16;

template <typename V>
INLINE V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <typename V>
INLINE void store(void* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

INLINE f32x16 to_float(i32x16 v) { return __builtin_convertvector(v, f32x16); }
INLINE f32x16 splat(float v) { return f32x16{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }
INLINE i32x16 splat(int32_t v) { return i32x16{} + v; }

// a * b + c, fused where the processor can; -ffp-contract=fast would leave the choice to the optimiser.
INLINE f32x16 multiply_add(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    f32x16 out;
    for (int half = 0; half < 2; half++) {
        __m256 x = load<__m256>((const char*)&a + 32 * half), y = load<__m256>((const char*)&b + 32 * half);
        store((char*)&out + 32 * half, _mm256_fmadd_ps(x, y, load<__m256>((const char*)&c + 32 * half)));
    }
    return out;
#else
    return a * b + c;
#endif
}

INLINE float half_to_float(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, rest = (uint32_t)(bits & 0x7fff) << 13, word;
    float out;
    if ((bits & 0x7c00) == 0x7c00) {
        word = sign | 0x7f800000 | rest;
        std::memcpy(&out, &word, 4);
        return out;
    }
    std::memcpy(&out, &rest, 4);
    out *= 0x1p112f;  // moves the exponent's bias from 15 to 127; exact, also for subnormal halves
    std::memcpy(&word, &out, 4);
    word |= sign;
    std::memcpy(&out, &word, 4);
    return out;
}

INLINE f32x16 load_halves(const void* from) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_cvtph_ps(load<__m256i>(from));
#elif defined(__F16C__)
    f32x16 out;
    store(&out, _mm256_cvtph_ps(load<__m128i>(from)));
    store((char*)&out + 32, _mm256_cvtph_ps(load<__m128i>((const char*)from + 16)));
    return out;
#else
    uint16_t bits[LANES];
    f32x16 out;
    std::memcpy(bits, from, sizeof bits);
    for (int i = 0; i < LANES; i++) out[i] = half_to_float(bits[i]);
    return out;
#endif
}

// Four products a lane: sum + u0 * s0 + .. + u3 * s3, the bytes of `u` unsigned, those of `s` signed; exact.
#if defined(__AVX512VNNI__)
INLINE i32x16 dot4(i32x16 sum, u32x16 u, i32x16 s) {
    return (i32x16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)u, (__m512i)s);
}
#elif defined(__AVX2__)
INLINE __m256i dot4_half(__m256i sum, __m256i u, __m256i s) {
    // maddubs saturates at 16 bits, so even and odd bytes are widened apart
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, low), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
INLINE i32x16 dot4(i32x16 sum, u32x16 u, i32x16 s) {
    i32x16 out;
    for (int half = 0; half < 2; half++) {
        const int at = 32 * half;
        __m256i a = load<__m256i>((const char*)&sum + at), b = load<__m256i>((const char*)&u + at);
        store((char*)&out + at, dot4_half(a, b, load<__m256i>((const char*)&s + at)));
    }
    return out;
}
#else
INLINE i32x16 dot4(i32x16 sum, u32x16 u, i32x16 s) {
    for (int byte = 0; byte < 4; byte++)
        sum += (i32x16)((u >> (8 * byte)) & 255) * ((s << (24 - 8 * byte)) >> 24);
    return sum;
}
#endif
