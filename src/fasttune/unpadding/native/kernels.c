/* Kernels for CPUs with AVX-512 BF16, compiled on the machine that runs them (build.py). Plain C, no torch headers.
 *
 * Attention over concatenated sequences. Query, key and value are bfloat16, with the `width` numbers of a head
 * contiguous. Each pair (sequence, head) is one work item, whose memory stays in a core's L2 cache.
 *   S = Q K^T * scale,  P = exp(S - lse),  O = (P * M) V               M: dropout mask, 0 or 1 / (1 - p)
 *   dP = (dO V^T) * M,  dS = P * (dP - rowsum(dO * O)) * scale,  dQ = dS K,  dK = dS^T Q,  dV = (P * M)^T dO
 * as in Dao et al. 2022 (FlashAttention), appendix B, but P is stored in full because sequences are short.
 * Products are bfloat16 with fp32 sums (vdpbf16ps, two numbers per lane); the softmax is fp32.
 *
 * Names: n tokens of one sequence, a "pair" is two bfloat16 in one 32-bit lane.
 */
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

#define ROWS 6        /* query rows at a time: 6 x 4 sums fill the registers at width 64 */
#define KEYS 32       /* keys at a time: two vectors */
#define INLINE static inline __attribute__((always_inline))

INLINE int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
INLINE float to_float(bf16 x) { uint32_t bits = (uint32_t)x << 16; float f; memcpy(&f, &bits, 4); return f; }
INLINE __m512 pair_product(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
INLINE __m512i load_bf16(const bf16 *x) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)); }
INLINE __m512 load_float(const bf16 *x) { return _mm512_castsi512_ps(_mm512_slli_epi32(load_bf16(x), 16)); }
INLINE __m256i to_bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
INLINE void store_bf16(bf16 *to, __m512 x) { _mm256_storeu_si256((__m256i *)to, to_bf16(x)); }

/* exp to about 1e-7 relative: Cephes' expf, a polynomial of degree 6 on [-ln2/2, ln2/2]. */
INLINE __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x); /* this operand order propagates NaN */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* Dropout: number `index` of a stream is kept when a hash of it (the finaliser of MurmurHash3, seeded in two places) is
 * not below the threshold p * 2^32. The mask depends only on positions, so the backward pass recomputes it. */
typedef struct { uint32_t threshold, low, high; float scale; } Dropout;

INLINE Dropout make_dropout(double probability, uint64_t seed) {
    return (Dropout){(uint32_t)(probability * 4294967296.0), (uint32_t)seed, (uint32_t)(seed >> 32), (float)(1.0 / (1.0 - probability))};
}
INLINE __mmask16 kept(Dropout drop, uint32_t index) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i x = _mm512_add_epi32(lanes, _mm512_set1_epi32(index));
    x = _mm512_add_epi32(_mm512_mullo_epi32(x, _mm512_set1_epi32(0x9E3779B1)), _mm512_set1_epi32(drop.low));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_xor_si512(_mm512_mullo_epi32(x, _mm512_set1_epi32(0x85EBCA6B)), _mm512_set1_epi32(drop.high));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 13));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0xC2B2AE35));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    return _mm512_cmpge_epu32_mask(x, _mm512_set1_epi32(drop.threshold));
}
INLINE Dropout of_piece(Dropout drop, uint64_t piece) {
    drop.low += (uint32_t)(piece * 0x632BE5ABu);
    drop.high ^= (uint32_t)((piece + 1) * 0x9E3779B97F4A7C15ull >> 32);
    return drop;
}

/* --- packing ------------------------------------------------------------------------------------------------------ */

/* Contiguous rows; zeros from row n to `rows`. */
INLINE void copy_rows(int width, bf16 *to, const bf16 *from, int64_t stride, int64_t n, int64_t rows) {
    for (int64_t i = 0; i < n; i++) memcpy(to + i * width, from + i * stride, sizeof(bf16) * width);
    memset(to + n * width, 0, sizeof(bf16) * width * (rows - n));
}

/* For products over the width: [keys / 16][width / 2][16] pairs along the width, from contiguous rows. */
INLINE void pack_along_width(int width, int32_t *to, const bf16 *rows, int64_t keys) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(width / 2));
    for (int64_t key = 0; key < keys; key += 16, rows += 16 * width)
        for (int pair = 0; pair < width / 2; pair++, to += 16)
            _mm512_storeu_si512(to, _mm512_i32gather_epi32(places, (const int32_t *)rows + pair, 4));
}

