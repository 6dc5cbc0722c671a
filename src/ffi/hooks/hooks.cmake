# llama.cpp's top CMakeLists.txt includes this at `project()` (see build/llama.rs). At its end, when the targets exist, the sources that call hooks
# get the headers that declare them, so that patches need no `#include`. A source that is missing here does not compile.
cmake_minimum_required(VERSION 3.19)
set(SHARPV_HOOKS "${CMAKE_CURRENT_LIST_DIR}")
cmake_language(DEFER CALL set_source_files_properties
    "${CMAKE_CURRENT_SOURCE_DIR}/src/llama-context.cpp"
    "${CMAKE_CURRENT_SOURCE_DIR}/src/llama-graph.cpp"
    "${CMAKE_CURRENT_SOURCE_DIR}/src/llama-kv-cache.cpp"
    TARGET_DIRECTORY llama PROPERTIES COMPILE_OPTIONS "-include;${SHARPV_HOOKS}/sharpv-llama.h")
cmake_language(DEFER CALL set_source_files_properties
    "${CMAKE_CURRENT_SOURCE_DIR}/tools/mtmd/mtmd-image.cpp"
    TARGET_DIRECTORY mtmd PROPERTIES COMPILE_OPTIONS "-include;${SHARPV_HOOKS}/sharpv-mtmd.h")
cmake_language(DEFER CALL set_source_files_properties
    "${CMAKE_CURRENT_SOURCE_DIR}/tools/mtmd/clip.cpp"
    "${CMAKE_CURRENT_SOURCE_DIR}/tools/mtmd/models/llava.cpp"
    "${CMAKE_CURRENT_SOURCE_DIR}/tools/mtmd/models/qwen2vl.cpp"
    "${CMAKE_CURRENT_SOURCE_DIR}/tools/mtmd/models/qwen3vl.cpp"
    TARGET_DIRECTORY mtmd PROPERTIES COMPILE_OPTIONS "-include;${SHARPV_HOOKS}/sharpv-clip.h")
