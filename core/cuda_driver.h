// What NVIDIA's driver says of this machine's GPUs. It is opened here and linked nowhere, so that it
// costs nothing where there is none, and the answer says why. Any thread; throws nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace retort {

struct Gpu {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  std::string uuid = {};  // 32 hexadecimal digits, the same in every process; "" where the driver gives none
  uint64_t memory = 0;
  int major = 0, minor = 0;  // compute capability: 9.0
  int multiprocessors = 0;
};

// Of the runtime library that LibTorch has loaded (13000: CUDA 13.0); 0: it has none.
int cuda_runtime_version();

struct CudaDriver {
  std::string missing;  // why no GPU can be used; "" where one can
  int version = 0;      // 13000: the newest CUDA that it knows, 13.0; 0: no driver
  std::vector<Gpu> gpus = {};
};
// `runtime`: the CUDA that this program's libraries are of, whose major number the driver must know; 0: any driver serves.
CudaDriver probe_cuda_driver(const std::string& library = "libcuda.so.1",
                             int runtime = cuda_runtime_version());

// 13000: "13.0".
std::string cuda_version(int number);

// The version of a NCCL library (22809: 2.28.9); 0 where it cannot be opened.
int nccl_version(const std::string& library = "libnccl.so.2");

}  // namespace retort