/* For products over the rows: [rows / 2][width] pairs of two neighbouring rows, from contiguous rows. */
INLINE void pack_along_rows(int width, int32_t *to, const bf16 *rows, int64_t num_rows) {
    for (int64_t row = 0; row < num_rows; row += 2, rows += 2 * width)
        for (int c = 0; c < width; c += 16, to += 16)
            _mm512_storeu_si512(to, _mm512_or_si512(load_bf16(rows + c), _mm512_slli_epi32(load_bf16(rows + width + c), 16)));
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* out [ROWS][keys] = rows [ROWS][width] times keys^T, keys packed along the width. */
INLINE void times_keys(int width, float *out, const bf16 *rows, const int32_t *packed, int64_t keys) {
    const int32_t *pairs = (const int32_t *)rows;
    for (int64_t key = 0; key < keys; key += KEYS, packed += KEYS * width / 2) {
        __m512 sum[ROWS][2];
        for (int r = 0; r < ROWS; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int pair = 0; pair < width / 2; pair++) {
            __m512i first = _mm512_loadu_si512(packed + pair * 16), second = _mm512_loadu_si512(packed + (width / 2 + pair) * 16);
            for (int r = 0; r < ROWS; r++) {
                __m512i both = _mm512_set1_epi32(pairs[r * (width / 2) + pair]);
                sum[r][0] = pair_product(sum[r][0], both, first);
                sum[r][1] = pair_product(sum[r][1], both, second);
            }
        }
        for (int r = 0; r < ROWS; r++) {
            _mm512_storeu_ps(out + r * keys + key, sum[r][0]);
            _mm512_storeu_ps(out + r * keys + key + 16, sum[r][1]);
        }
    }
}

/* sums [ROWS][width / 16] = weights times rows, rows packed along the rows; the pair of weights of row r at step s is
 * at weights[r * row_stride + s * step_stride]. */
INLINE void times_rows(int width, __m512 sums[ROWS][4], const int32_t *weights, int64_t row_stride, int64_t step_stride,
                       const int32_t *packed, int64_t steps) {
    for (int r = 0; r < ROWS; r++) for (int c = 0; c < width / 16; c++) sums[r][c] = _mm512_setzero_ps();
    for (int64_t step = 0; step < steps; step++, packed += width, weights += step_stride) {
        __m512i row[4];
        for (int c = 0; c < width / 16; c++) row[c] = _mm512_loadu_si512(packed + 16 * c);
        for (int r = 0; r < ROWS; r++) {
            __m512i both = _mm512_set1_epi32(weights[r * row_stride]);
            for (int c = 0; c < width / 16; c++) sums[r][c] = pair_product(sums[r][c], both, row[c]);
        }
    }
}

/* --- one sequence and head ---------------------------------------------------------------------------------------- */

typedef struct { const bf16 *data; int64_t token_stride, head_stride; } Input;

typedef struct {
    Input query, key, value;
    bf16 *out;            /* [T, H, width] */
    float *lse;           /* [H, T] logarithm of the sum of exp(S) */
    const int64_t *starts;
    int64_t num_sequences, heads, width;
    int64_t window;       /* a token sees those fewer than `window` positions away */
    float scale;
    Dropout drop;
    const bf16 *grad;     /* [T, H, width] */
    bf16 *grad_query, *grad_key, *grad_value;
} Attention;

INLINE const bf16 *rows_of(Input input, int64_t start, int64_t head) {
    return input.data + start * input.token_stride + head * input.head_stride;
}

INLINE __mmask16 real_lanes(int64_t n, int64_t key) {
    return n - key >= 16 ? 0xFFFF : n <= key ? 0 : (__mmask16)((1u << (n - key)) - 1);
}

/* The mask of the keys, from `key` on, that token i sees. */
INLINE __mmask16 seen_lanes(int64_t n, int64_t window, int64_t i, int64_t key) {
    const int64_t first = i - window + 1 - key, end = i + window - key;
    return real_lanes(n, key) & real_lanes(end, 0) & (first <= 0 ? 0xFFFF : first >= 16 ? 0 : (__mmask16)(0xFFFFu << first));
}

static size_t forward_bytes(int64_t n, int64_t width) {
    return (up(n, ROWS) + up(n, KEYS)) * width * sizeof(bf16) + up(n, KEYS) * width * 2 * sizeof(bf16) + up(n, KEYS) * ROWS * 6 + 4096;
}

INLINE void *take(char **memory, size_t bytes) { char *start = *memory; *memory += up(bytes, 64); return start; }

INLINE void forward_piece(int width, const Attention *a, int64_t sequence, int64_t head, char *memory) {
    const int64_t start = a->starts[sequence], n = a->starts[sequence + 1] - start, stride = a->heads * width;
    const int64_t keys = up(n, KEYS), rows = up(n, ROWS);
    bf16 *q = take(&memory, rows * width * 2), *side = take(&memory, keys * width * 2);
    int32_t *k = take(&memory, keys * width * 2), *v = take(&memory, keys * width * 2);
    float *scores = take(&memory, ROWS * keys * 4);
    bf16 *p = take(&memory, ROWS * keys * 2);
    float *lse = a->lse + head * a->starts[a->num_sequences] + start;
    const Dropout drop = of_piece(a->drop, sequence * a->heads + head);
    copy_rows(width, q, rows_of(a->query, start, head), a->query.token_stride, n, rows);
    copy_rows(width, side, rows_of(a->key, start, head), a->key.token_stride, n, keys);
    pack_along_width(width, k, side, keys);
    copy_rows(width, side, rows_of(a->value, start, head), a->value.token_stride, n, keys);
    pack_along_rows(width, v, side, keys);
    const __m512 scale = _mm512_set1_ps(a->scale), kept_scale = _mm512_set1_ps(drop.scale);
    for (int64_t i = 0; i < n; i += ROWS) {
        float inverse[ROWS];
        times_keys(width, scores, q + i * width, k, keys);
        for (int r = 0; r < ROWS; r++) {
            float *s = scores + r * keys;
            __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
            for (int64_t key = 0; key < n; key += 16)
                most = _mm512_mask_max_ps(most, seen_lanes(n, a->window, i + r, key), most, _mm512_loadu_ps(s + key));
            const float top = _mm512_reduce_max_ps(most) * a->scale;
            for (int64_t key = 0; key < keys; key += 16) {
                __m512 e = exp16(_mm512_fmsub_ps(_mm512_loadu_ps(s + key), scale, _mm512_set1_ps(top)));
                e = _mm512_maskz_mov_ps(seen_lanes(n, a->window, i + r, key), e);
                sum = _mm512_add_ps(sum, e);
                if (drop.threshold) e = _mm512_maskz_mul_ps(kept(drop, (i + r) * keys + key), e, kept_scale);
                store_bf16(p + r * keys + key, e);
            }
            const float total = _mm512_reduce_add_ps(sum);
            inverse[r] = 1.0f / total;
            if (i + r < n) lse[i + r] = top + logf(total);
        }
        __m512 sums[ROWS][4];
        times_rows(width, sums, (const int32_t *)p, keys / 2, 1, v, (n + 1) / 2);
        for (int r = 0; r < ROWS && i + r < n; r++)
            for (int c = 0; c < width / 16; c++)
                store_bf16(a->out + (start + i + r) * stride + head * width + 16 * c, _mm512_mul_ps(sums[r][c], _mm512_set1_ps(inverse[r])));
    }
}

static size_t backward_bytes(int64_t n, int64_t width) {
    const int64_t keys = up(n, KEYS), rows = up(n, ROWS);
    return (2 * rows * width + 2 * keys * width) * 2 + (3 * keys + 2 * rows) * width * 2 + ROWS * keys * 10 + 2 * (rows / 2 * keys + ROWS) * 4 + 8192;
}

/* dS and P * M of two neighbouring rows at 16 keys -> fp32; see the formulas at the top. */
INLINE void row_gradient(const Attention *a, Dropout drop, const float *s, const float *dp, __mmask16 seen, float lse, float delta,
                         uint32_t index, __m512 *ds, __m512 *pm) {
    __m512 p = exp16(_mm512_fmsub_ps(_mm512_loadu_ps(s), _mm512_set1_ps(a->scale), _mm512_set1_ps(lse)));
    __m512 grad = _mm512_loadu_ps(dp);
    p = _mm512_maskz_mov_ps(seen, p);
    *pm = p;
    if (drop.threshold) {
        const __mmask16 keep = kept(drop, index);
        grad = _mm512_maskz_mul_ps(keep, grad, _mm512_set1_ps(drop.scale));
        *pm = _mm512_maskz_mul_ps(keep, p, _mm512_set1_ps(drop.scale));
    }
    *ds = _mm512_mul_ps(_mm512_mul_ps(p, _mm512_sub_ps(grad, _mm512_set1_ps(delta))), _mm512_set1_ps(a->scale));
}

INLINE void store_rows(int width, bf16 *to, int64_t stride, int64_t num_rows, __m512 sums[ROWS][4]) {
    for (int r = 0; r < ROWS && r < num_rows; r++)
        for (int c = 0; c < width / 16; c++) store_bf16(to + r * stride + 16 * c, sums[r][c]);
}

INLINE void backward_piece(int width, const Attention *a, int64_t sequence, int64_t head, char *memory) {
    const int64_t start = a->starts[sequence], n = a->starts[sequence + 1] - start, stride = a->heads * width;
    const int64_t keys = up(n, KEYS), rows = up(n, ROWS), place = start * stride + head * width;
    bf16 *q = take(&memory, rows * width * 2), *g = take(&memory, rows * width * 2), *side = take(&memory, keys * width * 2);
    int32_t *k = take(&memory, keys * width * 2), *v = take(&memory, keys * width * 2), *k_rows = take(&memory, keys * width * 2);
    int32_t *q_rows = take(&memory, rows * width * 2), *g_rows = take(&memory, rows * width * 2);
    float *scores = take(&memory, ROWS * keys * 4), *grads = take(&memory, ROWS * keys * 4);
    bf16 *ds = take(&memory, ROWS * keys * 2);
    int32_t *ds_pairs = take(&memory, (rows / 2 * keys + ROWS) * 4), *p_pairs = take(&memory, (rows / 2 * keys + ROWS) * 4);
    const float *lse = a->lse + head * a->starts[a->num_sequences] + start;
    const Dropout drop = of_piece(a->drop, sequence * a->heads + head);
    copy_rows(width, q, rows_of(a->query, start, head), a->query.token_stride, n, rows);
    pack_along_rows(width, q_rows, q, rows);
    copy_rows(width, g, a->grad + place, stride, n, rows);
    pack_along_rows(width, g_rows, g, rows);
    copy_rows(width, side, rows_of(a->value, start, head), a->value.token_stride, n, keys);
    pack_along_width(width, v, side, keys);
    copy_rows(width, side, rows_of(a->key, start, head), a->key.token_stride, n, keys);
    pack_along_width(width, k, side, keys);
    pack_along_rows(width, k_rows, side, keys);
    __m512 sums[ROWS][4];
    for (int64_t i = 0; i < n; i += ROWS) {
        float delta[ROWS], lse_of[ROWS];
        for (int r = 0; r < ROWS; r++) {
            __m512 sum = _mm512_setzero_ps();
            for (int c = 0; c < width && i + r < n; c += 16)
                sum = _mm512_fmadd_ps(load_float(g + (i + r) * width + c), load_float(a->out + place + (i + r) * stride + c), sum);
            delta[r] = _mm512_reduce_add_ps(sum);
            lse_of[r] = i + r < n ? lse[i + r] : INFINITY; /* rows past the end have no weight */
        }
        times_keys(width, scores, q + i * width, k, keys);
        times_keys(width, grads, g + i * width, v, keys);
        for (int r = 0; r < ROWS; r += 2)
            for (int64_t key = 0; key < keys; key += 16) {
                __m512 d[2], p[2];
                for (int t = 0; t < 2; t++)
                    row_gradient(a, drop, scores + (r + t) * keys + key, grads + (r + t) * keys + key,
                                 seen_lanes(n, a->window, i + r + t, key), lse_of[r + t], delta[r + t],
                                 (i + r + t) * keys + key, &d[t], &p[t]);
                const __m256i first = to_bf16(d[0]), second = to_bf16(d[1]);
                _mm256_storeu_si256((__m256i *)(ds + r * keys + key), first);
                _mm256_storeu_si256((__m256i *)(ds + (r + 1) * keys + key), second);
                const int64_t at = (i + r) / 2 * keys + key;
                _mm512_storeu_si512(ds_pairs + at, _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16)));
                _mm512_storeu_si512(p_pairs + at, _mm512_or_si512(_mm512_cvtepu16_epi32(to_bf16(p[0])), _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(p[1])), 16)));
            }
        times_rows(width, sums, (const int32_t *)ds, keys / 2, 1, k_rows, (n + 1) / 2);
        store_rows(width, a->grad_query + place + i * stride, stride, n - i, sums);
    }
    for (int64_t j = 0; j < n; j += ROWS) {
        times_rows(width, sums, ds_pairs + j, 1, keys, q_rows, rows / 2);
        store_rows(width, a->grad_key + place + j * stride, stride, n - j, sums);
        times_rows(width, sums, p_pairs + j, 1, keys, g_rows, rows / 2);
        store_rows(width, a->grad_value + place + j * stride, stride, n - j, sums);
    }
}

