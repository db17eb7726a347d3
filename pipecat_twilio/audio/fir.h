/* The filter of resampler.pyx. No bounds checks: pass valid pointers and lengths.
 *
 * Time is counted in ticks from the window's first sample: a sample lasts `up` ticks, and an
 * output is due every `down`. The tick of an output, divided by `up`, is the first sample that it
 * is computed from; the remainder, its phase, is its row of taps. fir_plain defines the filter.
 *
 * Where there are vectors, two loops compute the same: fir_rounds from a rate to its multiples and
 * down to a sixth, as on the telephone, else fir_dots. Each output sums its products in an order
 * that does not depend on the outputs beside it. So the chunks in which samples come change no bit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "vectors.h"

enum {
    BLOCK = 1024, /* most samples and outputs at a time: 20 ms at 48 kHz are fewer */
    LANES = 8, /* floats in a vector; the baseline path needs two registers for it */
    MAX_TILE = 10 * LANES, /* outputs of a phase that fir_rounds computes at a time */
    MAX_PLANES = 6, MAX_PLANE_TAPS = 2 * 192, /* 48 to 8 kHz has 6; MAX_NUM_ZEROS is 192 */
    WINDOW_ROOM = BLOCK + MAX_TILE * MAX_PLANES /* beyond the taps: fir_rounds reads that far */
};

struct fir {
    const float *bank; /* `up` rows of `taps`, 32 or its multiples a plane; the oldest's first */
    float *window;     /* the samples from the first that the next output needs, oldest first */
    ptrdiff_t taps, up, down, held, phase; /* samples held in the window; the next output's phase */
};

