# cmake -DOUTPUT=x.cpp -DROOT=recipes -DFILES="a.yaml;models/b.yaml" -P embed.cmake
# Writes the files' texts into a source of recipes/shipped.h, each under its path without ".yaml".
set(rows "")
foreach(file ${FILES})
  file(READ ${ROOT}/${file} text)
  string(REGEX REPLACE "\\.yaml$" "" name ${file})
  string(APPEND rows "      {\"${name}\", R\"yaml(${text})yaml\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made by cmake/embed.cmake.
#include \"recipes/shipped.h\"

namespace retort::recipes {

const std::vector<ShippedRecipe>& shipped_recipes() {
  static const std::vector<ShippedRecipe> table = {
${rows}  };
  return table;
}

}  // namespace retort::recipes
")
