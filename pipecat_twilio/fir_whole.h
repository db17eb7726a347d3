/* The filter of resampler.pyx where one rate is 2 to 6 times the other, for the wider vectors.
 *
 * `down` samples that come in make a round, and complete `up` outputs, one of each row. Rounds are
 * computed in pairs, by a fast FIR algorithm. With e and o the taps for every first and every
 * second round of samples, E and O these samples, and N the first ones of the pair after,
 *
 *     first output  = e * E + o * O = e * (E - O) + (e + o) * O
 *     second output = e * O + o * N = o * (N - O) + (e + o) * O
 *
 * take three half filters, not four, since their last terms are the same.
 *
 * The lanes are neighbouring pairs, whose samples are dealt out to planes, so nothing is summed
 * across lanes. An output sums its products in the same order in whatever company it is computed;
 * which of its pair it is, is up to how many rounds came before, not to their chunks.
 *
 * Source: Z.-J. Mou, P. Duhamel, "Short-length FIR filters and their use in fast nonrecursive
 * filtering", IEEE Transactions on Signal Processing 39 (1991)
 */
#ifndef PIPECAT_TWILIO_FIR_WHOLE_H
#define PIPECAT_TWILIO_FIR_WHOLE_H

#include "floats.h"

#if HAVE_AVX2_PATH
#include <immintrin.h>
#endif

enum {
    BLOCK = 1024,   /* the most samples that come in at a time: 20 ms at 48 kHz are fewer */
    MOST_TIMES = 6, /* one rate the other */
    HALF_TAPS = 32, /* of a half filter, for each of the samples of a round */
    PAIRS = 40      /* computed at a time: five vectors; 10 ms at 8 kHz */
};

#if HAVE_AVX2_PATH
#define OF_ALL(tap) ((f32x8){tap, tap, tap, tap, tap, tap, tap, tap})
#define PUT(address, value) (*(loose_f32x8 *)(address) = (value))

/* Computes what a half filter contributes to PAIRS: `x` are the samples of the first, in `down`
 * planes, `length` apart. Every pair has two sums: ten vectors hide how long an addition takes. */
AVX2 INLINE void half_filter(const float *taps, const float *x, ptrdiff_t length, ptrdiff_t down,
                             float *sums) {
    f32x8 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0};
    f32x8 b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}, b4 = {0};
    for (ptrdiff_t p = 0; p < down; p++, taps += HALF_TAPS, x += length) {
        for (int k = 0; k < 8; k++) {
            /* Eight taps on, a plane serves the same samples to the pairs eight before. */
            f32x8 t0 = OF_ALL(taps[k]), t1 = OF_ALL(taps[k + 8]);
            f32x8 t2 = OF_ALL(taps[k + 16]), t3 = OF_ALL(taps[k + 24]);
            const float *at = x + k;
            WITH(f32x8, at, a0 += t0 * s);
            WITH(f32x8, at + 8, a1 += t0 * s, b0 += t1 * s);
            WITH(f32x8, at + 16, a2 += t0 * s, b1 += t1 * s, a0 += t2 * s);
            WITH(f32x8, at + 24, a3 += t0 * s, b2 += t1 * s, a1 += t2 * s, b0 += t3 * s);
            WITH(f32x8, at + 32, a4 += t0 * s, b3 += t1 * s, a2 += t2 * s, b1 += t3 * s);
            WITH(f32x8, at + 40, b4 += t1 * s, a3 += t2 * s, b2 += t3 * s);
            WITH(f32x8, at + 48, a4 += t2 * s, b3 += t3 * s);
            WITH(f32x8, at + 56, b4 += t3 * s);
        }
    }
    PUT(sums, a0 + b0), PUT(sums + 8, a1 + b1), PUT(sums + 16, a2 + b2);
    PUT(sums + 24, a3 + b3), PUT(sums + 32, a4 + b4);
}

/* Transposes two times four rows of four, one in the lower, one in the upper halves. */
AVX2 INLINE void transpose(f32x8 *v) {
    f32x8 ab = SHUFFLE_8(v[0], v[1], 0, 8, 1, 9, 4, 12, 5, 13);
    f32x8 AB = SHUFFLE_8(v[0], v[1], 2, 10, 3, 11, 6, 14, 7, 15);
    f32x8 cd = SHUFFLE_8(v[2], v[3], 0, 8, 1, 9, 4, 12, 5, 13);
    f32x8 CD = SHUFFLE_8(v[2], v[3], 2, 10, 3, 11, 6, 14, 7, 15);
    v[0] = SHUFFLE_8(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13);
    v[1] = SHUFFLE_8(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    v[2] = SHUFFLE_8(AB, CD, 0, 1, 8, 9, 4, 5, 12, 13);
    v[3] = SHUFFLE_8(AB, CD, 2, 3, 10, 11, 6, 7, 14, 15);
}

AVX2 INLINE f32x8 halves_of(const float *lower, const float *upper) {
    return (f32x8)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(lower)),
                                       _mm_loadu_ps(upper), 1);
}

/* Deals samples out in turn to planes, `length` apart: `count` to each, a multiple of 8. */
AVX2 INLINE void deal(const float *x, float *plane, ptrdiff_t planes, ptrdiff_t length,
                      ptrdiff_t count) {
    if (planes == 2) {
        for (ptrdiff_t n = 0; n < count; n += 8, x += 16) {
            f32x8 a = halves_of(x, x + 8), b = halves_of(x + 4, x + 12);
            PUT(plane + n, SHUFFLE_8(a, b, 0, 2, 8, 10, 4, 6, 12, 14));
            PUT(plane + length + n, SHUFFLE_8(a, b, 1, 3, 9, 11, 5, 7, 13, 15));
        }
        return;
    }
    for (ptrdiff_t p = 0; p < planes; p += 4) {
        if (p > planes - 4) p = planes - 4; /* some a second time, where four do not divide them */
        for (ptrdiff_t n = 0; n < count; n += 8) {
            const float *at = x + p + n * planes;
            f32x8 v[4];
            for (int i = 0; i < 4; i++, at += planes) v[i] = halves_of(at, at + 4 * planes);
            transpose(v);
            for (int i = 0; i < 4; i++) PUT(plane + (p + i) * length + n, v[i]);
        }
    }
}

