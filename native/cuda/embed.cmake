# Writes OUT: the fat binary beside each PTX file of FILES as bytes, what CODES says is in it, and the kernels that it has, with the bytes of their
# parameters as the device compiler laid them out.
set(text "// Made by native/cuda/embed.cmake.\n#include \"module.h\"\n\n")
set(images "")
set(kernels "")
set(index 0)
foreach(ptx ${FILES})
  list(GET CODES ${index} codes)
  get_filename_component(folder ${ptx} DIRECTORY)
  get_filename_component(name ${ptx} NAME_WE)
  string(APPEND text "asm(\".section .rodata\\n.balign 64\\n.hidden ww_fatbin_${index}\\n.globl ww_fatbin_${index}\\n\"\n"
                     "    \"ww_fatbin_${index}:\\n.incbin \\\"${folder}/${name}.fatbin\\\"\\n.previous\\n\");\n"
                     "extern \"C\" __attribute__((visibility(\"hidden\"))) const char ww_fatbin_${index}[];\n")
  string(APPEND images "    {\"${name}\", ww_fatbin_${index}, \"${codes}\"},\n")
  # The lines that open an entry, and those of its parameters:  .param .align 8 .b8 fill_32_param_0[40]   .param .u64 x_param_1
  file(STRINGS ${ptx} lines REGEX "^\\.visible \\.entry |^[ \t]*\\.param .*_param_[0-9]+")
  set(kernel "")
  foreach(line ${lines})
    if(line MATCHES "^\\.visible \\.entry ([A-Za-z0-9_]+)")
      if(kernel)
        string(APPEND kernels "    {\"${kernel}\", ${index}, {${sizes}}},\n")
      endif()
      set(kernel ${CMAKE_MATCH_1})
      set(sizes "")
    elseif(line MATCHES "_param_[0-9]+\\[([0-9]+)\\]")
      string(APPEND sizes "${CMAKE_MATCH_1}, ")
    elseif(line MATCHES "\\.param .*\\.[a-z]+([0-9]+) ")
      math(EXPR bytes "${CMAKE_MATCH_1} / 8")
      string(APPEND sizes "${bytes}, ")
    endif()
  endforeach()
  if(kernel)
    string(APPEND kernels "    {\"${kernel}\", ${index}, {${sizes}}},\n")
  endif()
  math(EXPR index "${index} + 1")
endforeach()
string(APPEND text "\nnamespace westwind {\n\nconst EmbeddedImage kEmbeddedImages[] = {\n${images}};\n"
                   "const EmbeddedKernel kEmbeddedKernels[] = {\n${kernels}};\n"
                   "const int kEmbeddedKernelCount = sizeof kEmbeddedKernels / sizeof kEmbeddedKernels[0];\n"
                   "const int kEmbeddedImageCount = sizeof kEmbeddedImages / sizeof kEmbeddedImages[0];\n\n"
                   "}  // namespace westwind\n")
file(WRITE ${OUT} "${text}")
