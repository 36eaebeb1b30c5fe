/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic.c - data plane of the NICs: uplink, VM, mirror, comparing module, translator
 *
 * Theory of operation
 * -------------------
 * Each NIC has an uplink, a TAP on the host's bridge, and the VM's side (tap.h). What a node does with frames
 * depends on its mode:
 *
 *  IDLE      nothing is served; frames of the LAN are thrown away.
 *  PRIMARY   LAN -> PVM, and with mirroring on to the secondary; PVM -> comparing module -> LAN. A survivor is
 *            one whose VM is behind a translator, for good: LAN -> translator -> PVM -> translator -> comparing
 *            module.
 *  GIVEN_UP  the PVM is gone: LAN -> secondary, which serves.
 *  SECONDARY mirrored frames -> translator -> SVM; SVM -> translator -> primary.
 *
 * Input and the boundary. Frames given to the PVM are numbered, and mirrored with their numbers. The kernel
 * counts what QEMU has taken of them, the agent reads that count while the VM stands still, and between
 * request and reply none is given: so the last frame that the checkpoint contains is known. The secondary
 * keeps the last frames in a log and gives the new SVM those that came after it. A frame lost or given
 * twice at the edges is healed by the guest's and client's protocols, and if not by the next checkpoint.
 *
 * Output and the boundary. The agent writes a marker frame into each NIC while the VM stands still; what
 * comes before it belongs to the old epoch.
 *
 * Base. The secondary, the comparing module and the LAN know connections by the same names and numbers. A
 * survivor's VM has others of its own, and so has the SVM that a checkpoint makes its copy: the translator's
 * table as of the marker is sent before BOUNDARY, as the base of the secondary's translator (net.h).
 *
 * Offloads. The uplink offers what the guest's driver takes, as the TAP of an unprotected VM would. A frame
 * that it does not take is not cut in pieces on its way to the VM, each of which would count as one taken,
 * but dropped: TCP sends it again when the uplink has learnt better.
 *
 * Bounds: the VM's queue is like a NIC's ring: full means that the frame is dropped, for both VMs alike. The
 * link's queue full means that the uplink is not read until there is room.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/nic_priv.h"

#define UPLINK_BURST 64
/* What the SVM said within this time before the primary was last heard may not have left. */
#define RESEND_BEFORE_US 300000
#define TIMESTAMP_BUMP_MS 1000
/* connections silent for longer have nothing under way */
#define NUDGE_SINCE_US 5000000

/* what precedes a frame on the link: number of the NIC, and of the frame */
static uint64_t frame_id(const struct nic *n, uint64_t number)
{
	return __builtin_bswap64((uint64_t)n->number << 56 | number);
}

static bool send_frame(struct nic *n, enum peer_type type, uint64_t number, const uint8_t *frame, size_t len)
{
	uint64_t id = frame_id(n, number);

	return peer_send(n->d, type, n->epoch, &id, sizeof(id), frame, len);
}

/* --- towards the VM --- */

static bool give(struct nic *n, const uint8_t *frame, size_t len)
{
	if (n->vm.sock >= 0 && vmtap_send(&n->vm, frame, len) == 0) {
		n->given++;
		return true;
	}
	n->dropped_in++;
	return false;
}

/* --- towards the LAN --- */

static void to_lan(struct nic *n, const uint8_t *frame, size_t len)
{
	if (n->uplink < 0)
		return;
	if (write(n->uplink, frame, len) < 0)
		n->dropped_out++;
	else
		n->lan_tx++;
}

static void on_release(void *arg, const uint8_t *frame, size_t len)
{
	to_lan(arg, frame, len);
}

static void on_want_checkpoint(void *arg, enum cm_cause cause)
{
	static const enum core_cause causes[] = {
		[CM_MISMATCH] = CORE_CAUSE_MISMATCH,
		[CM_MISSING] = CORE_CAUSE_MISSING,
		[CM_FULL] = CORE_CAUSE_FULL,
	};
	struct nic *n = arg;
	char text[300];

	cm_explain(n->cm, daemon_now_us(), text, sizeof(text));
	log_debug("nic%u: %s: %s", n->number, cm_cause_name(cause), text);
	daemon_event(n->d, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT, .cause = causes[cause] });
}

static void on_pvm_syn(void *arg, const uint8_t *frame, size_t len)
{
	struct nic *n = arg;

	if (n->d->nics->mirror)
		send_frame(n, PEER_PVM_SYN, 0, frame, len);
}

const struct cm_ops nic_cm_ops = {
	.release = on_release,
	.want_checkpoint = on_want_checkpoint,
	.pvm_syn = on_pvm_syn,
};

