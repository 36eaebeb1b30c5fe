/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * disk.h - the disk manager's state and what its parts offer each other
 *
 * open.c     from start into service, and the clean end
 * plugin.c   nbdkit's callbacks           settle.c     background: write-back, stable storage
 * disk.c     the guest's requests         storage.c, identity.c, bitmap.c, range.c
 * role.c, commit.c  the daemon's requests  pvm_cache.c, svm_cache.c
 * control.c  messages from and to it      link.c (sending), link_recv.c, link_reply.c
 *                                         compare.c, sync.c, verify.c, flusher.c
 */
#ifndef COLO_DISK_DISK_H
#define COLO_DISK_DISK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk/bitmap.h"
#include "disk/dirty.h"
#include "disk/disk_proto.h"
#include "disk/fault.h"
#include "disk/lineage.h"
#include "disk/meta.h"
#include "disk/pvm_cache.h"
#include "disk/range.h"
#include "disk/redo.h"
#include "disk/storage.h"
#include "disk/svm_cache.h"

/* ---- parameters (plugin.c) ---- */
struct disk_config {
	char *file;
	char *format;        /* as for storage_open() */
	char *data;          /* directory on stable storage for what is known of the disk; NULL: read_only */
	char *name;          /* of the files there */
	char *spill_dir;
	bool read_only;
	uint64_t journal;       /* bytes */
	int control_fd;
	int boundary_fd;     /* the agent's, -1: none */
	uint64_t cache_max;     /* of each cache, bytes of memory */
	unsigned link_stall_ms; /* a writer waits so long with no progress, or the guest's in all: the link is given up */
};

/* ---- the link to the peer's disk manager (link.c, link_recv.c, link_reply.c) ---- */
struct disk_link {
	int fd;              /* -1: no link. Set and closed by the control thread only */
	int done_fd;         /* eventfd: the link has failed, the control thread is to take it down */
	enum disk_role role; /* this side's */
	uint64_t seed;       /* of all hashes; the primary's choice */
	bool all;            /* primary: LINK said that the bitmaps say nothing */
	struct link_threads {
		pthread_t sender, receiver;
		pthread_t worker; /* primary: sync and verify. Secondary: makes the first sync stable */
		unsigned running; /* how many of them, in this order */
	} threads;

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t more;  /* for the sender: the ring has data */
	pthread_cond_t room;  /* for writers: the ring has room */
	bool open;            /* the ring takes messages; primary: writes are mirrored */
	_Atomic bool failed;
	char reason[160];
	char *ring;
	size_t ring_size, head, used;
	uint64_t progress;    /* bytes the sender got rid of */
	uint64_t last_epoch;  /* primary: marked */
	bool idle, lazy;      /* the sender waits for anything; for more than there is */
	bool urgent;          /* the ring holds what is not to wait for more */
	unsigned waiting;     /* writers that wait */
	_Atomic uint64_t moved; /* payload bytes sent or received */
	_Atomic uint64_t rate;  /* of sync and verify, bytes a second; 0: no limit */
	bool direct;          /* receiver only: before the first boundary, writes go straight to storage */
};

/* ---- sync and verify (compare.c, sync.c, verify.c, flusher.c) ---- */
struct sync_question {
	uint64_t offset;
	uint32_t length;
	bool hole;       /* all zeroes here, nothing was read */
	uint32_t answer; /* DISK_LINK_SAME, _DIFFERS, _BUSY */
	unsigned parts;
	uint64_t mine[DISK_HASH_PARTS], theirs[DISK_HASH_PARTS];
};

enum sync_phase {
	SYNC_TARGET,   /* primary: the peer is yet to say what it changed */
	SYNC_COMPARING,
	SYNC_FLUSHING, /* both: SYNCED was said, the secondary makes it stable */
	SYNC_DONE,     /* checkpoints and verify are possible */
};

