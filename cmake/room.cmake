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

# A room as another build has compiled it: without sanitizers, by whatever compiler (RETORT_PLAIN).
function(retort_plain_room name)
  add_library(retort_${name} INTERFACE)
  target_link_libraries(retort_${name} INTERFACE retort_flags retort_torch
    ${RETORT_PLAIN}/${name}/libretort_${name}.a retort_core)
  if(name STREQUAL distill)
    target_link_libraries(retort_distill INTERFACE PkgConfig::CURL)
  elseif(name STREQUAL recipes)
    target_link_libraries(retort_recipes INTERFACE yaml-cpp)
  endif()
endfunction()

# What a sanitizer finds fails a test; without one the last two mean nothing. A long history keeps the stacks that
# cmake/tsan.supp speaks of. No test needs a name server, and one that does not answer would cost 5 s a meeting
# (docs/launching.md).
set(RETORT_TEST_ENVIRONMENT
  "OMP_WAIT_POLICY=passive;RES_OPTIONS=attempts:0;RETORT_SOURCE_DIR=${CMAKE_SOURCE_DIR};RETORT_BINARY_DIR=${CMAKE_BINARY_DIR};RETORT_CUDA_PLUGIN=${CMAKE_BINARY_DIR}/launch/libretort_cuda.so;RETORT_MPI_PLUGIN=${CMAKE_BINARY_DIR}/launch/libretort_mpi.so;UBSAN_OPTIONS=halt_on_error=1;TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp:history_size=7")

# Tests start their own ranks, or none: what a cluster's launcher has left would make them one of its own.
set(RETORT_TEST_LAUNCHER)
foreach(variable SLURM_PROCID SLURM_NTASKS SLURM_STEP_NUM_TASKS SLURM_LOCALID SLURM_JOB_ID SLURM_JOBID PMI_RANK PMI_SIZE
    PMI_FD PMIX_RANK PMIX_NAMESPACE OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_LOCAL_RANK RANK WORLD_SIZE
    LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT JOB_COMPLETION_INDEX)
  list(APPEND RETORT_TEST_LAUNCHER ${variable}=unset:)
endforeach()

set(RETORT_SANITIZER_SLOWNESS 1)
if(RETORT_SANITIZE)
  set(RETORT_SANITIZER_SLOWNESS 3)
endif()

# The properties that every test has: retort_test_properties(NAME LABEL SECONDS [SHARES])
# A test has the machine to itself, for its threads and deadlines; SHARES says that it has neither.
function(retort_test_properties name label seconds)
  cmake_parse_arguments(ARG "SHARES" "" "" ${ARGN})
  set(alone ON)
  if(ARG_SHARES)
    set(alone OFF)
  endif()
  math(EXPR seconds "${seconds} * ${RETORT_SANITIZER_SLOWNESS}")
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${seconds} RUN_SERIAL ${alone}
    ENVIRONMENT "${RETORT_TEST_ENVIRONMENT}" ENVIRONMENT_MODIFICATION "${RETORT_TEST_LAUNCHER}")
endfunction()

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
  retort_test_properties(${room} fast 600)
  if(ARG_SLOW)
    add_test(NAME ${room}_slow COMMAND ${target} --gtest_filter=Slow*)
    retort_test_properties(${room}_slow slow 1200)
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
  retort_test_properties(${name} mpi 300)
  set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
endfunction()
