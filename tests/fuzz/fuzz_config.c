/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_config.c - a configuration file
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[64];
	struct config *c = malloc(sizeof(*c));
	char error[120];

	if (fd < 0) {
		fd = memfd_create("config", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size || !c)
		abort();
	error[0] = 0;
	if (config_load(c, path, size & 1 ? "host-a" : "b", error, sizeof(error)) == 0) {
		if (c->nhosts != 2 || !*c->name || !config_disk(c) || !config_bridge(c, 0))
			abort();
		config_is_primary(c);
	} else if (!*error) {
		abort(); /* a refusal without a reason */
	}
	free(c);
	return 0;
}
