#include "eval/token_rows.h"

#include "core/error.h"
#include "formats/json.h"

namespace retort::eval {

at::Tensor read_token_rows(const std::string& path, const models::Model& model) {
  const int64_t vocabulary = model.vocabulary();
  const formats::Json json = formats::read_json(path, uint64_t{1} << 26);
  std::vector<int64_t> ids;
  size_t width = 0;
  const char* rule = "must be a list of equally long, non-empty lists of token ids";
  check<DataError>(json.is_array() && !json.empty(), "{}: {}", path, rule);
  for (const formats::Json& row : json) {
    check<DataError>(row.is_array() && !row.empty() && (width == 0 || row.size() == width), "{}: {}", path,
                     rule);
    width = row.size();
    for (const formats::Json& id : row) {
      check<DataError>(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() < vocabulary,
                       "{}: an id must lie in [0, {}), got {}", path, vocabulary, id.dump());
      ids.push_back(id.get<int64_t>());
    }
  }
  check<DataError>(static_cast<int64_t>(width) <= model.context(), "{}: at most {} ids a row, got {}", path,
                   model.context(), width);
  return at::tensor(ids, at::kLong).view({-1, static_cast<int64_t>(width)});
}

}  // namespace retort::eval