/* --- from the LAN --- */

/* in the VM's numbers */
static bool give_translated(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	static uint8_t copy[NET_FRAME_MAX];

	if (len > sizeof(copy))
		return false;
	memcpy(copy, frame, len);
	return tr_to_svm(n->tr, copy, len, now) && give(n, copy, len);
}

static void primary_input(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	if (!(n->translates ? give_translated(n, frame, len, now) : give(n, frame, len)))
		return;
	cm_from_client(n->cm, frame, len, now);
	if (n->d->nics->mirror)
		send_frame(n, PEER_INPUT, n->given, frame, len);
}

static void lan_frame(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	n->lan_rx++;
	switch (n->mode) {
	case NIC_PRIMARY: primary_input(n, frame, len, now); break;
	case NIC_GIVEN_UP: send_frame(n, PEER_INPUT, 0, frame, len); break;
	default: break;
	}
}

void nic_on_uplink(void *arg, int events)
{
	struct nic *n = arg;
	uint64_t now = daemon_now_us();
	static uint8_t frame[NET_FRAME_MAX];
	ssize_t len;
	int i;

	for (i = 0; i < UPLINK_BURST; i++) {
		if (n->d->nics->hold || !peer_has_room(&n->d->peer)) {
			watch_events(n->uplink_watch, 0); /* again in nic_flush() */
			return;
		}
		len = read(n->uplink, frame, sizeof(frame));
		if (len < 0 && errno != EAGAIN && errno != EINTR) {
			log_error("nic%u: uplink: %s", n->number, strerror(errno));
			watch_events(n->uplink_watch, 0);
		}
		if (len <= 0)
			return;
		lan_frame(n, frame, len, now);
	}
}

/* --- from the VM --- */

static bool is_marker(struct nic *n, const uint8_t *frame, size_t len)
{
	const struct agent_marker *m = (const void *)(frame + VNET_HLEN);

	return n->marker_due && len >= VNET_HLEN + sizeof(*m) && !memcmp(m->magic, AGENT_MARKER_MAGIC, 8) &&
	       !memcmp(m->nonce, n->nonce, AGENT_NONCE);
}

static bool send_piece(void *arg, const uint8_t *piece, size_t len)
{
	struct nic *n = arg;
	uint64_t id = frame_id(n, 0);

	return peer_send(n->d, PEER_TRANSLATIONS, n->epoch, &id, sizeof(id), piece, len);
}

static void on_marker(struct nic *n, uint64_t now)
{
	n->marker_due = false;
	n->epoch = n->marker_epoch;
	if (n->mode == NIC_PRIMARY) {
		n->base_sent = tr_save(n->tr, n->base_anew, now, send_piece, n);
		n->base_anew = !n->base_sent;
		cm_set_mode(n->cm, n->d->cfg->mode == MODE_CHECKPOINT ? CM_HOLD : CM_COMPARE, now);
		cm_boundary(n->cm, n->epoch, now);
	} else {
		tr_reset(n->tr, now);
		framelog_clear(&n->output);
		n->deaf = false;
	}
}

/* in the PVM's numbers */
static void translated_output(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	announce_learn(&n->who, frame, len, now);
	framelog_add(&n->output, 0, now, frame, len);
	nudge_saw(n->nudge, frame, len, now);
	send_frame(n, PEER_OUTPUT, 0, frame, len);
}

static void secondary_output(struct nic *n, uint8_t *frame, size_t len, uint64_t now)
{
	if (!n->deaf && tr_from_svm(n->tr, frame, len, now))
		translated_output(n, frame, len, now);
}

/* a SYN that had to wait in the translator */
static void on_waited(void *arg, const uint8_t *frame, size_t len)
{
	struct nic *n = arg;

	if (n->mode == NIC_PRIMARY)
		to_lan(n, frame, len);
	else
		translated_output(n, frame, len, daemon_now_us());
}

const struct tr_ops nic_tr_ops = { .from_svm = on_waited };

static void primary_output(struct nic *n, uint8_t *frame, size_t len, uint64_t now)
{
	if (!n->translates || tr_from_svm(n->tr, frame, len, now))
		cm_from_pvm(n->cm, frame, len, now);
}

static void vm_frame(void *arg, uint8_t *frame, size_t len)
{
	struct nic *n = arg;
	uint64_t now = daemon_now_us();

	if (n->vm.sock < 0) /* it died of the frame before */
		return;
	if (is_marker(n, frame, len)) {
		on_marker(n, now);
		return;
	}
	switch (n->mode) {
	case NIC_PRIMARY: primary_output(n, frame, len, now); break;
	case NIC_SECONDARY: secondary_output(n, frame, len, now); break;
	default: break;
	}
}

