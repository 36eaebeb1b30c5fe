/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * selftest_cache.c - what earlier self-tests have shown, in the file `selftest` of the state directory
 *
 * Text, for people to read. The upper part says what the results were found for: QEMU's program, the agent, the kernel,
 * the processor, QEMU's command line. It counts only if it is letter by letter what it would be now; otherwise the
 * file is removed. It may be removed at any time, and goes with a reboot where the state directory does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/selftest.h"
#include "daemon/throwaway.h"
#include "daemon/vm_args.h"

#define FILE_MAX (64u << 10)
#define FOUND "found:\n"

static const char *const names[SELFTEST_TESTS] = {
	[TEST_KVM] = "kvm", [TEST_DIRECT] = "direct", [TEST_STANDBY] = "standby",
};

/* --- identity --- */

/* as execvp() finds it */
static void find_program(const char *name, char out[300])
{
	const char *path = getenv("PATH"), *end;

	snprintf(out, 300, "%s", name);
	if (strchr(name, '/'))
		return;
	for (path = path ? path : "/usr/bin:/bin"; *path; path = *end ? end + 1 : end) {
		end = path + strcspn(path, ":");
		snprintf(out, 300, "%.*s/%s", (int)(end - path), path, name);
		if (access(out, X_OK) == 0)
			return;
	}
}

static void put_file(FILE *f, const char *what, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		fprintf(f, "%s = %s: %s\n", what, path, strerror(errno));
	else
		fprintf(f, "%s = %s, %lld bytes, inode %llu, changed %lld.%09ld\n", what, path, (long long)st.st_size,
			(unsigned long long)st.st_ino, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* model and features of the first one */
static void put_processor(FILE *f)
{
	FILE *in = fopen("/proc/cpuinfo", "re");
	char line[8192];

	while (in && fgets(line, sizeof(line), in) && *line != '\n')
		if (!strncmp(line, "model name", 10) || !strncmp(line, "flags", 5) || !strncmp(line, "microcode", 9))
			fprintf(f, "processor %s", line);
	if (in)
		fclose(in);
}

/* The accelerator is what the configuration says: what comes of `auto` is one of the results. */
static int put_arguments(FILE *f, struct daemon *d)
{
	static const char *const accel[] = { [ACCEL_AUTO] = "auto", [ACCEL_KVM] = "kvm", [ACCEL_TCG] = "tcg" };
	struct vm_args a = { .n = 0 };
	unsigned int i;
	int r;

	snprintf(d->accel, sizeof(d->accel), "%s", accel[d->cfg->accel]);
	r = vm_args_build(d, &a, VM_SELFTEST);
	fprintf(f, "arguments =");
	for (i = 1; i < a.n; i++)
		fprintf(f, " %s", a.v[i]);
	fprintf(f, "\n");
	vm_args_free(&a);
	return r;
}

char *selftest_identity(struct daemon *d)
{
	const char *fail = getenv("COLO_FAIL_SELFTEST");
	struct utsname u = { .release = "" };
	char *text = NULL, path[300];
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	int r;

	if (!f)
		return NULL;
	uname(&u);
	find_program(d->cfg->qemu, path);
	fprintf(f, "# What throw-away QEMUs have shown on this host. It counts as long as all of this is so; may be removed.\n");
	put_file(f, "qemu", path);
	if (daemon_find(d, "agent", "colo-agent.so", path, sizeof(path)) == 0)
		put_file(f, "agent", path);
	fprintf(f, "kernel = %s %s\nkvm = %s\n", u.release, u.version, throwaway_has_kvm(path, sizeof(path)) < 0 ? path : "yes");
	put_processor(f);
	r = put_arguments(f, d);
	if (fail)
		fprintf(f, "COLO_FAIL_SELFTEST = %s\n", fail);
	fprintf(f, FOUND);
	if (fclose(f) == EOF || r < 0) {
		free(text);
		return NULL;
	}
	return text;
}

/* --- results --- */

static void file_name(const struct daemon *d, const char *suffix, char path[300])
{
	snprintf(path, 300, "%s/selftest%s", daemon_state_dir(d), suffix);
}

static char *read_all(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = fd < 0 ? NULL : malloc(FILE_MAX);
	ssize_t n = text ? read(fd, text, FILE_MAX - 1) : -1;

	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	return text;
}

static void take_line(char *line, struct selftest_found *found)
{
	char *value = strstr(line, " = ");
	unsigned int i;

	if (!value)
		return;
	*value = 0;
	value += 3;
	if (!strcmp(line, "version"))
		snprintf(found->version, sizeof(found->version), "%s", value);
	for (i = 0; i < SELFTEST_TESTS; i++)
		if (!strcmp(line, names[i]))
			snprintf(found->test[i], SELFTEST_FOUND, "%s", value);
}

void selftest_recall(const struct daemon *d, const char *identity, struct selftest_found *found)
{
	char path[300], *text, *line, *save = NULL;

	memset(found, 0, sizeof(*found));
	file_name(d, "", path);
	text = identity ? read_all(path) : NULL;
	if (!text)
		return;
	if (strncmp(text, identity, strlen(identity))) {
		log_info("QEMU, agent, kernel, processor or devices are not those of %s: tested anew", path);
		unlink(path);
	} else {
		for (line = strtok_r(text + strlen(identity), "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			take_line(line, found);
	}
	free(text);
}

/* Best effort: without it the next start tests again. */
void selftest_keep(const struct daemon *d, const char *identity, const struct selftest_found *found)
{
	char path[300], part[300];
	unsigned int i;
	FILE *f;

	file_name(d, "", path);
	file_name(d, ".part", part);
	f = identity ? fopen(part, "we") : NULL;
	if (!f)
		return;
	fprintf(f, "%sversion = %s\n", identity, found->version);
	for (i = 0; i < SELFTEST_TESTS; i++)
		if (*found->test[i])
			fprintf(f, "%s = %s\n", names[i], found->test[i]);
	if (fclose(f) == EOF || rename(part, path) < 0) {
		log_warn("%s: %s", path, strerror(errno));
		unlink(part);
	}
}
