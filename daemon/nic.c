/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * nic.c - data plane of the NIC: TAP, vNIC, mirror, comparing module, translator
 *
 * Theory of operation
 * -------------------
 * The uplink is a TAP on the host's bridge, the vNIC a stream socket to QEMU (each frame preceded by
 * its length). What a node does with frames depends on its mode:
 *
 *  IDLE      nothing is served; frames of the LAN are thrown away.
 *  PRIMARY   LAN -> PVM, and with mirroring on to the secondary; PVM -> comparing module -> LAN.
 *  GIVEN_UP  the PVM is gone: LAN -> secondary, which serves.
 *  SECONDARY mirrored frames -> translator -> SVM; SVM -> translator -> primary.
 *  SURVIVOR  LAN -> translator -> VM -> translator -> LAN: the SVM serves.
 *
 * Input and the boundary. Mirrored frames are numbered. What the PVM had not read from its socket when
 * it was stopped is not in the checkpoint: the agent says how many bytes that was, and as nothing is
 * written to the socket between the request and its reply, the last frame the checkpoint contains is
 * known. The secondary keeps the last frames in a log and gives the new SVM those that came after it.
 * A frame lost or given twice at the edges is healed by the guest's and client's protocols, and if not
 * by the next checkpoint.
 *
 * Output and the boundary. The agent writes a marker frame into the stream while the VM stands still;
 * what is read before it belongs to the old epoch.
 *
 * Bounds: the socket's queue towards the VM is like a NIC's ring: full means the frame is dropped, for
 * both VMs alike. The link's queue full means that the TAP is not read until there is room.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/wire.h"
#include "daemon/announce.h"
#include "daemon/daemon.h"
#include "daemon/framelog.h"
#include "net/nudge.h"

#define VNIC_OUT_SIZE (8u << 20)
#define VNIC_IN_SIZE (2u << 20)
#define TAP_BURST 64
#define TRACKED_FRAMES 16384 /* ends of the last frames written to the VM, power of two */
#define INPUT_LOG_SIZE (8u << 20)
#define OUTPUT_LOG_SIZE (16u << 20)
/* What the SVM said within this time before the primary was last heard may not have left. */
#define RESEND_BEFORE_US 300000
#define TIMESTAMP_BUMP_MS 1000
#define NUDGE_FLOWS 65536
/* connections silent for longer have nothing under way */
#define NUDGE_SINCE_US 5000000

enum nic_mode { NIC_IDLE, NIC_PRIMARY, NIC_GIVEN_UP, NIC_SECONDARY, NIC_SURVIVOR };

struct nic {
	struct daemon *d;
	enum nic_mode mode;
	int tap, vnic;
	struct watch *tap_watch, *vnic_watch;
	struct buffer in, out;      /* from and to QEMU */
	bool hold;                  /* nothing is written to the VM now */
	uint64_t out_queued, out_written; /* bytes, ever */
	uint64_t frames;            /* queued, ever: the sequence number of the last one */
	uint64_t end[TRACKED_FRAMES]; /* out_queued after frame i */
	struct cm *cm;
	struct tr *tr;
	bool mirror;
	uint8_t nonce[AGENT_NONCE];
	bool marker_due;
	uint64_t marker_epoch;
	uint64_t epoch;             /* of what comes from the VM now */
	bool deaf;                  /* secondary, SVM being replaced: what it says does not count */
	struct framelog input, output; /* secondary */
	struct announce who;        /* guest's addresses */
	struct nudge *nudge;        /* secondary: the clients' connections */
	uint64_t lan_rx, lan_tx, dropped_in, dropped_tap;
};

/* --- towards the VM --- */

static void flush_vm(struct nic *n)
{
	ssize_t r;

	if (n->vnic < 0 || n->hold)
		return;
	while ((r = buffer_write_to(&n->out, n->vnic)) > 0)
		n->out_written += r;
	watch_events(n->vnic_watch, UV_READABLE | (buffer_len(&n->out) ? UV_WRITABLE : 0));
}

