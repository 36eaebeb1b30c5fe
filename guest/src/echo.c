// SPDX-License-Identifier: GPL-2.0-or-later
/* Echo service of the test guest: what a client sends on TCP port 7 comes back, byte for byte. */
#include <errno.h>
#include <unistd.h>

#include "service.h"

#define ECHO_PORT 7

static void serve(int fd)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && service_write(fd, buf, n))
			return;
}

int main(void)
{
	return service_run("echo", ECHO_PORT, serve);
}
