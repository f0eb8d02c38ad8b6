#include "comm/mesh.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::comm {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// The numbers of the ranks along an axis, as each of them knows its own.
std::vector<int64_t> along(Comm& axis, int rank) {
  const at::Tensor all = at::empty({axis.size()}, at::kLong);
  axis.all_gather(all, at::full({1}, rank, at::kLong)).wait();
  return {all.data_ptr<int64_t>(), all.data_ptr<int64_t>() + all.numel()};
}

}  // namespace

TEST(Mesh, NumbersRanksFromTheOuterAxisToTheInner) {
  run_thread_ranks(8, [](Comm& comm) {
    const Mesh mesh(comm, {2, 1, 2, 1, 2});
    const int r = comm.rank();
    EXPECT_EQ(mesh.place(Axis::kStages), r / 4);
    EXPECT_EQ(mesh.place(Axis::kShards), r / 2 % 2);
    EXPECT_EQ(mesh.place(Axis::kProducts), r % 2);
    using Ranks = std::vector<int64_t>;
    EXPECT_EQ(along(mesh.axis(Axis::kStages), r), (Ranks{r % 4, r % 4 + 4}));
    EXPECT_EQ(along(mesh.axis(Axis::kShards), r), (Ranks{r / 4 * 4 + r % 2, r / 4 * 4 + r % 2 + 2}));
    EXPECT_EQ(along(mesh.axis(Axis::kProducts), r), (Ranks{r / 2 * 2, r / 2 * 2 + 1}));
    EXPECT_EQ(along(mesh.axis(Axis::kReplicas), r), Ranks{r});
  });
}

// So that a back end without subgroups has meshes of one axis, and calls keep their numbers.
TEST(Mesh, TheOnlyAxisIsTheGroupItself) {
  run_thread_ranks(3, [](Comm& comm) {
    const Mesh mesh(comm, {1, 1, 3, 1, 1});
    EXPECT_EQ(&mesh.axis(Axis::kShards), &comm);
    EXPECT_EQ(mesh.axis(Axis::kChunks).name(), "self");
  });
}

TEST(Mesh, MustHaveAPlaceForEveryRank) {
  for (const Mesh::Shape& wrong : {Mesh::Shape{1, 2, 1, 1, 1}, Mesh::Shape{1, 0, 1, 1, 1}})
    EXPECT_THAT([&] { Mesh(*make_self_comm(), wrong); },
                ThrowsMessage<ConfigError>(
                    HasSubstr("rep " + std::to_string(wrong[1]) + ", shard 1, cp 1, tp 1 make")));
}

}  // namespace retort::comm
