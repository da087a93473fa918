/* `tidegate version`: ours, and those of the libraries that are loaded. */
#ifndef TG_GATEWAY_CLI_VERSION_H
#define TG_GATEWAY_CLI_VERSION_H

int version_command(int count, char **words); /* the exit code */

#endif
