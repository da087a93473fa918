/* `tidegate sub`: prints messages as they come, from the event stream (/sse) of the node's public port. */
#ifndef TG_GATEWAY_CLI_SUBSCRIBE_H
#define TG_GATEWAY_CLI_SUBSCRIBE_H

int subscribe_command(int count, char **words); /* the exit code */

#endif
