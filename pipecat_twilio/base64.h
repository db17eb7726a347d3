/* The vector loop of base64.pyx, for AVX2. Callers vouch for every pointer and length. */
#ifndef PIPECAT_TWILIO_BASE64_H
#define PIPECAT_TWILIO_BASE64_H

#include <stddef.h>
#include <stdint.h>

#include "vectors.h"

enum { BASE64_BLOCK = 12, BASE64_READ = 16 }; /* bytes that become 16 characters; that are read */

#if HAVE_AVX2_PATH
typedef uint8_t bytes_t __attribute__((vector_size(16)));
typedef uint8_t loose_bytes_t __attribute__((vector_size(16), aligned(1), may_alias));
typedef int8_t chars_t __attribute__((vector_size(16)));
typedef uint32_t threes_t __attribute__((vector_size(16)));

#if defined(__clang__)
#define SHUFFLE_BYTES(bytes, ...) __builtin_shufflevector(bytes, bytes, __VA_ARGS__)
#else
#define SHUFFLE_BYTES(bytes, ...) __builtin_shuffle(bytes, (bytes_t){__VA_ARGS__})
#endif

/* Encodes `count` blocks. */
AVX2 static void base64_blocks(const uint8_t *data, uint8_t *text, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++, data += BASE64_BLOCK, text += 16) {
        bytes_t bytes = *(const loose_bytes_t *)data;
        /* Three bytes at a time, the first one topmost, are a number of 24 bits: base64 cuts it
         * into four of 6 bits. */
        threes_t threes = (threes_t)SHUFFLE_BYTES(bytes, 2, 1, 0, 0, 5, 4, 3, 3,
                                                  8, 7, 6, 6, 11, 10, 9, 9);
        chars_t six = (chars_t)((threes >> 18 & 0x3F) | (threes >> 4 & 0x3F00) |
                                (threes << 10 & 0x3F0000) | (threes << 24 & 0x3F000000));
        /* A-Z, a-z, 0-9, + and /: the steps between them, in ASCII. */
        chars_t chars = six + 'A' + ((six > 25) & 6) - ((six > 51) & 75) - ((six > 61) & 15) +
                        ((six > 62) & 3);
        *(loose_bytes_t *)text = (bytes_t)chars;
    }
}
#endif

/* Encodes the blocks that vectors can take; returns how many bytes that was. */
INLINE ptrdiff_t base64_vectors(const uint8_t *data, ptrdiff_t size, uint8_t *text) {
#if HAVE_AVX2_PATH
    if (use_avx2 && size >= BASE64_READ) {
        ptrdiff_t count = (size - BASE64_READ) / BASE64_BLOCK + 1;
        base64_blocks(data, text, count);
        return count * BASE64_BLOCK;
    }
#endif
    (void)data, (void)size, (void)text;
    return 0;
}

#endif