/* what the VM says waits in its socket, as in a NIC's ring */
static bool must_wait(const struct nic *n)
{
	if (n->mode == NIC_PRIMARY)
		return cm_is_full(n->cm) && !n->marker_due;
	return n->mode == NIC_SECONDARY && !n->deaf && !peer_has_room(&n->d->peer);
}

void nic_on_vm(void *arg, int events)
{
	struct nic *n = arg;

	if (must_wait(n))
		watch_events(n->vm_watch, 0); /* again in nic_flush() */
	else
		vmtap_receive(&n->vm, vm_frame, n);
}

/* --- events --- */

void nic_flush(struct daemon *d)
{
	if (!d->nics)
		return;
	for_each_nic(d->nics, n) {
		if (n->vm_watch && !must_wait(n))
			watch_events(n->vm_watch, UV_READABLE);
		if (!d->nics->hold && peer_has_room(&d->peer))
			watch_events(n->uplink_watch, UV_READABLE);
	}
}

static uint64_t tick_one(struct nic *n, uint64_t now_us)
{
	if (n->mode != NIC_PRIMARY)
		return UINT64_MAX;
	if (cm_next_tick(n->cm) <= now_us)
		return cm_tick(n->cm, now_us);
	return cm_next_tick(n->cm);
}

uint64_t nic_tick(struct daemon *d, uint64_t now_us)
{
	uint64_t next = UINT64_MAX, t;

	if (d->nics)
		for_each_nic(d->nics, n) {
			t = tick_one(n, now_us);
			next = t < next ? t : next;
		}
	return next;
}

/* --- primary --- */

void nic_serve(struct daemon *d)
{
	d->nics->mirror = d->nics->hold = false;
	for_each_nic(d->nics, n) {
		n->marker_due = false;
		if (n->mode == NIC_PRIMARY)
			cm_set_mode(n->cm, CM_PASS, daemon_now_us());
	}
}

static void expect_marker(struct nic *n, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	memcpy(n->nonce, nonce, AGENT_NONCE);
	n->marker_epoch = epoch;
	n->marker_due = true;
}

void nic_harvest(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	d->nics->hold = d->nics->mirror = true;
	for_each_nic(d->nics, n) {
		n->base_sent = false;
		expect_marker(n, nonce, epoch);
	}
}

/* the marker is there by now, if it has not been read yet */
static void read_to_marker(struct nic *n)
{
	while (n->marker_due && vmtap_receive(&n->vm, vm_frame, n))
		;
}

int nic_harvested(struct daemon *d, const struct agent_reply *r, uint64_t last_read[AGENT_MAX_NICS])
{
	bool sent = true;

	d->nics->hold = false;
	for_each_nic(d->nics, n) {
		if (!r || r->status) {
			n->marker_due = false;
			continue;
		}
		read_to_marker(n);
		sent = sent && n->base_sent;
		last_read[n->number] = r->checkpoint.net_taken[n->number];
	}
	return sent ? 0 : -ENOBUFS;
}

void nic_link_reset(struct daemon *d)
{
	if (!d->nics)
		return;
	for_each_nic(d->nics, n) {
		n->base_anew = true;
		n->base_epoch = 0;
		tr_base_forget(n->tr);
	}
}

void nic_held(struct daemon *d, uint64_t epoch)
{
	for_each_nic(d->nics, n)
		cm_held(n->cm, epoch, daemon_now_us());
}

void nic_compare(struct daemon *d, uint64_t epoch)
{
	for_each_nic(d->nics, n)
		cm_svm_runs(n->cm, daemon_now_us());
}

void nic_give_up(struct daemon *d)
{
	nic_detach(d);
	for_each_nic(d->nics, n)
		n->mode = NIC_GIVEN_UP;
}

/* --- from the link --- */

static void from_svm(struct nic *n, uint64_t epoch, const uint8_t *frame, size_t len)
{
	if (n->mode == NIC_PRIMARY)
		cm_from_svm(n->cm, epoch, frame, len, daemon_now_us());
}

static void input(struct nic *n, uint64_t number, const uint8_t *frame, size_t len)
{
	uint64_t now = daemon_now_us();

	if (n->mode == NIC_PRIMARY) { /* a former primary forwards it */
		primary_input(n, frame, len, now);
		return;
	}
	if (n->mode != NIC_SECONDARY)
		return;
	framelog_add(&n->input, number, now, frame, len);
	if (!n->log_only)
		give_translated(n, frame, len, now);
}

#define SYN_FLAG (1ull << 63) /* in a log entry's number: a PVM's SYN, the rest is its epoch */

