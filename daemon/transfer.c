/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * transfer.c - a checkpoint over the BULK channel
 *
 * Theory of operation: the primary's agent leaves records and pages in its staging area. They are sent
 * as a header, records, pages (zero ones are only named in records), device state and a trailer; the secondary reads
 * pages straight into its own agent's staging area, in the agent's format. The next checkpoint is
 * harvested only after the secondary has applied this one, so one area a side is enough.
 *
 * Both directions work in bounded pieces, so that frames are not kept waiting by pages. On the wire all
 * numbers are little endian, as every host is that QEMU is supported on here; the header says so by
 * its magic.
 *
 * Every number that comes in is checked against the RAM blocks of our own VM before use; page data is
 * bounded by the staging area.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/daemon.h"

#define PIECE (256u << 10)
#define PIECES_A_ROUND 4
#define MAX_RECORDS (4u << 20)
#define KEEP_PAGES 16384 /* 64 MiB of staging area stay warm */

enum phase { IDLE, HEADER, RECORDS, PAGES, DEVICE, TRAILER };

struct transfer {
	enum phase phase;
	struct bulk_header header;
	struct bulk_trailer trailer;
	size_t done;                  /* bytes of the phase */
	struct stage_record *rec;
	size_t rec_room;
	const uint8_t *page;          /* first page in the staging area */
	uint8_t *device;
	size_t device_room;
	uint64_t ran_at_ns, started_ns;
};

int transfer_init(struct daemon *d)
{
	d->transfer = calloc(1, sizeof(*d->transfer));
	return d->transfer ? 0 : -ENOMEM;
}

void transfer_reset(struct daemon *d)
{
	if (d->transfer)
		d->transfer->phase = IDLE;
}

void transfer_free(struct daemon *d)
{
	if (!d->transfer)
		return;
	free(d->transfer->rec);
	free(d->transfer->device);
	free(d->transfer);
	d->transfer = NULL;
}

static bool sending(const struct daemon *d)
{
	return d->transfer->phase != IDLE;
}

static bool room_for_records(struct transfer *t, size_t n)
{
	struct stage_record *p;

	if (t->rec && n <= t->rec_room) /* none needs a place, too */
		return true;
	p = realloc(t->rec, (n ? n : 1) * sizeof(*p));
	if (!p)
		return false;
	t->rec = p;
	t->rec_room = n;
	return true;
}

static bool room_for_device(struct transfer *t, size_t n)
{
	uint8_t *p;

	if (n <= t->device_room)
		return true;
	p = realloc(t->device, n);
	if (!p)
		return false;
	t->device = p;
	t->device_room = n;
	return true;
}

/* A large checkpoint must not keep as much memory for good. */
void transfer_shrink(struct daemon *d)
{
	struct transfer *t = d->transfer;

	if (t->header.npages > KEEP_PAGES)
		fallocate(d->stage.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			  d->stage.size);
}

/* --- sending --- */

/* The agent has left zero pages out already, and the others lie one behind the other. */
static int take_harvest(struct transfer *t, const uint8_t *stage, size_t size)
{
	const struct stage_header *h = (const void *)stage;

	if (h->magic != STAGE_MAGIC || h->version != STAGE_VERSION || h->data_off > size ||
	    h->npages > (size - h->data_off) / AGENT_PAGE_SIZE ||
	    h->nrec > (h->data_off - sizeof(*h)) / sizeof(*t->rec))
		return -EPROTO;
	if (!room_for_records(t, h->nrec))
		return -ENOMEM;
	memcpy(t->rec, h + 1, h->nrec * sizeof(*t->rec));
	t->header.nrec = h->nrec;
	t->header.npages = h->npages;
	t->page = stage + h->data_off;
	return 0;
}

int transfer_send(struct daemon *d, uint64_t epoch, uint32_t flags, uint64_t device_bytes,
		  uint64_t ran_at_ns)
{
	struct transfer *t = d->transfer;
	int r;

	if (d->peer.fd[PEER_BULK] < 0)
		return -EPIPE;
	if (device_bytes > DEVICE_STATE_MAX || !room_for_device(t, device_bytes))
		return -ENOMEM;
	if (pread(d->stage.device_fd, t->device, device_bytes, 0) != (ssize_t)device_bytes)
		return -EIO;
	t->header = (struct bulk_header){ .magic = PEER_MAGIC, .flags = flags, .epoch = epoch,
					  .device_bytes = device_bytes };
	r = take_harvest(t, d->stage.map, d->stage.size);
	if (r < 0)
		return r;
	t->phase = HEADER;
	t->done = 0;
	t->ran_at_ns = ran_at_ns;
	t->started_ns = clock_now_ns();
	watch_events(d->peer.watch[PEER_BULK], UV_READABLE | UV_WRITABLE);
	transfer_on_bulk(d, UV_WRITABLE);
	return 0;
}

