#include "formats/packed_words.h"

#include "core/error.h"
#include "core/shape.h"

namespace retort::formats {
namespace {

void check_bits(int64_t bits) {
  check(bits >= 1 && bits <= 16 && 32 % bits == 0, "[packed words] bits must be 1, 2, 4, 8 or 16, got {}",
        bits);
}

// Where each code of a word begins: i64 [32 / bits].
at::Tensor shifts(int64_t bits) { return at::arange(0, 32, bits, at::kLong); }

}  // namespace

at::Tensor pack_words(const at::Tensor& codes_RN, int64_t bits) {
  check_bits(bits);
  check_shape("packed words", "codes_RN", codes_RN, {-1, -1});
  const int64_t per_word = 32 / bits, words = (codes_RN.size(1) + per_word - 1) / per_word;
  at::Tensor codes = codes_RN.to(at::kLong);
  check(codes.numel() == 0 || (codes.min().item<int64_t>() >= 0 && codes.max().item<int64_t>() < 1 << bits),
        "[packed words] codes must lie in [0, {})", 1 << bits);
  codes = at::constant_pad_nd(codes, {0, words * per_word - codes.size(1)}, 0);
  codes = at::bitwise_left_shift(codes.reshape({codes.size(0), words, per_word}), shifts(bits));
  const at::Tensor sums = codes.sum(2);  // of disjoint bits; the highest bit makes an i32 negative
  return at::where(sums.ge(int64_t{1} << 31), sums - (int64_t{1} << 32), sums).to(at::kInt);
}

at::Tensor unpack_words(const at::Tensor& words_RM, int64_t bits, int64_t count) {
  check_bits(bits);
  check_shape("packed words", "words_RM", words_RM, {-1, -1});
  check<DataError>(count >= 0 && count <= words_RM.size(1) * (32 / bits),
                   "[packed words] {} codes of {} bits need {} words a row, got {}", count, bits,
                   (count * bits + 31) / 32, words_RM.size(1));
  const at::Tensor wide = words_RM.to(at::kLong).unsqueeze(2);
  const at::Tensor codes = at::bitwise_and(at::bitwise_right_shift(wide, shifts(bits)), (1 << bits) - 1);
  return codes.reshape({words_RM.size(0), -1}).narrow(1, 0, count).to(at::kInt);
}

}  // namespace retort::formats
