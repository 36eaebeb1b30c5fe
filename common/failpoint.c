/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * failpoint.c - see failpoint.h
 *
 * libc only, for the agent has nothing else. What is not armed costs one failing open().
 */
#include "common/failpoint.h"

#ifdef COLO_FAILPOINTS

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct armed {
	char name[64], action[16], argument[128];
	unsigned int passing;
};

/* each thread has its own, for two may pass points at once; only one of them fires */
static _Thread_local struct armed armed;

static bool read_armed(const char *path, struct armed *a)
{
	char line[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	line[n] = 0;
	a->argument[0] = 0;
	return sscanf(line, "%63s %u %15s %127s", a->name, &a->passing, a->action, a->argument) >= 3;
}

/* one passing less to go; whole or not at all, for others read it */
static void count_down(const char *path, const struct armed *a)
{
	char other[300];
	FILE *f;

	snprintf(other, sizeof(other), "%s.new", path);
	f = fopen(other, "we");
	if (!f)
		return;
	fprintf(f, "%s %u %s %s\n", a->name, a->passing - 1, a->action, a->argument);
	if (fclose(f) == 0)
		rename(other, path);
}

bool failpoint_due(const char *name)
{
	const char *path = getenv("COLO_FAILPOINT");

	if (!path || !read_armed(path, &armed) || strcmp(armed.name, name) != 0)
		return false;
	if (armed.passing > 1) {
		count_down(path, &armed);
		return false;
	}
	return unlink(path) == 0; /* of two at once one removes it */
}

bool failpoint_skip(const char *name)
{
	const char *path = getenv("COLO_FAILPOINT");
	struct armed a;

	return path && read_armed(path, &a) && !strcmp(a.name, name) && !strcmp(a.action, "skip");
}

static void device_down(const char *name)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = { 0 };

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &r) == 0) {
		r.ifr_flags &= ~IFF_UP;
		ioctl(fd, SIOCSIFFLAGS, &r);
	}
	close(fd);
}

static void lose_power(void)
{
	char *rest = NULL, *device = strtok_r(armed.argument, ",", &rest);

	for (; device; device = strtok_r(NULL, ",", &rest))
		device_down(device);
	kill(getpid(), SIGSTOP);
}

static void sleep_ms(unsigned long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

	while (nanosleep(&t, &t) < 0)
		;
}

void failpoint_fire(void)
{
	if (!strcmp(armed.action, "kill"))
		kill(getpid(), SIGKILL);
	else if (!strcmp(armed.action, "stop"))
		kill(getpid(), SIGSTOP);
	else if (!strcmp(armed.action, "exit"))
		_exit(1);
	else if (!strcmp(armed.action, "sleep"))
		sleep_ms(strtoul(armed.argument, NULL, 10));
	else if (!strcmp(armed.action, "power"))
		lose_power();
}

#endif
