#include "tests/testing.h"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <cstring>

namespace retort::testing {

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "retort-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Threads::Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
Threads::~Threads() { at::set_num_threads(before_); }

Path source_directory() {
  const char* directory = std::getenv("RETORT_SOURCE_DIR");
  return directory != nullptr ? Path(directory) : Path(RETORT_SOURCE_DIRECTORY);
}

Path test_data() {
  if (const char* given = std::getenv("RETORT_TEST_DATA"); given != nullptr && *given != '\0')
    return std::filesystem::is_directory(given) ? Path(given) : Path();
  const Path beside = source_directory() / ".." / "shared" / "data";
  return std::filesystem::is_directory(beside) ? beside : Path();
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) throw std::runtime_error("relative_error: shapes differ");
  if (a.numel() == 0) return 0.0;
  const at::Tensor da = a.detach().to(at::kDouble), db = b.detach().to(at::kDouble);
  const double scale = db.abs().max().item<double>();
  const double error = (da - db).abs().max().item<double>();
  return scale > 0 ? error / scale : error;
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

}  // namespace retort::testing