static bool queue_frame(struct nic *n, const uint8_t *frame, size_t len)
{
	size_t wire = len - VNET_HLEN; /* QEMU's stream has frames as on the wire */
	uint8_t *to = n->vnic < 0 ? NULL : buffer_reserve(&n->out, wire + 4);
	uint32_t be = __builtin_bswap32(wire);

	if (!to) {
		n->dropped_in++;
		return false;
	}
	memcpy(to, &be, 4);
	memcpy(to + 4, frame + VNET_HLEN, wire);
	buffer_commit(&n->out, wire + 4);
	n->out_queued += wire + 4;
	n->end[++n->frames % TRACKED_FRAMES] = n->out_queued;
	return true;
}

/* what waits for a VM that is being replaced, except the rest of a frame that is partly written */
static void trim_queue(struct nic *n)
{
	uint64_t i = n->frames, keep = 0;
	uint64_t oldest = n->frames > TRACKED_FRAMES ? n->frames - TRACKED_FRAMES : 0;

	/* the end of the frame that lies across out_written, if any */
	while (i > oldest && n->end[i % TRACKED_FRAMES] > n->out_written) {
		keep = n->end[i % TRACKED_FRAMES] - n->out_written;
		i--;
	}
	if (!keep)
		return;
	if (i > oldest && n->end[i % TRACKED_FRAMES] == n->out_written)
		keep = 0; /* the last written byte ended a frame */
	n->frames = keep ? i + 1 : i;
	n->out.tail = n->out.head + keep;
	n->out_queued = n->out_written + keep;
}

/* --- towards the LAN --- */

static void to_lan(struct nic *n, const uint8_t *frame, size_t len)
{
	if (n->tap < 0)
		return;
	if (write(n->tap, frame + VNET_HLEN, len - VNET_HLEN) < 0)
		n->dropped_tap++;
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
	log_debug("%s: %s", cm_cause_name(cause), text);
	daemon_event(n->d, (struct core_event){ .type = CORE_EV_WANT_CHECKPOINT, .cause = causes[cause] });
}

static void on_pvm_syn(void *arg, const uint8_t *frame, size_t len)
{
	struct nic *n = arg;

	if (n->mirror)
		peer_send(n->d, PEER_PVM_SYN, n->epoch, frame, len, NULL, 0);
}

/* --- from the LAN --- */

static void primary_input(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	uint64_t seq;

	if (!queue_frame(n, frame, len))
		return;
	cm_from_client(n->cm, frame, len, now);
	if (!n->mirror)
		return;
	seq = __builtin_bswap64(n->frames);
	peer_send(n->d, PEER_INPUT, n->epoch, &seq, sizeof(seq), frame, len);
}

static void survivor_input(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	static uint8_t copy[NET_FRAME_MAX];

	if (len < VNET_HLEN || len > sizeof(copy))
		return;
	memcpy(copy, frame, len);
	if (tr_to_svm(n->tr, copy, len, now))
		queue_frame(n, copy, len);
}

static void lan_frame(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	uint64_t seq = 0;

	n->lan_rx++;
	switch (n->mode) {
	case NIC_PRIMARY: primary_input(n, frame, len, now); break;
	case NIC_SURVIVOR: survivor_input(n, frame, len, now); break;
	case NIC_GIVEN_UP: peer_send(n->d, PEER_INPUT, 0, &seq, sizeof(seq), frame, len); break;
	default: break;
	}
}

