/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * guest.c - what runs inside the test guest: work that notices when RAM or code is wrong
 *
 *   dirty MIB PAGES MS  write PAGES pages of MIB every MS ms, checking what was written before
 *   cpu                 compute the same thing for ever, compare
 *   jit                 rewrite code with what the time stamp counter says (so it differs between
 *                       PVM and SVM), run it, compare with what it should return
 *   count               print the time once a second
 *   echo                answer raw frames with the guest's clocks, send one every 20 ms; a frame
 *                       with the id "poweroff" ends the guest
 *
 * Every fault found is a line with the word CORRUPT.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define ETHERTYPE 0x88b5 /* for local experiments */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdu;
	x ^= x >> 33;
	return x;
}

static void *map(size_t len, int prot)
{
	void *p = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

static void write_page(uint64_t *page, uint64_t index, uint64_t round)
{
	page[0] = round;
	page[511] = mix(index ^ round << 20);
}

static void dirty(size_t mib, int pages, int ms)
{
	size_t n = mib * 256, at = 0;
	uint64_t *mem = map(n * PAGE, PROT_READ | PROT_WRITE);
	uint64_t *round = map(n * sizeof(*round), PROT_READ | PROT_WRITE);

	for (size_t i = 0; i < n; i++)
		write_page(mem + i * 512, i, 0);
	for (;;) {
		for (int k = 0; k < pages; k++, at = (at + 1) % n) {
			uint64_t *p = mem + at * 512;

			if (p[0] != round[at] || p[511] != mix(at ^ round[at] << 20))
				printf("CORRUPT dirty: page %zu has %llx, wants %llx\n", at,
				       (unsigned long long)p[0], (unsigned long long)round[at]);
			write_page(p, at, ++round[at]);
		}
		usleep(ms * 1000);
	}
}

static void cpu(void)
{
	uint64_t want = 0;

	for (;;) {
		uint64_t x = 1;

		for (int i = 0; i < 3000000; i++)
			x = mix(x + i);
		if (want && x != want)
			printf("CORRUPT cpu: %llx, wants %llx\n", (unsigned long long)x,
			       (unsigned long long)want);
		want = x;
		usleep(20000);
	}
}

enum { CODE_PAGES = 16 };

static void rewrite_code(uint8_t *code, volatile uint32_t *want)
{
	for (int i = 0; i < CODE_PAGES; i++) {
		uint8_t *p = code + i * PAGE;
		uint32_t x = mix(__builtin_ia32_rdtsc());

		p[0] = 0xb8; /* mov eax, imm32 */
		memcpy(p + 1, &x, sizeof(x));
		p[5] = 0xc3; /* ret */
		want[i] = x;
		__builtin___clear_cache((char *)p, (char *)p + 6);
	}
}

static void run_code(uint8_t *code, const volatile uint32_t *want)
{
	for (int i = 0; i < CODE_PAGES; i++) {
		uint32_t (*fn)(void) = (uint32_t (*)(void))(void *)(code + i * PAGE);
		uint32_t got = fn();

		if (got != want[i])
			printf("CORRUPT jit: page %d returns %x, wants %x\n", i, got, want[i]);
	}
}

static void jit(void)
{
	uint8_t *code = map(CODE_PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	static volatile uint32_t want[CODE_PAGES];

	for (;;) {
		uint64_t end = now() + 60000000;

		rewrite_code(code, want);
		while (now() < end) {
			run_code(code, want);
			usleep(1000);
		}
	}
}

static void count(void)
{
	for (unsigned int i = 0;; i++) {
		printf("count %u at %llu ms\n", i, (unsigned long long)(now() / 1000000));
		usleep(1000000);
	}
}

struct __attribute__((packed)) frame {
	uint8_t to[6], from[6];
	uint16_t type;
	uint64_t id, clock_ns, tsc;
	uint8_t pad[22];
};

static void stamp(struct frame *f, uint64_t id)
{
	memset(f->to, 0xff, sizeof(f->to));
	memset(f->from, 0x52, sizeof(f->from));
	f->type = htons(ETHERTYPE);
	f->id = id;
	f->clock_ns = now();
	f->tsc = __builtin_ia32_rdtsc();
}

static void echo(void)
{
	struct sched_param rt = { .sched_priority = 10 };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE));
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETHERTYPE),
		.sll_ifindex = if_nametoindex("eth0"),
	};
	struct frame f = { 0 };
	uint64_t sent = 0;

	sched_setscheduler(0, SCHED_FIFO, &rt);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		perror("packet socket");
		exit(1);
	}
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (poll(&p, 1, 20) == 0) {
			stamp(&f, UINT64_C(1) << 63 | sent++);
			if (write(fd, &f, sizeof(f)) < 0)
				usleep(1000);
		} else if (read(fd, &f, sizeof(f)) == sizeof(f)) {
			if (!memcmp(&f.id, "poweroff", sizeof(f.id)))
				reboot(RB_POWER_OFF);
			stamp(&f, f.id);
			if (write(fd, &f, sizeof(f)) < 0)
				usleep(1000);
		}
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IONBF, 0);
	if (!strcmp(what, "dirty") && argc == 5)
		dirty(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	if (!strcmp(what, "cpu"))
		cpu();
	if (!strcmp(what, "jit"))
		jit();
	if (!strcmp(what, "count"))
		count();
	if (!strcmp(what, "echo"))
		echo();
	fprintf(stderr, "usage: work dirty MIB PAGES MS | cpu | jit | count | echo\n");
	return 2;
}
