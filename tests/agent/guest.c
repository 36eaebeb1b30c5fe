/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * guest.c - what runs inside the test guest: work that notices when RAM or code is wrong
 *
 *   dirty MIB PAGES MS  write PAGES pages of MIB every MS ms, checking what was written before
 *   cpu                 compute the same thing for ever, compare
 *   jit                 rewrite code with what the time stamp counter says (so it differs between
 *                       PVM and SVM), run it, compare with what it should return
 *   fpu                 keep known values in the vector, x87 and control registers, check that they stay
 *   clock               one thread on each CPU: no clock may ever show less than another thread has seen
 *   disk DEVICE         write and read blocks past the page cache, check that each holds what was written last
 *   count               print the time once a second
 *   echo                answer raw frames with the guest's clocks, send one every 20 ms; a frame
 *                       with the id "poweroff" ends the guest
 *
 * Every fault found is a line with the word CORRUPT.
 */
#include <arpa/inet.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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

/* --- registers --- */

enum { VECTORS = 4, VECTOR_WORDS = VECTORS * 4 };
#define SPIN 2000000

static bool have_avx(void)
{
	unsigned int a, b, c, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AVX) || !(c & bit_OSXSAVE))
		return false;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (low & 6) == 6;
}

/* Hold @in in registers for a while that checkpoints fall into; what is in them then goes to @out. */
__attribute__((target("avx"))) static void hold_avx(const uint64_t *in, uint64_t *out, long spin)
{
	__asm__ volatile("vmovdqu (%1), %%ymm0; vmovdqu 32(%1), %%ymm3;"
			 "vmovdqu 64(%1), %%ymm8; vmovdqu 96(%1), %%ymm15;"
			 "1: dec %0; jnz 1b;"
			 "vmovdqu %%ymm0, (%2); vmovdqu %%ymm3, 32(%2);"
			 "vmovdqu %%ymm8, 64(%2); vmovdqu %%ymm15, 96(%2)"
			 : "+r"(spin) : "r"(in), "r"(out)
			 : "memory", "cc", "xmm0", "xmm3", "xmm8", "xmm15");
}

static void hold_sse(const uint64_t *in, uint64_t *out, long spin)
{
	__asm__ volatile("movdqu (%1), %%xmm0; movdqu 16(%1), %%xmm1; movdqu 32(%1), %%xmm3; movdqu 48(%1), %%xmm5;"
			 "movdqu 64(%1), %%xmm8; movdqu 80(%1), %%xmm10; movdqu 96(%1), %%xmm12; movdqu 112(%1), %%xmm15;"
			 "1: dec %0; jnz 1b;"
			 "movdqu %%xmm0, (%2); movdqu %%xmm1, 16(%2); movdqu %%xmm3, 32(%2); movdqu %%xmm5, 48(%2);"
			 "movdqu %%xmm8, 64(%2); movdqu %%xmm10, 80(%2); movdqu %%xmm12, 96(%2); movdqu %%xmm15, 112(%2)"
			 : "+r"(spin) : "r"(in), "r"(out)
			 : "memory", "cc", "xmm0", "xmm1", "xmm3", "xmm5", "xmm8", "xmm10", "xmm12", "xmm15");
}

/* Registers that user space sets and the CPU keeps in model-specific ones. */
static void check_bases(uint64_t gs)
{
	uint64_t got = 0;

	syscall(SYS_arch_prctl, ARCH_GET_GS, &got);
	if (got != gs)
		printf("CORRUPT fpu: GS base %llx, wants %llx\n", (unsigned long long)got,
		       (unsigned long long)gs);
	syscall(SYS_arch_prctl, ARCH_SET_GS, mix(gs) >> 20);
}

static void fpu(void)
{
	const uint32_t control = 0x1f80 | 0x6000; /* MXCSR: exceptions masked, round toward zero */
	uint64_t in[VECTOR_WORDS], out[VECTOR_WORDS], gs = 0;
	bool avx = have_avx();

	printf("fpu: %s\n", avx ? "avx" : "sse");
	for (uint64_t round = 1;; round++) {
		long double want = 1.0L / (round + 2), got;
		uint32_t mxcsr;

		for (int i = 0; i < VECTOR_WORDS; i++)
			in[i] = mix(round * VECTOR_WORDS + i);
		memset(out, 0, sizeof(out));
		__asm__ volatile("ldmxcsr %0; fldt %1" : : "m"(control), "m"(want));
		(avx ? hold_avx : hold_sse)(in, out, SPIN);
		__asm__ volatile("fstpt %0; stmxcsr %1" : "=m"(got), "=m"(mxcsr));
		if (memcmp(in, out, sizeof(in)) || memcmp(&got, &want, 10))
			printf("CORRUPT fpu: registers changed in round %llu\n", (unsigned long long)round);
		if ((mxcsr & 0xffc0) != control)
			printf("CORRUPT fpu: MXCSR %x, wants %x\n", mxcsr, control);
		check_bases(gs);
		gs = mix(gs) >> 20;
		usleep(5000);
	}
}

