// Rows copied out of an array, and into one where it lies, for XLA:CPU, which would do either in float32 and widen the
// whole array for it. Legend: reference.py.
#include <cstring>
#include <functional>
#include <numeric>

#include "kernels/cpu.h"

namespace rlvr {
namespace {

// Rows that a thread copies between two looks at what is left.
constexpr int64_t BLOCK = 16;

template <typename F>
void for_rows(xla::ffi::ThreadPool pool, int64_t rows, F f) {
  in_parallel(pool, (rows + BLOCK - 1) / BLOCK, [=](int64_t block) {
    for (int64_t n = block * BLOCK; n < std::min(rows, (block + 1) * BLOCK); ++n) f(n);
  });
}

xla::ffi::Error take(xla::ffi::ThreadPool pool, Any from, S32 at_N, xla::ffi::Result<Any> to) {
  const int64_t rows = from.dimensions()[0], bytes = from.size_bytes() / rows;
  const char* source = static_cast<const char*>(from.untyped_data());
  char* target = static_cast<char*>(to->untyped_data());
  const int32_t* at = at_N.typed_data();
  for_rows(pool, at_N.element_count(), [=](int64_t n) {
    std::memcpy(target + n * bytes, source + std::clamp<int64_t>(at[n], 0, rows - 1) * bytes, bytes);
  });
  return xla::ffi::Error::Success();
}

// old is what the result was given: nothing but new is written.
xla::ffi::Error put(xla::ffi::ThreadPool pool, Any old, Any fresh, S32 at_N, S32 offset_N, xla::ffi::Result<Any> to,
                    int64_t axis) {
  auto shape = old.dimensions(), part = fresh.dimensions();
  if (old.untyped_data() != to->untyped_data()) std::memcpy(to->untyped_data(), old.untyped_data(), old.size_bytes());
  // A row is `outer` runs of bytes, of each of which a stretch is replaced.
  const int64_t rows = shape[0];
  const int64_t outer = std::accumulate(shape.begin() + 1, shape.begin() + axis, int64_t{1}, std::multiplies());
  const int64_t run = old.size_bytes() / rows / outer, unit = run / shape[axis], stretch = unit * part[axis];
  const int64_t most = shape[axis] - part[axis];
  const char* source = static_cast<const char*>(fresh.untyped_data());
  char* target = static_cast<char*>(to->untyped_data());
  const int32_t *at = at_N.typed_data(), *offset = offset_N.typed_data();
  for_rows(pool, part[0], [=](int64_t n) {
    char* row = target + std::clamp<int64_t>(at[n], 0, rows - 1) * outer * run;
    row += std::clamp<int64_t>(offset[n], 0, most) * unit;
    for (int64_t o = 0; o < outer; ++o) std::memcpy(row + o * run, source + (n * outer + o) * stretch, stretch);
  });
  return xla::ffi::Error::Success();
}

auto take_binding() { return results<Any, 1>(arguments<S32, 1>(arguments<Any, 1>(bound()))); }

auto put_binding() {
  return results<Any, 1>(arguments<S32, 2>(arguments<Any, 2>(bound()))).Attr<int64_t>("axis");
}

}  // namespace
}  // namespace rlvr

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_take, rlvr::take, rlvr::take_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_put, rlvr::put, rlvr::put_binding());
