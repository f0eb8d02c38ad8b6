// How many bytes fill a bucket of gradients (models/gradient_buckets.h), for the run and for the plan of its memory: on a
// device more, as there a bucket costs the host two launches that all ranks must have come to, whatever its size. The sums'
// bits do not depend on it.
#pragma once

#include "models/gradient_buckets.h"

namespace retort::models {

inline constexpr int64_t kDeviceBucketBytes = int64_t{64} << 20;

constexpr int64_t bucket_bytes(bool on_device) { return on_device ? kDeviceBucketBytes : kBucketBytes; }

}  // namespace retort::models
