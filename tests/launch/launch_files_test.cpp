// The files that start a run on clusters, as far as one machine can tell: the scripts run beside programs that play
// the launcher, and what the manifests set is what comm/bootstrap.h reads. No Slurm and no Kubernetes is here.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "comm/bootstrap.h"
#include "core/file.h"
#include "recipes/yaml_tree.h"
#include "tests/recipes/process.h"
#include "tests/testing.h"

namespace retort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Programs of this test's own before all others on the PATH.
class LaunchFiles : public ::testing::Test {
 protected:
  void program(const std::string& name, const std::string& body) {
    std::ofstream(directory_ / name) << "#!/bin/bash\n" << body << "\n";
    std::filesystem::permissions(directory_ / name, std::filesystem::perms::owner_all);
  }
  int run(const std::string& command) {
    const std::string line =
        "cd " + directory_.path().string() + " && PATH=.:$PATH " + command + " >out 2>&1";
    return WEXITSTATUS(std::system(line.c_str()));
  }
  std::string said() const { return read_text(directory_ / "out"); }
  static std::string file(const std::string& name) {
    return (testing::source_directory() / "launch" / name).string();
  }
  std::vector<std::string> calls() const {
    std::vector<std::string> lines;
    std::istringstream text(read_text(directory_ / "calls"));
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  testing::TemporaryDirectory directory_;
};

recipes::Node manifest(const std::string& name) {
  const Path path = testing::source_directory() / "launch" / "kubernetes" / name;
  recipes::Problems problems;
  recipes::Node node = recipes::parse_yaml(read_text(path), path.string(), problems);
  recipes::raise_if_any(problems);
  return node;
}

std::string text_at(const recipes::Node& node, std::string_view place) {
  const recipes::Node* found = node.at(place);
  return found == nullptr ? "" : found->scalar;
}

}  // namespace

TEST_F(LaunchFiles, ASlurmJobIsQueuedAgainAfterAPreemptionAndALostRank) {
  program("srun", "echo srun \"$@\" >>calls; exit $CODE");
  program("scontrol", "echo scontrol \"$@\" >>calls");
  for (const auto& [code, restarts, again] : {std::tuple{0, 0, false},
                                              {2, 0, false},
                                              {75, 9, true},
                                              {76, 0, true},
                                              {76, 2, true},
                                              {76, 3, false}}) {
    SCOPED_TRACE(fmt::format("code {} after {} restarts", code, restarts));
    std::filesystem::remove(directory_ / "calls");
    EXPECT_EQ(run(fmt::format("CODE={} SLURM_RESTART_COUNT={} SLURM_JOB_ID=17 {} a.yaml --set run.seed=3",
                              code, restarts, file("slurm.sbatch"))),
              code);
    const std::string start = "srun --kill-on-bad-exit=1 --mpi=pmix retort run a.yaml --set run.seed=3";
    if (again)
      EXPECT_THAT(calls(), ElementsAre(start, "scontrol requeue 17"));
    else
      EXPECT_THAT(calls(), ElementsAre(start));
  }
}

TEST_F(LaunchFiles, ASlurmScriptOutlivesTheSignalThatItsStepGets) {
  program("srun",
          "trap 'sleep 0.3; echo saved >>calls; exit 75' USR1; kill -USR1 $PPID; kill -USR1 $$; sleep 5");
  program("scontrol", "echo scontrol \"$@\" >>calls");
  EXPECT_EQ(run("SLURM_JOB_ID=17 " + file("slurm.sbatch") + " a.yaml"), 75);
  EXPECT_THAT(calls(), ElementsAre("saved", "scontrol requeue 17"));
}

