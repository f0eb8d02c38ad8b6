#include <gmock/gmock.h>

#include "comm/comm.h"
#include "core/error.h"

namespace retort::comm {

// All that can be said without a GPU; with one, a world of one must come up and pass CPU tensors on.
TEST(NcclComm, ComesUpOrSaysWhatIsMissing) {
  const auto self = make_self_comm();
  try {
    const auto comm = make_nccl_comm(*self);
    EXPECT_EQ(comm->name(), "nccl");
    EXPECT_EQ(comm->size(), 1);
    EXPECT_EQ(comm->reduce(2.5, Reduce::kSum), 2.5);
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("[nccl] "));
  }
}

}  // namespace retort::comm
