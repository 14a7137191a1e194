# Kernels: native/cuda/kernels/*.cu to one fat binary per file, all embedded in the addon (native/cuda/module.h).
#   WESTWIND_CUDA = AUTO  machine code and PTX where nvcc is found, else a build without CUDA
#                   ON    the same, and nvcc must be there
#                   PTX   PTX only: builds fast, the driver compiles when a kernel is first used
#                   OFF   no CUDA
# <op>.cu is compiled for compute_80, and assembled for every architecture; <op>_sm90.cu for compute_90a alone.
#   WESTWIND_KERNELS = folder of the kernels; another than native/cuda/kernels is for tests (scripts/plant-faults.mjs)
# Sets CUDA_SOURCES, CUDA_HEADERS, CUDA_DEFINITIONS.
set(WESTWIND_CUDA AUTO CACHE STRING "AUTO, ON, PTX or OFF")
set(WESTWIND_KERNELS ${CMAKE_SOURCE_DIR}/native/cuda/kernels CACHE PATH "folder of the kernels")
set(CUDA_SOURCES "")
set(CUDA_HEADERS "")
set(CUDA_DEFINITIONS "")

if(NOT WESTWIND_CUDA MATCHES "^(AUTO|ON|PTX|OFF)$")
  message(FATAL_ERROR "WESTWIND_CUDA must be AUTO, ON, PTX or OFF, got '${WESTWIND_CUDA}'")
endif()
if(WESTWIND_CUDA STREQUAL OFF)
  message(STATUS "westwind: CPU only, as asked (WESTWIND_CUDA=OFF)")
  return()
endif()
find_program(NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES bin)
if(NOT NVCC)
  if(NOT WESTWIND_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "WESTWIND_CUDA=${WESTWIND_CUDA}, but nvcc was not found. Put it on the PATH or set CUDA_PATH.")
  endif()
  message(STATUS "westwind: CPU only, for nvcc was not found (on the PATH, in CUDA_PATH or in /usr/local/cuda)")
  return()
endif()
execute_process(COMMAND ${NVCC} --dryrun -x cu /dev/null ERROR_VARIABLE DRYRUN OUTPUT_QUIET)
string(REGEX MATCH "TOP=([^\n]+)" _ "${DRYRUN}")
string(STRIP "${CMAKE_MATCH_1}" CUDA_TOP)
find_path(CUDA_HEADERS_FOUND cuda.h HINTS ${CUDA_TOP}/include ${CUDA_TOP}/targets/x86_64-linux/include
                                         ${CUDA_TOP}/targets/sbsa-linux/include)
find_program(PTXAS ptxas HINTS ${CUDA_TOP}/bin)
find_program(FATBINARY fatbinary HINTS ${CUDA_TOP}/bin)
if(NOT CUDA_HEADERS_FOUND OR NOT PTXAS OR NOT FATBINARY)
  message(FATAL_ERROR "nvcc is ${NVCC}, but cuda.h, ptxas or fatbinary is not in ${CUDA_TOP}. "
                      "Install the CUDA toolkit, or build with WESTWIND_CUDA=OFF.")
endif()

if(WESTWIND_CUDA STREQUAL PTX)
  set(REAL_80 "")
  set(REAL_90 "")
  message(STATUS "westwind: CUDA kernels as PTX only, with ${NVCC}")
else()
  set(REAL_80 80 86 89 90a)
  set(REAL_90 90a)
  message(STATUS "westwind: CUDA kernels for sm_80, sm_86, sm_89, sm_90a, and PTX for later ones, with ${NVCC}")
endif()

set(CUDA_OUT ${CMAKE_BINARY_DIR}/cuda)
file(MAKE_DIRECTORY ${CUDA_OUT})
file(GLOB KERNEL_FILES CONFIGURE_DEPENDS ${WESTWIND_KERNELS}/*.cu)
file(GLOB KERNEL_HEADERS CONFIGURE_DEPENDS ${WESTWIND_KERNELS}/common/*.cuh native/include/dtype.h native/include/ops/*.h
                                           native/cuda/params/*.h)
set(FATBINS "")
set(PTX_FILES "")
set(CODES "")
foreach(file ${KERNEL_FILES})
  get_filename_component(name ${file} NAME_WE)
  if(name MATCHES "_sm90$")
    set(virtual 90a)
    set(real ${REAL_90})
  else()
    set(virtual 80)
    set(real ${REAL_80})
  endif()
  set(ptx ${CUDA_OUT}/${name}.ptx)
  add_custom_command(
    OUTPUT ${ptx}
    COMMAND ${NVCC} -ptx -arch=compute_${virtual} -std=c++20 -lineinfo -Xcompiler -Wno-psabi
            -I${CMAKE_SOURCE_DIR}/native/include -I${CMAKE_SOURCE_DIR}/native/cuda ${WESTWIND_NVCC_FLAGS}
            ${file} -o ${ptx}
    DEPENDS ${file} ${KERNEL_HEADERS}
    COMMENT "nvcc ${name}" VERBATIM)
  set(images --image3=kind=ptx,sm=${virtual},file=${ptx})
  set(cubins "")
  set(codes "")
  foreach(arch ${real})
    set(cubin ${CUDA_OUT}/${name}.sm_${arch}.cubin)
    add_custom_command(OUTPUT ${cubin} COMMAND ${PTXAS} -arch=sm_${arch} -lineinfo ${ptx} -o ${cubin}
                       DEPENDS ${ptx} COMMENT "ptxas ${name} sm_${arch}" VERBATIM)
    list(APPEND cubins ${cubin})
    string(APPEND codes "sm_${arch} ")
    list(APPEND images --image3=kind=elf,sm=${arch},file=${cubin})
  endforeach()
  set(fatbin ${CUDA_OUT}/${name}.fatbin)
  add_custom_command(OUTPUT ${fatbin} COMMAND ${FATBINARY} --create=${fatbin} -64 --compress-all ${images}
                     DEPENDS ${ptx} ${cubins} COMMENT "fatbinary ${name}" VERBATIM)
  list(APPEND FATBINS ${fatbin})
  list(APPEND PTX_FILES ${ptx})
  list(APPEND CODES "${codes}compute_${virtual}")
endforeach()

set(CUDA_EMBEDDED ${CUDA_OUT}/embedded.cc)
add_custom_command(
  OUTPUT ${CUDA_EMBEDDED}
  COMMAND ${CMAKE_COMMAND} "-DFILES=${PTX_FILES}" "-DCODES=${CODES}" -DOUT=${CUDA_EMBEDDED} -P
          ${CMAKE_SOURCE_DIR}/native/cuda/embed.cmake
  DEPENDS ${FATBINS} ${PTX_FILES} ${CMAKE_SOURCE_DIR}/native/cuda/embed.cmake VERBATIM)
set_source_files_properties(${CUDA_EMBEDDED} PROPERTIES OBJECT_DEPENDS "${FATBINS}")

file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS native/cuda/*.cc native/cuda/launch/*.cc)
list(APPEND CUDA_SOURCES ${CUDA_EMBEDDED})
set(CUDA_HEADERS ${CUDA_HEADERS_FOUND})
set(CUDA_DEFINITIONS WESTWIND_HAS_CUDA)
if(WESTWIND_CUDA STREQUAL PTX)
  list(APPEND CUDA_DEFINITIONS WESTWIND_PTX_ONLY)
endif()
