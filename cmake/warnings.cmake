# Flags of every target. Warnings are errors in the presets only: a packager's newer compiler must not
# break the build.
add_library(tidegate_flags INTERFACE)
target_compile_options(tidegate_flags INTERFACE
    -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wcast-qual -Wstrict-prototypes
    -Wmissing-prototypes -Wvla -Wundef -Wformat=2 -Wnull-dereference -Wswitch-enum
    -fvisibility=hidden -fno-strict-aliasing -fno-common)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(tidegate_flags INTERFACE -Wlogical-op -Wduplicated-cond -Wduplicated-branches)
endif()
if(TIDEGATE_WERROR)
    target_compile_options(tidegate_flags INTERFACE -Werror)
endif()
target_compile_definitions(tidegate_flags INTERFACE _GNU_SOURCE)
if(TIDEGATE_FUZZ)
    # Coverage of the libraries too, not of the fuzz target alone: the fuzzer is blind otherwise.
    target_compile_options(tidegate_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(TIDEGATE_SANITIZE)
    target_compile_options(tidegate_flags INTERFACE -fsanitize=${TIDEGATE_SANITIZE} -fno-omit-frame-pointer
                           -fno-sanitize-recover=undefined)
    target_link_options(tidegate_flags INTERFACE -fsanitize=${TIDEGATE_SANITIZE})
endif()
