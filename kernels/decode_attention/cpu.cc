// Decode attention for XLA:CPU in one call: a row reads the keys and values it has, each from where it lies.
// Legend: reference.py and plan.py; N floats of a vector, X queries that an item of work holds, T what keys and values
// are stored as: float, or uint16_t for bfloat16, which is widened as it is read. All sums are in float.
#include <cmath>

#include "kernels/cpu.h"

namespace rlvr {
namespace {

constexpr float MASK_VALUE = -1e30f;
constexpr int64_t MOST_QUERIES = 128;

// out[x][0 .. V * N) = out * kept[x] (or 0) + sum over i < inner of a[x][i] * b[i][0 .. V * N), for X queries x.
// Every number is added up in the order of i, whatever X and V are: the bits of a row do not depend on the others.
// What is read next comes from memory: it is asked for line by line, since few requests at once are what a core holds.
template <int N, int X, int V, typename T>
inline void block(const float* const* a, int inner, const T* b, const T* next, int stride, float* const* out,
                  int at, const float* kept) {
  using L = Lanes<N>;
  typename L::vec sum[X][V];
  for (int x = 0; x < X; ++x)
    for (int v = 0; v < V; ++v)
      sum[x][v] = kept ? L::load(out[x] + at + v * N) * kept[x] : typename L::vec{};
  for (int i = 0; i < inner; ++i) {
    typename L::vec row[V];
    for (int v = 0; v < V; ++v) row[v] = L::load(b + (size_t)i * stride + at + v * N);
    if (next)
      for (int v = 0; v < V; ++v) __builtin_prefetch(next + (size_t)i * stride + at + v * N, 0, 1);
    for (int x = 0; x < X; ++x) {
      typename L::vec factor = L::all(a[x][i]);
      for (int v = 0; v < V; ++v) sum[x][v] += factor * row[v];
    }
  }
  for (int x = 0; x < X; ++x)
    for (int v = 0; v < V; ++v) L::store(out[x] + at + v * N, sum[x][v]);
}

template <int N, int X, typename T>
void columns(const float* const* a, int inner, const T* b, const T* next, int stride, int width,
             float* const* out, const float* kept) {
  // As many sums as registers hold (AVX2 has 16), and enough of them to keep both multipliers busy.
  constexpr int V = X <= 2 ? 4 : X == 3 ? 3 : 2;
  int at = 0;
  for (; at + V * N <= width; at += V * N) block<N, X, V>(a, inner, b, next, stride, out, at, kept);
  if constexpr (V > 2)
    for (; at + 2 * N <= width; at += 2 * N) block<N, X, 2>(a, inner, b, next, stride, out, at, kept);
  for (; at < width; at += N) block<N, X, 1>(a, inner, b, next, stride, out, at, kept);
}

template <int N, typename T>
void product(int queries, const float* const* a, int inner, const T* b, const T* next, int stride, int width,
             float* const* out, const float* kept) {
  auto some = [&](auto count) {
    columns<N, count()>(a, inner, b, next, stride, width, out, kept);
    next = nullptr;
    a += count(), out += count(), queries -= count();
    if (kept) kept += count();
  };
  while (queries >= 6 && queries != 8) some(std::integral_constant<int, 6>());
  while (queries >= 4) some(std::integral_constant<int, 4>());
  if (queries == 3) some(std::integral_constant<int, 3>());
  if (queries == 2) some(std::integral_constant<int, 2>());
  if (queries == 1) some(std::integral_constant<int, 1>());
}

// out[x][j] = a[x] . b[j] for `tokens` rows j of b [., width] and all queries x; see block for next.
template <int N, typename T>
void dots(int queries, const float* const* a, int width, const T* b, const T* next, int tokens,
          float* const* out) {
  using L = Lanes<N>;
  for (int j = 0; j < tokens; ++j) {
    const T* row = b + (size_t)j * width;
    if (next)
      for (int h = 0; h < width; h += N) __builtin_prefetch(next + (size_t)j * width + h, 0, 1);
    for (int x = 0; x < queries; ++x) {
      typename L::vec sum{};
      for (int h = 0; h < width; h += N) sum += L::load(a[x] + h) * L::load(row + h);
      out[x][j] = L::sum(sum);
    }
  }
}

// Queries of an item, from `first` on, and tokens that they read: keys [width, page] and values [., width] of a page,
// or keys [., width] of a window, whose page is 0. Query i sees the first `tokens` of them, or seen[i].
template <typename T>
struct Read {
  int first, queries;
  const T *keys, *values;
  int page, tokens;
  const int32_t* seen;
};

// The running softmax of X queries (Milakov and Gimelshein 2018, alg. 3).
template <int N>
struct Softmax {
  using L = Lanes<N>;
  int width;
  std::vector<float> numbers, top, total, kept;
  std::vector<const float*> query;
  std::vector<float*> out, weight;

