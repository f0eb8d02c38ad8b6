#include "comm/bootstrap.h"

#include <gmock/gmock.h>

#include <map>

#include "core/error.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Environment of(std::map<std::string, std::string> variables) {
  return [variables](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

}  // namespace

TEST(Bootstrap, FindsEveryLauncher) {
  struct Row {
    std::string wanted;
    std::map<std::string, std::string> variables;
    std::string backend, found;
  };
  const std::vector<Row> rows = {
      {"auto", {}, "self", "no launcher"},
      {"auto", {{"OMPI_COMM_WORLD_SIZE", "4"}, {"PMIX_RANK", "2"}}, "mpi", "OMPI_COMM_WORLD_SIZE=4"},
      {"auto", {{"OMPI_COMM_WORLD_SIZE", "1"}}, "self", "OMPI_COMM_WORLD_SIZE=1"},
      {"auto", {{"PMIX_RANK", "0"}}, "mpi", "PMIX_RANK=0"},
      {"auto", {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}, "mpi", "PMI_RANK=1"},
      {"auto", {{"PMIX_RANK", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}, "mpi", "PMIX_RANK=0"},
      {"auto", {{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"MASTER_ADDR", "here"}}, "self", "no launcher"},
      {"auto", {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}, "self", "no launcher"},  // a batch script
      {"auto", {{"PET_NNODES", "1"}, {"PET_NPROC_PER_NODE", "4"}}, "self", "no launcher"},
      {"auto",  // torchrun's child in such a pod
       {{"PET_NNODES", "2"}, {"TORCHELASTIC_RUN_ID", "none"}, {"RANK", "0"}, {"WORLD_SIZE", "1"}},
       "self",
       "no launcher"},
      // Set but empty is absent, whosever variable it is.
      {"auto", {{"OMPI_COMM_WORLD_SIZE", ""}, {"PMIX_RANK", ""}, {"PMI_RANK", ""}}, "self", "no launcher"},
      {"auto", {{"WORLD_SIZE", ""}, {"RANK", ""}, {"MASTER_ADDR", ""}}, "self", "no launcher"},
      {"auto", {{"PET_NNODES", ""}, {"PET_NODE_RANK", ""}}, "self", "no launcher"},
      {"auto", {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", ""}}, "self", "no launcher"},
      {"auto", {{"PMI_RANK", "1"}, {"PMI_SIZE", ""}}, "mpi", "PMI_RANK=1"},
      {"self", {{"OMPI_COMM_WORLD_SIZE", "4"}}, "self", "asked for"},
      {"self", {{"PET_NNODES", "4"}}, "self", "asked for"},
      {"mpi", {}, "mpi", "asked for"},
  };
  for (const Row& row : rows) {
    const Launch launch = find_launch(row.wanted, of(row.variables));
    EXPECT_EQ(launch.backend, row.backend) << row.found;
    EXPECT_EQ(launch.found, row.found);
  }
}

TEST(Bootstrap, FindsWhereTcpRanksMeet) {
  struct Row {
    std::map<std::string, std::string> variables;
    std::string host;
    int port, rank, size;
    bool served;
  };
  const std::map<std::string, std::string> torchrun = {{"RANK", "7"},
                                                       {"WORLD_SIZE", "8"},
                                                       {"MASTER_ADDR", "n1"},
                                                       {"MASTER_PORT", "1234"},
                                                       {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
  const std::map<std::string, std::string> job = {
      {"JOB_COMPLETION_INDEX", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "job-0.job"}};
  std::map<std::string, std::string> step = {{"SLURM_PROCID", "3"},
                                             {"SLURM_STEP_NUM_TASKS", "4"},
                                             {"SLURM_STEP_NODELIST", "gpu[03-05,9],login"},
                                             {"SLURM_JOB_ID", "1020007"}};
  std::map<std::string, std::string> both = torchrun;  // torchrun's child in a pod of Kubeflow's Trainer
  both.insert({{"PET_NNODES", "2"}, {"PET_NPROC_PER_NODE", "4"}, {"PET_MASTER_ADDR", "elsewhere"}});
  const std::map<std::string, std::string> pod = {{"PET_NNODES", "4"},
                                                  {"PET_NPROC_PER_NODE", "1"},
                                                  {"PET_NODE_RANK", "2"},
                                                  {"PET_MASTER_ADDR", "job-node-0-0.job"},
                                                  {"PET_MASTER_PORT", "29400"}};
  std::map<std::string, std::string> named = step;
  named["SLURM_STEP_NODELIST"] = "a,b";
  named["MASTER_PORT"] = "99";
  for (const Row& row : std::vector<Row>{{torchrun, "n1", 1234, 7, 8, true},
                                         {job, "job-0.job", 29500, 1, 2, false},
                                         {both, "n1", 1234, 7, 8, true},
                                         {pod, "job-node-0-0.job", 29400, 2, 4, false},
                                         {step, "gpu03", 20007, 3, 4, false},
                                         {named, "a", 99, 3, 4, false}}) {
    const Launch launch = find_launch("auto", of(row.variables));
    EXPECT_EQ(launch.backend, "tcp");
    EXPECT_EQ(launch.meeting.host, row.host);
    EXPECT_EQ(launch.meeting.port, row.port);
    EXPECT_EQ(launch.meeting.rank, row.rank);
    EXPECT_EQ(launch.meeting.size, row.size);
    EXPECT_EQ(launch.meeting.served, row.served);
  }
}

TEST(Bootstrap, SaysWhatItFoundAndWhatToDo) {
  struct Row {
    std::string wanted;
    std::map<std::string, std::string> variables;
    std::string says;
  };
  const std::map<std::string, std::string> pod = {
      {"PET_NNODES", "2"}, {"PET_NODE_RANK", "1"}, {"PET_MASTER_ADDR", "job-0"}};
  const auto with = [&](const std::string& name, const std::string& value) {
    auto out = pod;
    out[name] = value;
    return out;
  };
  const auto group = [](const std::string& name, const std::string& value) {
    std::map<std::string, std::string> out = {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "n"}};
    out[name] = value;
    return out;
  };
  for (const Row& row : std::vector<Row>{
           {"auto", {{"RANK", "0"}, {"WORLD_SIZE", "8"}}, "RANK and 8 ranks are set, but not MASTER_ADDR"},
           {"auto", {{"RANK", "3"}}, "RANK=3 is set, but not WORLD_SIZE, the number of ranks; --comm self"},
           {"auto", {{"RANK", "1"}, {"WORLD_SIZE", "1"}}, "RANK=1 is set, but WORLD_SIZE is 1"},
           {"auto", {{"RANK", "one"}, {"WORLD_SIZE", "1"}}, "RANK must be a number >= 0, got \"one\""},
           {"auto", group("RANK", "2"), "RANK must be a number in [0, 1], got \"2\""},
           {"auto", group("MASTER_PORT", "99999"),
            "MASTER_PORT must be a number in [1, 65535], got \"99999\""},
           {"auto", group("WORLD_SIZE", "2147483648"),
            "there can be at most 2147483647 ranks, got 2147483648"},
           {"auto", {{"WORLD_SIZE", "8"}, {"MASTER_ADDR", "n"}}, "neither RANK nor JOB_COMPLETION_INDEX"},
           {"auto",
            {{"OMPI_COMM_WORLD_SIZE", "many"}},
            "OMPI_COMM_WORLD_SIZE must be a number >= 1, got \"many\""},
           {"auto", with("PET_NNODES", "1:4"), "a range of nodes, which only torchrun"},
           {"auto", with("PET_NPROC_PER_NODE", "8"), "numProcPerNode to 1"},
           {"auto", with("PET_NPROC_PER_NODE", "auto"), "torchrun --no-python"},
           {"auto", with("PET_NODE_RANK", ""), "not PET_NODE_RANK"},
           {"auto", with("PET_MASTER_ADDR", ""), "not PET_MASTER_ADDR"},
           {"tcp", {}, "the environment tells of no group"},
           {"mpj", {}, "unknown back end \"mpj\"; did you mean \"mpi\"?"}})
    EXPECT_THAT([&] { find_launch(row.wanted, of(row.variables)); },
                ThrowsMessage<ConfigError>(HasSubstr(row.says)));
}

TEST(Bootstrap, TcpPassesOverMpi) {
  std::map<std::string, std::string> variables = {
      {"OMPI_COMM_WORLD_SIZE", "3"}, {"OMPI_COMM_WORLD_RANK", "2"}, {"MASTER_ADDR", "n1"}};
  EXPECT_EQ(find_launch("auto", of(variables)).backend, "mpi");
  const Launch launch = find_launch("tcp", of(variables));
  EXPECT_EQ(launch.backend, "tcp");
  EXPECT_EQ(launch.meeting.rank, 2);
  EXPECT_EQ(launch.meeting.size, 3);
  variables.insert({{"RANK", "1"}, {"WORLD_SIZE", "2"}});
  EXPECT_EQ(find_launch("tcp", of(variables)).meeting.size, 2);
}

TEST(Bootstrap, StartsAlone) {
  const Started started = start_comm("self");
  EXPECT_EQ(started.comm->size(), 1);
  EXPECT_EQ(started.local.rank, 0);
  EXPECT_EQ(started.local.size, 1);
  EXPECT_EQ(started.sentence, "one process (asked for)");
}

TEST(Bootstrap, CountsTheRanksOfThisMachine) {
  run_thread_ranks(3, [](Comm& comm) {
    const LocalRank local = find_local_rank(comm);
    EXPECT_EQ(local.rank, comm.rank());
    EXPECT_EQ(local.size, 3);
  });
}

TEST(Bootstrap, MpiNeedsALauncher) {
  if (mpi_launcher(process_environment)) GTEST_SKIP() << "under a launcher";
  EXPECT_THAT([] { make_mpi_comm(); }, ThrowsMessage<CommError>(HasSubstr("no launcher")));
}

}  // namespace retort::comm
