// What g++ calls where -fsanitize=alignment,bounds finds something and no UBSan runtime is linked: the
// kernels are checked so in every build. The records are UBSan's own (libubsan, ubsan_handlers.h).
#include <cstdint>

#include "tests/cuda_emulation/thread.h"

namespace {

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeMismatch {
  SourceLocation where;
  const void* type;
  unsigned char log_alignment, kind;
};
struct OutOfBounds {
  SourceLocation where;
  const void *array, *index;
};

[[noreturn]] void fail(const char* what, const SourceLocation& at) {
  retort::emulation::Where where;
  where.file = at.file;
  where.function = "a kernel";
  where.line = at.line;
  where.column = at.column;
  retort::emulation::fail(what, where);
}

}  // namespace

extern "C" {

void __ubsan_handle_type_mismatch_v1(const TypeMismatch* record, uintptr_t pointer) {
  const uintptr_t alignment = uintptr_t{1} << record->log_alignment;
  fail(pointer % alignment != 0 ? "misaligned access" : "access through a null pointer", record->where);
}

void __ubsan_handle_out_of_bounds(const OutOfBounds* record, uintptr_t) {
  fail("index out of an array's bounds", record->where);
}

}  // extern "C"