/* --- entry points --------------------------------------------------------------------------------------------------- */

static void forward_32(const Attention *a, int64_t s, int64_t h, char *m) { forward_piece(32, a, s, h, m); }
static void forward_64(const Attention *a, int64_t s, int64_t h, char *m) { forward_piece(64, a, s, h, m); }
static void backward_32(const Attention *a, int64_t s, int64_t h, char *m) { backward_piece(32, a, s, h, m); }
static void backward_64(const Attention *a, int64_t s, int64_t h, char *m) { backward_piece(64, a, s, h, m); }

/* Returns 0, or 1 if out of memory. */
static int over_pieces(const Attention *a, void (*piece)(const Attention *, int64_t, int64_t, char *), size_t (*bytes)(int64_t, int64_t)) {
    int64_t longest = 0;
    int failed = 0;
    for (int64_t s = 0; s < a->num_sequences; s++)
        if (a->starts[s + 1] - a->starts[s] > longest) longest = a->starts[s + 1] - a->starts[s];
#pragma omp parallel
    {
        char *memory = aligned_alloc(64, up(bytes(longest, a->width), 64));
        if (!memory) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 2)
        for (int64_t piece_index = 0; piece_index < a->num_sequences * a->heads; piece_index++)
            if (memory) piece(a, piece_index / a->heads, piece_index % a->heads, memory);
        free(memory);
    }
    return failed;
}

