// Templates rendered in tests, and the golden conversations of the shared test data (its README.md).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/templates/chat.h"
#include "tests/testing.h"

namespace retort::testing {

inline std::tm golden_clock() { return data::parse_date("2026-02-03 04:05:06"); }

// Of "NAME:LINE:COLUMN: TEXT".
inline std::string error_text(const std::string& what) {
  size_t at = 0;
  for (int i = 0; i < 3; ++i) at = what.find(':', at) + 1;
  return what.substr(at + 1);
}

// What a template writes; where it fails "! " and why, with `places` also where.
inline std::string written(const std::string& source, const formats::Json& values = formats::Json::object(),
                           bool places = false) {
  try {
    const data::ChatTemplate form("t", source);
    data::TemplateVariables variables;
    for (const auto& [name, value] : values.items()) variables.emplace_back(name, &value);
    return form.render(variables, golden_clock()).text;
  } catch (const DataError& error) {
    return "! " + (places ? std::string(error.what()) : error_text(error.what()));
  }
}

// The folders that hold a template and its cases, by name; one of no name where there is no test data.
inline std::vector<std::string> chat_folders() {
  std::vector<std::string> out;
  const Path root = test_data() / "chat";
  if (!test_data().empty() && std::filesystem::is_directory(root))
    for (const auto& entry : std::filesystem::directory_iterator(root))
      if (std::filesystem::exists(entry.path() / "cases.json"))
        out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  if (out.empty()) out.push_back("");
  return out;
}

inline std::string template_of(const std::string& folder) {
  return read_text(test_data() / "chat" / folder / "chat_template.jinja");
}

// A case as its template gets it.
inline data::Chat chat_of(const formats::Json& file, const formats::Json& one) {
  data::Chat chat;
  chat.messages = one.at("messages");
  if (one.contains("tools")) chat.tools = one.at("tools");
  if (one.contains("documents")) chat.documents = one.at("documents");
  if (one.contains("variables")) chat.variables = one.at("variables");
  for (const char* name : {"bos_token", "eos_token"})
    if (!file.at(name).is_null()) chat.special[name] = file.at(name);
  chat.generation_prompt = one.at("add_generation_prompt").get<bool>();
  chat.now = golden_clock();
  return chat;
}

}  // namespace retort::testing
