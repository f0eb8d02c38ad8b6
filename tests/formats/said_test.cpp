#include "formats/said.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::formats {
namespace {

TEST(Said, TheFirstThatSaysSomethingCounts) {
  const Json one = 1, two = 2, nothing, empty = Json::object(), none = Json::array();
  EXPECT_EQ(*first_said({{"a", &one}, {"b", &two}}).value, one);
  EXPECT_EQ(first_said({{"a", &nothing}, {"b", &empty}, {"c", &none}, {"d", nullptr}, {"e", &two}}).where,
            "e");
  EXPECT_FALSE(first_said({{"a", nullptr}, {"b", &nothing}}).something());
}

TEST(Said, NamesTheMemberOfAFile) {
  const Json object = {{"rope_theta", 5.0}};
  EXPECT_EQ(said_in(object, "rope_theta", "config.json").where, "config.json: rope_theta");
  EXPECT_EQ(*said_in(object, "rope_theta", "config.json").value, Json(5.0));
  EXPECT_FALSE(said_in(object, "other", "config.json").something());
  EXPECT_FALSE(said_in(Json(7), "other", "config.json").something());
}

}  // namespace
}  // namespace retort::formats
