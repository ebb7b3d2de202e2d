// SPDX-License-Identifier: GPL-2.0
/*
 * A process with memory that nouveau migrates to VRAM, and that a device bound to test_hmm_importer reads and writes.
 *
 * It does what it is told by lines on stdin, and answers each by one line: "ok", perhaps with more words, or
 * "error COMMAND: REASON". Numbers are as strtoull() reads them. tests/gpu uses it through rig/dialogue.py.
 *
 *	open NODE			open a DRM render node
 *	gpu NODE			the same, and make its address space that of the process (SVM_INIT)
 *	channel				make a channel; "ok N": its number
 *	close				close it
 *	gem SIZE			a buffer object of the driver in VRAM, mapped (GEM_NEW)
 *	map SIZE [OFFSET]		map anonymous memory, OFFSET bytes behind a multiple of 2 MiB, without huge pages
 *	map-huge SIZE [OFFSET]		the same with huge pages
 *	unmap ADDRESS SIZE		munmap()
 *	protect ADDRESS SIZE r|w|-	mprotect()
 *	discard ADDRESS SIZE		madvise(MADV_DONTNEED)
 *	pageout ADDRESS SIZE		madvise(MADV_PAGEOUT)
 *	fill ADDRESS SIZE SEED		write a pattern that tells seed and offset
 *	check ADDRESS SIZE SEED [SKIP]	"ok N": the first N bytes are that pattern, whose first SKIP bytes are before ADDRESS
 *	peek ADDRESS			"ok N": the 8 bytes there
 *	touch ADDRESS SIZE		"ok N": reading a byte of each page took N page faults
 *	readable ADDRESS SIZE		"ok N": the kernel can read the first N bytes, rounded to whole pages
 *	zero ADDRESS SIZE		"ok N": the first N bytes are 0
 *	huge ADDRESS SIZE		"ok N": N bytes are mapped by huge pages (AnonHugePages in smaps)
 *	vram ADDRESS SIZE		"ok N": N pages are not mapped by the CPU, but have an entry (swap or device private)
 *	bind ADDRESS SIZE		migrate to VRAM (SVM_BIND)
 *	fork ADDRESS SIZE SEED NEW	a child checks for SEED, fills with NEW, and ends; "ok N": its result of the check
 *	race ADDRESS SIZE SEED ROUNDS	a thread migrates, while another one checks; "ok N": how many checks failed
 *	bind-together N SIZE ROUNDS	N threads, each with SIZE bytes of small pages, migrate them to VRAM at the same time, so often;
 *					"ok MISSED WRONG": how often nothing of a thread's got there, and bytes that were lost
 *	discard-race ROUNDS small|huge	a thread discards what another one touches in VRAM, in each round a part of new memory or each
 *					page of it; "ok N": how often something else was found then than should be
 *	importer DEVICE			open a device of test_hmm_importer
 *	import ADDRESS SIZE FLAGS	map for DMA; FLAGS: f fault, w write, p try aliases. Answers as "state"
 *	state ADDRESS SIZE		"ok MAPPED BUS HOST-BRIDGE OTHER": number of pages of that kind
 *	dma-check ADDRESS SIZE SEED	the device reads; "ok N": the first N bytes are the pattern
 *	dma-fill ADDRESS SIZE SEED	the device writes the pattern; "ok N": it wrote N bytes
 */
#define _GNU_SOURCE
#include "nouveau.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)

/* As in lib/test_hmm_importer_uapi.h */
struct importer_cmd {
	uint64_t addr, npages, ptr;
	uint32_t flags, rounds;
	uint64_t cpages;
};
#define IMPORTER_MAP	_IOWR('I', 0x00, struct importer_cmd)
#define IMPORTER_READ	_IOWR('I', 0x01, struct importer_cmd)
#define IMPORTER_WRITE	_IOWR('I', 0x02, struct importer_cmd)
#define IMPORTER_STATE	_IOWR('I', 0x03, struct importer_cmd)
enum { FLAG_FAULT = 1, FLAG_WRITE = 2, FLAG_TRY_P2P = 4 };
enum { PAGE_MAPPED = 1, PAGE_BUS = 4, PAGE_HOST_BRIDGE = 8 };

static int gpu = -1, importer = -1;

