# Release hardening. Asserts stay on: a gateway that restarts loses a second, one that goes on corrupted
# loses messages.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g3")
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT TIDEGATE_SANITIZE)
    target_compile_options(tidegate_flags INTERFACE -D_FORTIFY_SOURCE=3 -fstack-protector-strong
                           -fstack-clash-protection)
    target_link_options(tidegate_flags INTERFACE -Wl,-z,relro,-z,now)
    include(CheckIPOSupported)
    check_ipo_supported(RESULT ipo_ok LANGUAGES C)
    if(ipo_ok)
        set(CMAKE_INTERPROCEDURAL_OPTIMIZATION ON)
    endif()
    include(CheckPIESupported)
    check_pie_supported(LANGUAGES C)
endif()
