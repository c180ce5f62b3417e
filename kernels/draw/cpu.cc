// A token of each row, for XLA:CPU: everything between its logits and its token in one call, in which a row stays in
// the caches. Legend: reference.py.
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu.h"

namespace rlvr {
namespace {

constexpr int N = WIDEST;
using L = Lanes<N>;

// Tokens that are added up before one of them is looked for.
constexpr int64_t BLOCK = 64;
constexpr float LEAST = -87;

int32_t bits(float x) { return std::bit_cast<int32_t>(x); }

bool any(L::ivec x) {
  int32_t set = 0;
  for (int i = 0; i < N; ++i) set |= x[i];
  return set;
}

int64_t sum(L::ivec x) {
  int64_t total = 0;
  for (int i = 0; i < N; ++i) total += x[i];
  return total;
}

// A bit pattern that no token but those kept reaches. While many tokens lie between the ends, the next threshold is
// where a straight line between the masses at both ends reaches top_p (regula falsi in the Illinois form: the weight of
// an end that stays twice is halved), unless the last one left more than half of the way; then the middle.
int32_t lowest_kept(const float* p_V, int64_t vocab, float most, float top_p, float* kept) {
  constexpr int FEW = 8;
  // All tokens below (1 - top_p) / V together have less than 1 - top_p; half of it leaves room for rounding.
  float least = std::max(1 - top_p, 0.0f) / (2 * vocab);
  int64_t count = 0;
  L::ivec tokens_kept{};
  for (int64_t j = 0; j < vocab; j += N) {
    L::ivec above = L::load(p_V + j) >= least;
    if (!any(above)) continue;
    L::store(kept + count, L::load(p_V + j));
    count += N;
    tokens_kept -= above;
  }

  int32_t low = bits(least), high = bits(most) + 1;
  int64_t tokens_low = sum(tokens_kept), tokens_high = 0;
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
      L::vec p = L::load(kept + i);
      L::ivec above = (L::ivec)p >= middle;
      mass_N += (L::vec)((L::ivec)p & above);
      tokens_N -= above;
    }
    float mass = L::sum(mass_N);
    int64_t tokens = sum(tokens_N);
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

struct Sampling {
  float temperature, top_p, min_p;
  int32_t top_k;
};

struct Token {
  int32_t token;
  float logp, logp_model;
};

// Sums of BLOCK / N vectors at a time, in lanes of their own: a long row is rounded less.
struct Sum {
  L::vec lanes[BLOCK / N] = {};

