/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * diskman.c - the disk manager: an nbdkit process with our plugin, one for the VM's disk
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

static void on_exit_event(void *arg, int events)
{
	struct daemon *d = arg;
	int status = 0;

	if (spawn_reap(&d->disk.child, &status) < 0)
		return;
	watch_free(d->disk.exit_watch);
	d->disk.exit_watch = NULL;
	if (d->ending)
		return;
	log_error("the disk manager has ended (%s %d); see %s/disk.log",
		  WIFSIGNALED(status) ? "signal" : "exit status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), daemon_state_dir(d));
	if (d->core.state == CORE_STARTING) {
		daemon_fail_start(d, "disk %s cannot be served; see %s/disk.log", config_disk(d->cfg, 0),
				  daemon_state_dir(d));
		return;
	}
	/* a VM without its disk is as good as dead, and must not say anything more */
	vm_kill(d);
	daemon_event(d, (struct core_event){ .type = CORE_EV_VM_DIED });
}

static void on_sync(const struct disk_message *m)
{
	log_info("disk: %llu of %llu MiB sent", (unsigned long long)m->sync.done >> 20,
		 (unsigned long long)m->sync.total >> 20);
}

static void on_link_lost(struct daemon *d, const struct disk_message *m)
{
	/* the new primary unlinks its disk from that of a node that has given up */
	if (!d->peer.up || d->core.state == CORE_GIVEN_UP)
		return;
	log_warn("disk link: %s", m->text);
	peer_side_closed(d, PEER_DISK);
}

static void on_event(struct daemon *d, const struct disk_message *m)
{
	switch (m->op) {
	case DISK_EV_HELLO:
		if (m->hello.proto != DISK_PROTO_VERSION) {
			daemon_fail_start(d, "the disk plugin is of another version");
			break;
		}
		d->disk.size = m->hello.size;
		d->disk.identity = m->hello.identity;
		d->disk.ready = true;
		break;
	case DISK_EV_BOUNDARY: checkpoint_disk_boundary(d, m->epoch); break;
	case DISK_EV_SYNC: on_sync(m); break;
	case DISK_EV_SYNCED:
		daemon_event(d, (struct core_event){ .type = CORE_EV_DISK_SYNCED });
		break;
	case DISK_EV_WRITTEN_BACK: log_info("disk: what the SVM had written is on stable storage"); break;
	case DISK_EV_WANT_CHECKPOINT:
		daemon_event(d, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT,
						     .cause = CORE_CAUSE_DISK });
		break;
	case DISK_EV_LINK_LOST: on_link_lost(d, m); break;
	case DISK_EV_ERROR: log_error("disk: %s", m->text); break;
	case DISK_STATUS: d->disk.status = *m; break;
	case DISK_COMMIT:
		if (d->disk.on_commit)
			d->disk.on_commit(d, m->status);
		break;
	default:
		if (m->status < 0)
			log_error("disk manager: request %u failed: %s", m->op, m->text);
	}
}

static void on_message(void *arg, int events)
{
	struct daemon *d = arg;
	struct disk_message m;
	ssize_t n;

	/* one by one: an event may end the disk manager */
	n = recv(d->disk.fd, &m, sizeof(m), MSG_DONTWAIT);
	if (n == 0)
		watch_events(d->disk.watch, 0);
	if (n != sizeof(m))
		return;
	m.text[sizeof(m.text) - 1] = 0;
	on_event(d, &m);
}

int diskman_start(struct daemon *d)
{
	static const int types[2] = { SOCK_SEQPACKET, SOCK_SEQPACKET };
	struct diskman *m = &d->disk;
	int ours[2] = { -1, -1 }, theirs[2] = { -1, -1 }, log_fd, r;
	char plugin[300], file[300], cache[64];
	char *argv[] = { (char *)d->cfg->nbdkit, "-f", "--exit-with-parent", "-U", m->socket, "-t", "8",
			 plugin, file, "control-fd=3", "boundary-fd=4", cache, NULL };

	r = daemon_find(d, "disk", "nbdkit-colo-plugin.so", plugin, sizeof(plugin));
	if (r < 0)
		return r;
	snprintf(m->socket, sizeof(m->socket), "%s/disk0.sock", daemon_state_dir(d));
	unlink(m->socket);
	snprintf(file, sizeof(file), "file=%s", config_disk(d->cfg, 0));
	snprintf(cache, sizeof(cache), "cache-max=%llu", (unsigned long long)d->cfg->cache_max);
	r = wire_pairs(types, 2, ours, theirs);
	log_fd = daemon_open_log(d, "disk.log");
	if (r == 0)
		r = spawn_child(&m->child, argv, theirs, 2, log_fd, 0);
	close(theirs[0]);
	close(theirs[1]);
	if (log_fd >= 0)
		close(log_fd);
	if (r < 0) {
		log_error("%s: %s", d->cfg->nbdkit, strerror(-r));
		return r;
	}
	m->fd = ours[0];
	m->boundary_fd = ours[1];
	m->watch = watch_new(&d->loop, m->fd, UV_READABLE, on_message, d);
	m->exit_watch = watch_new(&d->loop, m->child.pidfd, UV_READABLE, on_exit_event, d);
	return 0;
}

void diskman_stop(struct daemon *d)
{
	struct diskman *m = &d->disk;

	watch_free(m->watch);
	watch_free(m->exit_watch);
	m->watch = m->exit_watch = NULL;
	if (m->fd >= 0)
		close(m->fd); /* it flushes and ends by itself */
	if (m->boundary_fd >= 0)
		close(m->boundary_fd);
	m->fd = m->boundary_fd = -1;
	if (m->child.pid)
		waitpid(m->child.pid, NULL, 0);
	m->child.pid = 0;
	unlink(m->socket);
}

static int request(struct daemon *d, const struct disk_request *r, int fd)
{
	return d->disk.fd < 0 ? -EPIPE : wire_send_fds(d->disk.fd, r, sizeof(*r), &fd, fd >= 0);
}

int diskman_link(struct daemon *d, int fd, enum disk_role role)
{
	struct disk_request r = { .op = DISK_LINK, .role = role };
	int e;

	wire_set_nonblock(fd, 0);
	e = request(d, &r, fd);
	close(fd);
	return e;
}

int diskman_unlink(struct daemon *d)
{
	return request(d, &(struct disk_request){ .op = DISK_UNLINK }, -1);
}

int diskman_commit(struct daemon *d, uint64_t epoch, void (*fn)(struct daemon *d, int status))
{
	d->disk.on_commit = fn;
	return request(d, &(struct disk_request){ .op = DISK_COMMIT, .epoch = epoch }, -1);
}

int diskman_failover(struct daemon *d, uint64_t generation, diskman_fn *fn)
{
	return request(d, &(struct disk_request){ .op = DISK_FAILOVER }, -1);
}

int diskman_poll_status(struct daemon *d)
{
	return request(d, &(struct disk_request){ .op = DISK_STATUS }, -1);
}
