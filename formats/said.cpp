#include "formats/said.h"

#include "core/error.h"
#include "formats/untrusted.h"

namespace retort::formats {

bool Said::something() const {
  return value != nullptr && !value->is_null() && !(value->is_structured() && value->empty());
}

Said first_said(std::initializer_list<Said> places) {
  RETORT_ASSERT(places.size() > 0);
  for (const Said& place : places)
    if (place.something()) return place;
  return *(places.end() - 1);
}

Said said_in(const Json& object, const std::string& key, const std::string& source) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return {source + ": " + key, object.is_object() && found != object.end() ? &*found : nullptr};
}

}  // namespace retort::formats
