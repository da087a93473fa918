/* `tidegate reload`: SIGHUP to the node of a data folder, and its outcome. */
#ifndef TG_GATEWAY_CLI_RELOAD_H
#define TG_GATEWAY_CLI_RELOAD_H

int reload_command(int count, char **words); /* the exit code */

#endif
