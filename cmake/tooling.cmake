# Targets for the two tools whose configurations stand at the top: `format` rewrites, `tidy` reports.
find_program(RETORT_CLANG_FORMAT clang-format)
if(RETORT_CLANG_FORMAT)
  set(sources "git -C ${CMAKE_SOURCE_DIR} ls-files --full-name '*.h' '*.cpp' '*.cu' '*.cuh'")
  add_custom_target(format COMMAND sh -c "${sources} | xargs ${RETORT_CLANG_FORMAT} -i"
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
  add_custom_target(format-check COMMAND sh -c "${sources} | xargs ${RETORT_CLANG_FORMAT} --dry-run -Werror"
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
endif()
find_program(RETORT_RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(RETORT_RUN_CLANG_TIDY)
  add_custom_target(tidy COMMAND ${RETORT_RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endif()
