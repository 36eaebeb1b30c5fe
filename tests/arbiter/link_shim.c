/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * link_shim.c - LD_PRELOAD: a file system whose linkat() and write() answer as NFS or a full disk may
 *
 * LINK_SHIM=done: does it and fails; fails: does not and fails; lies: does not and succeeds; nospace: write() is short.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((visibility("default"))) int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	int (*real)(int, const char *, int, const char *, int) = dlsym(RTLD_NEXT, "linkat");
	const char *how = getenv("LINK_SHIM");

	if (!strcmp(how, "lies"))
		return 0;
	if (!strcmp(how, "done") && real(from_dir, from, to_dir, to, flags) < 0)
		return -1;
	if (!strcmp(how, "nospace"))
		return real(from_dir, from, to_dir, to, flags);
	errno = EIO;
	return -1;
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *p, size_t n)
{
	ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");

	return real(fd, p, !strcmp(getenv("LINK_SHIM"), "nospace") && n > 8 ? 8 : n);
}
