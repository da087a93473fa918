/* `tidegate token create|check`: the node's own tokens (PROTOCOL.md 6). */
#ifndef TG_GATEWAY_CLI_TOKEN_H
#define TG_GATEWAY_CLI_TOKEN_H

int token_command(int count, char **words);

#endif
