// Named tensors as some container keeps them: all shapes at once, values when they are asked for. And the
// same where a matrix is kept as several tensors (codes, scales), read as the plain matrix that they make:
// what the readers of quantized folders share. Shapes are checked before a value is made. DataError names
// the container, the tensor and the rule. Values; any thread.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace retort::formats {

struct StoredTensors {
  std::string where;                                     // for messages: the file or folder
  std::map<std::string, std::vector<int64_t>> shapes;    // of every tensor, as stored
  std::function<at::Tensor(const std::string&)> values;  // of one of them
};

// Takes the parts out of a container and puts the whole matrices in: made for one reading of it.
class Unpacking {
 public:
  using Shape = std::vector<int64_t>;
  // `source`: what described the parts, for messages: a config.json.
  Unpacking(StoredTensors stored, std::string source);

  const std::map<std::string, Shape>& stored() const { return stored_.shapes; }
  const std::string& source() const { return source_; }
  const std::function<at::Tensor(const std::string&)>& values() const { return stored_.values; }

  // The modules that have a part of this name: of "m.qweight" and ".qweight" it is "m".
  std::vector<std::string> modules_with(const std::string& part) const;
  // The shape of a part, which then is no tensor of its own.
  Shape take(const std::string& name, size_t dimensions);
  void take_shaped(const std::string& name, const Shape& shape);  // the same, and it must be this one
  void check_shape(const std::string& name, const Shape& got, const Shape& wanted) const;
  void refuse(const std::string& name, const char* why) const;  // a part that must not be there
  void offer(const std::string& name, const Shape& shape, std::function<at::Tensor()> make);

  StoredTensors finish();

 private:
  StoredTensors stored_, out_;
  std::string source_;
  std::map<std::string, std::function<at::Tensor()>> made_;
};

}  // namespace retort::formats