struct disk_sync {
	pthread_mutex_t lock; /* guards the rest, but for the questions: see compare.c */
	pthread_cond_t changed;
	enum sync_phase phase;
	struct bitmap target; /* blocks the peer changed; words NULL without a link as primary */
	uint64_t target_end;  /* of the last run received */
	struct sync_question questions[DISK_LINK_WINDOW];
	uint64_t asked, answered; /* ever, of this link */
	uint64_t committed;   /* primary: the last epoch that is in the peer's storage */
	bool verify;          /* one is asked for or under way */
	uint32_t verify_flags;
	_Atomic uint64_t moved; /* link bytes of this sync or verify, both ways, all included */
};

/* ---- background work (settle.c) ---- */
struct disk_settle {
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t work, done;
	bool stop, kicked, urgent, busy;
	_Atomic bool prepared;     /* FAILOVER was done, SERVE was not: flushes wait */
	_Atomic bool writing_back; /* from SERVE on, until all is on stable storage */
	unsigned attempt;  /* counts failed rounds, so that waiters see their round's error */
	int error;         /* of the last round */
};

/*
 * Lock order: io, then a range of ranges, then one of {svm.lock, pvm.lock, link.lock, sync.lock, settle.lock,
 * storage.flush_lock, fault.lock, control_lock}, which are never held together; control_lock only within
 * control.c.
 *
 * Nothing that holds io or a range may wait for the control thread. The control thread takes io for
 * writing only as a secondary, whose requests never wait for anything but storage.
 */
struct disk {
	struct disk_config config;
	bool ready; /* disk_init() succeeded */
	struct storage storage;
	uint64_t identity; /* of the content at the start; 0: not computed, there were metadata */
	bool known;        /* there were metadata */
	bool closed;       /* storage and meta were closed already */
	uint64_t told_ns;  /* of progress, before HELLO */

	/* Read-held by every NBD request; write-held while a secondary's content changes under the
	 * guest (LINK, COMMIT, FAILOVER). Guards based, torn, opened, serving, closing. */
	pthread_rwlock_t io;
	_Atomic int role; /* enum disk_role; into and out of SECONDARY only with io write-held */
	bool based;       /* secondary: a checkpoint was committed, so storage has a meaning */
	bool torn;        /* secondary: a commit failed half-way */
	bool opened;      /* OPEN was answered: storage has the content that counts */
	bool serving;     /* SERVE was answered: the lineage has moved on, this host's VM may write */
	bool closing;     /* the daemon is gone: no more requests */

	/* held by whoever changes a range and must have it seen in one order on storage, in the SVM
	 * cache and on the link */
	struct range_lock ranges;
	struct bitmap changed; /* noted in the present round, see dirty.h */
	struct dirty dirty;
	struct svm_cache svm;
	struct pvm_cache pvm;
	struct disk_link link;
	struct disk_sync sync;
	struct disk_settle settle;
	struct disk_fault fault;
	struct meta meta;
	struct redo redo;       /* the journal */
	struct lineage source;  /* secondary: that of the copy it receives, as LINK said */
	/* secondary; control thread and receiver, see commit.c */
	bool receiving;         /* the metadata say that this disk is being overwritten */
	struct pvm_applied committed; /* last; epoch 0: none in this link */
	uint64_t generation;    /* of the failover that was prepared */

	_Atomic uint64_t reads, writes, flushes;
	_Atomic uint64_t last_error_ns; /* storage errors are reported once a second */

	pthread_t control_thread;
	bool control_running;
	int control_stop_fd;          /* eventfd */
	pthread_mutex_t control_lock; /* one message at a time */
};

/* ---- disk.c: the guest's requests; 0 or -errno ---- */
int disk_init(struct disk *d, char *why, size_t why_size);
void disk_destroy(struct disk *d);
int disk_read(struct disk *d, void *buf, uint32_t len, uint64_t off);
int disk_write(struct disk *d, const void *buf, uint32_t len, uint64_t off, bool fua);
int disk_zero(struct disk *d, uint32_t len, uint64_t off, bool punch, bool fua);
int disk_flush(struct disk *d);
/* Tell the daemon that storage failed (r is -errno). */
void disk_storage_error(struct disk *d, int r, const char *doing);
/* strerror() takes a lock of the locale's; threads that may be cut off at exit had better not. */
const char *disk_strerror(int errnum);
/* A thread that leaves signals to nbdkit. */
int disk_thread(pthread_t *t, void *(*fn)(void *), void *arg);
uint64_t disk_now_ns(void);
/* For condition variables that wait until a time of CLOCK_MONOTONIC. */
void disk_cond_init(pthread_cond_t *c);

