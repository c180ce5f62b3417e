// What the C++ kernels share: vectors of as many floats as the processor takes at once, and work for all cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace rlvr {

using Any = xla::ffi::AnyBuffer;
using F32 = xla::ffi::Buffer<xla::ffi::F32>;
using S32 = xla::ffi::Buffer<xla::ffi::S32>;

#if defined(__AVX512F__)
constexpr int WIDEST = 16;
#elif defined(__AVX2__)
constexpr int WIDEST = 8;
#else
constexpr int WIDEST = 4;
#endif

// By name: GCC drops the attribute where its length depends on a template's argument.
template <int N>
struct Vector;
template <>
struct Vector<4> {
  typedef float vec __attribute__((vector_size(16)));
  typedef int32_t ivec __attribute__((vector_size(16)));
  typedef uint16_t shorts __attribute__((vector_size(8)));
};
template <>
struct Vector<8> {
  typedef float vec __attribute__((vector_size(32)));
  typedef int32_t ivec __attribute__((vector_size(32)));
  typedef uint16_t shorts __attribute__((vector_size(16)));
};
template <>
struct Vector<16> {
  typedef float vec __attribute__((vector_size(64)));
  typedef int32_t ivec __attribute__((vector_size(64)));
  typedef uint16_t shorts __attribute__((vector_size(32)));
};

template <int N>
struct Lanes {
  using vec = typename Vector<N>::vec;
  using ivec = typename Vector<N>::ivec;

  static vec load(const float* p) {
    vec x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }

  // Of bfloat16, which is the upper half of a float.
  static vec load(const uint16_t* p) {
    typename Vector<N>::shorts x;
    __builtin_memcpy(&x, p, sizeof x);
    return (vec)(__builtin_convertvector(x, ivec) << 16);
  }

  static void store(float* p, vec x) { __builtin_memcpy(p, &x, sizeof x); }

  // Not 0 + x, which has another sign for -0 and therefore costs an addition.
  static vec all(float x) { return x - vec{}; }

  static float sum(vec x) {
    if constexpr (N == 4) {
      return (x[0] + x[2]) + (x[1] + x[3]);
    } else {
      auto [low, high] = halves(x);
      return Lanes<N / 2>::sum(low + high);
    }
  }

  static float max(vec x) {
    if constexpr (N == 4) {
      return std::max(std::max(x[0], x[2]), std::max(x[1], x[3]));
    } else {
      auto [low, high] = halves(x);
      return Lanes<N / 2>::max(low > high ? low : high);
    }
  }

  static auto halves(vec x) {
    struct {
      typename Vector<N / 2>::vec low, high;
    } both;
    __builtin_memcpy(&both, &x, sizeof x);
    return both;
  }

  static ivec numbers() {
    ivec x;
    for (int i = 0; i < N; ++i) x[i] = i;
    return x;
  }

  // exp of numbers <= 0, off by about 1 ulp at most: 2^n times the polynomial of Cephes' expf; -87 stands for what is
  // below it.
  static vec exp(vec x) {
    x = x < -87.0f ? all(-87.0f) : x;
    // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    vec shifted = x * 1.44269504088896341f + 12582912.0f;
    ivec n = (ivec)shifted - (ivec)all(12582912.0f);
    vec whole = shifted - 12582912.0f;
    x = x - whole * 0.693359375f;
    x = x + whole * 2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    return (vec)((ivec)y + (n << 23));
  }
};

// A binding with n more arguments, or results, of type T.
template <typename T, int n, typename Binding>
auto arguments(Binding&& b) {
  if constexpr (n == 1)
    return std::move(b).template Arg<T>();
  else
    return arguments<T, n - 1>(std::move(b).template Arg<T>());
}

template <typename T, int n, typename Binding>
auto results(Binding&& b) {
  if constexpr (n == 1)
    return std::move(b).template Ret<T>();
  else
    return results<T, n - 1>(std::move(b).template Ret<T>());
}

inline auto bound() { return xla::ffi::Ffi::Bind().Ctx<xla::ffi::ThreadPool>(); }

// f(0) to f(n - 1), by whichever threads of XLA's pool are free, and by this one.
template <typename F>
void in_parallel(xla::ffi::ThreadPool pool, int64_t n, F f) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
  };
  // A helper may begin when all is done and this call has returned: it owns what it looks at.
  auto state = std::make_shared<State>();
  auto work = [state, n, f] {
    for (int64_t i; (i = state->next.fetch_add(1)) < n;) {
      f(i);
      if (state->done.fetch_add(1) + 1 == n) state->done.notify_all();
    }
  };
  int64_t helpers = std::min<int64_t>(pool.num_threads(), n) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(work)(work));
  work();
  for (int64_t seen; (seen = state->done.load()) < n;) state->done.wait(seen);
}

}  // namespace rlvr
