// An HDF5 file as text, so that what it says can be fuzzed without the library's own tables, which a seal guards
// (formats/hdf5.h): one JSON object,
//   {"attributes": {"version": 1, "format": "..."}, "datasets": {"tokens": ["u16", [1, 2, 3]]}}
#pragma once

#include "tests/fuzz/reader.h"

namespace retort::fuzz {

// False for a text that is no such file.
bool write_hdf5(const Path& path, Bytes text);

}  // namespace retort::fuzz
