// A driver with two GPUs of which a test knows everything; RETORT_FAKE_CUDA_STATUS is what cuInit gives.
#include <cstdlib>
#include <cstring>

extern "C" {

int cuDriverGetVersion(int* version) { return *version = 13020, 0; }
int cuInit(unsigned) {
  const char* status = std::getenv("RETORT_FAKE_CUDA_STATUS");
  return status == nullptr ? 0 : std::atoi(status);
}
int cuGetErrorString(int, const char** text) { return *text = "system driver mismatch", 0; }
int cuDeviceGetCount(int* count) {
  const char* hidden = std::getenv("CUDA_VISIBLE_DEVICES");
  return *count = hidden != nullptr && *hidden == '\0' ? 0 : 2, 0;
}
int cuDeviceGet(int* device, int number) { return *device = 10 + number, 0; }
int cuDeviceGetName(char* name, int length, int device) {
  std::strncpy(name, device == 10 ? "NVIDIA First" : "NVIDIA Second", static_cast<size_t>(length));
  return 0;
}
int cuDeviceTotalMem_v2(size_t* memory, int device) {
  return *memory = (device == 10 ? 80ULL : 141ULL) << 30, 0;
}
int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(16 * (device - 10) + i);
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  return *value = attribute == 75 ? 9 : attribute == 76 ? 1 : 132, 0;
}
int ncclGetVersion(int* version) { return *version = 22809, 0; }
}
