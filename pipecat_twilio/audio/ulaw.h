/* The vector loops of ulaw.pyx. No bounds checks: pass valid pointers and lengths.
 *
 * A mu-law code is a small floating-point number: a sign, 3 bits of segment (its exponent) and
 * 4 bits of step (its mantissa), all inverted, of a magnitude with the bias 132 added. So the
 * float unit converts it: segment and step are put where a float has its exponent and mantissa,
 * or read from there. Segment 0 starts at 2**7, which is float exponent 127 + 7.
 *
 * A 32-bit lane holds two neighbouring samples of 16 bits, "even" in its lower and "odd" in its
 * upper bits. Each becomes a float of its own, of which only the upper 16 bits matter. Vectors are
 * 32 bytes: the compiler splits them on a path with shorter ones.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "vectors.h"

enum { ULAW_BIAS = 132, SEGMENT_0 = (127 + 7) << 4, ULAW_BLOCK = 16 };

#if HAVE_VECTORS
typedef uint8_t codes_t __attribute__((vector_size(16), aligned(1), may_alias));
typedef int16_t pcm_t __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint16_t u16_t __attribute__((vector_size(32)));
typedef int16_t i16_t __attribute__((vector_size(32)));
typedef uint32_t u32_t __attribute__((vector_size(32)));
typedef int32_t i32_t __attribute__((vector_size(32)));
typedef float f32_t __attribute__((vector_size(32)));

INLINE void decode_blocks(const uint8_t *codes, uint8_t *pcm, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += ULAW_BLOCK) {
        u16_t code = __builtin_convertvector(*(const codes_t *)(codes + i), u16_t) ^ 0xFF;
        /* The bit set below the step puts the sample in the middle of it. */
        u32_t floats = (u32_t)(((code & 0x7F) << 3) + ((SEGMENT_0 << 3) | 4));
        i32_t even = __builtin_convertvector((f32_t)(floats << 16), i32_t);
        i32_t odd = __builtin_convertvector((f32_t)(floats & 0xFFFF0000u), i32_t);
        i16_t magnitude = (i16_t)(even | (odd << 16)) - ULAW_BIAS;
        i16_t negative = (i16_t)(code << 8) >> 15;
        *(pcm_t *)(pcm + 2 * i) = (pcm_t)((magnitude ^ negative) - negative);
    }
}

INLINE void encode_blocks(const uint8_t *pcm, uint8_t *codes, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i += ULAW_BLOCK) {
        i16_t sample = (i16_t)*(const pcm_t *)(pcm + 2 * i);
        i16_t negative = sample >> 15;
        /* One's complement, as in G.191: -4..-1 fall towards zero like 0..3. */
        u32_t biased = (u32_t)((u16_t)(sample ^ negative) + ULAW_BIAS);
        u32_t even = (u32_t)__builtin_convertvector((i32_t)(biased & 0xFFFF), f32_t) >> 19;
        u32_t odd = (u32_t)__builtin_convertvector((i32_t)(biased >> 16), f32_t) >> 19;
        u16_t code = (u16_t)(even | (odd << 16)) - SEGMENT_0;
        code -= code >> 7; /* magnitudes that the bias lifts out of segment 7 clip to its end */
        code |= (u16_t)(negative & 0x80);
        *(codes_t *)(codes + i) = __builtin_convertvector(~code, codes_t);
    }
}

INLINE void convert_blocks(const uint8_t *data, uint8_t *out, ptrdiff_t count, int decoding) {
    if (decoding) decode_blocks(data, out, count);
    else encode_blocks(data, out, count);
}

AVX2 static void convert_avx2(const uint8_t *data, uint8_t *out, ptrdiff_t count, int decoding) {
    convert_blocks(data, out, count, decoding);
}

/* Converts the whole blocks of `count` samples, and returns how many samples these have. */
static ptrdiff_t ulaw_vectors(const uint8_t *data, uint8_t *out, ptrdiff_t count, int decoding) {
    count -= count % ULAW_BLOCK;
    if (use_avx2) convert_avx2(data, out, count, decoding);
    else convert_blocks(data, out, count, decoding);
    return count;
}
#else
#define ulaw_vectors(data, out, count, decoding) 0 /* the tables convert everything */
#endif
