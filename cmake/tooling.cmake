# Targets for the two tools whose configurations stand at the top: `format` rewrites, `tidy` reports.
file(GLOB_RECURSE RETORT_FORMATTED CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/*.h ${CMAKE_SOURCE_DIR}/*.cpp ${CMAKE_SOURCE_DIR}/*.cu ${CMAKE_SOURCE_DIR}/*.cuh)
list(FILTER RETORT_FORMATTED EXCLUDE REGEX "/(\\.deps|build[^/]*|\\.venv)/")
find_program(RETORT_CLANG_FORMAT clang-format)
if(RETORT_CLANG_FORMAT)
  add_custom_target(format COMMAND ${RETORT_CLANG_FORMAT} -i ${RETORT_FORMATTED})
  add_custom_target(format-check COMMAND ${RETORT_CLANG_FORMAT} --dry-run -Werror ${RETORT_FORMATTED})
endif()
find_program(RETORT_RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(RETORT_RUN_CLANG_TIDY)
  add_custom_target(tidy COMMAND ${RETORT_RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR})
endif()