int fasttune_attention_forward(const Attention *a) {
    return over_pieces(a, a->width == 32 ? forward_32 : forward_64, forward_bytes);
}

int fasttune_attention_backward(const Attention *a) {
    return over_pieces(a, a->width == 32 ? backward_32 : backward_64, backward_bytes);
}

Dropout fasttune_make_dropout(double probability, uint64_t seed) { return make_dropout(probability, seed); }

/* --- element-wise --------------------------------------------------------------------------------------------------- */

#define CHUNK 8192
#define FOR_CHUNKS(n, i, m) \
    _Pragma("omp parallel for schedule(static)") for (int64_t c = 0; c < ((n) + CHUNK - 1) / CHUNK; c++) \
        for (int64_t i = c * CHUNK, end = i + CHUNK < (n) ? i + CHUNK : (n), m; m = end - i < 16 ? end - i : 16, i < end; i += 16)

INLINE __mmask16 first_lanes(int64_t num) { return (__mmask16)((1u << num) - 1); }
INLINE __m512 load_some(const bf16 *x, int64_t num) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(num), x)), 16));
}
INLINE void store_some(bf16 *to, int64_t num, __m512 x) { _mm256_mask_storeu_epi16(to, first_lanes(num), to_bf16(x)); }

/* Dropout: x with some numbers zeroed, the others scaled. The same call on a gradient is the backward pass. */
void fasttune_dropout_bf16(const bf16 *x, bf16 *out, int64_t n, const Dropout *drop) {
    const Dropout d = *drop;
    FOR_CHUNKS(n, i, num) store_some(out + i, num, _mm512_maskz_mul_ps(kept(d, i), load_some(x + i, num), _mm512_set1_ps(d.scale)));
}
void fasttune_dropout_fp32(const float *x, float *out, int64_t n, const Dropout *drop) {
    const Dropout d = *drop;
    FOR_CHUNKS(n, i, num) {
        const __mmask16 some = first_lanes(num);
        _mm512_mask_storeu_ps(out + i, some, _mm512_maskz_mul_ps(kept(d, i), _mm512_maskz_loadu_ps(some, x + i), _mm512_set1_ps(d.scale)));
    }
}
