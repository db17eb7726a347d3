/* Multiply-adds as fast as the core can: twelve sums, more than it has in flight at a time. */
typedef float v8 __attribute__((vector_size(32)));

/* The barrier keeps the compiler from making two rounds one. */
#define ROUND(s)                                                                                   \
    s = s * x + x;                                                                                 \
    __asm__("" : "+x"(s))

float multiply_adds(long rounds, float factor) {
    v8 x = {factor, factor, factor, factor, factor, factor, factor, factor};
    v8 a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, j = x, k = x, l = x;
    while (rounds--) {
        ROUND(a); ROUND(b); ROUND(c); ROUND(d); ROUND(e); ROUND(f);
        ROUND(g); ROUND(h); ROUND(i); ROUND(j); ROUND(k); ROUND(l);
    }
    a += b + c + d + e + f + g + h + i + j + k + l;
    return a[0];
}
