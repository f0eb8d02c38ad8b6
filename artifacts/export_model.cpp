#include "artifacts/export_model.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "artifacts/export_formats.h"
#include "artifacts/export_misfits.h"
#include "artifacts/modelfile.h"
#include "artifacts/out_path.h"
#include "core/error.h"
#include "formats/finite_values.h"
#include "formats/ggml_blocks.h"
#include "models/adapters.h"

namespace retort::artifacts {
namespace {

std::vector<std::string> types_and(const std::string& first) {
  std::vector<std::string> out = {first};
  for (const std::string& type : formats::written_ggml_types()) out.push_back(type);
  return out;
}

// The model that is read would be gone once its own file holds it in another form.
void check_not_source(const std::string& source, const Path& out) {
  std::error_code no_path;  // preset:NAME is no file
  check<IoError>(!std::filesystem::equivalent(source, out, no_path),
                 "{}: is the model that is read; name another place for the export", out.string());
}

void check_modelfile_place(const Path& out) {
  const Path path = modelfile_path(out);
  check<IoError>(!std::filesystem::exists(path) || is_modelfile(read_text(path)),
                 "{}: exists and is no Modelfile of an export; not replaced: name another file for the GGUF",
                 path.string());
}

// What the options say comes before what the model's files say.
Origin origin_of(const OpenedModel& model, const ExportOptions& options) {
  Origin out = model.origin;
  if (!options.license.empty()) out.license = options.license, out.license_name = out.license_link = "";
  if (!options.base_model.empty()) out.base_model = options.base_model;
  return out;
}

std::string name_of(const Path& out) {
  return (out.has_filename() ? out : out.parent_path()).stem().string();  // "out/"
}

// Whatever the format; what its type can hold is checked on what is written (formats/finite_values.h).
void check_weights(const models::Model& model) {
  for (const models::Parameter& p : model.parameters().unique())
    if (p.role != models::Role::kScale)  // a learned scale has no value before training
      formats::check_finite("[export]", p.name, p.master);
}

}  // namespace

void ExportOptions::describe(Section& s) {
  std::string holds;
  for (const ExportFormat& row : export_formats())
    holds += fmt::format("{}{}: {}", holds.empty() ? "" : "; ", row.name, row.holds);
  s.field("format", format, "format. " + holds, one_of(export_formats().names()));
  s.field("type", type, "type of matrices; own: the grids of the model's quantize section, f32 without one",
          one_of(types_and("own")));
  s.field("embedding_type", embedding_type, "type of the token embedding and the head, when type is not own",
          one_of(types_and("same")));
  s.field("activations", activations,
          "tell whoever loads it to round activations to 8 bits too, per token (compressed-tensors)");
  s.field("evaluate", evaluate, "score the validation text with the file as read back");
  s.field("license", license,
          "license that a GGUF and the card of a folder name, as apache-2.0; that of the model's own files "
          "when left out");
  s.field("base_model", base_model,
          "model of the Hugging Face Hub that they name as the base, ORGANIZATION/NAME; the one of the "
          "model's own "
          "files when left out");
  s.field("ollama", ollama, "write what `ollama create` reads beside the GGUF, as NAME.Modelfile");
}

void probe_export(const char* option, const std::string& format, const Path& out, const Path& source) {
  const ExportFormat& row = export_formats().at(format);
  probe_out(option, out, row.one_file(), source);
  row.check_place(out, source);
}

uint64_t export_model(const OpenedModel& model, const ExportOptions& options, const Path& out,
                      FileSystem& files, const std::string& command, CardFacts card) {
  const at::NoGradGuard no_grad;
  const ExportFormat& format = export_formats().at(options.format);
  check_not_source(model.source, out);
  if (options.ollama) check_modelfile_place(out);
  format.check_place(out, model.source);
  const bool on_grids = model.grids && model.grids->enabled();
  const std::optional<quantize::QuantizeOptions> grids = on_grids ? model.quantize : std::nullopt;
  ExportSubject subject{&model.decoder->spec(), model.tokenizer.get(), &grids};
  if (on_grids && !grids) subject.grids = nullptr;  // just made: their stage has asked
  for (const Misfit& misfit : export_misfits(options, subject))
    fail<ConfigError>("{}: {}", model.source, misfit.why);
  if (card.name.empty()) card.name = name_of(out);
  ExportSource source{.model = *model.decoder,
                      .map = model.map(),
                      .grids = model.grids.get(),
                      .tokenizer = model.tokenizer.get(),
                      .generation = model.generation,
                      .ends = model.ends(),
                      .command = command,
                      .origin = origin_of(model, options),
                      .training = model.training,
                      .card = card};
  if (command.empty()) source.command = fmt::format("export {} --format {}", model.source, options.format);
  check_weights(*model.decoder);
  if (model.adapters) source.adapters = &*model.adapters;
  const bool merges = format.merges || (model.adapters && !format.adapters);
  if (!merges || !model.decoder->parameters().has_adapters()) {
    format.write(source, options, out, files);
  } else {
    const auto merged = models::merge_adapters(*model.decoder, model.map());
    models::IdentityMap identity;
    format.write({.model = *merged,
                  .map = identity,
                  .grids = nullptr,
                  .tokenizer = source.tokenizer,
                  .generation = source.generation,
                  .ends = source.ends,
                  .command = source.command,
                  .origin = source.origin,
                  .training = source.training,
                  .card = source.card},
                 options, out, files);
  }
  if (options.ollama)
    write_durably(files, modelfile_path(out), modelfile(out, source.tokenizer, source.ends));
  return bytes_below(out);
}

uint64_t bytes_below(const Path& path) {
  if (!std::filesystem::is_directory(path)) return std::filesystem::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

}  // namespace retort::artifacts
