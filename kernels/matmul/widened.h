// Products of bfloat16 that is widened as it is read, for processors that multiply no pairs of it (AVX2). Legend:
// reference.py.
//
// TILE_ROWS rows, which stay in the nearest cache, meet TILE_COLUMNS columns at a time in registers; the columns of a
// block stay in the next one until all rows have met them. A number of the result is summed in one order, whatever else
// is computed beside it.
#pragma once

#include <immintrin.h>

#include "kernels/cpu.h"

namespace rlvr::widened {

using L = Lanes<8>;
using vec = L::vec;
using ivec = L::ivec;

// Sums in registers: TILE_ROWS * TILE_COLUMNS vectors of the 16 that there are.
constexpr int TILE_ROWS = 6, TILE_COLUMNS = 2, LANES = 8;
// Of K, so that a tile's rows stay in the nearest cache; of N, so that columns stay in the next one.
constexpr int64_t MOST_DEPTH = 1024, BLOCK_COLUMNS = 48, LINE = 64;

// Rows are widened once, into whole lines: a vector that lies in two takes twice as long to read.
struct alignas(LINE) Line {
  float numbers[LINE / sizeof(float)];
};

// Of LANES pairs all first numbers, which are the lower halves, or all second ones.
inline vec half(const uint16_t* p, int which) {
  ivec pairs;
  __builtin_memcpy(&pairs, p, sizeof pairs);
  return (vec)(which ? pairs & (int32_t)0xffff0000 : pairs << 16);
}

// The sums of all lanes of four vectors.
inline __m128 reduce(vec a, vec b, vec c, vec d) {
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps((__m256)a, (__m256)b), _mm256_hadd_ps((__m256)c, (__m256)d));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// Adds `depth` numbers of K up, of some widened rows and TILE_COLUMNS columns, to what is there or, at first, to nothing.
// A function of its own: in its place GCC keeps some of the sums in memory.
template <int rows>
__attribute__((noinline)) void multiply(const float* x, const uint16_t* w, int64_t k, int64_t depth, bool first,
                                        float* out, int64_t n) {
  vec sums[TILE_ROWS][TILE_COLUMNS] = {};
  for (int64_t at = 0; at < depth; at += 2 * LANES)
    for (int which = 0; which < 2; ++which) {
      vec columns[TILE_COLUMNS];
      for (int c = 0; c < TILE_COLUMNS; ++c) columns[c] = half(w + c * k + at, which);
      for (int r = 0; r < rows; ++r) {
        vec row = L::load(x + r * depth + at + which * LANES);
        // GCC would load it anew for each column.
        asm("" : "+x"(row));
        for (int c = 0; c < TILE_COLUMNS; ++c) sums[r][c] += row * columns[c];
      }
    }
  for (int r = 0; r < rows; r += 2) {
    const __m128 found = reduce(sums[r][0], sums[r][1], sums[r + 1][0], sums[r + 1][1]);
    for (int i = 0; i < 2 && r + i < rows; ++i)
      for (int c = 0; c < TILE_COLUMNS; ++c) {
        float& to = out[(r + i) * n + c];
        to = first ? found[2 * i + c] : to + found[2 * i + c];
      }
  }
}

// Asks for columns before they are read, line by line: few requests at once are what a core holds.
struct Fetch {
  const char* at;
  int64_t columns, lines, stride, line = 0;

  void some(int64_t count) {
    for (; count > 0 && columns > 0; --count) {
      __builtin_prefetch(at + line * LINE, 0, 2);
      if (++line == lines) line = 0, at += stride, --columns;
    }
  }
};

// Columns `from` to `to` of m rows.
inline void product(const uint16_t* x, const uint16_t* w, int64_t m, int64_t k, int64_t n, int64_t from, int64_t to,
                    float* out) {
  constexpr decltype(&multiply<1>) of_rows[] = {multiply<1>, multiply<2>, multiply<3>,
                                                multiply<4>, multiply<5>, multiply<6>};
  const int64_t blocks = (k + MOST_DEPTH - 1) / MOST_DEPTH, step = 2 * LANES;
  const int64_t most = (k + blocks * step - 1) / (blocks * step) * step;
  thread_local std::vector<Line> lines;
  for (int64_t begin = 0; begin < k; begin += most) {
    const int64_t depth = std::min(most, k - begin), size = m * depth * sizeof(float) / LINE;
    if ((int64_t)lines.size() < size) lines.resize(size);
    float* rows = lines[0].numbers;
    for (int64_t r = 0; r < m; ++r)
      for (int64_t at = 0; at < depth; at += LANES)
        L::store(rows + r * depth + at, half(x + r * k + begin + at / step * step, at / LANES % 2));
    for (int64_t c = from; c < to; c += BLOCK_COLUMNS) {
      const int64_t end = std::min(to, c + BLOCK_COLUMNS);
      Fetch next{(const char*)(w + end * k + begin), std::min(to - end, BLOCK_COLUMNS),
                 depth * (int64_t)sizeof(*w) / LINE, k * (int64_t)sizeof(*w)};
      const int64_t tiles = (m + TILE_ROWS - 1) / TILE_ROWS * ((end - c) / TILE_COLUMNS);
      const int64_t share = (next.columns * next.lines + tiles - 1) / tiles;
      for (int64_t r = 0; r < m; r += TILE_ROWS) {
        const auto multiply_rows = of_rows[std::min<int64_t>(TILE_ROWS, m - r) - 1];
        for (int64_t column = c; column < end; column += TILE_COLUMNS) {
          next.some(share);
          multiply_rows(rows + r * depth, w + column * k + begin, k, depth, begin == 0, out + r * n + column, n);
        }
      }
    }
  }
}

}  // namespace rlvr::widened