/* --- clocks --- */

static const struct {
	clockid_t id;
	const char *name;
} clocks[] = {
	{ CLOCK_MONOTONIC, "monotonic" }, { CLOCK_REALTIME, "real-time" }, { CLOCK_BOOTTIME, "boot-time" },
};

enum { CLOCKS = sizeof(clocks) / sizeof(clocks[0]), READS = 300 };
static uint64_t newest[CLOCKS]; /* the latest time any thread has seen */

static void check_clock(int i, int cpu)
{
	uint64_t seen = __atomic_load_n(&newest[i], __ATOMIC_SEQ_CST), t;
	struct timespec ts;

	clock_gettime(clocks[i].id, &ts);
	t = ts.tv_sec * UINT64_C(1000000000) + ts.tv_nsec;
	if (t < seen)
		printf("CORRUPT clock: %s went back by %llu ns on CPU %d\n", clocks[i].name,
		       (unsigned long long)(seen - t), cpu);
	while (t > seen &&
	       !__atomic_compare_exchange_n(&newest[i], &seen, t, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static void *watch_clocks(void *arg)
{
	int cpu = (intptr_t)arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
	for (unsigned int round = 1;; round++) {
		for (int i = 0; i < READS; i++)
			check_clock(i % CLOCKS, cpu);
		if (round % 1000 == 0)
			printf("clock: CPU %d, %u reads\n", cpu, round * READS);
		usleep(2000);
	}
	return NULL;
}

static void watch_all_clocks(void)
{
	pthread_t thread;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	for (intptr_t cpu = 1; cpu < cpus; cpu++)
		pthread_create(&thread, NULL, watch_clocks, (void *)cpu);
	watch_clocks(NULL);
}

static void count(void)
{
	for (unsigned int i = 0;; i++) {
		printf("count %u at %llu ms\n", i, (unsigned long long)(now() / 1000000));
		usleep(1000000);
	}
}

/* --- disk --- */

enum { DISK_BLOCKS = 1024 };

static void put_block(int fd, uint64_t *block, size_t at, uint64_t version)
{
	for (size_t i = 0; i < PAGE / 8; i++)
		block[i] = mix(version + i) ^ at;
	if (pwrite(fd, block, PAGE, at * PAGE) != PAGE)
		printf("CORRUPT disk: block %zu cannot be written\n", at);
}

static void check_block(int fd, uint64_t *block, size_t at, uint64_t version)
{
	if (pread(fd, block, PAGE, at * PAGE) != PAGE)
		printf("CORRUPT disk: block %zu cannot be read\n", at);
	for (size_t i = 0; i < PAGE / 8; i++)
		if (block[i] != (mix(version + i) ^ at)) {
			printf("CORRUPT disk: block %zu, word %zu is %llx, wants %llx\n", at, i,
			       (unsigned long long)block[i], (unsigned long long)(mix(version + i) ^ at));
			return;
		}
}

/* What is written is the time stamp counter's, so that the PVM's disk and the SVM's differ between checkpoints. */
static void disk(const char *device)
{
	static uint64_t version[DISK_BLOCKS];
	uint64_t *block = map(PAGE, PROT_READ | PROT_WRITE);
	int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0) {
		perror(device);
		exit(1);
	}
	for (size_t at = 0; at < DISK_BLOCKS; at++)
		put_block(fd, block, at, version[at]);
	puts("disk: written");
	for (;;) {
		for (int i = 0; i < 8; i++) {
			uint64_t tsc = __builtin_ia32_rdtsc();
			size_t at = mix(tsc) % DISK_BLOCKS, other = mix(tsc + 1) % DISK_BLOCKS;

			version[at] = tsc;
			put_block(fd, block, at, tsc);
			check_block(fd, block, at, tsc);
			check_block(fd, block, other, version[other]);
		}
		if (fdatasync(fd) < 0)
			printf("CORRUPT disk: fdatasync fails\n");
		usleep(10000);
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
	if (!strcmp(what, "fpu"))
		fpu();
	if (!strcmp(what, "clock"))
		watch_all_clocks();
	if (!strcmp(what, "disk") && argc == 3)
		disk(argv[2]);
	if (!strcmp(what, "count"))
		count();
	if (!strcmp(what, "echo"))
		echo();
	fprintf(stderr, "usage: work dirty MIB PAGES MS | cpu | jit | fpu | clock | disk DEVICE | count | echo\n");
	return 2;
}