/* ---- open.c ---- */
/* Before HELLO: lineage, from metadata or content; progress is told to the daemon. 0 or -errno. */
int disk_find(struct disk *d);
void disk_hello(struct disk *d, struct disk_message *m);
void role_open(struct disk *d, uint64_t epoch, uint32_t flags, struct disk_message *answer);
/* SERVE: this host goes on without its peer; on stable storage when it returns. Writes are allowed then. */
int disk_go_alone(struct disk *d, uint64_t fresh);
/* The end, with nothing at work any more: all is stable and known to be so. 0 or -errno: the last flush failed. */
int disk_close_clean(struct disk *d);
uint64_t disk_random(void); /* never 0 */

/* ---- role.c, commit.c: the daemon's requests. They fill answer->status and, for a person, ->text ---- */
#define ROLE_UNDEFINED "no checkpoint was committed yet: the content of this disk is undefined"
__attribute__((format(printf, 3, 4)))
void role_refuse(struct disk_message *answer, int status, const char *fmt, ...);
void role_link(struct disk *d, int fd, const struct disk_request *req, struct disk_message *answer);
void role_unlink(struct disk *d, struct disk_message *answer);
void role_boundary(struct disk *d, uint64_t epoch, struct disk_message *answer);
void role_commit(struct disk *d, uint64_t epoch, struct disk_message *answer);
/* generation: what begins if it counts; the same for all disks */
void role_failover(struct disk *d, uint64_t generation, struct disk_message *answer);
void role_serve(struct disk *d, struct disk_message *answer);
void role_status(struct disk *d, struct disk_message *answer);
/* Control thread: the link has failed; take it down and report it. */
void role_link_lost(struct disk *d);

/* ---- control.c ---- */
int control_start(struct disk *d);
void control_stop(struct disk *d);
/* wait: block while the daemon does not read. Otherwise -EAGAIN then. Fills in the rest with zeroes. */
int control_event(struct disk *d, uint32_t op, uint64_t epoch, bool wait, const char *text);
int control_send(struct disk *d, const struct disk_message *m, bool wait);

/* ---- link.c ---- */
int link_init(struct disk *d);
void link_destroy(struct disk *d);
/* 0 if a link can be made of it, or -errno. */
int link_usable(int fd);
/* Control thread only. The descriptor belongs to the link if 0 is returned. Mirroring is on at once;
 * link_start() afterwards starts the threads. */
int link_open(struct disk *d, int fd, enum disk_role role, bool all);
int link_start(struct disk *d);
void link_close(struct disk *d);
/* Any thread; the first reason counts. The control thread will take the link down. */
__attribute__((format(printf, 2, 3))) void link_fail(struct disk *d, const char *fmt, ...);
/* Wait on fd, which may be non-blocking. */
void link_poll(int fd, short events);
/* Put into the stream, waiting for room. Nothing happens without a link. The caller holds the range. */
void link_mirror_write(struct disk *d, const void *buf, uint32_t len, uint64_t off);
void link_mirror_zero(struct disk *d, uint32_t len, uint64_t off);
/* As these, but leaves half of the ring to the guest's writes. False when the link is gone. */
bool link_sync_write(struct disk *d, const void *buf, uint32_t len, uint64_t off);
bool link_sync_zero(struct disk *d, uint32_t len, uint64_t off);
/* A message of sync or verify, either way, with `size` bytes behind its header. False when the link is gone. */
bool link_say(struct disk *d, uint32_t op, uint64_t off, uint32_t length, const void *data, size_t size);
/* Never waits. 0 or -errno; -EBUSY: the peer does not have all yet (before DISK_EV_SYNCED). */
int link_mark(struct disk *d, uint64_t epoch);
/* Secondary: tell the primary that the checkpoint `epoch` is in this side's storage (as far as a process
 * sees it; the journal has it for certain). Never waits. 0 or -errno, without a link -ENOTCONN: the
 * commit counts all the same. */
