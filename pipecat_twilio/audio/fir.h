/* The filter of resampler.pyx. Its caller vouches for pointers and lengths.
 *
 * Output m lies at m * down on a time axis of `up` ticks per input sample. The remainder of that by
 * `up` is its phase, which says which taps it is computed with; the quotient says which samples.
 * The window holds the samples from the first one that the next output needs, oldest first.
 *
 * An output sums its products in the same lanes in the same order, whichever outputs are computed
 * with it. So the chunks in which samples come make no difference to any bit.
 */
#ifndef PIPECAT_TWILIO_FIR_H
#define PIPECAT_TWILIO_FIR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"

enum {
    BLOCK = 1024,          /* most samples and outputs at a time: 20 ms at 48 kHz are fewer */
    VECTORS = 10,          /* of sums: with taps and samples they fit the 16 registers of x86-64 */
    MAX_TILE = 8 * VECTORS /* rounds that are computed together, and so how far fir_rounds reads */
};

struct fir {
    const float *bank; /* a row for each phase: `planes` times `taps` taps, a multiple of 16 */
    float *window;     /* `planes` times `length`: sample i is in plane i % planes */
    ptrdiff_t phases;  /* fewer than `up`: there is one more row, to interpolate between rows */
    ptrdiff_t planes, taps, length, up, down;
    ptrdiff_t held, phase; /* samples in the window, fewer than a row's taps; the next output's */
};

/* Where planes == down, `down` samples are a round, which completes an output of each row. The
 * lanes are neighbouring rounds, so nothing is summed across lanes. Samples are volatile since GCC
 * would load them again for each of their two uses. */
ON_EACH_PATH(fir_rounds, (const struct fir *fir, float *out, ptrdiff_t rounds),
             (fir, out, rounds), {
    enum { TILE = VECTORS * LANES };
    const ptrdiff_t up = fir->up, taps = fir->taps;
    for (ptrdiff_t n = 0; n < rounds; n += TILE, out += TILE * up) {
        const ptrdiff_t count = rounds - n < TILE ? rounds - n : TILE;
        const float *row = fir->bank;
        for (ptrdiff_t r = 0; r < up; r++) {
            V sums[VECTORS]; float outputs[TILE];
            for (int i = 0; i < VECTORS; i++) sums[i] = (V){0};
            for (ptrdiff_t p = 0; p < fir->planes; p++, row += taps) {
                const float *plane = fir->window + p * fir->length + n;
                for (ptrdiff_t i = 0; i < taps / 2; i++) {
                    /* Tap k + LANES uses, for a vector, what tap k uses for the vector after. */
                    const ptrdiff_t k = i + (i & -LANES);
                    const V t0 = row[k] - (V){0}, t1 = row[k + LANES] - (V){0}; /* in all lanes */
                    const volatile V_anywhere *x = (const volatile V_anywhere *)(plane + k);
                    V here = x[0];
                    for (int v = 0; v < VECTORS; v++) {
                        V next = x[v + 1];
                        sums[v] += t0 * here;
                        sums[v] += t1 * next;
                        here = next;
                    }
                }
            }
            memcpy(outputs, sums, sizeof outputs);
            for (ptrdiff_t i = 0; i < count; i++) out[i * up + r] = outputs[i];
        }
    }
})

/* Sums the lanes of each of four vectors. */
INLINE void sum_lanes(const float *v, int lanes, float *totals) {
#if HAVE_VECTORS
    f32x4 s[4], ab, cd;
    for (int i = 0; i < 4; i++, v += lanes) {
        s[i] = *(const f32x4_anywhere *)v;
        if (lanes == 8) s[i] += *(const f32x4_anywhere *)(v + 4);
    }
    ab = (f32x4){s[0][0], s[1][0], s[0][1], s[1][1]} + (f32x4){s[0][2], s[1][2], s[0][3], s[1][3]};
    cd = (f32x4){s[2][0], s[3][0], s[2][1], s[3][1]} + (f32x4){s[2][2], s[3][2], s[2][3], s[3][3]};
    *(f32x4_anywhere *)totals =
        (f32x4){ab[0], ab[1], cd[0], cd[1]} + (f32x4){ab[2], ab[3], cd[2], cd[3]};
#else
    for (int i = 0; i < 4; i++) totals[i] = v[i * lanes];
#endif
}

/* Any ratio. The lanes are products of one output. Sums are computed four or eight at a time, and
 * up to three outputs more than asked for. */