static void pvm_syn(struct nic *n, uint64_t epoch, const uint8_t *frame, size_t len)
{
	if (n->mode != NIC_SECONDARY)
		return;
	framelog_add(&n->input, epoch | SYN_FLAG, daemon_now_us(), frame, len);
	if (!n->log_only && epoch == n->epoch)
		tr_pvm_syn(n->tr, frame, len, daemon_now_us());
}

static bool base_piece(struct nic *n, uint64_t epoch, const uint8_t *piece, size_t len)
{
	int r;

	if (n->mode != NIC_SECONDARY)
		return true;
	r = tr_base_add(n->tr, piece, len);
	if (r < 0)
		log_error("nic%u: translations: %s", n->number, strerror(-r));
	n->base_epoch = r == 0 && tr_base_known(n->tr) ? epoch : 0;
	return r == 0;
}

bool nic_has_base(const struct daemon *d, uint64_t epoch)
{
	for_each_nic(d->nics, n)
		if (n->base_epoch != epoch)
			return false;
	return true;
}

bool nic_message(struct daemon *d, enum peer_type type, uint64_t epoch, const uint8_t *p, size_t len)
{
	uint64_t id;
	struct nic *n;

	if (len < sizeof(id) || len - sizeof(id) > NET_FRAME_MAX)
		return false;
	memcpy(&id, p, sizeof(id));
	id = __builtin_bswap64(id);
	if (id >> 56 >= d->nics->n)
		return false;
	n = &d->nics->nic[id >> 56];
	p += sizeof(id);
	len -= sizeof(id);
	if (type == PEER_OUTPUT)
		from_svm(n, epoch, p, len);
	else if (type == PEER_INPUT)
		input(n, id & ((1ull << 56) - 1), p, len);
	else if (type == PEER_TRANSLATIONS)
		return base_piece(n, epoch, p, len);
	else
		pvm_syn(n, epoch, p, len);
	return true;
}

/* --- secondary --- */

void nic_apply(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	for_each_nic(d->nics, n) {
		n->deaf = n->log_only = true;
		if (n->base_epoch == epoch)
			tr_base_adopt(n->tr);
		expect_marker(n, nonce, epoch);
	}
}

struct replay {
	struct nic *n;
	uint64_t epoch, last_read;
};

static void replay_one(void *arg, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len)
{
	struct replay *r = arg;

	if (number & SYN_FLAG) {
		if ((number & ~SYN_FLAG) >= r->epoch)
			tr_pvm_syn(r->n->tr, frame, len, when_us);
	} else if (number > r->last_read) {
		give_translated(r->n, frame, len, when_us);
	}
}

void nic_applied(struct daemon *d, uint64_t epoch, const uint64_t last_read[AGENT_MAX_NICS])
{
	for_each_nic(d->nics, n) {
		struct replay r = { n, epoch, last_read[n->number] };

		read_to_marker(n);
		/* in order: what has come since the marker is in the log as well, and only there */
		framelog_each(&n->input, replay_one, &r);
		n->log_only = false;
		/* all of it has been used; a later checkpoint needs only what comes from now on, and
		 * what its PVM may not have read: the log keeps its newest part by itself */
	}
}

struct resend {
	struct nic *n;
	uint64_t since_us;
};

static void resend_one(void *arg, uint64_t number, uint64_t when_us, const uint8_t *frame, size_t len)
{
	struct resend *r = arg;

	if (when_us >= r->since_us)
		to_lan(r->n, frame, len);
}

static void take_over(struct nic *n, uint64_t lost_at_us)
{
	struct resend r = { .n = n };

	n->mode = NIC_PRIMARY;
	n->translates = true;
	n->marker_due = n->deaf = n->log_only = false;
	tr_failover(n->tr, TIMESTAMP_BUMP_MS);
	r.since_us = lost_at_us > RESEND_BEFORE_US ? lost_at_us - RESEND_BEFORE_US : 0;
	announce_send(&n->who, on_release, n);
	framelog_each(&n->output, resend_one, &r);
	nudge_send(n->nudge, lost_at_us > NUDGE_SINCE_US ? lost_at_us - NUDGE_SINCE_US : 0, on_release, n);
	framelog_clear(&n->output);
	framelog_clear(&n->input);
	nic_follow(n);
}

void nic_take_over(struct daemon *d, uint64_t lost_at_us)
{
	d->nics->mirror = false;
	for_each_nic(d->nics, n)
		take_over(n, lost_at_us);
}

void nic_announce(struct daemon *d)
{
	for_each_nic(d->nics, n)
		announce_send(&n->who, on_release, n);
}
