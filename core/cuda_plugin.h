// The part of this program that is for NVIDIA's GPUs: a library, libretort_cuda.so, which is opened when a device is
// wanted, so that the program itself needs no library of CUDA's. It lies beside the program, or where
// $RETORT_CUDA_PLUGIN says. Its functions are extern "C"; kernels/cuda/plugin.h and comm/nccl_wire.cpp declare them.
//
// Both sides have a stamp, made of the version, LibTorch's and the headers by which they speak (cmake/cuda_plugin.cmake);
// a library of another stamp is refused. Any thread; throws nothing.
#pragma once

#include <string>

namespace retort {

class CudaPlugin {
 public:
  static std::string path();       // where it would be opened
  static bool is_there();          // whether there is a file
  static const CudaPlugin& get();  // opened once a process, and never closed

  explicit CudaPlugin(const std::string& path);
  const std::string& missing() const { return missing_; }  // why it cannot be used; "" where it can
  // The function of that name, nullptr where it has none.
  template <class Function>
  Function* function(const char* name) const {
    return reinterpret_cast<Function*>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;
  std::string missing_;
  void* library_ = nullptr;
};

// What the loader has said, and what brings the library of NVIDIA's that it has not found, where that is the reason.
std::string with_remedy(const std::string& trouble);

}  // namespace retort
