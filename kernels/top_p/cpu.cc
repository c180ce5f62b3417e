// Where top-p cuts a row, for XLA:CPU: reference.py's threshold between two bit patterns, looked for among the tokens
// that may be cut at. Legend: reference.py.
#include <cstring>

#include "kernels/cpu.h"

namespace rlvr {
namespace {

constexpr int N = WIDEST;
using L = Lanes<N>;

int32_t bits(float x) {
  int32_t found;
  std::memcpy(&found, &x, sizeof x);
  return found;
}

bool any(L::ivec x) {
  int32_t found = 0;
  for (int i = 0; i < N; ++i) found |= x[i];
  return found;
}

// A bit pattern that no token but those kept reaches. While many tokens lie between the ends, the next threshold is
// where a straight line between the masses at both ends reaches top_p (regula falsi in the Illinois form: the weight of
// an end that stays twice is halved), unless the last one left more than half of the way; then the middle.
int32_t lowest_kept(const float* p_V, int64_t vocab, float top_p, std::vector<float>& kept) {
  constexpr int FEW = 8;
  // All tokens below (1 - top_p) / V together have less than 1 - top_p; half of it leaves room for rounding.
  float least = std::max(1 - top_p, 0.0f) / (2 * vocab);
  int64_t count = 0;
  float most = 0;
  auto keep = [&](float p) {
    kept[count] = p;
    count += p >= least;
    most = std::max(most, p);
  };
  int64_t j = 0;
  for (; j + N <= vocab; j += N)
    if (any(L::load(p_V + j) >= least))
      for (int i = 0; i < N; ++i) keep(p_V[j + i]);
  for (; j < vocab; ++j) keep(p_V[j]);
  std::fill_n(kept.data() + count, N, 0.0f);

  int32_t low = bits(least), high = bits(most) + 1;
  int64_t tokens_low = count, tokens_high = 0;
  float weight_low = 1.001f - top_p, weight_high = -top_p;
  bool rose = false, slow = false;
  // The lowest pattern is kept whatever its mass is: where rounding keeps the whole below top_p, so is every token.
  while (high - low > 1 && tokens_low - tokens_high > 1) {
    int32_t room = high - low;
    float share = tokens_low - tokens_high > FEW && !slow ? weight_low / (weight_low - weight_high) : 0.5f;
    int32_t middle = low + std::clamp((int32_t)(room * (double)share), 1, room - 1);
    L::vec mass_N{};
    L::ivec tokens_N{};
    for (int64_t i = 0; i < count; i += N) {
      L::vec p = L::load(kept.data() + i);
      L::ivec above = (L::ivec)p >= middle;
      mass_N += (L::vec)((L::ivec)p & above);
      tokens_N -= above;
    }
    float mass = L::sum(mass_N);
    int64_t tokens = 0;
    for (int i = 0; i < N; ++i) tokens += tokens_N[i];
    slow = (mass >= top_p ? high - middle : middle - low) > room / 2;
    if (mass >= top_p) {
      weight_high *= rose ? 0.5f : 1.0f;
      low = middle, tokens_low = tokens, weight_low = mass - top_p, rose = true;
    } else {
      weight_low *= rose ? 1.0f : 0.5f;
      high = middle, tokens_high = tokens, weight_high = mass - top_p, rose = false;
    }
  }
  return low;
}

xla::ffi::Error top_p(xla::ffi::ThreadPool pool, F32 p_BV, F32 top_p_B, xla::ffi::Result<S32> lowest_B) {
  int64_t rows = p_BV.dimensions()[0], vocab = p_BV.dimensions()[1];
  const float *p = p_BV.typed_data(), *limits = top_p_B.typed_data();
  int32_t* lowest = lowest_B->typed_data();
  constexpr int64_t EACH = 4;
  in_parallel(pool, (rows + EACH - 1) / EACH, [=](int64_t item) {
    std::vector<float> kept(vocab + N);
    for (int64_t row = item * EACH; row < std::min(rows, (item + 1) * EACH); ++row)
      lowest[row] = lowest_kept(p + row * vocab, vocab, limits[row], kept);
  });
  return xla::ffi::Error::Success();
}

}  // namespace
}  // namespace rlvr

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_top_p, rlvr::top_p,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<rlvr::F32>()
                                  .Arg<rlvr::F32>()
                                  .Ret<rlvr::S32>());