static void on_tap(void *arg, int events)
{
	struct nic *n = arg;
	uint64_t now = daemon_now_us();
	static uint8_t frame[NET_FRAME_MAX];
	ssize_t len;
	int i;

	for (i = 0; i < TAP_BURST; i++) {
		if (!peer_has_room(&n->d->peer)) {
			watch_events(n->tap_watch, 0); /* again in nic_flush() */
			return;
		}
		len = read(n->tap, frame + VNET_HLEN, sizeof(frame) - VNET_HLEN);
		if (len < 0 && errno != EAGAIN && errno != EINTR) {
			log_error("TAP: %s", strerror(errno));
			watch_events(n->tap_watch, 0);
		}
		if (len <= 0)
			return;
		lan_frame(n, frame, len + VNET_HLEN, now);
	}
}

/* --- from the VM --- */

static bool is_marker(struct nic *n, const uint8_t *frame, size_t len)
{
	const struct agent_marker *m = (const void *)(frame + VNET_HLEN);

	return n->marker_due && len == VNET_HLEN + sizeof(*m) && !memcmp(m->magic, AGENT_MARKER_MAGIC, 8) &&
	       !memcmp(m->nonce, n->nonce, AGENT_NONCE);
}

static void on_marker(struct nic *n, uint64_t now)
{
	n->marker_due = false;
	n->epoch = n->marker_epoch;
	if (n->mode == NIC_PRIMARY) {
		cm_set_mode(n->cm, n->d->cfg->mode == MODE_CHECKPOINT ? CM_HOLD : CM_COMPARE, now);
		cm_boundary(n->cm, n->epoch, now);
	} else {
		tr_reset(n->tr);
		framelog_clear(&n->output);
		n->deaf = false;
	}
}

/* in the PVM's numbers */
static void translated_output(struct nic *n, const uint8_t *frame, size_t len, uint64_t now)
{
	announce_learn(&n->who, frame, len);
	framelog_add(&n->output, 0, now, frame, len);
	nudge_saw(n->nudge, frame, len, now);
	peer_send(n->d, PEER_OUTPUT, n->epoch, frame, len, NULL, 0);
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

	if (n->mode == NIC_SURVIVOR)
		to_lan(n, frame, len);
	else
		translated_output(n, frame, len, daemon_now_us());
}

static void vm_frame(struct nic *n, uint8_t *frame, size_t len, uint64_t now)
{
	if (is_marker(n, frame, len)) {
		on_marker(n, now);
		return;
	}
	switch (n->mode) {
	case NIC_PRIMARY: cm_from_pvm(n->cm, frame, len, now); break;
	case NIC_SECONDARY: secondary_output(n, frame, len, now); break;
	case NIC_SURVIVOR:
		if (tr_from_svm(n->tr, frame, len, now))
			to_lan(n, frame, len);
		break;
	default: break;
	}
}

static void parse_vm(struct nic *n)
{
	static uint8_t frame[NET_FRAME_MAX];
	uint64_t now = daemon_now_us();
	uint32_t len;

	while (n->vnic >= 0 && buffer_len(&n->in) >= 4) {
		memcpy(&len, buffer_peek(&n->in), 4);
		len = __builtin_bswap32(len);
		if (len > NET_FRAME_MAX - VNET_HLEN) {
			log_error("QEMU's NIC stream is broken (frame of %u bytes)", len);
			nic_detach(n->d);
			return;
		}
		if (buffer_len(&n->in) < len + 4)
			return;
		memcpy(frame + VNET_HLEN, buffer_peek(&n->in) + 4, len);
		vm_frame(n, frame, len + VNET_HLEN, now);
		if (n->vnic >= 0)
			buffer_skip(&n->in, len + 4);
	}
}

static void on_vnic(void *arg, int events)
{
	struct nic *n = arg;
	ssize_t r;

	if (events & UV_WRITABLE)
		flush_vm(n);
	if (!(events & UV_READABLE))
		return;
	if (n->mode == NIC_SECONDARY && !peer_has_room(&n->d->peer)) {
		watch_events(n->vnic_watch, 0); /* again in nic_flush() */
		return;
	}
	r = buffer_read_from(&n->in, n->vnic, 256 << 10);
	if (r < 0) {
		watch_events(n->vnic_watch, 0); /* QEMU is ending; vm.c tells */
		return;
	}
	parse_vm(n);
}

