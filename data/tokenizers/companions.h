// The files beside a vocabulary's file that say more of it, read alike for every format. A named token is cut out of
// a text whole. Those that the vocabulary lacks get its next ids, in transformers' order: bos, eos, unk, sep, pad, cls,
// mask, then names of a family's own as the file has them, then the lists. DataError naming file and key, or both
// files that differ. Immutable; any thread.
#pragma once

#include <string>

#include "core/file.h"
#include "data/tokenizers/bpe_spec.h"

namespace retort::data {

//   tokenizer_config.json    tokenizer_class, added_tokens_decoder {id: token}, special tokens by name
//                            (bos_token, eos_token, pad_token, ...; additional_special_tokens),
//                            add_bos_token and add_eos_token
//   added_tokens.json        {text: id}        these two only without added_tokens_decoder, as transformers
//   special_tokens_map.json  names, first        5.17 has it
//   chat templates           templates_of_folder() (data/templates/store.h)
class Companions {
 public:
  explicit Companions(const Path& directory);

  // Which rules cut text, where the vocabulary's files do not say: "Qwen2Tokenizer", without "Fast"; "" when
  // nothing tells. Of a folder without the key, its config.json's model_type decides, as for AutoTokenizer.
  std::string tokenizer_class() const;
  bool adds_prefix_space() const { return flag("add_prefix_space").value_or(false); }

  // `framed`: the spec says itself what comes before and after a text (tokenizer.json).
  void apply(BpeSpec& spec, bool framed) const;

 private:
  std::optional<bool> flag(const char* key) const;
  formats::Json named(const std::string& key, std::string& where) const;  // null: no file names it
  void add_tokens(BpeSpec& spec) const;
  void name_tokens(BpeSpec& spec) const;
  void add_templates(BpeSpec& spec) const;
  void add_frame(BpeSpec& spec) const;

  Path directory_;
  formats::Json config_, map_, added_;  // objects; empty when a file is not there
};

}  // namespace retort::data
