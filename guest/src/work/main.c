// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * colo-guest-work: runs the workers and takes orders on TCP port 7007.
 *
 * One order a line; every answer ends with a line "ok" or "error: WHY":
 *	start mem|code|file [ARG...]	start a worker (one of each kind), arguments as in `help`
 *	status				one line per running worker: kind, rounds, corrupt
 *	log				the last lines of the log, CORRUPT lines among them
 *	stop [mem|code|file]		stop one worker or all
 *	help
 */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define CONTROL_PORT 7007
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const struct work_kind *const kinds[] = { &work_mem, &work_code, &work_file };
static struct worker workers[ARRAY_SIZE(kinds)];
static pthread_mutex_t workers_lock = PTHREAD_MUTEX_INITIALIZER;

static void sleep_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&w->stop)) {
		w->kind->round(w);
		atomic_fetch_add(&w->rounds, 1);
		sleep_ms(w->args[w->kind->nargs - 1]);
	}
	return NULL;
}

static struct worker *worker_find(const char *name)
{
	for (size_t i = 0; name && i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i]->name, name))
			return &workers[i];
	return NULL;
}

static int parse_args(struct worker *w, char **save)
{
	for (int i = 0; i < w->kind->nargs; i++) {
		const char *word = strtok_r(NULL, " ", save);
		char *end;

		w->args[i] = word ? strtol(word, &end, 10) : w->kind->defaults[i];
		if (word && (*end || w->args[i] < 1 || w->args[i] > 1 << 20))
			return -EINVAL;
	}
	return 0;
}

static int worker_start(struct worker *w, char **save)
{
	int ret;

	if (atomic_load(&w->running))
		return -EBUSY;
	ret = parse_args(w, save);
	if (ret)
		return ret;
	w->rng = (uint64_t)time(NULL) << 20 | 1;
	w->priv = NULL;
	atomic_store(&w->rounds, 0);
	atomic_store(&w->corrupt, 0);
	atomic_store(&w->stop, false);
	ret = w->kind->setup(w);
	if (!ret)
		ret = -pthread_create(&w->thread, NULL, worker_main, w);
	if (ret) {
		w->kind->cleanup(w);
		return ret;
	}
	atomic_store(&w->running, true);
	work_log("%s started, seed %lx", w->kind->name, w->rng);
	return 0;
}

static void worker_stop(struct worker *w)
{
	if (!atomic_load(&w->running))
		return;
	atomic_store(&w->stop, true);
	pthread_join(w->thread, NULL);
	w->kind->cleanup(w);
	atomic_store(&w->running, false);
	work_log("%s stopped after %lu rounds, %lu corrupt", w->kind->name,
		 atomic_load(&w->rounds), atomic_load(&w->corrupt));
}

static int do_start(FILE *out, char **save)
{
	struct worker *w = worker_find(strtok_r(NULL, " ", save));

	(void)out;
	return w ? worker_start(w, save) : -EINVAL;
}

static int do_stop(FILE *out, char **save)
{
	const char *name = strtok_r(NULL, " ", save);
	struct worker *w = worker_find(name);

	(void)out;
	if (name && !w)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
		if (!w || w == &workers[i])
			worker_stop(&workers[i]);
	return 0;
}

static int do_status(FILE *out, char **save)
{
	(void)save;
	for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
		if (atomic_load(&workers[i].running))
			fprintf(out, "%s rounds %lu corrupt %lu\n", kinds[i]->name,
				atomic_load(&workers[i].rounds), atomic_load(&workers[i].corrupt));
	return 0;
}

static int do_log(FILE *out, char **save)
{
	(void)save;
	work_log_write(out);
	return 0;
}

static int do_help(FILE *out, char **save)
{
	(void)save;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		fprintf(out, "start %s %s\n", kinds[i]->name, kinds[i]->args);
	fprintf(out, "stop [KIND]\nstatus\nlog\n");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(FILE *out, char **save);
} orders[] = {
	{ "start", do_start }, { "stop", do_stop }, { "status", do_status },
	{ "log", do_log }, { "help", do_help },
};

static void obey(FILE *out, char *line)
{
	char *save = NULL;
	const char *word = strtok_r(line, " \r\n", &save);
	int ret = -ENOSYS;

	if (save)
		save[strcspn(save, "\r\n")] = '\0';
	pthread_mutex_lock(&workers_lock);
	for (size_t i = 0; word && i < ARRAY_SIZE(orders); i++)
		if (!strcmp(word, orders[i].name))
			ret = orders[i].run(out, &save);
	pthread_mutex_unlock(&workers_lock);
	if (ret)
		fprintf(out, "error: %s\n", strerror(-ret));
	else
		fprintf(out, "ok\n");
	fflush(out);
}

static void *control_main(void *arg)
{
	int fd = (int)(intptr_t)arg;
	FILE *in = fdopen(fd, "r");
	FILE *out = fdopen(dup(fd), "w");
	char line[256];

	while (in && out && fgets(line, sizeof(line), in))
		obey(out, line);
	if (in)
		fclose(in);
	if (out)
		fclose(out);
	return NULL;
}

static int control_listen(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons(CONTROL_PORT),
		.sin_addr.s_addr = htonl(INADDR_ANY),
	};
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 16))
		return -errno;
	return fd;
}

int main(void)
{
	int listener = control_listen();

	if (listener < 0) {
		fprintf(stderr, "colo-guest-work: port %d: %s\n", CONTROL_PORT, strerror(-listener));
		return EXIT_FAILURE;
	}
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		workers[i].kind = kinds[i];
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd < 0)
			continue;
		if (pthread_create(&thread, NULL, control_main, (void *)(intptr_t)fd))
			close(fd);
		else
			pthread_detach(thread);
	}
}
