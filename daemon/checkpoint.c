/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * checkpoint.c - the order of events of one checkpoint
 *
 * Primary: request to the agent (the VM stops, is saved and harvested, runs on) -> TRANSLATIONS (sent by
 * the NICs), BOUNDARY message with the last input it contains -> pages over the BULK channel. The marks in the disk's and the NIC's
 * streams are set by the agent while the VM stands still.
 *
 * Secondary: an epoch is complete when its pages and device state, its BOUNDARY message and the disk
 * manager's boundary are here. To apply it: stop the SVM, let the disk manager commit, let the agent
 * load and run. The SVM cannot run between its old and new state because nothing but the last step
 * starts it.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

static void new_nonce(struct daemon *d)
{
	if (getrandom(d->ckpt.nonce, AGENT_NONCE, 0) != AGENT_NONCE)
		log_error("no random numbers");
}

void checkpoint_reset(struct daemon *d)
{
	struct checkpoint *k = &d->ckpt;

	k->got_pages = k->got_boundary = k->got_disk = 0;
	k->doubt = 0;
	transfer_reset(d);
	nic_link_reset(d);
}

/* What was measured as secondary is not what a primary measures. Which checkpoint is held stays known:
 * checkpoint_load() needs it. */
void checkpoint_new_role(struct daemon *d)
{
	struct checkpoint *k = &d->ckpt;

	checkpoint_reset(d);
	memset(&k->apply_us, 0, sizeof(k->apply_us));
	k->sent_hash_epoch = 0;
}

/* --- primary --- */

static void harvest_failed(struct daemon *d, int status, const char *why)
{
	log_error("checkpoint of epoch %llu failed: %s", (unsigned long long)d->ckpt.epoch, why);
	daemon_event(d, (struct core_event){ .type = CORE_EV_HARVESTED, .epoch = d->ckpt.epoch,
					     .status = status < 0 ? status : -EIO });
}

/* The agent had no answer of a disk manager. One that is slow has one for the daemon: then the checkpoint has failed.
 * One that has ended, or hangs, takes the VM with it; vm.c, diskman.c or watchdog.c will say so. */
static void doubt_disks(struct daemon *d, int status, const char *why)
{
	struct checkpoint *k = &d->ckpt;
	unsigned int i;

	k->doubt = status;
	snprintf(k->doubt_text, sizeof(k->doubt_text), "%s", why);
	diskman_poll_status(d);
	for (i = 0; i < d->disk.n; i++)
		d->disk.disk[i].doubted = d->disk.disk[i].writable;
	watchdog_soon(d);
}

void checkpoint_disk_answers(struct daemon *d)
{
	struct checkpoint *k = &d->ckpt;
	int status = k->doubt;
	unsigned int i;

	for (i = 0; i < d->disk.n; i++)
		if (d->disk.disk[i].doubted)
			return;
	k->doubt = 0;
	if (status && d->core.phase == CORE_HARVESTING)
		harvest_failed(d, status, k->doubt_text);
}

static void on_harvested(struct daemon *d, const struct agent_reply *r)
{
	struct checkpoint *k = &d->ckpt;
	uint64_t last_read[AGENT_MAX_NICS];
	unsigned int i;
	int e;

	e = nic_harvested(d, r, last_read);
	if (r->status == -ETIMEDOUT || r->status == -EPIPE) {
		doubt_disks(d, r->status, r->error);
		return;
	}
	if (r->status) {
		harvest_failed(d, r->status, r->error);
		return;
	}
	percentile_add(&k->pause_us, r->checkpoint.pause_ns / 1000);
	percentile_add(&k->pages, r->checkpoint.pages);
	k->last_pages = r->checkpoint.pages;
	k->sent_hash = r->checkpoint.hash;
	k->sent_hash_epoch = k->hashing ? k->epoch : 0;
	log_debug("epoch %llu: %llu pages, pause %lld us (stop %lld save %lld scan %lld copy %lld cont %lld)",
		  (unsigned long long)k->epoch, (unsigned long long)r->checkpoint.pages,
		  (long long)r->checkpoint.pause_ns / 1000, (long long)r->checkpoint.stop_ns / 1000,
		  (long long)r->checkpoint.save_ns / 1000, (long long)r->checkpoint.scan_ns / 1000,
		  (long long)r->checkpoint.copy_ns / 1000, (long long)r->checkpoint.cont_ns / 1000);
	/* the link it was for may be gone, and another one there */
	if (!d->peer.up || d->core.phase != CORE_HARVESTING) {
		harvest_failed(d, -EPIPE, "the peer is gone");
		return;
	}
	if (e < 0) {
		harvest_failed(d, e, "the link has no room for the translations");
		return;
	}
	for (i = 0; i < d->cfg->nics; i++)
		last_read[i] = htobe64(last_read[i]);
	FAILPOINT("harvested");
	peer_send(d, PEER_BOUNDARY, k->epoch, last_read, i * sizeof(*last_read), NULL, 0);
	FAILPOINT_AFTER(peer_flush(d), "boundary-sent");
	FAILPOINT_IF(d->core.state == CORE_SEEDING, "first-boundary");
	daemon_event(d, (struct core_event){ .type = CORE_EV_HARVESTED, .epoch = k->epoch });
	e = transfer_send(d, k->epoch, k->hashing ? BULK_VERIFY : 0, r->checkpoint.device_bytes,
			  r->checkpoint.ran_at_ns);
	if (e < 0) {
		log_error("checkpoint cannot be sent: %s", strerror(-e));
		peer_drop(d);
		daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_LOST,
						     .loss = CORE_LOSS_PROTOCOL });
	}
}