TEST_F(LaunchFiles, TheLoopStartsMpirunAgain) {
  // Ends with the codes in the file `codes`, one a start.
  program("mpirun", "echo \"$@\" >>calls; code=$(head -n 1 codes); sed -i 1d codes; exit $code");
  const std::string start =
      "RETORT_RESTART_DELAY=0 " + file("mpirun_loop.sh") + " -n 4 -- a.yaml --set run.seed=3";
  const auto with_codes = [&](const std::string& codes) {
    std::filesystem::remove(directory_ / "calls");
    std::ofstream(directory_ / "codes") << codes;
    return run(start);
  };
  EXPECT_EQ(with_codes("75\n76\n75\n0\n"), 0);
  EXPECT_EQ(calls().size(), 4u);
  EXPECT_EQ(calls()[0], "--mca odls_base_sigkill_timeout 10 -n 4 retort run a.yaml --set run.seed=3");
  EXPECT_EQ(with_codes("137\n0\n"), 0) << "a rank that was killed";
  EXPECT_EQ(with_codes("2\n"), 2);
  EXPECT_EQ(calls().size(), 1u);
  EXPECT_EQ(with_codes("76\n76\n76\n76\n0\n"), 76) << "three restarts, no more";
  EXPECT_EQ(calls().size(), 4u);
  EXPECT_EQ(run(file("mpirun_loop.sh")), 2);
  EXPECT_THAT(said(), HasSubstr("launch/mpirun_loop.sh -n 8"));
}

// Ranks hear of a signal at once, as USR1, and are not started again.
TEST_F(LaunchFiles, ASignalToTheLoopSavesAndEndsIt) {
  program("mpirun", "echo \"$@\" >>calls; trap 'exit 75' USR1; touch started; while :; do sleep 0.05; done");
  for (const char* signal : {"TERM", "HUP"}) {
    std::filesystem::remove(directory_ / "calls");
    std::filesystem::remove(directory_ / "started");
    EXPECT_EQ(run("RETORT_RESTART_DELAY=0 bash -c '" + file("mpirun_loop.sh") +
                  " -n 4 -- a.yaml & loop=$!; until [ -e started ]; do sleep 0.05; done; kill -" + signal +
                  " $loop; wait $loop'"),
              75)
        << signal;
    EXPECT_EQ(calls().size(), 1u) << signal;
  }
}

// The four pods meet at the first one, as ranks 0 to 3.
TEST_F(LaunchFiles, AJobSetsPodsFindEachOther) {
  const recipes::Node set = manifest("jobset.yaml");
  EXPECT_EQ(text_at(set, "kind"), "JobSet");
  const recipes::Node* job = set.at("spec.replicatedJobs.ranks.template.spec");
  ASSERT_NE(job, nullptr);
  EXPECT_EQ(text_at(*job, "backoffLimit"), "0");
  const recipes::Node* env = job->at("template.spec.containers.retort.env");
  ASSERT_NE(env, nullptr);
  for (int pod = 0; pod < 4; ++pod) {
    const comm::Launch launch = comm::find_launch("auto", [&](const std::string& name) {
      if (name == "JOB_COMPLETION_INDEX") return std::optional(std::to_string(pod));
      const recipes::Node* value = env->at(name + ".value");
      return value == nullptr ? std::nullopt : std::optional(value->scalar);
    });
    EXPECT_EQ(launch.backend, "tcp");
    EXPECT_EQ(launch.meeting.rank, pod);
    EXPECT_EQ(std::to_string(launch.meeting.size), text_at(*job, "completions"));
    EXPECT_EQ(launch.meeting.host,
              text_at(set, "metadata.name") + "-ranks-0-0." + text_at(set, "metadata.name"));
  }
}

TEST_F(LaunchFiles, TheOtherManifestsAreWholeYaml) {
  EXPECT_EQ(text_at(manifest("trainjob.yaml"), "kind"), "TrainJob");
  const recipes::Node job = manifest("mpijob.yaml");
  EXPECT_EQ(text_at(job, "apiVersion"), "kubeflow.org/v2beta1");
  EXPECT_EQ(text_at(job, "spec.mpiReplicaSpecs.Worker.replicas"), "4");
}

// libmpi is loaded where a launcher of MPI has started the program, which says so where it cannot be.
TEST_F(LaunchFiles, TheProgramNeedsNoMpi) {
  const std::string retort = testing::binary().string();
  ASSERT_EQ(run("readelf -d " + retort), 0);
  EXPECT_THAT(said(), HasSubstr("libtorch_cpu"));
  EXPECT_THAT(said(), ::testing::Not(HasSubstr("libmpi")));
  EXPECT_EQ(run("OMPI_COMM_WORLD_SIZE=2 RETORT_MPI_PLUGIN=/nowhere/x.so " + retort + " run quickstart"), 2);
  EXPECT_THAT(
      said(),
      HasSubstr("MPI is needed (OMPI_COMM_WORLD_SIZE=2), and it is not here: there is no /nowhere/x.so"));
}

}  // namespace retort
