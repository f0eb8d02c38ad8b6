#include "train/holders.h"

#include <gmock/gmock.h>

#include <new>

#include "tests/train/tiny_model.h"

namespace retort::train {
namespace {

uint64_t bytes_of(const std::vector<Holder>& holders, const std::string& what) {
  for (const Holder& one : holders)
    if (one.what == what) return one.bytes;
  return 0;
}

TEST(Holders, AreTheTensorsThatAreThere) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    TinyModel tiny;
    models::bind_working(tiny.model.parameters(), tiny.map, dtype);
    const auto comm = comm::make_self_comm();
    const auto objective = make_cross_entropy();
    const auto optimizer = make_optimizer({}, tiny.model.parameters());
    const std::vector<Holder> holders = holders_of({tiny.model, tiny.map, *objective, *optimizer, *comm}, 4);
    uint64_t matrices = 0, all = 0;
    for (const models::Parameter& p : tiny.model.parameters().unique()) {
      all += static_cast<uint64_t>(p.numel());
      if (p.working.scalar_type() == at::kBFloat16) matrices += static_cast<uint64_t>(p.numel());
    }
    EXPECT_EQ(bytes_of(holders, "masters"), 4 * all);
    EXPECT_EQ(bytes_of(holders, "working copies"), 2 * matrices)
        << "one that is the master itself counts once";
    EXPECT_EQ(bytes_of(holders, "the optimizer's state"), 8 * all + 8) << "two moments and a count";
    EXPECT_EQ(bytes_of(holders, "gradients"), 2 * 4 * all) << "four micro-batches are one subtree";
    EXPECT_TRUE(std::ranges::is_sorted(holders, std::greater(), &Holder::bytes));
    EXPECT_THAT(text_of(holders), ::testing::StartsWith(holders[0].what + " "));
  }
}

TEST(Holders, ARefusalOfMemoryIsKnown) {
  EXPECT_EQ(refusal_of_memory(std::bad_alloc()), "the system gives no more memory");
  try {
    at::empty({int64_t{1} << 50});
    ADD_FAILURE() << "a petabyte";
  } catch (const std::exception& error) {
    EXPECT_THAT(refusal_of_memory(error), ::testing::HasSubstr("allocate"));
  }
  try {
    at::ones({2}).add(at::ones({3}));
  } catch (const std::exception& error) {
    EXPECT_EQ(refusal_of_memory(error), "");
  }
}

}  // namespace
}  // namespace retort::train