/* --- set-up --- */

static int add_to_bridge(const char *tap, const char *bridge)
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0;

	if (s < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap);
	if (ioctl(s, SIOCGIFFLAGS, &ifr) < 0)
		r = -errno;
	ifr.ifr_flags |= IFF_UP;
	if (r == 0 && ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
		r = -errno;
	if (r == 0 && *bridge) {
		ifr.ifr_ifindex = if_nametoindex(tap);
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", bridge);
		if (ioctl(s, SIOCBRADDIF, &ifr) < 0)
			r = -errno;
	}
	close(s);
	return r;
}

static int open_tap(struct daemon *d)
{
	const char *bridge = config_bridge(d->cfg);
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0) {
		log_error("/dev/net/tun: %s", strerror(errno));
		return -errno;
	}
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", *d->cfg->tap ? d->cfg->tap : "colo%d");
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		r = -errno;
		log_error("[net] tap: cannot make TAP %s: %s", ifr.ifr_name, strerror(-r));
		close(fd);
		return r;
	}
	r = add_to_bridge(ifr.ifr_name, bridge);
	if (r < 0) {
		log_error("[net] bridge: cannot put %s into bridge '%s': %s", ifr.ifr_name, bridge,
			  strerror(-r));
		close(fd);
		return r;
	}
	return fd;
}

static const struct cm_ops cm_callbacks = {
	.release = on_release,
	.want_checkpoint = on_want_checkpoint,
	.pvm_syn = on_pvm_syn,
};

static const struct tr_ops tr_callbacks = { .from_svm = on_waited };

int nic_open(struct daemon *d)
{
	struct tr_config tr_cfg = { 0 };
	struct cm_config cfg = {
		.max_held_bytes = d->cfg->held_max,
		.wait_min_us = d->cfg->wait_min_us,
		.wait_max_us = d->cfg->wait_max_us,
	};
	struct nic *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	d->nic = n;
	n->d = d;
	n->vnic = -1;
	n->tap = open_tap(d);
	if (n->tap < 0)
		return n->tap;
	/* so that no client can choose addresses that collide in the table */
	if (getrandom(&cfg.hash_seed, sizeof(cfg.hash_seed), 0) != sizeof(cfg.hash_seed))
		return -EIO;
	n->cm = cm_new(&cfg, &cm_callbacks, n);
	tr_cfg.hash_seed = cfg.hash_seed;
	n->tr = tr_new(&tr_cfg, &tr_callbacks, n);
	n->nudge = nudge_new(NUDGE_FLOWS);
	announce_init(&n->who, d->cfg->mac_bytes);
	if (!n->cm || !n->tr || !n->nudge || buffer_init(&n->in, VNIC_IN_SIZE) < 0 ||
	    buffer_init(&n->out, VNIC_OUT_SIZE) < 0 || framelog_init(&n->input, INPUT_LOG_SIZE) < 0 ||
	    framelog_init(&n->output, OUTPUT_LOG_SIZE) < 0)
		return -ENOMEM;
	if (explain_add(d, n->cm) < 0)
		return -ENOMEM;
	cm_set_mode(n->cm, CM_PASS, daemon_now_us());
	n->tap_watch = watch_new(&d->loop, n->tap, UV_READABLE, on_tap, n);
	return 0;
}

void nic_detach(struct daemon *d)
{
	struct nic *n = d->nic;

	if (!n || n->vnic < 0)
		return;
	watch_free(n->vnic_watch);
	n->vnic_watch = NULL;
	close(n->vnic);
	n->vnic = -1;
	buffer_clear(&n->in);
	buffer_clear(&n->out);
}

