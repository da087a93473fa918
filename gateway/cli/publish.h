/* `tidegate pub`: publishes through the private API of the node. */
#ifndef TG_GATEWAY_CLI_PUBLISH_H
#define TG_GATEWAY_CLI_PUBLISH_H

int publish_command(int count, char **words); /* the exit code */

#endif
