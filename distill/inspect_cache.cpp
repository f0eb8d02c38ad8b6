#include "distill/inspect_cache.h"

#include "core/error.h"
#include "core/log.h"
#include "distill/teacher_cache.h"

namespace retort::distill {

void inspect_cache(const Path& directory, const std::string& shards, const std::string& tokenizer,
                   const std::function<void(std::string_view line)>& say) {
  const TeacherCache cache(directory);
  const CacheFacts& f = cache.facts();
  const auto tokens = static_cast<double>(f.tokens);
  say(fmt::format("teacher cache: {} of {}, {} blocks of {} tokens, {} tokens in all", f.kind, f.teacher_name,
                  f.blocks(), f.block_tokens, f.tokens));
  say(fmt::format("{} {} a token at temperature {}: {:.2f} labels and {:.2f} bytes a token, {} in all",
                  f.size, f.kind == "sampled" ? "draws" : "likeliest ids", f.temperature,
                  static_cast<double>(cache.labels()) / tokens, static_cast<double>(cache.bytes()) / tokens,
                  format_bytes(cache.bytes())));
  say(fmt::format("vocabulary {}, tokenizer {}, corpus {}, teacher {}; read in windows of {} tokens{}",
                  f.vocabulary, f.tokenizer, f.corpus, f.teacher, f.window,
                  f.isolate_documents ? ", documents apart" : ""));
  cache.verify();
  say("checksums hold");
  if (!shards.empty()) {
    cache.check_corpus(data::TokenShards(shards));
    say(fmt::format("fits the shards {}", shards));
  }
  if (tokenizer.empty()) return;
  const auto wanted = data::make_tokenizer(tokenizer);
  check<DataError>(wanted->fingerprint() == f.tokenizer, "{}: its tokenizer must be {} ({}), got {}",
                   directory.string(), tokenizer, wanted->fingerprint(), f.tokenizer);
  say(fmt::format("fits the tokenizer {}", tokenizer));
}

}  // namespace retort::distill
