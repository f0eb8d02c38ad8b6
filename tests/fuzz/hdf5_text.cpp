#include "tests/fuzz/hdf5_text.h"

#include <cstring>

#include "formats/hdf5.h"
#include "formats/json.h"

namespace retort::fuzz {
namespace {

using formats::Hdf5Type;
using formats::Json;

formats::Hdf5Attribute attribute_of(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) return value.get<double>();
  return value.is_string() ? value.get<std::string>() : value.dump();
}

bool add_dataset(formats::Hdf5Writer& writer, const std::string& name, const Json& value) {
  static const std::map<std::string, Hdf5Type> kTypes = {{"u8", Hdf5Type::U8},   {"u16", Hdf5Type::U16},
                                                         {"u32", Hdf5Type::U32}, {"u64", Hdf5Type::U64},
                                                         {"f16", Hdf5Type::F16}, {"f32", Hdf5Type::F32}};
  if (!value.is_array() || value.size() != 2 || !value[0].is_string() || !value[1].is_array()) return false;
  const auto type = kTypes.find(value[0].get<std::string>());
  if (type == kTypes.end()) return false;
  std::vector<std::byte> bytes;
  for (const Json& item : value[1]) {
    if (!item.is_number_integer()) return false;
    const uint64_t number = item.get<uint64_t>();  // little-endian: its first bytes
    const auto* first = reinterpret_cast<const std::byte*>(&number);
    bytes.insert(bytes.end(), first, first + formats::hdf5_type_bytes(type->second));
  }
  writer.dataset(name, type->second, bytes);
  return true;
}

}  // namespace

bool write_hdf5(const Path& path, Bytes text) {
  try {
    const Json json = formats::parse_json(as_text(text), "input");
    if (!json.is_object() || !json.contains("attributes") || !json.contains("datasets")) return false;
    formats::Hdf5Writer writer;
    for (const auto& [name, value] : json["attributes"].items()) writer.attribute(name, attribute_of(value));
    for (const auto& [name, value] : json["datasets"].items())
      if (!add_dataset(writer, name, value)) return false;
    writer.write(local_files(), path);
    return true;
  } catch (const Error&) {  // a name or a text that the writer does not write
    return false;
  }
}

}  // namespace retort::fuzz
