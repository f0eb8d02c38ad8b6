// manifest.json of a checkpoint whose other files are whole: as it is, and under a digest that fits, which gets
// past the first check.
#include "core/digest.h"
#include "formats/json.h"
#include "tests/fuzz/reader.h"
#include "train/checkpoint.h"

namespace retort::fuzz {
namespace {

// One tensor "a" of two zeros.
std::string tensors() {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  )";
  std::string out(1, static_cast<char>(header.size()));
  out.append(7, '\0').append(header).append(8, '\0');
  return out;
}

Path checkpoint() {
  const Path directory = folder("step_00000001");
  put(directory / "weights.safetensors", tensors());
  put(directory / "optimizer.safetensors", tensors());
  put(directory / "recipe.yaml", "train: {}\n");
  return directory;
}

}  // namespace

void manifest(Bytes input) {
  static const Path directory = checkpoint();
  const Path path = put(directory / "manifest.json", input);
  const auto load = [] { train::load_checkpoint(directory); };
  accepts<CheckpointError>(directory.string(), load);
  accepts<DataError>(path.string(), [&] {
    const formats::Json json = formats::parse_json(as_text(input), path.string());
    const auto text = [](const formats::Json& value) {
      return value.dump(1, ' ', false, formats::Json::error_handler_t::replace);
    };
    put(path, text({{"manifest", json}, {"xxh3", hex(xxh3(text(json)))}}) + "\n");
    accepts<CheckpointError>(directory.string(), load);
  });
}

}  // namespace retort::fuzz