  float total() const {
    L::vec sum{};
    for (L::vec x : lanes) sum += x;
    return L::sum(sum);
  }
};

// f(j, l, in) for the places j, j + N, .. of a row of logits l, of which `in` says which are tokens.
template <typename F>
void along(const float* logits, int64_t vocab, F f) {
  const auto place = L::numbers();
  int64_t j = 0;
  for (; j + N <= vocab; j += N) f(j, L::load(logits + j), place < N);
  if (j == vocab) return;
  L::vec rest = L::all(logits[j]);
  std::memcpy(&rest, logits + j, (vocab - j) * sizeof(float));
  f(j, rest, place < (int32_t)(vocab - j));
}

// exp where there is a token, 0 from LEAST down, where exp ends.
L::vec mass(L::vec x, L::ivec in) { return (x < LEAST) | ~in ? L::vec{} : L::exp(x); }

// p_V and kept_V have room for whole blocks.
Token drawn(const float* logits, int64_t vocab, float u, Sampling sampling, float* p_V, float* kept_V) {
  L::vec most_N = L::all(logits[0]);
  along(logits, vocab, [&](int64_t, L::vec l, L::ivec) { most_N = l > most_N ? l : most_N; });
  const float most = L::max(most_N);
  const int64_t places = (vocab + BLOCK - 1) / BLOCK * BLOCK;
  std::fill(p_V + vocab / N * N, p_V + places, 0.0f);

  // Colder than that, numbers would leave what a float holds, and nothing but the likeliest has mass either way.
  if (sampling.temperature > 0) sampling.temperature = std::max(sampling.temperature, 1e-30f);
  const bool greedy = sampling.temperature == 0, tempered = sampling.temperature != 1 && !greedy;
  const float inverse = 1 / sampling.temperature, nothing = 2 * LEAST * sampling.temperature;
  Sum sum, model;
  along(logits, vocab, [&](int64_t j, L::vec l, L::ivec in) {
    L::vec shifted = l - most;
    L::vec e = mass(shifted, in);
    model.lanes[j % BLOCK / N] += e;
    if (tempered) {
      // Divided, in two steps that cost less than a division, neither of which may overflow.
      shifted = shifted < nothing ? L::all(nothing) : shifted;
      L::vec quotient = shifted * inverse;
      quotient += (shifted - quotient * sampling.temperature) * inverse;
      e = mass(quotient, in);
    }
    sum.lanes[j % BLOCK / N] += e;
    L::store(p_V + j, e);
  });
  const double model_total = model.total();
  auto token_of = [&](int64_t token, double logp) {
    return Token{(int32_t)token, (float)logp, (float)(logits[token] - most - std::log(model_total))};
  };
  if (!(model_total > 0)) return token_of(0, NAN);
  if (greedy) return token_of(std::find(logits, logits + vocab, most) - logits, 0);

  float scale = 1 / sum.total();
  if (sampling.top_k > 0 && sampling.top_k < vocab) {
    std::copy_n(p_V, vocab, kept_V);
    std::nth_element(kept_V, kept_V + sampling.top_k - 1, kept_V + vocab, std::greater<float>());
    Sum left;
    for (int64_t j = 0; j < places; j += N) {
      L::vec p = L::load(p_V + j);
      p = p >= kept_V[sampling.top_k - 1] ? p : L::vec{};
      left.lanes[j % BLOCK / N] += p;
      L::store(p_V + j, p);
    }
    scale = 1 / left.total();
  }
  for (int64_t j = 0; j < places; j += N) L::store(p_V + j, L::load(p_V + j) * scale);
  // The likeliest token had exp 0 = 1. What has no mass is not drawn however it is sampled.
  int32_t lowest = std::max(1, bits(sampling.min_p * scale));
  if (sampling.top_p < 1) lowest = std::max(lowest, lowest_kept(p_V, places, scale, sampling.top_p, kept_V));

  double total = 0;
  float* mass_of = kept_V;
  for (int64_t j = 0; j < places; j += BLOCK) {
    L::vec sum_N{};
    for (int64_t i = j; i < j + BLOCK; i += N) {
      L::vec p = L::load(p_V + i);
      sum_N += (L::vec)((L::ivec)p & ((L::ivec)p >= lowest));
    }
    total += mass_of[j / BLOCK] = L::sum(sum_N);
  }
  const double target = u * total;
  double below = 0;
  int64_t block = 0, token = 0;
  for (int64_t j = 0; j < places / BLOCK; ++j) {
    if (mass_of[j] > 0) block = j;
    if (below + mass_of[j] > target) break;
    below += mass_of[j];
  }
  // Inside a block the sum is rounded otherwise: where it stays below the target, the last token is meant.
  for (int64_t j = block * BLOCK; j < (block + 1) * BLOCK && below <= target; ++j)
    if (bits(p_V[j]) >= lowest) below += p_V[token = j];
  return token_of(token, std::log((double)p_V[token]) - std::log(total));
}

xla::ffi::Error draw(xla::ffi::ThreadPool pool, F32 logits_BV, F32 u_B, F32 temperature_B, F32 top_p_B, F32 min_p_B,
                     S32 top_k_B, xla::ffi::Result<S32> token_B, xla::ffi::Result<F32> logp_B,
                     xla::ffi::Result<F32> logp_model_B) {
  const int64_t rows = logits_BV.dimensions()[0], vocab = logits_BV.dimensions()[1];
  const int64_t places = (vocab + BLOCK - 1) / BLOCK * BLOCK;
  const float *logits = logits_BV.typed_data(), *u = u_B.typed_data(), *temperature = temperature_B.typed_data(),
              *top_p = top_p_B.typed_data(), *min_p = min_p_B.typed_data();
  const int32_t* top_k = top_k_B.typed_data();
  int32_t* token = token_B->typed_data();
  float *logp = logp_B->typed_data(), *logp_model = logp_model_B->typed_data();
  in_parallel(pool, rows, [=](int64_t row) {
    // Kept from call to call: a large vocabulary's pages would be asked of the system for every row.
    static thread_local std::vector<float> scratch;
    if ((int64_t)scratch.size() < 2 * places) scratch.resize(2 * places);
    Sampling sampling{temperature[row], top_p[row], min_p[row], top_k[row]};
    Token drawn_token = drawn(logits + row * vocab, vocab, u[row], sampling, scratch.data(), scratch.data() + places);
    token[row] = drawn_token.token;
    logp[row] = drawn_token.logp;
    logp_model[row] = drawn_token.logp_model;
  });
  return xla::ffi::Error::Success();
}

auto binding() { return results<F32, 2>(results<S32, 1>(arguments<S32, 1>(arguments<F32, 5>(bound())))); }

}  // namespace
}  // namespace rlvr

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_draw, rlvr::draw, rlvr::binding());