void checkpoint_harvest(struct daemon *d, uint64_t epoch, enum core_cause cause)
{
	struct agent_request r = { .op = AGENT_CHECKPOINT, .flags = AGENT_F_RUN, .epoch = epoch };
	struct checkpoint *k = &d->ckpt;
	int e;

	log_debug("checkpoint %llu: %s", (unsigned long long)epoch, core_cause_name(cause));
	new_nonce(d);
	k->epoch = epoch;
	k->started_ns = clock_now_ns();
	k->hashing = k->verify;
	k->verify = false;
	if (k->hashing)
		r.flags |= AGENT_F_HASH;
	memcpy(r.nonce, k->nonce, AGENT_NONCE);
	nic_harvest(d, k->nonce, epoch);
	FAILPOINT("harvest");
	e = vm_request(d, &r, on_harvested);
	if (e == 0)
		return;
	nic_harvested(d, NULL, NULL);
	/* An agent that is gone is a QEMU that ends, or as good as that: that is about to be noticed, and is a case for
	 * the secondary. To go on alone would lose the VM. */
	if (e == -EPIPE && d->core.state == CORE_PROTECTED)
		watchdog_soon(d);
	else
		harvest_failed(d, e, strerror(-e));
}

void checkpoint_peer_applied(struct daemon *d, uint64_t epoch, const uint8_t *p, size_t n)
{
	struct checkpoint *k = &d->ckpt;
	struct peer_applied a;

	if (n != sizeof(a))
		return;
	memcpy(&a, p, sizeof(a));
	FAILPOINT("applied-received");
	percentile_add(&k->apply_us, __builtin_bswap64(a.total_us));
	if (k->sent_hash_epoch && k->sent_hash_epoch == epoch) {
		k->verified++;
		if (__builtin_bswap64(a.hash) != k->sent_hash) {
			k->verify_failed++;
			log_error("RAM differs after the checkpoint of epoch %llu: %016llx there, %016llx here",
				  (unsigned long long)epoch, (unsigned long long)__builtin_bswap64(a.hash),
				  (unsigned long long)k->sent_hash);
		}
		k->sent_hash_epoch = 0;
	}
	daemon_event(d, (struct core_event){ .type = CORE_EV_APPLIED, .epoch = epoch });
}

/* --- secondary --- */

static void check_complete(struct daemon *d)
{
	struct checkpoint *k = &d->ckpt;

	if (!k->got_pages || k->got_pages != k->got_boundary || k->got_pages != k->got_disk)
		return;
	daemon_event(d, (struct core_event){ .type = CORE_EV_COMPLETE, .epoch = k->got_pages });
}

void checkpoint_received(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t ran_at_ns)
{
	d->ckpt.got_pages = epoch;
	d->ckpt.flags = flags;
	d->ckpt.ran_at_ns = ran_at_ns;
	check_complete(d);
}

bool checkpoint_boundary(struct daemon *d, uint64_t epoch, const uint8_t *last_read, size_t len)
{
	unsigned int i;

	if (len != d->cfg->nics * sizeof(uint64_t) || !nic_has_base(d, epoch))
		return false;
	FAILPOINT("boundary-received");
	memcpy(d->ckpt.last_read, last_read, len);
	for (i = 0; i < d->cfg->nics; i++)
		d->ckpt.last_read[i] = be64toh(d->ckpt.last_read[i]);
	d->ckpt.got_boundary = epoch;
	check_complete(d);
	return true;
}

void checkpoint_disk_boundary(struct daemon *d, uint64_t epoch)
{
	d->ckpt.got_disk = epoch;
	check_complete(d);
}

static void apply_done(struct daemon *d, int status, const char *why)
{
	struct checkpoint *k = &d->ckpt;

	if (status < 0)
		log_error("checkpoint of epoch %llu cannot be applied: %s",
			  (unsigned long long)k->epoch, why);
	else if (!k->staged_only)
		nic_applied(d, k->epoch, k->last_read);
	if (k->loading) {
		k->loading = false;
		daemon_loaded(d, status);
		return;
	}
	daemon_event(d, (struct core_event){ .type = CORE_EV_APPLY_DONE, .epoch = k->epoch,
					     .status = status });
}

