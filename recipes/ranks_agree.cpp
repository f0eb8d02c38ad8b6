#include "recipes/ranks_agree.h"

#include <algorithm>

#include "core/digest.h"
#include "recipes/inputs.h"
#include "recipes/print_section.h"
#include "recipes/yaml_tree.h"

namespace retort::recipes {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSamples = 16, kSampleBytes = uint64_t{1} << 16;

// Head, tail and pieces evenly between; the whole of a small file.
void add_samples(const Path& path, Digest& digest) {
  if (fs::file_size(path) == 0) return;  // it cannot be mapped
  const auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  if (bytes.size() <= kSamples * kSampleBytes) return digest.add(bytes);
  for (uint64_t i = 0; i < kSamples; ++i)
    digest.add(bytes.subspan((bytes.size() - kSampleBytes) / (kSamples - 1) * i, kSampleBytes));
}

// Without hidden files: downloaders keep times in them.
std::vector<Path> files_of(const Path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<Path> files;
  for (auto entry = fs::recursive_directory_iterator(path); entry != fs::recursive_directory_iterator();
       ++entry) {
    const bool hidden = entry->path().filename().string().starts_with('.');
    if (hidden && entry->is_directory()) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file()) files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string sampled(const Path& path) {
  Digest digest;
  for (const Path& file : files_of(path)) {
    digest.add(as_bytes(fmt::format("{} {}\n", file.lexically_relative(path).string(), fs::file_size(file))));
    add_samples(file, digest);
  }
  return hex(digest.value());
}

std::string held(const Input& input, const Path& run) {
  const auto stage = stage_of(input.address);
  if (input.thing == Thing::kTokenizer && !stage)  // it may be a name
    return "digest " + hex(xxh3(state_of(input, run)));
  const Path place = place_of(input, run);
  if (!fs::exists(place)) return "missing at " + place.string();
  if (input.thing == Thing::kShards) return "digest " + hex(open_shards(input, run)->digest());
  return "digest " + (stage ? digest_of_file(run / *stage / "result.json") : sampled(place));
}

}  // namespace

comm::Facts recipe_facts(const Recipe& recipe) {
  Recipe same = recipe;
  same.run.threads = 0;
  const std::string text = print_section(same);
  Problems problems;
  comm::Facts facts = scalars_of(parse_yaml(text, "recipe", problems));
  if (!problems.empty()) facts["recipe"] = "digest " + hex(xxh3(text));  // too large for the reader
  return facts;
}

comm::Facts input_facts(const Recipe& recipe, const Stage& stage) {
  comm::Facts facts;
  for (const Input& input : inputs_of(recipe, stage))
    if (!preset_of(input.address))
      facts[fmt::format("{} ({})", input.key, input.address)] = held(input, recipe.run.dir);
  return facts;
}

}  // namespace retort::recipes