/* What of the phase is still to be sent or received, and where it lies; 0: the phase is complete */
static size_t rest(struct transfer *t, uint8_t **p)
{
	switch (t->phase) {
	case HEADER:
		*p = (uint8_t *)&t->header + t->done;
		return sizeof(t->header) - t->done;
	case RECORDS:
		*p = (uint8_t *)t->rec + t->done;
		return t->header.nrec * sizeof(*t->rec) - t->done;
	case PAGES:
		*p = (uint8_t *)t->page + t->done;
		return t->header.npages * AGENT_PAGE_SIZE - t->done;
	case DEVICE:
		*p = t->device + t->done;
		return t->header.device_bytes - t->done;
	case TRAILER:
		*p = (uint8_t *)&t->trailer + t->done;
		return sizeof(t->trailer) - t->done;
	default:
		return 0;
	}
}

static struct tls *bulk(const struct daemon *d)
{
	return d->peer.tls[PEER_BULK];
}

static void bulk_lost(struct daemon *d, enum core_loss how, const char *why)
{
	log_warn("peer %s: checkpoint channel: %s", config_peer(d->cfg)->name, why);
	d->transfer->phase = IDLE;
	if (!d->peer.up)
		return;
	if (how == CORE_LOSS_CLOSED) {
		peer_side_closed(d, PEER_BULK);
		return;
	}
	peer_mute(d);
	daemon_event(d, (struct core_event){ .type = CORE_EV_PEER_LOST, .loss = how });
}

/* what is taken, but not sent yet */
static void flush(struct daemon *d)
{
	int r = tls_flush(bulk(d));

	if (r < 0 && r != -EAGAIN)
		bulk_lost(d, CORE_LOSS_CLOSED, tls_error(bulk(d)));
	else
		watch_events(d->peer.watch[PEER_BULK], UV_READABLE | (r < 0 ? UV_WRITABLE : 0));
}

static void send_some(struct daemon *d)
{
	struct transfer *t = d->transfer;
	uint8_t *p = NULL;
	size_t n;
	int i;
	ssize_t r;

	for (i = 0; i < PIECES_A_ROUND && t->phase != IDLE; i++) {
		while (t->phase != IDLE && !(n = rest(t, &p))) {
			t->phase = t->phase == TRAILER ? IDLE : t->phase + 1;
			t->done = 0;
		}
		if (t->phase == TRAILER && !t->done)
			t->trailer.age_ns = clock_now_ns() - t->ran_at_ns;
		if (t->phase == IDLE)
			break;
		r = tls_send(bulk(d), p, n < PIECE ? n : PIECE, t->phase < TRAILER);
		if (r < 0) {
			bulk_lost(d, CORE_LOSS_CLOSED, tls_error(bulk(d)));
			return;
		}
		if (r == 0)
			break;
		d->peer.tx_bytes += r;
		t->done += r;
		FAILPOINT_IF(t->phase == PAGES && t->done >= t->header.npages * AGENT_PAGE_SIZE / 2, "pages-half");
	}
	if (t->phase == IDLE) {
		FAILPOINT("pages-sent");
		transfer_shrink(d);
		percentile_add(&d->ckpt.send_us, (clock_now_ns() - t->started_ns) / 1000);
		flush(d);
	}
}

/* --- receiving --- */

static const char *check_header(struct daemon *d, const struct bulk_header *h)
{
	if (h->magic != PEER_MAGIC)
		return "not a checkpoint";
	if (h->nrec > MAX_RECORDS)
		return "too many records";
	if (h->device_bytes > DEVICE_STATE_MAX || !h->device_bytes)
		return "device state of impossible size";
	if (!d->stage.have_blocks)
		return "a checkpoint before the VM is there";
	if (sizeof(struct stage_header) + h->nrec * sizeof(struct stage_record) + AGENT_PAGE_SIZE >
	    d->stage.size ||
	    h->npages > (d->stage.size - sizeof(struct stage_header) -
			 h->nrec * sizeof(struct stage_record) - AGENT_PAGE_SIZE) / AGENT_PAGE_SIZE)
		return "more than the staging area holds";
	return NULL;
}

