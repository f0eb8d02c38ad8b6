// How GPT-2's vocabularies write a byte as a printable character: 33-126, 161-172 and 174-255 as themselves,
// the other 68 in order as U+0100, U+0101, ... A space is U+0120, a newline U+010A. Pure functions.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace retort::data {

const std::array<std::string, 256>& byte_alphabet();  // by byte
std::string to_byte_alphabet(std::string_view bytes);
// The bytes that a token of such a vocabulary stands for; nothing when a character is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view token);

}  // namespace retort::data
