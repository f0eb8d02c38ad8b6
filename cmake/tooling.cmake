# Targets for the two tools whose configurations stand at the top: `format` rewrites, `tidy` reports.
find_program(RETORT_CLANG_FORMAT clang-format)
if(RETORT_CLANG_FORMAT)
  set(sources "git -C ${CMAKE_SOURCE_DIR} ls-files --full-name '*.h' '*.cpp' '*.cu' '*.cuh'")
  add_custom_target(format COMMAND sh -c "${sources} | xargs ${RETORT_CLANG_FORMAT} -i"
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
  add_custom_target(format-check COMMAND sh -c "${sources} | xargs ${RETORT_CLANG_FORMAT} --dry-run -Werror"
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
endif()
# clang reads the commands of g++, but not its precompiled header: it gets the header itself. ONLY=core/ in the
# environment looks at one room, ONLY=core/nearest at one source.
find_program(RETORT_RUN_CLANG_TIDY NAMES run-clang-tidy run-clang-tidy-14)
if(RETORT_RUN_CLANG_TIDY)
  set(commands ${CMAKE_BINARY_DIR}/tidy/compile_commands.json)
  set(rooms "(core|formats|kernels|comm|models|data|plan|train|quantize|eval|distill|recipes|launch|tests|bench)")
  set(precompiled "-include [^ ]*/cmake_pch[.]hxx")
  add_custom_target(tidy
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/tidy
    COMMAND sed "s:${precompiled} :-include ${CMAKE_SOURCE_DIR}/cmake/precompiled.h :"
      ${CMAKE_BINARY_DIR}/compile_commands.json > ${commands}
    COMMAND sh -c "${RETORT_RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}/tidy \"^${CMAKE_SOURCE_DIR}/\${ONLY:-${rooms}/}.*[.]cpp$\""
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
endif()
