// Products of bfloat16 on processors that multiply pairs of it (AVX512_BF16). Legend: reference.py.
//
// A weight's column is read as it lies, in COLUMNS at a time, and meets ROWS rows in registers; nothing is rearranged.
// A number of the result is summed in one order, whatever else is computed beside it.
#pragma once

#include <immintrin.h>

#include "kernels/cpu.h"

namespace rlvr::pairs {

// Sums in registers: ROWS * COLUMNS vectors, which reduce() adds up at once.
constexpr int64_t ROWS = 4, COLUMNS = 4, LANES = 32;
// Of K, so that a tile's columns stay in the nearest cache.
constexpr int64_t MOST_DEPTH = 1280;
// Columns are fetched into that cache so many bytes ahead: the memory answers late.
constexpr int64_t AHEAD = 65536, LINE = 64;

// Lane i of the result is the sum of all lanes of s[i].
inline __attribute__((always_inline)) __m512 reduce(const __m512* s) {
  __m512 of_two[8], of_four[4];
  for (int i = 0; i < 8; ++i)
    of_two[i] = _mm512_add_ps(_mm512_unpacklo_ps(s[2 * i], s[2 * i + 1]), _mm512_unpackhi_ps(s[2 * i], s[2 * i + 1]));
  for (int i = 0; i < 4; ++i) {
    const __m512d x = (__m512d)of_two[2 * i], y = (__m512d)of_two[2 * i + 1];
    of_four[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(x, y), (__m512)_mm512_unpackhi_pd(x, y));
  }
  // From here on, quarters of a vector: the first and third of x and y, and the second and fourth.
  auto add = [](__m512 x, __m512 y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  return add(add(of_four[0], of_four[1]), add(of_four[2], of_four[3]));
}

// Adds `depth` numbers of K up, of some rows and COLUMNS columns, to what is there or, at first, to nothing.
template <int rows>
inline __attribute__((always_inline)) void multiply(const uint16_t* x, const uint16_t* w, int64_t k, int64_t depth,
                                                    bool first, float* out, int64_t n) {
  __m512 sums[ROWS * COLUMNS];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t at = 0; at < depth; at += LANES) {
    __m512bh columns[COLUMNS];
    for (int c = 0; c < COLUMNS; ++c) columns[c] = (__m512bh)_mm512_loadu_si512(w + c * k + at);
    // GCC would load them anew for each row.
    asm("" : "+v"(columns[0]), "+v"(columns[1]), "+v"(columns[2]), "+v"(columns[3]));
    for (int r = 0; r < rows; ++r) {
      const __m512bh row = (__m512bh)_mm512_loadu_si512(x + r * k + at);
      for (int c = 0; c < COLUMNS; ++c)
        sums[r * COLUMNS + c] = _mm512_dpbf16_ps(sums[r * COLUMNS + c], row, columns[c]);
    }
  }
  const __m512 found = reduce(sums);
  auto store = [&](int r, __m128 y) {
    float* to = out + r * n;
    _mm_storeu_ps(to, first ? y : _mm_add_ps(y, _mm_loadu_ps(to)));
  };
  store(0, _mm512_castps512_ps128(found));
  if constexpr (rows > 1) store(1, _mm512_extractf32x4_ps(found, 1));
  if constexpr (rows > 2) store(2, _mm512_extractf32x4_ps(found, 2));
  if constexpr (rows > 3) store(3, _mm512_extractf32x4_ps(found, 3));
}

// Columns `from` to `to` of m rows.
void product(const uint16_t* x, const uint16_t* w, int64_t m, int64_t k, int64_t n, int64_t from, int64_t to,
             float* out) {
  const int64_t blocks = (k + MOST_DEPTH - 1) / MOST_DEPTH;
  const int64_t most = (k + blocks * LANES - 1) / (blocks * LANES) * LANES;
  for (int64_t c = from; c < to; c += COLUMNS) {
    for (int64_t begin = 0; begin < k; begin += most) {
      const int64_t depth = std::min(most, k - begin);
      const uint16_t *rows = x + begin, *columns = w + c * k + begin;
      float* sums = out + c;
      // Before each tile a share of what is to be fetched.
      const char *next = (const char*)(w + c * k + begin * COLUMNS) + AHEAD, *end = next + depth * COLUMNS * 2;
      const int64_t share = (depth * COLUMNS * 2 / LINE + m / ROWS) / (m / ROWS + 1);
      int64_t left = m;
      for (; left >= ROWS; left -= ROWS, rows += ROWS * k, sums += ROWS * n) {
        for (int64_t i = 0; i < share && next < end; ++i, next += LINE) __builtin_prefetch(next, 0, 2);
        multiply<ROWS>(rows, columns, k, depth, begin == 0, sums, n);
      }
      for (; next < end; next += LINE) __builtin_prefetch(next, 0, 2);
      if (left == 3) multiply<3>(rows, columns, k, depth, begin == 0, sums, n);
      if (left == 2) multiply<2>(rows, columns, k, depth, begin == 0, sums, n);
      if (left == 1) multiply<1>(rows, columns, k, depth, begin == 0, sums, n);
    }
  }
}

}  // namespace rlvr::pairs
