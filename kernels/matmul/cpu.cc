// Products of bfloat16 activations and weights [N, K] for XLA:CPU, on processors where they were measured to be faster
// than XLA's: not those with AMX, which XLA's own library reaches. Legend: reference.py.
#include "kernels/cpu.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__) && !defined(__AMX_BF16__)
#include "kernels/matmul/pairs.h"
#define RLVR_PRODUCT rlvr::pairs::product
#elif defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
#include "kernels/matmul/widened.h"
#define RLVR_PRODUCT rlvr::widened::product
#endif

namespace rlvr {
namespace {

xla::ffi::Error matmul(xla::ffi::ThreadPool pool, Any x_MK, Any w_NK, xla::ffi::Result<F32> out_MN) {
#ifdef RLVR_PRODUCT
  // Of M, so that the rows stay in the second cache; parts for each thread, so that one that is held up leaves some to
  // the others; columns that a part is made of.
  constexpr int64_t MOST_ROWS = 256, PARTS = 4, COLUMNS = 4;
  const auto* x = static_cast<const uint16_t*>(x_MK.untyped_data());
  const auto* w = static_cast<const uint16_t*>(w_NK.untyped_data());
  float* out = out_MN->typed_data();
  const int64_t m = x_MK.dimensions()[0], k = x_MK.dimensions()[1], n = out_MN->dimensions()[1];
  const int64_t groups = n / COLUMNS, row_blocks = (m + MOST_ROWS - 1) / MOST_ROWS;
  const int64_t parts = std::min<int64_t>(groups, PARTS * std::max<int64_t>(1, pool.num_threads()));
  in_parallel(pool, row_blocks * parts, [=](int64_t i) {
    const int64_t row = i / parts * MOST_ROWS, part = i % parts;
    RLVR_PRODUCT(x + row * k, w, std::min(MOST_ROWS, m - row), k, n, part * groups / parts * COLUMNS,
                 (part + 1) * groups / parts * COLUMNS, out + row * n);
  });
  return xla::ffi::Error::Success();
#else
  return xla::ffi::Error(xla::ffi::ErrorCode::kUnimplemented, "this processor has no product of bfloat16");
#endif
}

auto binding() { return results<F32, 1>(arguments<Any, 2>(bound())); }

}  // namespace
}  // namespace rlvr

extern "C" bool rlvr_multiplies() {
#ifdef RLVR_PRODUCT
  return true;
#else
  return false;
#endif
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(rlvr_matmul, rlvr::matmul, rlvr::binding());
