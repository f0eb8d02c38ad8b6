// Texts as Python's strings: UTF-8 whose positions count characters. A byte that belongs to none is a character
// of its own. `ascii` says that characters are bytes, and saves looking. Case is Unicode's full mapping
// (ß becomes SS). What is made goes to a Buffer and counts there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/templates/heap.h"

namespace retort::data::jinja {

bool is_ascii(std::string_view bytes);
size_t hash_text(std::string_view bytes);
int64_t characters(std::string_view bytes, bool ascii);
// Where character `index` begins; the end for an index past it.
size_t byte_of(std::string_view bytes, int64_t index, bool ascii);
char32_t first_of(std::string_view bytes, size_t& size);  // of a text that is not empty

// As str.isspace(): with U+001C to U+001F and U+0085, without U+200B.
bool is_space(char32_t character);
bool is_line_break(char32_t character);  // of str.splitlines()
bool is_printable(char32_t character);   // of repr()
bool is_cased(char32_t character);

// What is left without characters of a set at the ends; white space where `set` is null.
std::string_view strip(std::string_view bytes, const std::string_view* set, bool left, bool right);
// The first place, or the last; npos where there is none. Counts what is compared.
size_t find(Heap& heap, std::string_view bytes, std::string_view part, size_t from = 0);
size_t rfind(Heap& heap, std::string_view bytes, std::string_view part);

enum class Case { kUpper, kLower, kTitle, kCapital, kSwap };
void add_case(Buffer& out, std::string_view bytes, Case wanted);  // letter_case.cpp
void add_quoted(Buffer& out, std::string_view bytes);             // as repr()
void add_escaped(Buffer& out, std::string_view bytes);            // as markupsafe.escape()

// As repr(), for messages: a long text is cut.
std::string in_quotes(std::string_view bytes);

}  // namespace retort::data::jinja
