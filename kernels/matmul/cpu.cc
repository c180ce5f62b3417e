// Products of bfloat16 activations and weights for XLA:CPU, on processors that multiply pairs of bfloat16 (AVX512_BF16)
// and no tiles of them (AMX, which XLA's own library reaches). Legend: reference.py.
//
// A panel of weights (WIDTH columns of N, some pairs of K) is written to the core's cache in the order in which it is
// read, then multiplied with all rows, ROWS at a time. A number of the result is one sum over K in order, whatever else
// is computed beside it.
#include <cstring>

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

// What the registers hold: ROWS * VECTORS sums, a row of a panel and a pair of factors.
using L = Lanes<16>;
constexpr int ROWS = 6, VECTORS = 4, WIDTH = VECTORS * 16;
// Of [K, N], rows of many panels are read one after the other; of [N, K], whole columns of one.
constexpr int64_t PAIRS = 64, PANELS = 8, LONG_PAIRS = 512, LINE = 64;

template <int rows>
void multiply(const uint32_t* a, int64_t a_stride, const uint32_t* panel, int64_t pairs, bool first, float* out,
              int64_t out_stride, int64_t width) {
  __m512 sums[rows][VECTORS];
  __mmask16 there[VECTORS];
  for (int v = 0; v < VECTORS; ++v) there[v] = (1u << std::clamp<int64_t>(width - v * 16, 0, 16)) - 1;
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < VECTORS; ++v)
      sums[r][v] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(there[v], out + r * out_stride + v * 16);
  for (int64_t s = 0; s < pairs; ++s) {
    __m512bh b[VECTORS];
    for (int v = 0; v < VECTORS; ++v) b[v] = (__m512bh)_mm512_loadu_si512(panel + s * WIDTH + v * 16);
    for (int r = 0; r < rows; ++r) {
      const __m512bh factors = (__m512bh)_mm512_set1_epi32(a[r * a_stride + s]);
      for (int v = 0; v < VECTORS; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], factors, b[v]);
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < VECTORS; ++v) _mm512_mask_storeu_ps(out + r * out_stride + v * 16, there[v], sums[r][v]);
}

template <int rows = ROWS, typename... Arguments>
void multiply_rows(int64_t count, Arguments... arguments) {
  if constexpr (rows > 0) {
    if (count == rows) return multiply<rows>(arguments...);
    multiply_rows<rows - 1>(count, arguments...);
  }
}

