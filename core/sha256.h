// SHA-256 (FIPS 180-4), for digests that other software compares; core/digest.h has the fast ones. Pure.
#pragma once

#include <string>
#include <string_view>

namespace retort {

std::string sha256(std::string_view bytes);  // 64 hex digits

}  // namespace retort