INLINE void fir_plain(const struct fir *fir, float *out, ptrdiff_t outputs) {
    ptrdiff_t tick = fir->phase;
    for (ptrdiff_t m = 0; m < outputs; m++, tick += fir->down) {
        const float *row = fir->bank + tick % fir->up * fir->taps;
        const float *x = fir->window + tick / fir->up;
        float sums[4] = {0}; /* four of them, so that none has to wait for the product before */
        for (ptrdiff_t k = 0; k < fir->taps; k += 4) {
            for (int i = 0; i < 4; i++) sums[i] += row[k + i] * x[k + i];
        }
        out[m] = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}

#if HAVE_VECTORS
typedef float V __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
/* fir_plain in vectors: the lanes of a sum are LANES products of one output. */
INLINE void fir_dots(const struct fir *fir, float *out, ptrdiff_t outputs) {
    const uint32_t up = (uint32_t)fir->up, down = (uint32_t)fir->down; /* quick to divide */
    uint32_t tick = (uint32_t)fir->phase;
    for (ptrdiff_t m = 0; m < outputs; m++, tick += down) {
        const V *row = (const V *)(fir->bank + tick % up * fir->taps);
        const V *x = (const V *)(fir->window + tick / up);
        V sums[4] = {{0}};
        for (ptrdiff_t k = 0; k < fir->taps / LANES; k += 4) {
            for (int i = 0; i < 4; i++) sums[i] += row[k + i] * x[k + i];
        }
        const V v = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        out[m] = ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
    }
}

/* For rates of which `up` or `down` is 1. A round is `down` samples: they complete one output of
 * each phase. Plane p has sample p of each round, so the samples that a tap is multiplied with
 * are neighbours. A tile is the rounds that are computed together: lane i of sums[v] is the output
 * of its round v * LANES + i. */
INLINE void fir_rounds(const struct fir *fir, float *out, ptrdiff_t outputs, const int vectors) {
    const ptrdiff_t up = fir->up, down = fir->down, rounds = outputs / up, tile = vectors * LANES;
    const ptrdiff_t taps = fir->taps / down, length = taps + (rounds + tile - 1) / tile * tile;
    float planes[MAX_PLANES * MAX_PLANE_TAPS + WINDOW_ROOM];
    for (ptrdiff_t i = 0; i < length * down && down > 1; i += LANES) { /* LANES divides length */
        const float *x = fir->window + i % length * down + i / length;
        for (int j = 0; j < LANES; j++) planes[i + j] = x[j * down];
    }
    for (ptrdiff_t n = 0; n < rounds; n += tile, out += tile * up) {
        for (ptrdiff_t phase = 0; phase < up; phase++) {
            V sums[MAX_TILE / LANES] = {{0}};
            for (ptrdiff_t p = 0; p < down; p++) {
                const float *row = fir->bank + phase * fir->taps + p;
                const float *plane = (down > 1 ? planes + p * length : fir->window) + n;
                for (ptrdiff_t i = 0; i < taps / 2; i++) {
                    /* Taps k and k + LANES at a time, each as a vector: the second needs the same
                     * samples, one vector on. Volatile, or GCC would load them for each of both. */
                    const ptrdiff_t k = i + (i & -LANES);
                    const V t0 = row[k * down] - (V){0}, t1 = row[(k + LANES) * down] - (V){0};
                    const volatile V *x = (const volatile V *)(plane + k);
                    V here = x[0];
                    for (int v = 0; v < vectors; v++) {
                        const V next = x[v + 1];
                        sums[v] += t0 * here;
                        sums[v] += t1 * next;
                        here = next;
                    }
                }
            }
            const ptrdiff_t count = rounds - n < tile ? rounds - n : tile;
            for (ptrdiff_t i = 0; i < count; i++) out[i * up + phase] = ((const float *)sums)[i];
        }
    }
}
#endif

/* Returns how many outputs so many more ticks of input complete. */
INLINE ptrdiff_t fir_outputs_in(const struct fir *fir, int64_t ticks) {
    ticks -= (int64_t)(fir->taps - 1 - fir->held) * fir->up + fir->phase;
    return ticks > 0 ? (ptrdiff_t)((ticks + fir->down - 1) / fir->down) : 0;
}

INLINE void fir_blocks(struct fir *fir, const uint8_t *pcm, ptrdiff_t count, int16_t *out,
                       const int vectors) {
    const ptrdiff_t most = fir->up > fir->down ? BLOCK * fir->down / fir->up : BLOCK; /* >= 32 */
    float computed[BLOCK];
    for (ptrdiff_t block; count > 0; count -= block, pcm += 2 * block) {
        block = count < most ? count : most;
        const ptrdiff_t due = fir_outputs_in(fir, (int64_t)block * fir->up);
        for (ptrdiff_t i = 0; i < block; i++) {
            int16_t sample;
            memcpy(&sample, pcm + 2 * i, sizeof sample); /* a buffer may start at an odd address */
            fir->window[fir->held + i] = sample;
        }
#if HAVE_VECTORS
        const int in_rounds = fir->down == 1 || (fir->up == 1 && fir->down <= MAX_PLANES);
        if (in_rounds) fir_rounds(fir, computed, due, vectors);
        else fir_dots(fir, computed, due);
#else
        fir_plain(fir, computed, due), (void)vectors;
#endif
        for (ptrdiff_t i = 0; i < due; i++) { /* rounds half to even, and saturates */
            const float sample = computed[i] + 12582912; /* 1.5 * 2**23: there, floats are whole */
            int32_t rounded;
            memcpy(&rounded, &sample, sizeof rounded);
            rounded -= 0x4B400000; /* the bits of 12582912 */
            rounded = rounded < INT16_MAX ? rounded : INT16_MAX;
            *out++ = (int16_t)(rounded > INT16_MIN ? rounded : INT16_MIN);
        }
        const int64_t tick = fir->phase + (int64_t)due * fir->down;
        const ptrdiff_t done = (ptrdiff_t)(tick / fir->up); /* samples no other output needs */
        fir->phase = (ptrdiff_t)(tick % fir->up), fir->held += block - done;
        memmove(fir->window, fir->window + done, (size_t)fir->held * sizeof(float));
    }
}

AVX2 static void fir_run_avx2(struct fir *fir, const uint8_t *pcm, ptrdiff_t count, int16_t *out) {
    fir_blocks(fir, pcm, count, out, 10); /* sums; with 2 taps and 2 samples 14 registers of 16 */
}

/* Takes `count` samples, and computes all outputs that these complete. */
static void fir_run(struct fir *fir, const uint8_t *pcm, ptrdiff_t count, int16_t *out) {
    if (use_avx2) fir_run_avx2(fir, pcm, count, out);
    else fir_blocks(fir, pcm, count, out, 5); /* of two registers each */
}
