/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz_config.c - a configuration file
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENDED(field) (memchr(field, 0, sizeof(field)) != NULL)

/* each text ends in its own field: what is beyond would lie in the next, where no sanitizer looks */
static bool texts_end(const struct config *c)
{
	bool ok = ENDED(c->name) && ENDED(c->machine) && ENDED(c->devices) && ENDED(c->cpu) &&
		  ENDED(c->kernel) && ENDED(c->initrd) && ENDED(c->append) && ENDED(c->qemu) &&
		  ENDED(c->nbdkit) && ENDED(c->primary) && ENDED(c->arbiter);

	for (unsigned int i = 0; i < c->nhosts; i++)
		ok = ok && ENDED(c->host[i].name) && ENDED(c->host[i].address) && ENDED(c->host[i].data) &&
		     ENDED(c->host[i].state);
	for (unsigned int i = 0; i < CONFIG_DISKS_MAX; i++)
		ok = ok && ENDED(c->disk[i].file) && ENDED(c->host[0].disk[i]) && ENDED(c->host[1].disk[i]);
	return ok;
}

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
	memset(c, 'x', sizeof(*c));
	if (config_load(c, path, size & 1 ? "host-a" : "b", error, sizeof(error)) == 0) {
		if (c->nhosts != 2 || !*c->name || !config_disk(c, 0) || !config_bridge(c, 0))
			abort();
		for (unsigned int i = 0; i < c->disks; i++)
			if (!*config_disk(c, i) || (c->disk[i].sector != 512 && c->disk[i].sector != 4096))
				abort();
		config_is_primary(c);
	} else if (!*error) {
		abort(); /* a refusal without a reason */
	}
	if (!texts_end(c))
		abort();
	free(c);
	return 0;
}
