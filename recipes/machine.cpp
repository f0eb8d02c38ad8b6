#include "recipes/machine.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <thread>

#include "comm/comm.h"
#include "core/cpu.h"
#include "core/log.h"
#include "kernels/cuda_ops.h"

namespace retort::recipes {
namespace {

std::string row(std::string_view what, std::string_view text) { return fmt::format("{:<9}{}\n", what, text); }

std::string of_cpu() {
  const CpuFeatures cpu = cpu_features();
  std::vector<std::string> units;
  if (cpu.avx2 && cpu.fma) units.push_back("AVX2 with FMA");
  if (cpu.avx512) units.push_back("AVX-512");
  if (cpu.avx512_bf16) units.push_back("AVX-512 bf16");
  if (cpu.amx_bf16) units.push_back("AMX bf16");
  return fmt::format(
      "{}, {} processors; {}", cpu.model, std::thread::hardware_concurrency(),
      units.empty() ? "no vector units that retort uses" : fmt::format("{}", fmt::join(units, ", ")));
}

std::string of_gpus(const CudaDriver& driver) {
  std::string out;
  if (driver.version > 0) out += row("driver", fmt::format("CUDA up to {}", cuda_version(driver.version)));
  for (size_t i = 0; i < driver.gpus.size(); ++i) {
    const Gpu& gpu = driver.gpus[i];
    out += row(fmt::format("cuda:{}", i),
               fmt::format("{}, {}, compute capability {}.{}, {} multiprocessors", gpu.name,
                           format_bytes(gpu.memory), gpu.major, gpu.minor, gpu.multiprocessors));
  }
  if (!driver.missing.empty()) out += row("cuda", driver.missing);
  const std::string kernels = kernels::cuda::load();
  return out + row("kernels", kernels.empty() ? "CUDA kernels are there" : kernels);
}

std::string of_nccl() {
  if (!comm::nccl_available()) return "none: it is a part of libretort_cuda.so";
  const int version = nccl_version();
  if (version == 0) return "built in, and libnccl.so.2 cannot be opened";
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

}  // namespace

std::string describe_machine(const CudaDriver& driver) {
  return row("cpu", of_cpu()) + of_gpus(driver) + row("nccl", of_nccl()) +
         row("mpi", comm::mpi_missing().empty() ? "can be used" : comm::mpi_missing()) +
         row("training",
             "retort run takes a GPU for each rank, where they answer (run.device: auto); none has run it "
             "yet");
}

}  // namespace retort::recipes