void nic_close(struct daemon *d)
{
	struct nic *n = d->nic;

	if (!n)
		return;
	nic_detach(d);
	explain_close(d);
	watch_free(n->tap_watch);
	if (n->tap >= 0)
		close(n->tap);
	if (n->cm)
		cm_free(n->cm);
	if (n->tr)
		tr_free(n->tr);
	nudge_free(n->nudge);
	buffer_free(&n->in);
	buffer_free(&n->out);
	framelog_free(&n->input);
	framelog_free(&n->output);
	free(n);
	d->nic = NULL;
}

int nic_attach(struct daemon *d, int fd)
{
	struct nic *n = d->nic;

	nic_detach(d);
	wire_set_nonblock(fd, 1);
	n->vnic = fd;
	n->hold = n->marker_due = false;
	n->out_queued = n->out_written = 0;
	n->mode = daemon_is_primary(d) ? NIC_PRIMARY : NIC_SECONDARY;
	n->deaf = n->mode == NIC_SECONDARY; /* until the first marker */
	n->vnic_watch = watch_new(&d->loop, fd, UV_READABLE, on_vnic, n);
	return n->vnic_watch ? 0 : -ENOMEM;
}

void nic_flush(struct daemon *d)
{
	struct nic *n = d->nic;

	if (!n)
		return;
	if (buffer_len(&n->out) && n->vnic >= 0)
		flush_vm(n);
	if (peer_has_room(&d->peer)) {
		watch_events(n->tap_watch, UV_READABLE);
		if (n->mode == NIC_SECONDARY && n->vnic_watch && !buffer_len(&n->out))
			watch_events(n->vnic_watch, UV_READABLE);
	}
}

uint64_t nic_tick(struct daemon *d, uint64_t now_us)
{
	struct nic *n = d->nic;

	if (!n || n->mode != NIC_PRIMARY)
		return UINT64_MAX;
	if (cm_next_tick(n->cm) <= now_us)
		return cm_tick(n->cm, now_us);
	return cm_next_tick(n->cm);
}

/* --- primary --- */

void nic_serve(struct daemon *d)
{
	struct nic *n = d->nic;

	n->mirror = n->marker_due = n->hold = false;
	if (n->mode == NIC_PRIMARY)
		cm_set_mode(n->cm, CM_PASS, daemon_now_us());
}

static void expect_marker(struct nic *n, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	memcpy(n->nonce, nonce, AGENT_NONCE);
	n->marker_epoch = epoch;
	n->marker_due = true;
}

void nic_harvest(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	struct nic *n = d->nic;

	flush_vm(n);
	n->hold = n->mirror = true;
	expect_marker(n, nonce, epoch);
}

uint64_t nic_harvested(struct daemon *d, uint64_t net_unread, bool ok)
{
	struct nic *n = d->nic;
	uint64_t read = n->out_written > net_unread ? n->out_written - net_unread : 0;
	uint64_t i = n->frames, oldest = n->frames > TRACKED_FRAMES ? n->frames - TRACKED_FRAMES : 0;

	n->hold = false;
	flush_vm(n);
	if (!ok)
		n->marker_due = false;
	while (i > oldest && n->end[i % TRACKED_FRAMES] > read)
		i--;
	return i;
}

void nic_held(struct daemon *d, uint64_t epoch)
{
	cm_held(d->nic->cm, epoch, daemon_now_us());
}

void nic_compare(struct daemon *d, uint64_t epoch)
{
	cm_svm_runs(d->nic->cm, daemon_now_us());
}

void nic_give_up(struct daemon *d)
{
	nic_detach(d);
	d->nic->mode = NIC_GIVEN_UP;
}

void nic_from_svm(struct daemon *d, uint64_t epoch, const uint8_t *frame, size_t len)
{
	if (d->nic->mode == NIC_PRIMARY)
		cm_from_svm(d->nic->cm, epoch, frame, len, daemon_now_us());
}

/* --- secondary --- */

