# cmake -DOUTPUT=x.cpp -DROOT=recipes -DFILES="a.yaml;models/b.yaml" -DSUFFIX=.yaml -DHEADER=recipes/shipped.h
#       -DNAMESPACE=recipes -DROW=ShippedRecipe -DFUNCTION=shipped_recipes -P embed.cmake
# Writes the files' texts into a source of HEADER, as the rows {name, text} of what FUNCTION returns; a file's name
# is its path without SUFFIX.
set(rows "")
string(REPLACE "." "\\." ending ${SUFFIX})
foreach(file ${FILES})
  file(READ ${ROOT}/${file} text)
  string(REGEX REPLACE "${ending}$" "" name ${file})
  string(APPEND rows "      {\"${name}\", R\"text(${text})text\"},\n")
endforeach()
file(WRITE ${OUTPUT} "// Made by cmake/embed.cmake.
#include \"${HEADER}\"

namespace retort::${NAMESPACE} {

const std::vector<${ROW}>& ${FUNCTION}() {
  static const std::vector<${ROW}> table = {
${rows}  };
  return table;
}

}  // namespace retort::${NAMESPACE}
")
