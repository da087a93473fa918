/* `tidegate drain`: a running node tells its clients to go, and ends; waits for that. */
#ifndef TG_GATEWAY_CLI_DRAIN_H
#define TG_GATEWAY_CLI_DRAIN_H

int drain_command(int count, char **words); /* the exit code */

#endif
