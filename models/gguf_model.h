// GGUF models both ways. GGUF has no aliases: shared layers are written in every block (each copy from the
// same codes), a tied head is left out, as the format's reader wants it. A part of a split GGUF is refused
// (DataError), with what joins the parts.
#pragma once

#include <functional>
#include <memory>

#include "formats/gguf.h"
#include "models/decoder.h"

namespace retort::models {

// Masters from dequantized values; working bound to identity f32. Equal tensors are not re-shared: a GGUF is
// loaded as the plain model that it describes, except for the tied head.
std::unique_ptr<Decoder> load_gguf(const Path& path);
DecoderSpec gguf_spec(const Path& path);  // what load_gguf() would make, without its weights

// Gives a unique parameter's packed form, [out, in] in our row order; rows are permuted afterwards where the
// architecture wants it (whole rows, so the blocks survive). Called once per unique parameter.
using Packer = std::function<formats::PackedTensor(const Parameter&)>;

// `tokenizer` are the tokenizer.ggml.* keys. Norms, biases and positions are written as F32 whatever the
// packer gives for them (llama.cpp demands it). Sets general.file_type and quantization_version from the
// types used. An older GGUF of that name is replaced; IoError for another file.
void save_gguf(FileSystem& files, const Path& path, const Model& model, const Packer& packer,
               const formats::GgufMetadata& tokenizer, const std::string& name);
// IoError where a file of that name is neither an older GGUF nor empty.
void check_gguf_place(const Path& path);

}  // namespace retort::models
