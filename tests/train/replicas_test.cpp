#include "train/replicas.h"

#include <gmock/gmock.h>

#include <mutex>

#include "comm/together.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;

// What `ranks` ranks say of each other when rank r has the values of `values[r]`; "" where they agree.
std::vector<std::string> verdicts(const std::vector<double>& values) {
  std::mutex mutex;
  std::vector<std::string> out(values.size());
  comm::run_thread_ranks(static_cast<int>(values.size()), [&](comm::Comm& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    const formats::NamedTensors weights = {{"w", at::full({3}, values[rank])}};
    std::string said;
    try {
      compare_replicas(comm, 7, weights);
    } catch (const comm::SharedError& error) {
      EXPECT_EQ(error.code(), kFaultyMachine);
      EXPECT_EQ(error.speaks, rank == 0);
      said = error.what();
    }
    const std::lock_guard lock(mutex);
    out[rank] = said;
  });
  return out;
}

}  // namespace

TEST(Replicas, TheOddRanksAreNamedOnEveryRank) {
  for (const std::string& said : verdicts({1, 1, 1})) EXPECT_EQ(said, "");
  for (const std::string& said : verdicts({1, 2, 1, 1}))
    EXPECT_THAT(said, AllOf(HasSubstr("step 7: the weights of rank 1 "),
                            HasSubstr("nothing was saved; checkpoints so far, if any, are whole")));
  for (const std::string& said : verdicts({2, 1, 1, 3, 1}))
    EXPECT_THAT(said, HasSubstr("the weights of ranks 0, 3 differ"));
  for (const std::string& said : verdicts({1, 2}))
    EXPECT_THAT(said, HasSubstr("the weights of ranks 0, 1 differ"));
}

TEST(Replicas, ADigestIsOfNamesAndValues) {
  const at::Tensor one = at::ones({2}), two = at::full({2}, 2.0);
  EXPECT_EQ(digest_of({{"a", one}}), digest_of({{"a", one.clone()}}));
  EXPECT_NE(digest_of({{"a", one}}), digest_of({{"b", one}}));
  EXPECT_NE(digest_of({{"a", one}}), digest_of({{"a", two}}));
}

}  // namespace retort::train
