# libretort_cuda.so: what needs CUDA to be compiled, and what by it the program needs none of (core/cuda_plugin.h);
# libretort_mpi.so likewise (comm/mpi.cpp).
# The stamp that both carry changes with what they say to each other.
set(plugin_headers kernels/cuda/plugin.h kernels/cuda/table.h kernels/device_graph.h kernels/gate.h comm/comm.h comm/device_comm.h comm/launch_watch.h comm/transport.h)
list(TRANSFORM plugin_headers PREPEND ${CMAKE_SOURCE_DIR}/)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${plugin_headers})
set(plugin_text)
foreach(path ${plugin_headers} ${RETORT_DEPS}/torch/version.py)
  file(SHA256 ${path} digest)
  string(APPEND plugin_text ${digest})
endforeach()
string(SHA256 digest "${plugin_text}")
string(SUBSTRING "${digest}" 0 8 digest)
set(RETORT_PLUGIN_STAMP "retort ${PROJECT_VERSION} (${digest})")

# retort_plugin_sources(FILE...): compiled with the stamp.
function(retort_plugin_sources)
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_DEFINITIONS RETORT_PLUGIN_STAMP="${RETORT_PLUGIN_STAMP}")
  set_source_files_properties(${ARGN} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
endfunction()