static void on_first_cont(void *arg, json_t *result, const char *error)
{
	struct daemon *d = arg;

	d->ckpt.svm_started = !error;
	apply_done(d, error ? -EIO : 0, error);
}

static void on_applied(struct daemon *d, const struct agent_reply *r)
{
	struct checkpoint *k = &d->ckpt;

	if (r->status) {
		apply_done(d, r->status, r->error);
		return;
	}
	k->reply = *r;
	transfer_shrink(d);
	percentile_add(&k->apply_us, (clock_now_ns() - k->started_ns) / 1000);
	log_debug("epoch %llu applied: %llu pages, %llu dropped (stop %lld drop %lld apply %lld reset %lld "
		  "load %lld total %lld us)", (unsigned long long)k->epoch,
		  (unsigned long long)r->apply.applied, (unsigned long long)r->apply.dropped,
		  (long long)r->apply.stop_ns / 1000, (long long)r->apply.drop_ns / 1000,
		  (long long)r->apply.apply_ns / 1000, (long long)r->apply.reset_ns / 1000,
		  (long long)r->apply.load_ns / 1000, (long long)r->apply.total_ns / 1000);
	/* QMP's cont, unlike the agent's, also takes the block devices into use */
	if (!k->svm_started && !k->staged_only)
		qmp_command(d->vm.qmp, "cont", NULL, -1, on_first_cont, d);
	else
		apply_done(d, 0, NULL);
}

static void on_committed(struct daemon *d, int status)
{
	struct checkpoint *k = &d->ckpt;
	struct agent_request r = { .op = AGENT_APPLY, .flags = AGENT_F_STAGED, .epoch = k->epoch };
	int e;

	if (status < 0) {
		apply_done(d, status, "the disk manager could not commit");
		return;
	}
	FAILPOINT("committed");
	e = transfer_store_device(d);
	if (e < 0) {
		apply_done(d, e, "device state cannot be stored");
		return;
	}
	memcpy(r.nonce, k->nonce, AGENT_NONCE);
	/* mode checkpoint: the VM runs only after checkpoint_load(); to hash its RAM is no reason to */
	k->staged_only = d->cfg->mode == MODE_CHECKPOINT;
	if (!k->staged_only || k->flags & BULK_VERIFY) {
		r.flags |= AGENT_F_LOAD;
		r.ran_at_ns = k->ran_at_ns;
	}
	if (!k->staged_only && k->svm_started)
		r.flags |= AGENT_F_RUN;
	if (k->flags & BULK_VERIFY)
		r.flags |= AGENT_F_HASH;
	e = vm_request(d, &r, on_applied);
	if (e < 0)
		apply_done(d, e, strerror(-e));
}

void checkpoint_send_applied(struct daemon *d, uint64_t epoch)
{
	const struct agent_reply *r = &d->ckpt.reply;
	struct peer_applied a = {
		.hash = __builtin_bswap64(r->apply.hash),
		.total_us = __builtin_bswap64(r->apply.total_ns / 1000),
		.dropped = __builtin_bswap64(r->apply.dropped),
	};

	FAILPOINT("applied");
	peer_send(d, PEER_APPLIED, epoch, &a, sizeof(a), NULL, 0);
}

static void on_stopped(struct daemon *d, const struct agent_reply *r)
{
	int e = r->status;

	FAILPOINT("stopped");
	if (!e)
		e = diskman_commit(d, d->ckpt.epoch, on_committed);
	if (e)
		apply_done(d, e < 0 ? e : -EIO, r->status ? r->error : strerror(-e));
}

void checkpoint_apply(struct daemon *d, uint64_t epoch)
{
	struct agent_request r = { .op = AGENT_STOP, .epoch = epoch };
	struct checkpoint *k = &d->ckpt;
	int e;

	k->epoch = epoch;
	k->started_ns = clock_now_ns();
	FAILPOINT_AFTER(peer_flush(d), "held-sent");
	new_nonce(d);
	nic_apply(d, k->nonce, epoch);
	e = vm_request(d, &r, on_stopped);
	if (e < 0)
		apply_done(d, e, strerror(-e));
}

void checkpoint_load(struct daemon *d)
{
	struct checkpoint *k = &d->ckpt;
	struct agent_request r = { .op = AGENT_APPLY, .flags = AGENT_F_LOAD, .epoch = k->epoch };
	int e;

	k->loading = true;
	k->staged_only = false;
	r.ran_at_ns = k->ran_at_ns;
	new_nonce(d);
	memcpy(r.nonce, k->nonce, AGENT_NONCE);
	nic_apply(d, k->nonce, k->epoch);
	e = vm_request(d, &r, on_applied);
	if (e < 0)
		apply_done(d, e, strerror(-e));
}
