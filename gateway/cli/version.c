#include "gateway/cli/version.h"

#include "gateway/cli/arguments.h"

#include <jansson.h>
#include <libwebsockets.h>
#include <openssl/crypto.h>
#include <stdio.h>

int version_command(int count, char **words)
{
    (void)words;
    if (count > 0)
        return arguments_refuse("version takes no arguments", NULL);
    puts("tidegate " TIDEGATE_VERSION);
    printf("libwebsockets %s\n%s\njansson %s\n", lws_get_library_version(), OpenSSL_version(OPENSSL_VERSION),
           jansson_version_str());
    return EXIT_CODE_OK;
}
