#include "kernels/cpu/table.h"

#include "core/cpu.h"
#include "core/error.h"

namespace retort::kernels::cpu {

namespace avx2 {
const Table& table();
}
namespace avx512 {
const Table& table();
}

std::vector<const Table*> all_cpu_tables() {
  std::vector<const Table*> tables;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&avx2::table());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    tables.push_back(&avx512::table());
  return tables;
}

const Table& cpu_table() {
  static const std::vector<const Table*> tables = all_cpu_tables();
  check<ConfigError>(!tables.empty(), "[kernels] the processor must have AVX2 and FMA");
  static const Table& chosen = cpu_features().avx512 ? *tables.back() : *tables.front();
  return chosen;
}

}  // namespace retort::kernels::cpu
