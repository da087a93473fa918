/* `tidegate doctor`: looks at what a node needs on this machine, and says what to do about what it finds. */
#ifndef TG_GATEWAY_CLI_DOCTOR_H
#define TG_GATEWAY_CLI_DOCTOR_H

int doctor_command(int count, char **words); /* 0, or 1 when something has failed */
int status_command(int count, char **words); /* is the node ready? 0, 1, 69 */

#endif
