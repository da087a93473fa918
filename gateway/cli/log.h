/* `tidegate log`: the commands about a node's log (PROTOCOL.md 5). Each returns an exit code. */
#ifndef TG_GATEWAY_CLI_LOG_H
#define TG_GATEWAY_CLI_LOG_H

int log_command(int count, char **words);

#endif
