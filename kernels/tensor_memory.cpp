#include "kernels/tensor_memory.h"

#include <c10/core/Allocator.h>

namespace retort::kernels {

void give_memory(const at::Tensor& tensor) {
  c10::StorageImpl& storage = *tensor.storage().unsafeGetStorageImpl();
  storage.set_data_ptr_noswap(c10::GetAllocator(tensor.device().type())->allocate(storage.nbytes()));
}

void take_memory(const at::Tensor& tensor) {
  tensor.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(nullptr, tensor.device()));
}

}  // namespace retort::kernels
