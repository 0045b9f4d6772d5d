// Vectors of sixteen lanes, and of as many as the processor computes with at once. Code that keeps its sums in registers is
// written with the latter (PARTS of them are sixteen lanes): a compiler that has no register for the former keeps them
// in memory. Intrinsics are used only where the compiler would not find the instruction. Nothing here depends on a
// library but the standard one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MEMBER inline __attribute__((always_inline))
#define INLINE static MEMBER

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

// The processor's own vectors: WIDTH floats or 32-bit integers.
#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr int PARTS = LANES / WIDTH;
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t words __attribute__((vector_size(4 * WIDTH)));
typedef int16_t shorts __attribute__((vector_size(4 * WIDTH)));

INLINE floats all(float v) { return v - floats{}; }
INLINE ints all(int32_t v) { return v - ints{}; }
INLINE floats floats_of(ints v) { return __builtin_convertvector(v, floats); }

// a * b + c, fused where the processor can; -ffp-contract=fast would leave the choice to the optimiser.
INLINE floats fused(floats a, floats b, floats c) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

// WIDTH float16 numbers.
INLINE floats halves(const void* from) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    return (floats)_mm512_cvtph_ps(load<__m256i>(from));
#elif defined(__AVX2__) && defined(__F16C__)
    return (floats)_mm256_cvtph_ps(load<__m128i>(from));
#else
    uint16_t bits[WIDTH];
    floats out;
    std::memcpy(bits, from, sizeof bits);
    for (int i = 0; i < WIDTH; i++) out[i] = half_to_float(bits[i]);
    return out;
#endif
}

// Turns a square of numbers: lane j of v[i] becomes lane i of v[j].
INLINE void turn_square(floats* v) {
    typedef int32_t places __attribute__((vector_size(4 * WIDTH)));
#pragma GCC unroll 4
    for (int step = 1; step < WIDTH; step *= 2) {
        places low, high;
        for (int i = 0; i < WIDTH; i++) {
            low[i] = i & step ? i - step + WIDTH : i;
            high[i] = i & step ? i + WIDTH : i + step;
        }
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) {
            if (i & step) continue;
            const floats a = v[i], b = v[i + step];
#if defined(__clang__)
            for (int lane = 0; lane < WIDTH; lane++) {
                v[i][lane] = low[lane] < WIDTH ? a[low[lane]] : b[low[lane] - WIDTH];
                v[i + step][lane] = high[lane] < WIDTH ? a[high[lane]] : b[high[lane] - WIDTH];
            }
#else
            v[i] = __builtin_shuffle(a, b, low);
            v[i + step] = __builtin_shuffle(a, b, high);
#endif
        }
    }
}

// Integer products: DEPTH of them a lane. Where the processor multiplies bytes (VNNI) a lane of `a` is four unsigned, of
// `b` four signed ones; else both are two signed 16-bit numbers. Exact, but for wrapping around.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
constexpr int DEPTH = 4;
INLINE ints add_products(ints sum, ints a, ints b) {
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}
#else
constexpr int DEPTH = 2;
INLINE ints add_products(ints sum, ints a, ints b) {
#if defined(__AVX512BW__)
    return sum + (ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return sum + (ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return sum + (ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
#endif

// Four bytes below 16 times four signed ones a lane, added in pairs to 16-bit numbers, which hold eight such sums of codes
// in -127..127; and those pairs as one number a lane. Only where it is faster than `add_products` (NARROW).
#if defined(__AVX512BW__) && !defined(__AVX512VNNI__)
constexpr bool NARROW = true;
INLINE shorts add_narrow(shorts sum, ints a, ints b) {
    return sum + (shorts)_mm512_maddubs_epi16((__m512i)a, (__m512i)b);
}
INLINE ints widened(shorts sum) { return (ints)_mm512_madd_epi16((__m512i)sum, _mm512_set1_epi16(1)); }
#elif defined(__AVX2__) && !defined(__AVX512VNNI__)
constexpr bool NARROW = true;
INLINE shorts add_narrow(shorts sum, ints a, ints b) {
    return sum + (shorts)_mm256_maddubs_epi16((__m256i)a, (__m256i)b);
}
INLINE ints widened(shorts sum) { return (ints)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1)); }
#else
constexpr bool NARROW = false;
INLINE shorts add_narrow(shorts sum, ints, ints) { return sum; }
INLINE ints widened(shorts sum) { return (ints)sum; }
#endif

// Four signed bytes of each lane as two words of 16-bit numbers: bytes 0 and 2, then 1 and 3.
INLINE ints even_bytes(ints v) { return (ints)(((shorts)v << 8) >> 8); }
INLINE ints odd_bytes(ints v) { return (ints)((shorts)v >> 8); }
