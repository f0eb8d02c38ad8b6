#include "comm/together.h"

#include <gtest/gtest.h>

#include <atomic>

#include "comm/faulty_machine.h"

namespace retort::comm {

TEST(Together, EveryRankHearsOfTheLowestFailure) {
  std::atomic<int> heard = 0, speaking = 0;
  comm::run_thread_ranks(4, [&](comm::Comm& comm) {
    try {
      together(comm, [&] { check<DataError>(comm.rank() < 2, "broken on {}", comm.rank()); });
    } catch (const SharedError& error) {
      EXPECT_STREQ(error.what(), "rank 2: broken on 2");
      EXPECT_EQ(error.code(), ExitCode::kBadData);
      ++heard;
      speaking += error.speaks;
    }
    together(comm, [] {});  // the group goes on
  });
  EXPECT_EQ(heard, 4);
  EXPECT_EQ(speaking, 1);
}

TEST(Together, EveryCodeComesThrough) {
  EXPECT_EQ(static_cast<int>(kFaultyMachine), 78);
  for (const int code : {2, 65, 70, 74, 75, 76, 77, 78})
    comm::run_thread_ranks(2, [&](comm::Comm& comm) {
      try {
        together(comm, [&] { throw Error("broken", ExitCode{code}); });
        ADD_FAILURE() << code;
      } catch (const SharedError& error) {
        EXPECT_EQ(static_cast<int>(error.code()), code);
      }
    });
}

TEST(Together, RankZeroWorksAndTellsTheOthers) {
  comm::run_thread_ranks(3, [](comm::Comm& comm) {
    EXPECT_EQ(text_from_rank_zero(comm, [] { return std::string("plan"); }), "plan");
    EXPECT_THROW(on_rank_zero(comm, [] { fail<IoError>("full"); }), SharedError);
  });
}

TEST(Together, AWorldOfOneKeepsItsOwnException) {
  const auto comm = comm::make_self_comm();
  EXPECT_THROW(together(*comm, [] { fail<NonFiniteError>("nan"); }), NonFiniteError);
}

TEST(Together, ForeignExceptionsBecomeErrors) {
  const auto error_of = [](auto thrower) {
    try {
      thrower();
    } catch (...) {
      return as_error(std::current_exception());
    }
    return Error("nothing", ExitCode::kDone);
  };
  EXPECT_EQ(error_of([] { fail<ConfigError>("x"); }).code(), ExitCode::kUsage);
  EXPECT_EQ(error_of([] { throw std::runtime_error("y"); }).code(), ExitCode::kInternal);
  const Error path = error_of([] { std::filesystem::directory_iterator("/nowhere/at/all"); });
  EXPECT_EQ(path.code(), ExitCode::kInputOutput);
  EXPECT_NE(std::string(path.what()).find("/nowhere/at/all"), std::string::npos);
  const Error memory = error_of([] { at::empty({int64_t{1} << 58}); });
  EXPECT_EQ(memory.code(), ExitCode::kUsage) << "as within a step";
  EXPECT_EQ(std::string(memory.what()).find("out of memory"), 0u);
  EXPECT_EQ(error_of([] { throw std::bad_alloc(); }).code(), ExitCode::kUsage);
  const Error device = error_of([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "the device has no more"); });
  EXPECT_EQ(device.code(), ExitCode::kUsage);
  const Error torch = error_of([] { at::ones({2}).view({3}); });
  EXPECT_EQ(torch.code(), ExitCode::kInternal);
  EXPECT_EQ(std::string(torch.what()).find("frame #"), std::string::npos);
}

}  // namespace retort::comm
