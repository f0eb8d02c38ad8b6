#include "comm/staged_comm.h"

#include <gtest/gtest.h>

#include "tests/comm/subgroups.h"

namespace retort::comm {

// Tensors of the host go straight there, by subgroups too; tests/fake_device has those of devices.
TEST(StagedComm, IsTheHostsGroupForTheHostsTensors) {
  run_thread_ranks(4, [](Comm& host) {
    const auto staged = make_staged_comm(host);
    EXPECT_EQ(staged->name(), host.name());
    trade_in_rows_and_columns(*staged);
    trade_messages(*staged);
  });
}

}  // namespace retort::comm
