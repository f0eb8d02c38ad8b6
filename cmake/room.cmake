# retort_room(NAME SOURCES a.cpp ... [LINKS lib ...])
# The static library retort_NAME. LINKS names the rooms below it and its third-party homes.
function(retort_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(retort_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(retort_${name} PUBLIC retort_flags retort_torch ${ARG_LINKS})
  if(name STREQUAL core)
    target_precompile_headers(retort_core PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:${CMAKE_SOURCE_DIR}/cmake/precompiled.h>)
    # The compiled header's bytes differ from checkout to checkout; ccache reads this digest of what it is made from.
    file(READ ${CMAKE_SOURCE_DIR}/cmake/precompiled.h text)
    file(READ ${RETORT_DEPS}/torch/version.py torch)
    string(SHA256 digest "${text}${torch}${CMAKE_CXX_COMPILER_VERSION}${CMAKE_BUILD_TYPE}${RETORT_SANITIZE}")
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/retort_core.dir/cmake_pch.hxx.gch.sum "${digest}\n")
  else()
    target_precompile_headers(retort_${name} REUSE_FROM retort_core)
  endif()
endfunction()

# What a sanitizer finds fails a test; without one the last two mean nothing. A long history keeps the stacks that
# cmake/tsan.supp speaks of.
set(RETORT_TEST_ENVIRONMENT
  "OMP_WAIT_POLICY=passive;RETORT_SOURCE_DIR=${CMAKE_SOURCE_DIR};RETORT_BINARY_DIR=${CMAKE_BINARY_DIR};UBSAN_OPTIONS=halt_on_error=1;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp:history_size=7")

set(RETORT_TEST_SECONDS 600)
if(RETORT_SANITIZE)
  set(RETORT_TEST_SECONDS 1800)
endif()

# retort_test(ROOM SOURCES x_test.cpp ... [LINKS ...] [SLOW])
# One executable test_ROOM. Suites whose name starts with "Slow" carry the label slow and the rest
# the label fast; SLOW says that the room has some.
function(retort_test room)
  cmake_parse_arguments(ARG "SLOW" "" "SOURCES;LINKS" ${ARGN})
  set(target test_${room})
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE retort_${room} ${ARG_LINKS} retort_testing)
  target_precompile_headers(${target} REUSE_FROM retort_core)
  add_test(NAME ${room} COMMAND ${target} --gtest_filter=-Slow*:Mpi*)
  set_tests_properties(${room} PROPERTIES LABELS fast ENVIRONMENT "${RETORT_TEST_ENVIRONMENT}" TIMEOUT ${RETORT_TEST_SECONDS})
  if(ARG_SLOW)
    add_test(NAME ${room}_slow COMMAND ${target} --gtest_filter=Slow*)
    set_tests_properties(${room}_slow PROPERTIES LABELS slow ENVIRONMENT "${RETORT_TEST_ENVIRONMENT}" TIMEOUT 1200)
  endif()
endfunction()

# retort_mpi_test(ROOM RANKS [ENDS suite exit_code])
# Runs the suites of test_ROOM whose name starts with "Mpi" under mpirun, with the label mpi; nothing without
# MPI. Suites that end their group start with "MpiEnds" and run alone: ENDS names one and mpirun's exit code.
function(retort_mpi_test room ranks)
  cmake_parse_arguments(ARG "" "" "ENDS" ${ARGN})
  set(name ${room}_mpi_${ranks})
  set(filter Mpi*:-MpiEnds*)
  set(expected 0)
  if(ARG_ENDS)
    list(GET ARG_ENDS 0 suite)
    list(GET ARG_ENDS 1 expected)
    string(APPEND name _${suite})
    set(filter ${suite}*)
  endif()
  if(NOT RETORT_HAVE_MPI)
    message(STATUS "no MPI: the test ${name} is left out")
    return()
  endif()
  # Ranks share the cores they find, so they are not bound to one each.
  add_test(NAME ${name} COMMAND sh -c "\"$@\"; test $? -eq ${expected}" mpi
    ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none ${MPIEXEC_NUMPROC_FLAG} ${ranks}
    $<TARGET_FILE:test_${room}> --gtest_filter=${filter})
  set_tests_properties(${name} PROPERTIES LABELS mpi TIMEOUT 300 ENVIRONMENT
    "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;${RETORT_TEST_ENVIRONMENT}")
endfunction()
