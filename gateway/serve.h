/* `tidegate serve`: a node from its start to its end, and the signals between. */
#ifndef TG_GATEWAY_SERVE_H
#define TG_GATEWAY_SERVE_H

int serve_command(int count, char **words); /* the exit code */

#endif
