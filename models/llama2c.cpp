#include "models/llama2c.h"

#include <array>
#include <cstring>
#include <map>

#include "core/error.h"
#include "models/stored_model.h"

namespace retort::models {
namespace {

constexpr int64_t kHeaderBytes = 7 * 4;

DecoderSpec read_spec(std::span<const std::byte> bytes, const std::string& where) {
  check<DataError>(std::ssize(bytes) >= kHeaderBytes, "{}: too short for a llama2.c header", where);
  std::array<int32_t, 7> header{};
  std::memcpy(header.data(), bytes.data(), kHeaderBytes);
  DecoderSpec s;
  s.width = header[0];
  s.ffn_width = header[1];
  s.layers = header[2];
  s.heads = header[3];
  s.kv_heads = header[4];
  s.vocabulary = std::abs(int64_t{header[5]});
  s.tie_embeddings = header[5] > 0;
  s.context = header[6];
  check<DataError>(s.heads > 0, "{}: heads must be > 0, got {}", where, s.heads);
  s.head_dim = s.width / s.heads;
  return s;
}

// Walks the file's order, giving each tensor its name (ours) and place.
class Walk {
 public:
  void take(const std::string& name, std::vector<int64_t> shape, int64_t rope_heads = 0) {
    tensors.push_back({name, name, false, rope_heads});
    places[name] = offset;
    offset += 4 * c10::multiply_integers(shape);
    shapes[name] = std::move(shape);
  }
  void take_layers(const DecoderSpec& s, const char* name, const std::vector<int64_t>& shape,
                   int64_t rope_heads = 0) {
    for (int64_t n = 0; n < s.layers; ++n)
      take(fmt::format("layers.{}.{}.weight", n, name), shape, rope_heads);
  }
  void skip(int64_t values) { offset += 4 * values; }

  std::vector<ForeignTensor> tensors;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, int64_t> places;
  int64_t offset = kHeaderBytes;
};

Walk walk(const DecoderSpec& s) {
  const int64_t D = s.width, F = s.ffn_width, q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  Walk w;
  w.take("embed.weight", {s.vocabulary, D});
  w.take_layers(s, "attn_norm", {D});
  w.take_layers(s, "attn.q", {q, D}, s.heads);
  w.take_layers(s, "attn.k", {kv, D}, s.kv_heads);
  w.take_layers(s, "attn.v", {kv, D});
  w.take_layers(s, "attn.o", {D, q});
  w.take_layers(s, "ffn_norm", {D});
  w.take_layers(s, "ffn.gate", {F, D});
  w.take_layers(s, "ffn.down", {D, F});
  w.take_layers(s, "ffn.up", {F, D});
  w.take("final_norm.weight", {D});
  w.skip(s.context * s.head_dim);  // rotary tables, which follow from the header
  if (s.tie_embeddings)
    w.tensors.push_back({"lm_head.weight", "lm_head.weight"});
  else
    w.take("lm_head.weight", {s.vocabulary, D});
  return w;
}

// The header, and that the file is as long as it says.
std::pair<DecoderSpec, Walk> checked(std::span<const std::byte> bytes, const std::string& where) {
  DecoderSpec spec = read_spec(bytes, where);
  check_foreign_spec(spec, where);
  Walk w = walk(spec);
  check<DataError>(w.offset == std::ssize(bytes), "{}: its header asks for {} bytes, got {}", where, w.offset,
                   bytes.size());
  return {std::move(spec), std::move(w)};
}

}  // namespace

DecoderSpec llama2c_spec(const Path& path) {
  return checked(MappedFile::open(path)->bytes(), path.string()).first;
}

std::unique_ptr<Decoder> load_llama2c(const Path& path) { return load_foreign(stored_llama2c(path)); }

StoredModel stored_llama2c(const Path& path) {
  const auto file = MappedFile::open(path);
  auto [spec, w] = checked(file->bytes(), path.string());
  const auto values = [file, places = w.places, shapes = w.shapes](const std::string& name) {
    void* data = const_cast<std::byte*>(&file->bytes()[static_cast<size_t>(places.at(name))]);
    return at::from_blob(data, shapes.at(name), at::kFloat);  // offsets are multiples of 4
  };
  return stored_foreign(spec, [&tensors = w.tensors](const DecoderSpec&) { return tensors; },
                        {path.string(), w.shapes, values});
}

}  // namespace retort::models
