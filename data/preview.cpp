#include "data/preview.h"

#include <algorithm>

#include "data/answer_rows.h"
#include "data/tokenizers/utf8.h"

namespace retort::data {
namespace {

// A terminal obeys characters of control, U+0080 to U+009F too; a text that is looked at must not command it.
std::string harmless(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]),
               next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : '\0');
    const bool second_set = byte == 0xC2 && next >= 0x80 && next < 0xA0;
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F || second_set)
      out += kReplacement;
    else
      out += text[i];
    if (second_set) ++i;
  }
  return out;
}

// Where the documents begin that are shown: all, or those at evenly spread tokens.
std::vector<int64_t> shown_of(const TokenShards& shards, int64_t samples) {
  std::vector<int64_t> begins;
  if (samples == 0) return begins;
  if (samples >= shards.documents()) {
    for (int64_t at = 0; at < shards.size(); at = shards.document_end(at)) begins.push_back(at);
    return begins;
  }
  const int64_t each = shards.size() / samples, rest = shards.size() % samples;
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t begin = shards.document_start(each * i + rest * i / samples);
    if (begins.empty() || begin > begins.back()) begins.push_back(begin);  // a long one has several places
  }
  return begins;
}

std::vector<uint8_t> mask_of(const TokenShards& shards, int64_t begin, int64_t count) {
  std::vector<uint8_t> mask(static_cast<size_t>(count), 1);
  if (shards.has_loss_mask()) shards.read_loss_mask(begin, mask);
  return mask;
}

// Tokens [begin, begin + count), runs that are learned marked.
std::string marked(const TokenShards& shards, const Tokenizer& tokenizer, int64_t begin, int64_t count,
                   bool colour) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  shards.read(begin, ids);
  const std::vector<uint8_t> mask = mask_of(shards, begin, count);
  std::string out;
  for (size_t i = 0, end = 0; i < ids.size(); i = end) {
    end = i + 1;
    while (end < ids.size() && mask[end] == mask[i]) ++end;
    std::string text;
    for (size_t at = i; at < end; ++at) text += tokenizer.token_bytes(static_cast<int32_t>(ids[at]));
    text = harmless(text);
    if (mask[i] == 0)
      out += text;
    else
      out += colour ? "\x1b[32m" + text + "\x1b[0m" : "\u27e6" + text + "\u27e7";
  }
  return out;
}

std::string counts_of_answers(const TokenShards& shards, const PreviewOptions& options) {
  const AnswerRows rows(shards, shards.size(), options.sequence);
  return fmt::format(
      "{} documents ({}), {} tokens, {} learned\nin rows of {} tokens: {} rows\n"
      "truncated {}, without label {}, alike {}\n",
      shards.documents(), name_of(shards.kind()), shards.size(), shards.learned(), options.sequence,
      rows.rows(), rows.cut, rows.unlearned, rows.alike);
}

std::string counts(const TokenShards& shards, const PreviewOptions& options) {
  if (shards.kind() != ShardKind::kText) return counts_of_answers(shards, options);
  const PackedRows rows(shards, shards.size(), options.sequence,
                        data::long_documents(options.long_documents));
  return fmt::format(
      "{} documents, {} tokens, {} learned\nin rows of {} tokens: {} documents in {} rows, {:.1f} % filled\n"
      "truncated {}, dropped {}, split {}, without label {}\n",
      shards.documents(), shards.size(), shards.learned(), options.sequence, rows.documents, rows.rows(),
      100.0 * rows.filled(), rows.cut, rows.dropped, rows.split, rows.unlearned);
}

}  // namespace

void PreviewOptions::describe(Section& s) {
  s.field("samples", samples, "documents to show", at_least<int64_t>(0));
  s.field("tokens", tokens, "tokens of each to show", at_least<int64_t>(1));
  s.field("sequence", sequence, "tokens of a row", at_least<int64_t>(1));
  s.field("long_documents", long_documents, "fate of documents longer than a row",
          one_of(long_document_names()));
}

std::string preview(const TokenShards& shards, const PreviewOptions& options) {
  const auto tokenizer = shards.tokenizer();
  std::string out;
  for (const int64_t begin : shown_of(shards, options.samples)) {
    const int64_t size = shards.document_end(begin) - begin, count = std::min(size, options.tokens);
    const std::vector<uint8_t> mask = mask_of(shards, begin, size);
    out += fmt::format("--- document at token {}: {} tokens, {} learned\n{}\n", begin, size,
                       std::ssize(mask) - std::count(mask.begin(), mask.end(), kRead),
                       marked(shards, *tokenizer, begin, count, options.colour));
    if (count < size) out += fmt::format("... {} more tokens\n", size - count);
  }
  return out + "---\n" + counts(shards, options);
}

}  // namespace retort::data
