#include "comm/agreement.h"

#include <gmock/gmock.h>

#include <atomic>

#include "comm/together.h"

namespace retort::comm {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Agreement, EqualFactsPass) {
  run_thread_ranks(3, [](Comm& comm) {
    must_agree(comm, {});
    must_agree(comm, {{"a", ""}, {"b: 1", std::string("x\0y", 3)}});
  });
  must_agree(*make_self_comm(), {{"a", "b"}});
}

TEST(Agreement, EveryRankHearsWhoDiffersAndInWhat) {
  std::atomic<int> heard = 0;
  run_thread_ranks(4, [&](Comm& comm) {
    Facts facts = {{"train.steps", "40"}, {"train.optimizer.lr", "0.004"}, {"run.seed", "3"}};
    if (comm.rank() == 2) facts["train.optimizer.lr"] = "0.001", facts["extra"] = "", facts.erase("run.seed");
    if (comm.rank() == 3) facts["train.steps"] = "41";
    try {
      must_agree(comm, facts);
    } catch (const SharedError& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_STREQ(
          error.what(),
          "rank 2: differs from rank 0: extra is \"\" there and absent on rank 0; run.seed is absent "
          "there and 3 on rank 0; train.optimizer.lr is 0.001 there and 0.004 on rank 0");
      ++heard;
    }
    must_agree(comm, {{"the group", "goes on"}});
  });
  EXPECT_EQ(heard, 4);
}

TEST(Agreement, ManyDifferencesAreCounted) {
  run_thread_ranks(2, [](Comm& comm) {
    Facts facts;
    for (int i = 0; i < 20; ++i) facts[fmt::format("key{:02}", i)] = std::to_string(comm.rank());
    try {
      must_agree(comm, facts);
      ADD_FAILURE() << "they differ";
    } catch (const SharedError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("key07"), Not(HasSubstr("key08")), HasSubstr("and 12 more")));
    }
  });
}

}  // namespace retort::comm
