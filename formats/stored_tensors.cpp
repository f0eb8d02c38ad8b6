#include "formats/stored_tensors.h"

#include "core/error.h"
#include "core/shape.h"

namespace retort::formats {

Unpacking::Unpacking(StoredTensors stored, std::string source)
    : stored_(std::move(stored)), source_(std::move(source)) {
  out_.where = stored_.where;
  out_.shapes = stored_.shapes;
}

std::vector<std::string> Unpacking::modules_with(const std::string& part) const {
  std::vector<std::string> out;
  for (const auto& [name, shape] : stored_.shapes)
    if (name.ends_with(part)) out.push_back(name.substr(0, name.size() - part.size()));
  return out;
}

Unpacking::Shape Unpacking::take(const std::string& name, size_t dimensions) {
  const auto found = stored_.shapes.find(name);
  check<DataError>(found != stored_.shapes.end(), "{}: lacks {}", out_.where, name);
  check<DataError>(found->second.size() == dimensions, "{}: {} must have {} dimensions, got {}", out_.where,
                   name, dimensions, format_shape(found->second));
  out_.shapes.erase(name);
  return found->second;
}

void Unpacking::take_shaped(const std::string& name, const Shape& shape) {
  check_shape(name, take(name, shape.size()), shape);
}

void Unpacking::check_shape(const std::string& name, const Shape& got, const Shape& wanted) const {
  check<DataError>(got == wanted, "{}: {} must have shape {}, got {}", source_, name, format_shape(wanted),
                   format_shape(got));
}

void Unpacking::refuse(const std::string& name, const char* why) const {
  check<DataError>(!stored_.shapes.contains(name), "{}: {} is not read: {}", out_.where, name, why);
}

void Unpacking::offer(const std::string& name, const Shape& shape, std::function<at::Tensor()> make) {
  out_.shapes[name] = shape;
  made_[name] = std::move(make);
}

StoredTensors Unpacking::finish() {
  out_.values = [values = stored_.values, made = std::move(made_)](const std::string& name) {
    const auto found = made.find(name);
    return found == made.end() ? values(name) : found->second();
  };
  return std::move(out_);
}

}  // namespace retort::formats