int link_send_committed(struct disk *d, uint64_t epoch);
/* Sync and verify look at no more than so many bytes a second; 0: as fast as the link and the disks go. */
void link_set_rate(struct disk *d, uint64_t bytes_per_second);

/* ---- threads of the link ---- */
void *link_receiver(void *disk); /* link_recv.c: secondary */
void *link_replies(void *disk);  /* link_reply.c: primary */
void *sync_thread(void *disk);   /* sync.c: primary */
void *flusher_thread(void *disk); /* flusher.c: secondary */

/* ---- compare.c, sync.c, verify.c ---- */
void sync_init(struct disk *d);
void sync_destroy(struct disk *d);
/* Control thread, when a link begins: 0 or -ENOMEM. */
int sync_reset(struct disk *d, enum disk_role role);
/* Whoever waits is to look again. */
void sync_wake(struct disk *d);
enum sync_phase sync_phase(struct disk *d);
void sync_set_phase(struct disk *d, enum sync_phase phase);
/* The peer says that `epoch` is in its storage. False: no such epoch can be. */
bool sync_committed(struct disk *d, uint64_t epoch);
/* DISK_VERIFY */
void verify_begin(struct disk *d, uint32_t flags, struct disk_message *answer);
/* sync.c's thread: do what verify_begin() asked for, and say DISK_EV_VERIFIED */
void verify_run(struct disk *d);

/* ---- recover.c: what OPEN does to storage after an end of whatever kind. Nothing else runs yet ---- */
/* The last checkpoint this disk can come back to, for HELLO; 0: none. */
int recover_epoch(struct disk *d, uint64_t *epoch);
/* OPEN calls exactly one of the two. If meta's `writeback` is META_WRITEBACK, or META_PREPARED and the
 * request has DISK_OPEN_FAILOVER: writeback_recover(), which also does what is needed of the journal.
 * Otherwise redo_recover(): storage becomes checkpoint `epoch` (0: the last one that is here). Both may
 * be cut off at any moment and begin anew next time. -ESTALE: the disk is past `epoch`. -ENODATA: the
 * journal does not reach it. -EBADMSG: the write-back file is missing or damaged. A damaged journal is an
 * error only for writeback_recover(); redo_recover() makes the disk one that must be compared as a whole. */
int redo_recover(struct disk *d, uint64_t epoch);
int writeback_recover(struct disk *d);

/* ---- commit.c, for LINK and the receiver ---- */
/* Secondary, io write-held, the receiver does not run: both caches are dropped, and with them a failover that was
 * prepared. */
void commit_reset(struct disk *d);
/* Receiver, before the first direct write and before the first boundary of a link; free from the second
 * call on: this disk is no copy of anything from now on, and the metadata say so. The journal refuses
 * (-EPERM) if this was forgotten. */
int commit_receive(struct disk *d);

/* ---- settle.c ---- */
int settle_start(struct disk *d);
/* Finishes a write-back that is under way. */
void settle_stop(struct disk *d);
/* Storage was written: make it stable soon. */
void settle_kick(struct disk *d);
/* The same, now; disk is a struct disk. */
void settle_hurry(void *disk);
/* The SVM's flushes wait from now on, until it serves and all is written back. */
void settle_prepare(struct disk *d);
/* Begin to write the SVM cache back. */
void settle_write_back(struct disk *d);
/* The SVM's writes are in storage: make this stable, and storage all that counts. */
int settle_written_back(struct disk *d);
/* Give a write-back up, if there is one: what is left of the SVM's writes does not count any more. When this
 * returns the settling thread is not in the SVM cache. */
void settle_abandon(struct disk *d);
/* There is a failover whose writes are not all on stable storage. */
bool settle_pending(struct disk *d);
/* Wait until that is over or has failed. Without io. */
int settle_wait(struct disk *d);

#endif
