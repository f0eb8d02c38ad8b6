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

Said said_alike(std::initializer_list<Said> places) {
  const Said first = first_said(places);
  for (const Said& place : places)
    check<DataError>(!place.something() || *place.value == *first.value,
                     "{} says {}, and {} says {}: which is meant?", first.where,
                     shown(first.value->dump(-1, ' ', true)), place.where,
                     shown(place.value == nullptr ? "" : place.value->dump(-1, ' ', true)));
  return first;
}

Said said_in(const Json& object, const std::string& key, const std::string& source) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return {source + ": " + key, object.is_object() && found != object.end() ? &*found : nullptr};
}

}  // namespace retort::formats