static const char *check_records(struct daemon *d, const struct transfer *t)
{
	const struct stage_record *r = t->rec, *end = r + t->header.nrec;
	uint64_t pages = 0, size;

	for (; r < end; r++) {
		if (r->block >= d->stage.blocks.blocks.n)
			return "a RAM block that does not exist";
		size = d->stage.blocks.blocks.block[r->block].size;
		if (!r->npages || r->offset % AGENT_PAGE_SIZE || r->offset >= size ||
		    r->npages > (size - r->offset) / AGENT_PAGE_SIZE)
			return "pages outside their RAM block";
		if (!(r->flags & STAGE_ZERO))
			pages += r->npages;
	}
	return pages == t->header.npages ? NULL : "page counts that do not add up";
}

/* records are known: lay out the agent's area */
static void begin_pages(struct daemon *d)
{
	struct transfer *t = d->transfer;
	struct stage_header *h = (void *)d->stage.map;
	size_t n = sizeof(*h) + t->header.nrec * sizeof(*t->rec);

	*h = (struct stage_header){
		.magic = STAGE_MAGIC,
		.version = STAGE_VERSION,
		.nrec = t->header.nrec,
		.npages = t->header.npages,
		.data_off = (n + AGENT_PAGE_SIZE - 1) / AGENT_PAGE_SIZE * AGENT_PAGE_SIZE,
	};
	memcpy(h + 1, t->rec, t->header.nrec * sizeof(*t->rec));
	t->page = d->stage.map + h->data_off;
}

int transfer_store_device(struct daemon *d)
{
	struct transfer *t = d->transfer;
	size_t n = t->header.device_bytes;

	if (pwrite(d->stage.device_fd, t->device, n, 0) != (ssize_t)n ||
	    ftruncate(d->stage.device_fd, n) < 0)
		return -EIO;
	return 0;
}

static const char *phase_complete(struct daemon *d)
{
	struct transfer *t = d->transfer;
	const char *wrong = NULL;

	t->done = 0;
	switch (t->phase) {
	case HEADER:
		wrong = check_header(d, &t->header);
		if (!wrong && (!room_for_records(t, t->header.nrec) ||
			       !room_for_device(t, t->header.device_bytes)))
			wrong = "more than fits in memory";
		break;
	case RECORDS:
		wrong = check_records(d, t);
		if (!wrong)
			begin_pages(d);
		break;
	default:
		break;
	}
	t->phase = t->phase == TRAILER ? IDLE : t->phase + 1;
	return wrong;
}

static void received(struct daemon *d)
{
	struct transfer *t = d->transfer;
	uint64_t now = clock_now_ns();

	checkpoint_received(d, t->header.epoch, t->header.flags,
			    now - t->trailer.age_ns - d->peer.rtt_ns / 2);
}

static void receive_some(struct daemon *d)
{
	struct transfer *t = d->transfer;
	const char *wrong;
	uint8_t *p = NULL;
	ssize_t r;
	size_t n;
	int i;

	/* what is left of a record is not seen by poll(2): it is read at once */
	for (i = 0; i < PIECES_A_ROUND || tls_pending(bulk(d)); i++) {
		if (t->phase == IDLE) {
			t->phase = HEADER;
			t->done = 0;
		}
		n = rest(t, &p);
		r = tls_recv(bulk(d), p, n < PIECE ? n : PIECE);
		if (r == 0)
			return;
		if (r < 0) {
			bulk_lost(d, r == -EBADMSG ? CORE_LOSS_PROTOCOL : CORE_LOSS_CLOSED, tls_error(bulk(d)));
			return;
		}
		d->peer.rx_bytes += r;
		daemon_event(d, (struct core_event){ .type = CORE_EV_RX }); /* a heartbeat may be behind many pages */
		t->done += r;
		while (t->phase != IDLE && !rest(t, &p))
			if ((wrong = phase_complete(d))) {
				bulk_lost(d, CORE_LOSS_PROTOCOL, wrong);
				return;
			}
		if (t->phase == IDLE) {
			received(d);
			return;
		}
	}
}

void transfer_on_bulk(void *arg, int events)
{
	struct daemon *d = arg;
	char byte;

	if (daemon_is_primary(d)) {
		if (sending(d) && (events & UV_WRITABLE))
			send_some(d);
		else if (events & UV_WRITABLE)
			flush(d);
		/* nothing comes here but the end */
		if ((events & UV_READABLE) && d->peer.fd[PEER_BULK] >= 0 && tls_recv(bulk(d), &byte, 1) != 0)
			bulk_lost(d, CORE_LOSS_CLOSED, *tls_error(bulk(d)) ? tls_error(bulk(d)) : "closed");
	} else if (events & UV_READABLE) {
		receive_some(d);
	}
}
