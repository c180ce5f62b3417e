// Products of bfloat16 activations and weights [N, K] for XLA:CPU, on processors that multiply pairs of bfloat16
// (AVX512_BF16) and no tiles of them (AMX, which XLA's own library reaches). Legend: reference.py.
//
// A weight's column is read as it lies, in COLUMNS at a time, and meets ROWS rows in registers; nothing is rearranged.
// A number of the result is summed in one order, whatever else is computed beside it.
#include "kernels/cpu.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__) && !defined(__AMX_BF16__)
#include <immintrin.h>
#define RLVR_PAIRS 1
#else
#define RLVR_PAIRS 0
#endif

namespace rlvr {
namespace {

#if RLVR_PAIRS

// Sums in registers: ROWS * COLUMNS vectors, which reduce() adds up at once.
constexpr int64_t ROWS = 4, COLUMNS = 4, LANES = 32;
// Of K, so that a tile's columns stay in the nearest cache; of M, so that the rows stay in the next one.
constexpr int64_t MOST_DEPTH = 1280, MOST_ROWS = 256;
// Columns are fetched into that cache so many bytes ahead: the memory answers late.
constexpr int64_t AHEAD = 65536, LINE = 64;
// Parts for each thread, so that one that is held up leaves some to the others.
constexpr int64_t PARTS = 4;

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

#endif

xla::ffi::Error matmul(xla::ffi::ThreadPool pool, Any x_MK, Any w_NK, xla::ffi::Result<F32> out_MN) {
#if RLVR_PAIRS
  const auto* x = static_cast<const uint16_t*>(x_MK.untyped_data());
  const auto* w = static_cast<const uint16_t*>(w_NK.untyped_data());
  float* out = out_MN->typed_data();
  const int64_t m = x_MK.dimensions()[0], k = x_MK.dimensions()[1], n = out_MN->dimensions()[1];
  const int64_t groups = n / COLUMNS, row_blocks = (m + MOST_ROWS - 1) / MOST_ROWS;
  const int64_t parts = std::min<int64_t>(groups, PARTS * std::max<int64_t>(1, pool.num_threads()));
  in_parallel(pool, row_blocks * parts, [=](int64_t i) {
    const int64_t row = i / parts * MOST_ROWS, part = i % parts;
    product(x + row * k, w, std::min(MOST_ROWS, m - row), k, n, part * groups / parts * COLUMNS,
            (part + 1) * groups / parts * COLUMNS, out + row * n);
  });
  return xla::ffi::Error::Success();
#else
  return xla::ffi::Error(xla::ffi::ErrorCode::kUnimplemented, "this processor multiplies no pairs of bfloat16");
#endif
}

auto binding() { return results<F32, 1>(arguments<Any, 2>(bound())); }

}  // namespace
}  // namespace rlvr

extern "C" bool rlvr_multiplies_pairs() { return RLVR_PAIRS; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_matmul, rlvr::matmul, rlvr::binding());