#include "data/token_shards.h"

#include "tests/fuzz/hdf5_text.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void token_shard(Bytes input) {
  const Path directory = folder("token_shard");
  if (!write_hdf5(directory / "shard-00000.h5", input)) return;
  accepts<DataError>(directory.string(), [&] {
    const data::TokenShards shards(directory);
    shards.digest();
    std::vector<int64_t> ids(static_cast<size_t>(shards.size()));
    accepts<DataError>(directory.string(), [&] { shards.read(0, ids); });
    if (shards.has_loss_mask()) {
      std::vector<uint8_t> mask(ids.size());
      shards.read_loss_mask(0, mask);
    }
    for (int64_t at = 0; at < shards.size(); ++at)
      RETORT_ASSERT(shards.document_start(at) <= at && at < shards.document_end(at));
    accepts<DataError>(directory.string(), [&] { shards.verify(); });
  });
}

}  // namespace retort::fuzz
