# tidegate_embed(TARGET FILE NAME): the bytes of FILE as `const unsigned char NAME[]` and `const size_t NAME_len`.
function(tidegate_embed target file name)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
    string(REGEX REPLACE "((0x..,){16})" "\\1\n" bytes "${bytes}")
    set(source ${CMAKE_BINARY_DIR}/generated/${name}.c)
    file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
#include <stddef.h>
extern const unsigned char @name@[];
extern const size_t @name@_len;
const unsigned char @name@[] = {
@bytes@};
const size_t @name@_len = sizeof @name@;
]])
    target_sources(${target} PRIVATE ${source})
endfunction()