/* Rounds to even, and saturates; the lower halves come out first. */
AVX2 INLINE void round_sixteen_to_pcm(f32x8 a, f32x8 b, int16_t *a0, int16_t *b0, int16_t *a1,
                                      int16_t *b1) {
    __m256i pcm = _mm256_packs_epi32(_mm256_cvtps_epi32((__m256)a), _mm256_cvtps_epi32((__m256)b));
    __m128i lower = _mm256_castsi256_si128(pcm), upper = _mm256_extracti128_si256(pcm, 1);
    _mm_storel_epi64((__m128i *)a0, lower);
    _mm_storel_epi64((__m128i *)b0, _mm_unpackhi_epi64(lower, lower));
    _mm_storel_epi64((__m128i *)a1, upper);
    _mm_storel_epi64((__m128i *)b1, _mm_unpackhi_epi64(upper, upper));
}

/* Takes outputs in turn from `rows` rows: PAIRS from each. */
AVX2 INLINE void collect(float outputs[][PAIRS], ptrdiff_t rows, int16_t *pcm) {
    if (rows == 2) {
        for (int n = 0; n < PAIRS; n += 8, pcm += 16) {
            f32x8 a = AT(f32x8, outputs[0] + n), b = AT(f32x8, outputs[1] + n);
            f32x8 low = SHUFFLE_8(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
            f32x8 high = SHUFFLE_8(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
            round_sixteen_to_pcm(low, high, pcm, pcm + 4, pcm + 8, pcm + 12);
        }
        return;
    }
    for (ptrdiff_t r = 0; r < rows; r += 4) {
        if (r > rows - 4) r = rows - 4;
        for (int n = 0; n < PAIRS; n += 8) {
            int16_t *at = pcm + n * rows + r;
            f32x8 v[4];
            for (int i = 0; i < 4; i++) v[i] = AT(f32x8, outputs[r + i] + n);
            transpose(v);
            round_sixteen_to_pcm(v[0], v[1], at, at + rows, at + 4 * rows, at + 5 * rows);
            at += 2 * rows;
            round_sixteen_to_pcm(v[2], v[3], at, at + rows, at + 4 * rows, at + 5 * rows);
        }
    }
}

/* Computes `rounds` rounds of outputs, those of a BLOCK at most. `x` are the first one's samples;
 * if it is the `second` of a pair, those of the first lie before them. `halves` are the taps of
 * each row: for first rounds, the sums of both, and for second rounds, by sample of a round. */
AVX2 static void fir_whole(const float *halves, ptrdiff_t up, ptrdiff_t down, const float *x,
                           ptrdiff_t second, int16_t *pcm, ptrdiff_t rounds) {
    enum { LONGEST = BLOCK / 2 + MOST_TIMES * (1 + PAIRS + HALF_TAPS + 8) };
    float planes[3 * LONGEST], outputs[2 * MOST_TIMES][PAIRS];
    int16_t some[2 * MOST_TIMES * PAIRS];
    const f32x8 zero = {0};
    const ptrdiff_t pairs = (second + rounds + 1) / 2, all = 2 * up * PAIRS;
    const ptrdiff_t length = (pairs + PAIRS - 1) / PAIRS * PAIRS + HALF_TAPS + 8;
    const ptrdiff_t dealt = (pairs + HALF_TAPS + 7) / 8 * 8;
    ptrdiff_t skipped = second * up;

    deal(x - second * down, planes, 2 * down, length, dealt);
    for (ptrdiff_t p = 0; p < down; p++) {
        float *E = planes + p * length, *O = E + down * length, *N = O + down * length;
        /* What is computed in vain is 0: a denormal number would take its time. */
        for (ptrdiff_t n = dealt; n < length; n += 8) {
            PUT(E + n, zero), PUT(O + n, zero);
        }
        for (ptrdiff_t n = 0; n < length - 8; n += 8) {
            f32x8 e = AT(f32x8, E + n), o = AT(f32x8, O + n), next = AT(f32x8, E + n + 1);
            PUT(E + n, e - o), PUT(N + n, next - o);
        }
    }
    for (ptrdiff_t left = rounds * up, n = 0, count; left > 0; left -= count, n += PAIRS) {
        const float *taps = halves;
        int16_t *to;
        for (ptrdiff_t row = 0; row < up; row++) {
            float sums[3][PAIRS];
            for (int half = 0; half < 3; half++, taps += down * HALF_TAPS) {
                half_filter(taps, planes + half * down * length + n, length, down, sums[half]);
            }
            for (int i = 0; i < PAIRS; i += 8) {
                f32x8 both = AT(f32x8, sums[1] + i);
                PUT(outputs[row] + i, AT(f32x8, sums[0] + i) + both);
                PUT(outputs[up + row] + i, AT(f32x8, sums[2] + i) + both);
            }
        }
        count = all - skipped < left ? all - skipped : left;
        to = count == all ? pcm : some;
        collect(outputs, 2 * up, to);
        if (to == some) memcpy(pcm, some + skipped, count * sizeof *pcm);
        pcm += count, skipped = 0;
    }
}
#endif

#endif