void nic_input(struct daemon *d, uint64_t seq, const uint8_t *frame, size_t len)
{
	struct nic *n = d->nic;
	uint64_t now = daemon_now_us();

	if (n->mode == NIC_SURVIVOR) {
		survivor_input(n, frame, len, now);
		return;
	}
	if (n->mode != NIC_SECONDARY)
		return;
	framelog_add(&n->input, seq, now, frame, len);
	if (!n->deaf)
		survivor_input(n, frame, len, now);
}

#define SYN_FLAG (1ull << 63) /* in a log entry's number: a PVM's SYN, the rest is its epoch */

void nic_pvm_syn(struct daemon *d, uint64_t epoch, const uint8_t *frame, size_t len)
{
	struct nic *n = d->nic;

	if (n->mode != NIC_SECONDARY)
		return;
	framelog_add(&n->input, epoch | SYN_FLAG, daemon_now_us(), frame, len);
	if (!n->deaf && epoch == n->epoch)
		tr_pvm_syn(n->tr, frame, len, daemon_now_us());
}

void nic_apply(struct daemon *d, const uint8_t nonce[AGENT_NONCE], uint64_t epoch)
{
	struct nic *n = d->nic;

	n->deaf = true;
	trim_queue(n);
	expect_marker(n, nonce, epoch);
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
		survivor_input(r->n, frame, len, when_us);
	}
}

void nic_applied(struct daemon *d, uint64_t epoch, uint64_t last_read)
{
	struct nic *n = d->nic;
	struct replay r = { n, epoch, last_read };

	/* the marker is in the stream by now, if it has not been read yet */
	if (n->marker_due)
		on_vnic(n, UV_READABLE);
	framelog_each(&n->input, replay_one, &r);
	/* all of it has been used; a later checkpoint needs only what comes from now on, and what
	 * its PVM may not have read: the log keeps its newest part by itself */
	flush_vm(n);
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

void nic_take_over(struct daemon *d, uint64_t lost_at_us)
{
	struct nic *n = d->nic;
	struct resend r = { .n = n };

	n->mode = NIC_SURVIVOR;
	n->mirror = n->marker_due = n->deaf = false;
	tr_failover(n->tr, TIMESTAMP_BUMP_MS);
	r.since_us = lost_at_us > RESEND_BEFORE_US ? lost_at_us - RESEND_BEFORE_US : 0;
	announce_send(&n->who, on_release, n);
	framelog_each(&n->output, resend_one, &r);
	nudge_send(n->nudge, lost_at_us > NUDGE_SINCE_US ? lost_at_us - NUDGE_SINCE_US : 0, on_release, n);
	framelog_clear(&n->output);
	framelog_clear(&n->input);
}

void nic_announce(struct daemon *d)
{
	announce_send(&d->nic->who, on_release, d->nic);
}

/* --- status --- */

json_t *nic_status(struct daemon *d)
{
	struct nic *n = d->nic;
	struct cm_stats s = { 0 };

	if (!n || !n->cm)
		return json_object();
	cm_get_stats(n->cm, &s);
	return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I}", "flows",
			 (json_int_t)s.flows, "held_packets", (json_int_t)s.held_packets, "held_bytes",
			 (json_int_t)s.held_bytes, "released", (json_int_t)s.released, "matched_bytes",
			 (json_int_t)s.matched_bytes, "released_by_checkpoint",
			 (json_int_t)s.released_by_checkpoint, "mismatches", (json_int_t)s.mismatches,
			 "missing", (json_int_t)s.missing, "stale_svm_frames",
			 (json_int_t)s.stale_svm_frames, "acks_clamped", (json_int_t)s.acks_clamped, "lag_us",
			 (json_int_t)s.lag_us, "lan_rx", (json_int_t)n->lan_rx, "lan_tx",
			 (json_int_t)n->lan_tx, "dropped_in", (json_int_t)n->dropped_in);
}
