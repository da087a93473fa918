/* `tidegate user add|remove|list`: the password file (PROTOCOL.md 6). */
#ifndef TG_GATEWAY_CLI_USER_H
#define TG_GATEWAY_CLI_USER_H

int user_command(int count, char **words);

#endif
