/* The filter of resampler.pyx where it goes up by a whole number, for the wider vectors.
 *
 * Every sample that comes in completes one round of all rows. So the lanes can be neighbouring
 * rounds, and nothing is summed across them: an output is summed tap by tap, in whatever company
 * it is computed. Two or three rows for a RUN of rounds are what the registers of AVX2 hold.
 */
#ifndef PIPECAT_TWILIO_FIR_UP_H
#define PIPECAT_TWILIO_FIR_UP_H

#include "floats.h"

#if HAVE_VECTORS
enum { RUN = 32 };

#define OF_ALL(tap) ((f32x8){tap, tap, tap, tap, tap, tap, tap, tap})
#define PUT(address, value) (*(loose_f32x8 *)(address) = (value))
#define PUT_4(to, v0, v1, v2, v3)                                                                  \
    (PUT(to, v0), PUT((to) + 8, v1), PUT((to) + 16, v2), PUT((to) + 24, v3))

#define MAC_3(V, sum0, sum1, sum2, x)                                                              \
    do {                                                                                           \
        V samples = AT(V, x + k);                                                                  \
        IN_REGISTER(samples);                                                                      \
        sum0 += t0 * samples, sum1 += t1 * samples, sum2 += t2 * samples;                          \
    } while (0)

INLINE void run_of_2(ptrdiff_t taps, const float *row0, const float *row1, const float *x,
                     float sums[][RUN]) {
    f32x8 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (ptrdiff_t k = 0; k < taps; k++) {
        f32x8 t0 = OF_ALL(row0[k]), t1 = OF_ALL(row1[k]);
        MAC_2(f32x8, a0, b0, x);
        MAC_2(f32x8, a1, b1, x + 8);
        MAC_2(f32x8, a2, b2, x + 16);
        MAC_2(f32x8, a3, b3, x + 24);
    }
    PUT_4(sums[0], a0, a1, a2, a3);
    PUT_4(sums[1], b0, b1, b2, b3);
}

INLINE void run_of_3(ptrdiff_t taps, const float *row0, const float *row1, const float *row2,
                     const float *x, float sums[][RUN]) {
    f32x8 a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    f32x8 c0 = {0}, c1 = {0}, c2 = {0}, c3 = {0};
    for (ptrdiff_t k = 0; k < taps; k++) {
        f32x8 t0 = OF_ALL(row0[k]), t1 = OF_ALL(row1[k]), t2 = OF_ALL(row2[k]);
        MAC_3(f32x8, a0, b0, c0, x);
        MAC_3(f32x8, a1, b1, c1, x + 8);
        MAC_3(f32x8, a2, b2, c2, x + 16);
        MAC_3(f32x8, a3, b3, c3, x + 24);
    }
    PUT_4(sums[0], a0, a1, a2, a3);
    PUT_4(sums[1], b0, b1, b2, b3);
    PUT_4(sums[2], c0, c1, c2, c3);
}

/* Computes all rows for `rounds` samples from x on. Up to RUN - 1 more samples are read in vain. */
INLINE void fir_up(const float *bank, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t up,
                   const float *x, int16_t *pcm, ptrdiff_t rounds) {
    float sums[3][RUN];
    int16_t some[3 * RUN];

    for (ptrdiff_t run; rounds > 0; rounds -= run, x += run, pcm += run * up) {
        run = rounds < RUN ? rounds : RUN;
        for (ptrdiff_t r = 0, rows; r < up; r += rows) {
            const float *row = bank + r * stride;
            int16_t *out = pcm + r;
            rows = (up - r) % 2 ? 3 : 2;
            if (rows == 2) {
                run_of_2(taps, row, row + stride, x, sums);
                for (int i = 0; i < RUN; i += 4) {
                    f32x4 a = AT(f32x4, sums[0] + i), b = AT(f32x4, sums[1] + i);
                    round_four_to_pcm(SHUFFLE_4(a, b, 0, 4, 1, 5), some + 2 * i);
                    round_four_to_pcm(SHUFFLE_4(a, b, 2, 6, 3, 7), some + 2 * i + 4);
                }
                for (ptrdiff_t i = 0; i < run; i++, out += up) {
                    memcpy(out, some + 2 * i, 2 * sizeof *out);
                }
            } else {
                run_of_3(taps, row, row + stride, row + 2 * stride, x, sums);
                for (int i = 0; i < 3 * RUN; i += 4) {
                    round_four_to_pcm(AT(f32x4, sums[i / RUN] + i % RUN), some + i);
                }
                for (ptrdiff_t i = 0; i < run; i++, out += up) {
                    out[0] = some[i], out[1] = some[i + RUN], out[2] = some[i + 2 * RUN];
                }
            }
        }
    }
}
#endif

#endif