static void ok(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void ok(const char *format, ...)
{
	va_list args;

	fputs("ok", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static void check_call(const char *command, bool failed)
{
	if (failed)
		printf("error %s: %s\n", command, strerror(errno));
	else
		printf("ok\n");
	fflush(stdout);
}

/* Differs for each offset and seed, and is easy to compute elsewhere: tests/gpu does so for VRAM */
static uint64_t pattern(uint64_t seed, uint64_t offset)
{
	return (seed << 40) ^ (offset / 8) * 0x9e3779b1ul;
}

static void fill(void *to, size_t size, uint64_t seed, uint64_t offset)
{
	uint64_t *p = to;

	for (size_t i = 0; i < size / 8; i++)
		p[i] = pattern(seed, offset + i * 8);
}

/* Returns how many page faults that took. */
static long read_pages(const void *at, size_t size)
{
	struct rusage before, after;

	getrusage(RUSAGE_SELF, &before);
	for (size_t i = 0; i < size; i += PAGE)
		(void)*(const volatile char *)(at + i);
	getrusage(RUSAGE_SELF, &after);
	return after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
}

static size_t matching(const void *at, size_t size, uint64_t seed, uint64_t offset)
{
	const uint64_t *p = at;
	size_t i;

	for (i = 0; i < size / 8 && p[i] == pattern(seed, offset + i * 8); i++)
		;
	return i * 8;
}

static size_t zeroes(const char *at, size_t size)
{
	size_t i;

	for (i = 0; i < size && !at[i]; i++)
		;
	return i;
}

static void *map(size_t size, size_t offset, bool huge)
{
	size_t total = size + offset + HUGE;
	char *all = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start;

	if (all == MAP_FAILED)
		return NULL;
	start = (char *)(((uintptr_t)all + HUGE - 1) & ~(HUGE - 1)) + offset;
	munmap(all, start - all);
	munmap(start + size, all + total - (start + size));
	if (madvise(start, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return NULL;
	return start;
}

/* The sum of a field of smaps over the VMAs that lie within the range, in bytes */
static uint64_t smaps(uint64_t address, uint64_t size, const char *field)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uint64_t start, end, kilobytes, sum = 0;
	bool inside = false;
	char line[512];

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2)
			inside = start >= address && end <= address + size;
		else if (inside && !strncmp(line, field, strlen(field)) &&
			 sscanf(line + strlen(field), ": %" SCNu64, &kilobytes) == 1)
			sum += kilobytes * 1024;
	}
	if (file)
		fclose(file);
	return sum;
}

static void fork_child(uint64_t address, uint64_t size, uint64_t seed, uint64_t new)
{
	int ends[2], status = 0;
	size_t seen = 0;
	pid_t child;

	if (pipe(ends) || (child = fork()) < 0) {
		check_call("fork", true);
		return;
	}
	if (child == 0) {
		seen = matching((void *)address, size, seed, 0);
		fill((void *)address, size, new, 0);
		if (matching((void *)address, size, new, 0) != size)
			seen = 0;
		_exit(write(ends[1], &seen, sizeof(seen)) != sizeof(seen));
	}
	close(ends[1]);
	if (read(ends[0], &seen, sizeof(seen)) != sizeof(seen))
		seen = 0;
	close(ends[0]);
	waitpid(child, &status, 0);
	if (status)
		printf("error fork: the child ended with status %#x\n", status);
	else
		printf("ok %zu\n", seen);
	fflush(stdout);
}

/* write() ends where a page fault fails, which otherwise is a SIGBUS. One page at a time: what was read of more does not count. */
static size_t readable(const char *at, size_t size)
{
	int file = memfd_create("readable", MFD_CLOEXEC);
	size_t done = 0;

	while (done < size && write(file, at + done, PAGE) == (ssize_t)PAGE)
		done += PAGE;
	close(file);
	return done;
}

struct race {
	uint64_t address, size, seed, rounds;
};

static void *race_bind(void *argument)
{
	struct race *race = argument;

	for (uint64_t i = 0; i < race->rounds; i++)
		if (nouveau_bind(gpu, race->address, race->size))
			return "SVM_BIND failed";
	return NULL;
}

static void run_race(struct race race)
{
	uint64_t failed = 0;
	pthread_t thread;
	void *problem;

	errno = pthread_create(&thread, NULL, race_bind, &race);
	if (errno) {
		check_call("race", true);
		return;
	}
	for (uint64_t i = 0; i < race.rounds; i++)
		failed += matching((void *)race.address, race.size, race.seed, 0) != race.size;
	pthread_join(thread, &problem);
	if (problem)
		printf("error race: %s\n", (char *)problem);
	else
		printf("ok %" PRIu64 "\n", failed);
	fflush(stdout);
}

/* From here on, as whoever looks for a pattern in VRAM must not find one of these there. */
enum { TOGETHER_SEEDS = 0x800000 };

/* One of several threads that migrate at the same time */
struct together {
	pthread_t thread;
	pthread_barrier_t *barrier;
	uint64_t number, size, rounds, missed, wrong;
	bool failed;
};

/*
 * Each round is with new memory. Only the last one reads all of it, since a page fault for each page takes much longer than
 * migrating does. What cannot be read is not touched: that would be a SIGBUS.
 */
static void *bind_together(void *argument)
{
	struct together *one = argument;
	char *at = map(one->size, 0, false);

	one->failed = !at;
	for (uint64_t i = 0; i < one->rounds; i++) {
		uint64_t seed = TOGETHER_SEEDS + one->number * one->rounds + i;
		uint64_t size = i + 1 < one->rounds ? PAGE : one->size, good;

		if (at)
			fill(at, one->size, seed, 0);
		pthread_barrier_wait(one->barrier);
		if (!at)
			continue;
		one->failed |= nouveau_bind(gpu, (uintptr_t)at, one->size);
		one->missed += !nouveau_private_pages((uintptr_t)at, one->size);
		good = readable(at, size);
		one->wrong += size - matching(at, good, seed, 0);
		one->failed |= madvise(at, one->size, MADV_DONTNEED);
	}
	if (at)
		munmap(at, one->size);
	return NULL;
}

static void run_together(uint64_t count, uint64_t size, uint64_t rounds)
{
	struct together *all = calloc(count, sizeof(*all));
	uint64_t missed = 0, wrong = 0;
	pthread_barrier_t barrier;
	bool failed = false;

	pthread_barrier_init(&barrier, NULL, count);
	for (uint64_t i = 0; i < count; i++) {
		all[i] = (struct together){ .barrier = &barrier, .number = i + 1, .size = size, .rounds = rounds };
		if (pthread_create(&all[i].thread, NULL, bind_together, &all[i]))
			abort();	/* the others wait for it */
	}
	for (uint64_t i = 0; i < count; i++) {
		pthread_join(all[i].thread, NULL);
		missed += all[i].missed;
		wrong += all[i].wrong;
		failed |= all[i].failed;
	}
	pthread_barrier_destroy(&barrier);
	free(all);
	if (failed)
		check_call("bind-together", true);
	else
		ok(" %" PRIu64 " %" PRIu64, missed, wrong);
}

/* A thread that discards memory at the time when another one touches some of it */
struct discarder {
	enum { IDLE, ARMED, READY, TOUCHED, END } _Atomic state;
	char *at;
	size_t size;
	uint64_t start, delay;	/* in ns */
	bool failed;
};

static uint64_t nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void *discard(void *argument)
{
	struct discarder *discarder = argument;

	while (discarder->state != END) {
		if (discarder->state != ARMED) {
			sched_yield();
			continue;
		}
		/* From here on without sched_yield(), in which the page fault may get beyond where it matters */
		discarder->state = READY;
		while (discarder->state == READY)
			;
		while (nanoseconds() - discarder->start < discarder->delay)
			;
		discarder->failed |= madvise(discarder->at, discarder->size, MADV_DONTNEED);
		discarder->state = IDLE;
	}
	return NULL;
}

static uint64_t touch(const char *at)
{
	uint64_t start = nanoseconds();

	(void)*(volatile const char *)at;
	return nanoseconds() - start;
}

/*
 * The n-th race of both. Discarding begins up to as long after the touch as an undisturbed page fault takes, more often a
 * little later than much, since what matters is early in a fault; or else it begins a little before.
 */
static void touch_and_discard(struct discarder *discarder, char *touched, char *discarded, size_t size, uint64_t n, uint64_t fault)
{
	uint64_t delay = (fault >> n % 8) / 4 * (1 + n / 8 % 4);
	bool before = n / 32 % 2;

	discarder->at = discarded;
	discarder->size = size;
	discarder->delay = before ? 0 : delay;
	discarder->state = ARMED;
	while (discarder->state != READY)
		sched_yield();
	discarder->start = nanoseconds();
	discarder->state = TOUCHED;
	while (before && nanoseconds() - discarder->start < delay / 16)
		;
	touch(touched);
	while (discarder->state != IDLE)
		sched_yield();
}

/* Discard each page of small ones, when it is touched itself. Returns false when the system refuses something. */
static bool discard_small(struct discarder *discarder, uint64_t *wrong)
{
	char *all = map(HUGE, 0, false), *at;
	uint64_t fault = 0;

	if (!all)
		return false;
	fill(all, HUGE, 1, 0);
	if (nouveau_bind(gpu, (uintptr_t)all, HUGE))
		return false;
	for (uint64_t i = 0; i < HUGE / PAGE; i++) {
		at = all + i * PAGE;
		if (i % 16 == 0) {
			fault = touch(at);
			*wrong += matching(at, PAGE, 1, i * PAGE) != PAGE;
		} else {
			touch_and_discard(discarder, at, at, PAGE, i, fault);
			*wrong += zeroes(at, PAGE) != PAGE;
		}
	}
	return !munmap(all, HUGE);
}

/* The same for a huge page, or for a part of it: its first page, or its second half. `fault` is from one call to the next. */
static bool discard_huge(struct discarder *discarder, uint64_t n, uint64_t *fault, uint64_t *wrong)
{
	const size_t start[] = { 0, 0, HUGE / 2 }, size[] = { HUGE, PAGE, HUGE / 2 }, touched[] = { 0, PAGE, 0 };
	char *at = map(HUGE, 0, true);
	unsigned int part = n % 3;

	if (!at)
		return false;
	fill(at, HUGE, 1, 0);
	if (nouveau_bind(gpu, (uintptr_t)at, HUGE))
		return false;
	if (n % 16 == 0) {
		*fault = touch(at);
		*wrong += matching(at, HUGE, 1, 0) != HUGE;
	} else {
		touch_and_discard(discarder, at + touched[part], at + start[part], size[part], n, *fault);
		*wrong += zeroes(at + start[part], size[part]) != size[part];
		if (part)
			*wrong += matching(at + PAGE, PAGE, 1, PAGE) != PAGE;
	}
	return !munmap(at, HUGE);
}

static void run_discard_race(uint64_t rounds, bool huge)
{
	struct discarder discarder = { .state = IDLE };
	uint64_t wrong = 0, fault = 0;
	bool fine = true;
	pthread_t thread;

	errno = pthread_create(&thread, NULL, discard, &discarder);
	if (errno) {
		check_call("discard-race", true);
		return;
	}
	for (uint64_t i = 0; fine && i < rounds; i++)
		fine = huge ? discard_huge(&discarder, i, &fault, &wrong) : discard_small(&discarder, &wrong);
	discarder.state = END;
	pthread_join(thread, NULL);
	if (!fine || discarder.failed)
		check_call("discard-race", true);
	else
		ok(" %" PRIu64, wrong);
}

static int import(unsigned long request, uint64_t address, uint64_t size, void *data, uint32_t flags, uint64_t *pages)
{
	struct importer_cmd cmd = { .addr = address, .npages = size / PAGE, .ptr = (uintptr_t)data, .flags = flags };
	int ret = ioctl(importer, request, &cmd);

	*pages = cmd.cpages;
	return ret;
}

static void show_state(const char *command, unsigned long request, uint64_t address, uint64_t size, uint32_t flags)
{
	uint64_t count, mapped = 0, bus = 0, bridge = 0, other = 0;
	unsigned char *states = calloc(size / PAGE, 1);

	if (!states || import(request, address, size, states, flags, &count)) {
		check_call(command, true);
	} else {
		for (uint64_t i = 0; i < size / PAGE; i++) {
			mapped += !!(states[i] & PAGE_MAPPED);
			bus += !!(states[i] & PAGE_BUS);
			bridge += !!(states[i] & PAGE_HOST_BRIDGE);
			other += (states[i] & PAGE_MAPPED) && !(states[i] & (PAGE_BUS | PAGE_HOST_BRIDGE));
		}
		ok(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, mapped, bus, bridge, other);
	}
	free(states);
}

static void dma(const char *command, bool write, uint64_t address, uint64_t size, uint64_t seed)
{
	char *data = malloc(size);
	uint64_t pages = 0;
	int ret = -1;

	if (data) {
		if (write)
			fill(data, size, seed, 0);
		ret = import(write ? IMPORTER_WRITE : IMPORTER_READ, address, size, data, 0, &pages);
	}
	if (ret && errno != ENXIO)
		check_call(command, true);
	else
		ok(" %zu", write ? pages * PAGE : matching(data, pages * PAGE, seed, 0));
	free(data);
}

static uint32_t flags_of(const char *letters)
{
	return (strchr(letters, 'f') ? FLAG_FAULT : 0) | (strchr(letters, 'w') ? FLAG_WRITE : 0) |
	       (strchr(letters, 'p') ? FLAG_TRY_P2P : 0);
}

static void run(const char *command, const char *word, const uint64_t *n)
{
	void *at = (void *)n[0];
	int prot = PROT_NONE, channel;

	if (!strcmp(command, "open")) {
		gpu = nouveau_open(word);
		check_call(command, gpu < 0);
	} else if (!strcmp(command, "gpu")) {
		gpu = nouveau_open_svm(word);
		check_call(command, gpu < 0);
	} else if (!strcmp(command, "channel")) {
		channel = nouveau_channel(gpu);
		if (channel < 0)
			check_call(command, true);
		else
			ok(" %d", channel);
	} else if (!strcmp(command, "close")) {
		check_call(command, close(gpu));
	} else if (!strcmp(command, "map") || !strcmp(command, "map-huge") || !strcmp(command, "gem")) {
		at = *command == 'g' ? nouveau_gem(gpu, n[0], NULL) : map(n[0], n[1], command[3]);
		if (at)
			ok(" %#" PRIxPTR, (uintptr_t)at);
		else
			check_call(command, true);
	} else if (!strcmp(command, "unmap")) {
		check_call(command, munmap(at, n[1]));
	} else if (!strcmp(command, "protect")) {
		if (*word == 'r')
			prot = PROT_READ;
		if (*word == 'w')
			prot = PROT_READ | PROT_WRITE;
		check_call(command, mprotect(at, n[1], prot));
	} else if (!strcmp(command, "discard")) {
		check_call(command, madvise(at, n[1], MADV_DONTNEED));
	} else if (!strcmp(command, "pageout")) {
		check_call(command, madvise(at, n[1], MADV_PAGEOUT));
	} else if (!strcmp(command, "fill")) {
		fill(at, n[1], n[2], 0);
		ok("%s", "");
	} else if (!strcmp(command, "check")) {
		ok(" %zu", matching(at, n[1], n[2], n[3]));
	} else if (!strcmp(command, "peek")) {
		ok(" %#" PRIx64, *(volatile uint64_t *)at);
	} else if (!strcmp(command, "touch")) {
		ok(" %ld", read_pages(at, n[1]));
	} else if (!strcmp(command, "readable")) {
		ok(" %zu", readable(at, n[1]));
	} else if (!strcmp(command, "zero")) {
		ok(" %zu", zeroes(at, n[1]));
	} else if (!strcmp(command, "huge")) {
		ok(" %" PRIu64, smaps(n[0], n[1], "AnonHugePages"));
	} else if (!strcmp(command, "vram")) {
		ok(" %zu", nouveau_private_pages(n[0], n[1]));
	} else if (!strcmp(command, "bind")) {
		check_call(command, nouveau_bind(gpu, n[0], n[1]));
	} else if (!strcmp(command, "fork")) {
		fork_child(n[0], n[1], n[2], n[3]);
	} else if (!strcmp(command, "race")) {
		run_race((struct race){ n[0], n[1], n[2], n[3] });
	} else if (!strcmp(command, "bind-together")) {
		run_together(n[0], n[1], n[2]);
	} else if (!strcmp(command, "discard-race")) {
		run_discard_race(n[0], *word == 'h');
	} else if (!strcmp(command, "importer")) {
		importer = open(word, O_RDWR | O_CLOEXEC);
		check_call(command, importer < 0);
	} else if (!strcmp(command, "import")) {
		show_state(command, IMPORTER_MAP, n[0], n[1], flags_of(word));
	} else if (!strcmp(command, "state")) {
		show_state(command, IMPORTER_STATE, n[0], n[1], 0);
	} else if (!strcmp(command, "dma-check")) {
		dma(command, false, n[0], n[1], n[2]);
	} else if (!strcmp(command, "dma-fill")) {
		dma(command, true, n[0], n[1], n[2]);
	} else {
		printf("error %s: no such command\n", command);
		fflush(stdout);
	}
}

int main(void)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		const char *command = strtok(line, " \n"), *word = "", *token;
		uint64_t numbers[4] = { 0 };
		int count = 0;

		if (!command)
			continue;
		while ((token = strtok(NULL, " \n"))) {
			char *end;
			uint64_t number = strtoull(token, &end, 0);

			if (*end)
				word = token;
			else if (count < 4)
				numbers[count++] = number;
		}
		run(command, word, numbers);
	}
	return 0;
}