ON_EACH_PATH(fir_any, (const struct fir *fir, float *out, ptrdiff_t outputs),
             (fir, out, outputs), {
    const ptrdiff_t up = fir->up, down = fir->down, taps = fir->taps, phases = fir->phases;
    const ptrdiff_t quotient = down / up, remainder = down % up;
    const int interpolated = phases < up, each = interpolated ? 2 : 4;
    const float *x = fir->window;
    ptrdiff_t phase = fir->phase;
    /* Outputs that are `up` apart share a row, and their samples are `down` apart. */
    for (; !interpolated && outputs >= 8 * up; outputs -= 8 * up, out += 8 * up, x += 7 * down) {
        for (ptrdiff_t r = 0; r < up; r++) {
            const float *row = fir->bank + phase * taps;
            V sums[8]; float totals[8];
            for (int i = 0; i < 8; i++) sums[i] = (V){0};
            for (ptrdiff_t k = 0; k < taps; k += LANES) {
                const V t = *(const V_anywhere *)(row + k);
                const float *its = x + k;
                for (int i = 0; i < 8; i++, its += down) sums[i] += t * *(const V_anywhere *)its;
            }
            sum_lanes((const float *)sums, LANES, totals);
            sum_lanes((const float *)(sums + 4), LANES, totals + 4);
            for (int i = 0; i < 8; i++) out[r + i * up] = totals[i];
            phase += remainder, x += quotient;
            if (phase >= up) phase -= up, x++;
        }
    }
    for (; outputs > 0; outputs -= each, out += each) {
        const V_anywhere *rows[4], *xs[4];
        V sums[4]; float between[2];
        for (int i = 0; i < 4; i++) {
            const ptrdiff_t row = interpolated ? phase * phases / up + i % 2 : phase;
            rows[i] = (const V_anywhere *)(fir->bank + row * taps);
            xs[i] = (const V_anywhere *)x;
            between[i / 2] = interpolated ? (float)(phase * phases % up) / (float)up : 0;
            if (interpolated && i % 2 == 0) continue; /* to the other one of its two rows */
            phase += remainder, x += quotient;
            if (phase >= up) phase -= up, x++;
        }
        for (int i = 0; i < 4; i++) sums[i] = (V){0};
        for (ptrdiff_t k = 0; k < taps / LANES; k++) {
            for (int i = 0; i < 4; i++) sums[i] += rows[i][k] * xs[i][k];
        }
        sum_lanes((const float *)sums, LANES, out);
        for (int i = 0; i < 2 && interpolated; i++) {
            out[i] = out[2 * i] + between[i] * (out[2 * i + 1] - out[2 * i]);
        }
    }
})

/* Converts every `stride`th sample; by memcpy, since a buffer may start at an odd address. */
INLINE void to_float(const uint8_t *pcm, ptrdiff_t stride, float *samples, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) {
        int16_t sample;
        memcpy(&sample, pcm + 2 * stride * i, sizeof sample);
        samples[i] = sample;
    }
}

/* Appends samples to the window. */
ON_EACH_PATH(fir_append, (struct fir *fir, const uint8_t *pcm, ptrdiff_t count),
             (fir, pcm, count), {
    const ptrdiff_t planes = fir->planes;
    for (ptrdiff_t i = 0; i < planes; i++, pcm += 2) {
        const ptrdiff_t at = fir->held + i, its = (count - i + planes - 1) / planes;
        float *end = fir->window + at % planes * fir->length + at / planes;
        if (planes == 1) to_float(pcm, 1, end, its); /* a constant lets the compiler use vectors */
        else if (planes == 2) to_float(pcm, 2, end, its);
        else if (planes == 3) to_float(pcm, 3, end, its);
        else to_float(pcm, planes, end, its);
    }
    fir->held += count;
})

/* Rounds half to even, and saturates. */
ON_EACH_PATH(to_pcm, (const float *samples, int16_t *pcm, ptrdiff_t count), (samples, pcm, count), {
    for (ptrdiff_t i = 0; i < count; i++) {
        float sample = samples[i] + 0x1.8p23f; /* floats from 2**23 to 2**24 are the integers */
        uint32_t bits;
        memcpy(&bits, &sample, sizeof bits);
        int32_t rounded = (int32_t)(bits - 0x4B400000); /* the bits of 0x1.8p23f */
        rounded = rounded < INT16_MAX ? rounded : INT16_MAX;
        pcm[i] = (int16_t)(rounded > INT16_MIN ? rounded : INT16_MIN);
    }
})

/* Returns how many outputs lie in the next so many ticks after the end of what was taken. */
INLINE ptrdiff_t fir_outputs_in(const struct fir *fir, int64_t ticks) {
    ticks -= (int64_t)(fir->planes * fir->taps - 1 - fir->held) * fir->up + fir->phase;
    return ticks > 0 ? (ptrdiff_t)((ticks + fir->down - 1) / fir->down) : 0;
}

/* Takes `count` samples, and computes the first `outputs` of all that these complete. */
static void fir_run(struct fir *fir, const uint8_t *pcm, ptrdiff_t count, int16_t *out,
                    ptrdiff_t outputs) {
    const ptrdiff_t most = fir->up > fir->down ? BLOCK * fir->down / fir->up : BLOCK;
    float computed[BLOCK + 4];
    for (ptrdiff_t block, due; count > 0; count -= block, pcm += 2 * block, outputs -= due) {
        block = count < most ? count : most;
        due = fir_outputs_in(fir, (int64_t)block * fir->up);
        due = due < outputs ? due : outputs;
        fir_append(fir, pcm, block);
        if (fir->planes == fir->down) fir_rounds(fir, computed, due / fir->up);
        else fir_any(fir, computed, due);
        to_pcm(computed, out, due), out += due;
        const int64_t ticks = fir->phase + (int64_t)due * fir->down;
        const ptrdiff_t done = (ptrdiff_t)(ticks / fir->up); /* samples no other output needs */
        fir->phase = (ptrdiff_t)(ticks % fir->up), fir->held -= done;
        for (ptrdiff_t p = 0; p < fir->planes; p++) {
            float *plane = fir->window + p * fir->length;
            memmove(plane, plane + done / fir->planes, (size_t)(fir->held / fir->planes + 1) * 4);
        }
    }
}

#endif