  Softmax(int64_t x, int width, int64_t most_keys)
      : width(width), numbers(x * (width + most_keys)), top(x, MASK_VALUE), total(x), kept(x), query(x), out(x), weight(x) {
    for (int64_t i = 0; i < x; ++i) {
      out[i] = numbers.data() + i * width;
      weight[i] = numbers.data() + x * width + i * most_keys;
    }
  }

  // next, if any, is what is folded after it.
  template <typename T>
  void fold(const Read<T>& read, const Read<T>* next) {
    float scale = 1.0f / std::sqrt((float)width);
    int padded = (read.tokens + N - 1) / N * N;
    const int first = read.first, x = read.queries;
    const T* next_keys = next ? next->keys : nullptr;
    if (read.page)
      product<N>(x, query.data() + first, width, read.keys, next_keys, read.page, padded, weight.data() + first,
                 nullptr);
    else
      dots<N>(x, query.data() + first, width, read.keys, next_keys, read.tokens, weight.data() + first);
    const auto place = L::numbers();
    for (int i = first; i < first + x; ++i) {
      float* w = weight[i];
      int tokens = read.seen ? read.seen[i - first] : read.tokens;
      auto most = L::all(top[i]);
      for (int j = 0; j < padded; j += N) {
        auto score = place + j < tokens ? L::load(w + j) * scale : L::all(MASK_VALUE);
        L::store(w + j, score);
        most = score > most ? score : most;
      }
      float now = L::max(most);
      typename L::vec sum{};
      for (int j = 0; j < padded; j += N) {
        auto e = place + j < tokens ? L::exp(L::load(w + j) - now) : typename L::vec{};
        L::store(w + j, e);
        sum += e;
      }
      kept[i] = L::exp(L::all(top[i] - now))[0];
      total[i] = total[i] * kept[i] + L::sum(sum);
      top[i] = now;
    }
    product<N>(x, weight.data() + first, read.tokens, read.values, next ? next->values : nullptr, width, width,
               out.data() + first, kept.data() + first);
  }
};

struct Lists {
  const int32_t *page_I, *tokens_I, *first_B, *count_B, *prompt_B, *shared_S, *prompt_S, *shared_tokens_S, *seen_G;
};

template <int N, typename T>
void attend(xla::ffi::ThreadPool pool, F32 q, Any keys, Any values, Any recent_keys, Any recent_values, Lists p,
            std::vector<int> starts, float* out, float* top, float* total, int64_t tile) {
  auto shape = q.dimensions();
  int64_t b = shape[0], heads = shape[1], width = shape[3];
  int g = shape[2], page = keys.dimensions()[3], window = recent_keys.dimensions()[2];
  const float* Q = q.typed_data();
  auto numbers = [](Any x) { return static_cast<const T*>(x.untyped_data()); };
  const T *K = numbers(keys), *V = numbers(values), *RK = numbers(recent_keys), *RV = numbers(recent_values);
  // Neighbouring rows, which mostly read the same prompt, as many as leave each thread a few items.
  int64_t threads = std::max<int64_t>(1, pool.num_threads());
  int64_t rows = std::max<int64_t>(1, std::min({tile, MOST_QUERIES / g, b * heads / (8 * threads)}));
  while (tile % rows) --rows;
  int most_recent = window ? *std::max_element(p.seen_G, p.seen_G + g) : 0;
  in_parallel(pool, b / rows * heads, [=](int64_t item) {
    int64_t head = item % heads, row = item / heads * rows;
    std::vector<Read<T>> reads;
    auto add_page = [&](int64_t r, int64_t end, int64_t of, int tokens) {
      size_t at = (of * heads + head) * width * page;
      if (tokens) reads.push_back({int(r * g), int((end - r) * g), K + at, V + at, page, tokens, nullptr});
    };
    for (int s = starts[row / tile]; s < starts[row / tile + 1]; ++s)
      for (int64_t r = 0, end; r < rows; r = end) {
        auto reads_it = [&](int64_t x) { return p.prompt_B[row + x] == p.prompt_S[s]; };
        for (end = r + 1; end < rows && reads_it(end) == reads_it(r);) ++end;
        if (reads_it(r)) add_page(r, end, p.shared_S[s], p.shared_tokens_S[s]);
      }
    // Windows before pages, so that a page is followed by a page, of which it asks for all.
    for (int64_t r = 0; r < rows && most_recent; ++r) {
      size_t at = ((row + r) * heads + head) * width * window;
      reads.push_back({int(r * g), g, RK + at, RV + at, 0, most_recent, p.seen_G});
    }
    for (int64_t r = 0; r < rows; ++r)
      for (int i = p.first_B[row + r]; i < p.first_B[row + r] + p.count_B[row + r]; ++i)
        add_page(r, r + 1, p.page_I[i], p.tokens_I[i]);
    Softmax<N> softmax(rows * g, width, (std::max(page, window) + N - 1) / N * N);
    auto lies = [&](int64_t i) { return ((row + i / g) * heads + head) * g + i % g; };
    for (int64_t i = 0; i < rows * g; ++i) softmax.query[i] = Q + lies(i) * width;
    for (size_t i = 0; i < reads.size(); ++i)
      softmax.fold(reads[i], i + 1 < reads.size() ? &reads[i + 1] : (const Read<T>*)nullptr);
    for (int64_t i = 0; i < rows * g; ++i) {
      std::copy(softmax.out[i], softmax.out[i] + width, out + lies(i) * width);
      top[lies(i)] = softmax.top[i];
      total[lies(i)] = softmax.total[i];
    }
  });
}

xla::ffi::Error decode_attention(xla::ffi::ThreadPool pool, F32 q, Any keys, Any values, Any recent_keys,
                                 Any recent_values, S32 seen_G, S32 page_I, S32 tokens_I, S32 first_B, S32 count_B,
                                 S32 prompt_B, S32 tile_S, S32 shared_S, S32 prompt_S, S32 shared_tokens_S, S32 visits,
                                 xla::ffi::Result<F32> out, xla::ffi::Result<F32> top, xla::ffi::Result<F32> total,
                                 int64_t tile) {
  // Visits are sorted by tile: where those of each begin.
  std::vector<int> starts(q.dimensions()[0] / tile + 1);
  for (int i = 0, s = 0; i < (int)starts.size(); starts[i++] = s)
    while (s < visits.typed_data()[0] && tile_S.typed_data()[s] < i) ++s;
  Lists lists{page_I.typed_data(),   tokens_I.typed_data(), first_B.typed_data(),
              count_B.typed_data(),  prompt_B.typed_data(), shared_S.typed_data(),
              prompt_S.typed_data(), shared_tokens_S.typed_data(), seen_G.typed_data()};
  // Lengths of which all are multiples.
  int64_t all = q.dimensions()[3] | keys.dimensions()[3];
  auto attend_in = [all]<typename T>(T) {
    return all % WIDEST == 0 ? attend<WIDEST, T> : all % 8 == 0 && WIDEST > 8 ? attend<8, T> : attend<4, T>;
  };
  auto run = keys.element_type() == xla::ffi::BF16 ? attend_in(uint16_t()) : attend_in(float());
  run(pool, q, keys, values, recent_keys, recent_values, lists, std::move(starts), out->typed_data(),
      top->typed_data(), total->typed_data(), tile);
  return xla::ffi::Error::Success();
}

auto binding() {
  return results<F32, 3>(arguments<S32, 11>(arguments<Any, 4>(arguments<F32, 1>(bound())))).Attr<int64_t>("tile");
}

}  // namespace
}  // namespace rlvr

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_decode_attention, rlvr::decode_attention, rlvr::binding());