// `count` panels of w [K, N] side by side, `columns` in all; each panel lies `apart` behind the one before.
void pack(const uint16_t* w, int64_t stride, int64_t pairs, int64_t count, int64_t columns, uint32_t* packed,
          int64_t apart) {
  for (int64_t s = 0; s < pairs; ++s, w += 2 * stride, packed += WIDTH) {
    for (int64_t at = 0; at < count * WIDTH; at += 16) {
      const __mmask16 there = (1u << std::clamp<int64_t>(columns - at, 0, 16)) - 1;
      const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, w + at));
      const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, w + stride + at));
      _mm512_storeu_si512(packed + at / WIDTH * apart + at % WIDTH, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

// Rows d apart exchange the columns that are d apart: with d = 8, 4, 2, 1, 16 rows of 16 columns are transposed.
template <int d = 8>
void transpose(__m512i* rows) {
  if constexpr (d > 0) {
    const __m512i column = (__m512i)L::numbers(), apart = _mm512_set1_epi32(d);
    const __mmask16 upper = _mm512_test_epi32_mask(column, apart);
    const __m512i low = _mm512_mask_add_epi32(column, upper, column, _mm512_set1_epi32(16 - d));
    const __m512i high = _mm512_mask_add_epi32(_mm512_add_epi32(column, apart), upper, column, _mm512_set1_epi32(16));
    for (int i = 0; i < 16; ++i) {
      if (i & d) continue;
      const __m512i first = rows[i];
      rows[i] = _mm512_permutex2var_epi32(first, low, rows[i + d]);
      rows[i + d] = _mm512_permutex2var_epi32(first, high, rows[i + d]);
    }
    transpose<d / 2>(rows);
  }
}

// A panel of w [N, K], of which `columns` are there.
void pack_transposed(const uint16_t* w, int64_t stride, int64_t pairs, int64_t columns, uint32_t* panel) {
  for (int64_t n = 0; n < WIDTH; n += 16) {
    for (int64_t s = 0; s < pairs; s += 16) {
      const int64_t here = std::min<int64_t>(16, pairs - s);
      __m512i rows[16];
      for (int i = 0; i < 16; ++i) {
        const __mmask16 there = n + i < columns ? (1u << here) - 1 : 0;
        rows[i] = _mm512_maskz_loadu_epi32(there, w + (n + i) * stride + 2 * s);
      }
      transpose(rows);
      for (int i = 0; i < here; ++i) _mm512_storeu_si512(panel + (s + i) * WIDTH + n, rows[i]);
    }
  }
}

// Weights that are multiplied at a time: some pairs of K of the panels from `from` to `to`.
struct Block {
  int64_t begin, pairs, from, to;
};

// Where a block's bytes lie, to have them fetched while the one before is multiplied: the processor foresees no jump
// from row to row.
struct Lines {
  const uint16_t* at;
  int64_t rows, of_row, stride;

  void fetch(int64_t from, int64_t to) const {
    for (int64_t i = from; i < to; ++i)
      __builtin_prefetch((const char*)(at + i / of_row * stride) + i % of_row * LINE, 0, 2);
  }
};

void product(xla::ffi::ThreadPool pool, const uint16_t* x, const uint16_t* w, int64_t m, int64_t k, int64_t n,
             bool transposed, float* out) {
  const uint32_t* a = reinterpret_cast<const uint32_t*>(x);
  const int64_t pairs = k / 2, panels = (n + WIDTH - 1) / WIDTH, tiles = (m + ROWS - 1) / ROWS;
  const int64_t stride = transposed ? k : n, most = transposed ? LONG_PAIRS : PAIRS;
  auto columns = [=](Block b) { return std::min(n, b.to * WIDTH) - b.from * WIDTH; };
  auto start = [=](Block b) {
    return w + (transposed ? b.from * WIDTH * k + b.begin * 2 : b.begin * 2 * n + b.from * WIDTH);
  };
  auto lines = [=](Block b) {
    const int64_t depth = b.pairs * 2, across = transposed ? depth : columns(b);
    return Lines{start(b), transposed ? columns(b) : depth, (across * 2 + LINE - 1) / LINE, stride};
  };
  // As many parts for one thread as for another.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads()), at_once = threads * PANELS;
  const int64_t parts = std::min(panels, threads * ((panels + at_once - 1) / at_once));
  in_parallel(pool, parts, [=](int64_t part) {
    const int64_t from = part * panels / parts, to = (part + 1) * panels / parts;
    std::vector<Block> blocks;
    for (int64_t p = from; p < to; p = transposed ? p + 1 : to)
      for (int64_t begin = 0; begin < pairs; begin += most)
        blocks.push_back({begin, std::min(most, pairs - begin), p, transposed ? p + 1 : to});
    thread_local std::vector<uint32_t> packed;
    packed.resize((blocks[0].to - blocks[0].from) * most * WIDTH);
    for (size_t i = 0; i < blocks.size(); ++i) {
      const Block b = blocks[i];
      if (transposed)
        pack_transposed(start(b), stride, b.pairs, columns(b), packed.data());
      else
        pack(start(b), stride, b.pairs, b.to - b.from, columns(b), packed.data(), most * WIDTH);
      const bool more = i + 1 < blocks.size();
      const Lines next = lines(blocks[i + more]);
      const int64_t units = tiles * (b.to - b.from), fetched = more ? next.rows * next.of_row : 0;
      for (int64_t unit = 0; unit < units; ++unit) {
        next.fetch(unit * fetched / units, (unit + 1) * fetched / units);
        const int64_t p = b.from + unit / tiles, tile = unit % tiles, row = tile * m / tiles;
        multiply_rows((tile + 1) * m / tiles - row, a + row * pairs + b.begin, pairs,
                      packed.data() + (p - b.from) * most * WIDTH, b.pairs, b.begin == 0, out + row * n + p * WIDTH, n,
                      std::min<int64_t>(WIDTH, n - p * WIDTH));
      }
    }
  });
}

#endif

xla::ffi::Error matmul(xla::ffi::ThreadPool pool, Any x_MK, Any w, xla::ffi::Result<F32> out_MN, bool transposed) {
#if RLVR_PAIRS
  auto sizes = x_MK.dimensions();
  product(pool, static_cast<const uint16_t*>(x_MK.untyped_data()), static_cast<const uint16_t*>(w.untyped_data()),
          sizes[0], sizes[1], out_MN->dimensions()[1], transposed, out_MN->typed_data());
  return xla::ffi::Error::Success();
#else
  return xla::ffi::Error(xla::ffi::ErrorCode::kUnimplemented, "this processor multiplies no pairs of bfloat16");
#endif
}

auto binding() { return results<F32, 1>(arguments<Any, 2>(bound())).Attr<bool>("transposed"); }

}  // namespace
}  // namespace rlvr

extern "C" bool rlvr_multiplies_pairs() { return RLVR_PAIRS; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_matmul, rlvr::matmul, rlvr::binding());
