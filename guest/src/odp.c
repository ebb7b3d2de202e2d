// SPDX-License-Identifier: GPL-2.0
/*
 * odp: RDMA through on-demand-paging memory regions, with verified data
 *
 * Link: -libverbs
 *
 *   odp transfer [OPTIONS] OPERATION...   the operations, one after the other, each on fresh memory
 *   odp race [OPTIONS] KIND ROUNDS        WRITE and READ while something invalidates the memory that often
 *   odp children COUNT                    fill and empty COUNT child regions of an implicit region
 *   odp absent                            READ of pages that were absent when a large region was registered
 *
 * Options: -n PAGES (default 8); -i implicit region; -r relaxed ordering; -a ADVICE (0 read, 1 write, 2 no fault)
 * prefetches first; -s register after the migration instead of before it; -t migrate huge pages; -c share the memory
 * with a child (COW).
 *
 * Memory that an operation is about is device private at first, in the PCI BAR of the simulated GPU. After each
 * operation there are lines "OPERATION NAME VALUE" for: private (pages that still are), and what
 * `rdma statistic show mr` says about the region. Content is verified through the CPU at the end, which brings the
 * pages back. Exit status 1 and a message say that something is wrong.
 */
#include "hmm_dmirror.h"
#include "verbs.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

static struct options {
	size_t pages;
	bool implicit, relaxed, snapshot, huge, cow;
	int advice;
} options = { .pages = 8, .advice = -1 };

static struct pair ends;
static int gpu = -1;

/* The memory that a test is about, and memory that is always in the system's. Both have `size` bytes. */
static char *target, *local;
static size_t size;
static struct ibv_mr *target_mr, *local_mr;

/* Word `i` of what `seed` stands for */
static uint32_t word(uint32_t seed, size_t i)
{
	return ((uint32_t)i + 1) * 2654435761U ^ seed;
}

static void fill(void *memory, uint32_t seed)
{
	uint32_t *words = memory;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = word(seed, i);
}

static void verify(const void *memory, uint32_t seed, const char *what)
{
	const uint32_t *words = memory;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++) {
		errno = 0;
		if (words[i] != word(seed, i))
			die("%s: word %zu of %zu is %#x, not %#x", what, i, size / sizeof(*words), words[i], word(seed, i));
	}
}

static void *map(void *where, size_t bytes)
{
	void *memory = mmap(where, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (where ? MAP_FIXED : 0), -1, 0);

	if (memory == MAP_FAILED)
		die("mmap of %zu bytes", bytes);
	return memory;
}

static char *map_aligned(size_t bytes)
{
	char *memory = map(NULL, bytes + HUGE_PAGE);

	return (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
}

static int access_flags(void)
{
	return IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
	       IBV_ACCESS_ON_DEMAND | (options.relaxed ? IBV_ACCESS_RELAXED_ORDERING : 0);
}

static struct ibv_mr *register_odp(void *memory, size_t bytes)
{
	struct ibv_mr *mr = options.implicit ? ibv_reg_mr(ends.pd, NULL, SIZE_MAX, access_flags()) :
					       ibv_reg_mr(ends.pd, memory, bytes, access_flags());

	if (!mr)
		die("cannot register an %s ODP region", options.implicit ? "implicit" : "explicit");
	return mr;
}

/* Returns how many of the target's pages are private to the GPU. */
static size_t count_private(void)
{
	size_t pages = size / PAGE, count = 0, i;
	unsigned char *where = calloc(pages, 1);

	if (dmirror(gpu, HMM_DMIRROR_SNAPSHOT, target, where, pages))
		die("cannot ask where pages are");
	for (i = 0; i < pages; i++)
		count += (where[i] & HMM_DMIRROR_WHERE_MASK) == HMM_DMIRROR_PRIVATE_LOCAL;
	free(where);
	return count;
}

static void make_private(void)
{
	void *copy;

	if (options.huge && madvise(target, size, MADV_COLLAPSE))
		die("cannot make huge pages");
	copy = malloc(size);
	if (!copy || dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, target, copy, size / PAGE))
		die("cannot migrate to the GPU");
	free(copy);
}

static pid_t share(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		pause();
		_exit(0);
	}
	return pid;
}

static void show(const char *operation)
{
	char line[1024], *word_;
	FILE *rdma;

	if (gpu >= 0)
		printf("%s private %zu\n", operation, count_private());
	rdma = popen("rdma statistic show mr", "r");
	if (!rdma)
		die("cannot run rdma");
	/* Pairs of name and value, on several lines for each region; only ODP regions have any of these. */
	while (fgets(line, sizeof(line), rdma)) {
		char *name = NULL;

		for (word_ = strtok(line, " \n"); word_; word_ = strtok(NULL, " \n")) {
			if (name && (!strncmp(name, "page_", 5) || !strncmp(name, "alias_", 6)))
				printf("%s %s %s\n", operation, name, word_);
			name = word_;
		}
	}
	if (pclose(rdma))
		die("rdma statistic show mr failed");
	fflush(stdout);
}

static struct ibv_send_wr request(enum ibv_wr_opcode opcode, struct ibv_sge *sge, void *remote, uint32_t rkey)
{
	return (struct ibv_send_wr){
		.opcode = opcode, .sg_list = sge, .num_sge = 1,
		.wr.rdma = { .remote_addr = (uintptr_t)remote, .rkey = rkey },
	};
}

static struct ibv_sge element(void *memory, size_t bytes, uint32_t lkey)
{
	return (struct ibv_sge){ .addr = (uintptr_t)memory, .length = bytes, .lkey = lkey };
}

static void succeed(enum ibv_wc_status status, const char *what)
{
	errno = 0;
	if (status != IBV_WC_SUCCESS)
		die("%s completed with: %s", what, ibv_wc_status_str(status));
}

/* One WRITE, READ ... between `local` and `target`, where `source` says from which. */
static void one_sided(enum ibv_wr_opcode opcode, bool target_is_remote)
{
	struct ibv_sge sge = target_is_remote ? element(local, size, local_mr->lkey) :
						element(target, size, target_mr->lkey);
	struct ibv_send_wr wr = target_is_remote ? request(opcode, &sge, target, target_mr->rkey) :
						   request(opcode, &sge, local, local_mr->rkey);

	succeed(pair_send(&ends, &wr), "an RDMA request");
}

static void two_sided(bool to_target)
{
	struct ibv_sge to = to_target ? element(target, size, target_mr->lkey) : element(local, size, local_mr->lkey);
	struct ibv_sge from = to_target ? element(local, size, local_mr->lkey) : element(target, size, target_mr->lkey);
	struct ibv_recv_wr receive = { .sg_list = &to, .num_sge = 1 }, *bad;
	struct ibv_send_wr send = { .opcode = IBV_WR_SEND, .sg_list = &from, .num_sge = 1 };

	errno = ibv_post_recv(ends.qp[1], &receive, &bad);
	if (errno)
		die("cannot post a receive");
	succeed(pair_send(&ends, &send), "a SEND");
	succeed(pair_wait(&ends, 1), "a RECV");
}

/* Operates on the first 8 bytes of each page; `target` was filled with seed 1. */
static void atomics(void)
{
	uint64_t *returned = (uint64_t *)local;
	size_t page;

	for (page = 0; page < size / PAGE; page++) {
		size_t i = page * PAGE / sizeof(uint32_t);
		uint64_t was = (uint64_t)word(1, i + 1) << 32 | word(1, i);
		struct ibv_sge sge = element(returned, sizeof(*returned), local_mr->lkey);
		struct ibv_send_wr wr = {
			.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .sg_list = &sge, .num_sge = 1,
			.wr.atomic = { .remote_addr = (uintptr_t)(target + page * PAGE), .rkey = target_mr->rkey,
				       .compare_add = 5 },
		};

		succeed(pair_send(&ends, &wr), "a fetch-and-add");
		errno = 0;
		if (*returned != was)
			die("page %zu: fetch-and-add returned %#lx, not %#lx", page, *returned, was);
		wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
		wr.wr.atomic.compare_add = was + 5;
		wr.wr.atomic.swap = ~was;
		succeed(pair_send(&ends, &wr), "a compare-and-swap");
		errno = 0;
		if (*returned != was + 5)
			die("page %zu: compare-and-swap returned %#lx, not %#lx", page, *returned, was + 5);
	}
	show("atomic");
	for (page = 0; page < size / PAGE; page++) {
		uint32_t *at = (uint32_t *)(target + page * PAGE);
		size_t i = page * PAGE / sizeof(uint32_t);

		errno = 0;
		if (at[0] != ~word(1, i) || at[1] != ~word(1, i + 1))
			die("page %zu: not what compare-and-swap stored", page);
		at[0] = word(1, i);
		at[1] = word(1, i + 1);
	}
	verify(target, 1, "around the atomics");
}

static void prefetch(void)
{
	struct ibv_sge sge = element(target, size, target_mr->lkey);

	if (options.advice < 0)
		return;
	errno = ibv_advise_mr(ends.pd, options.advice, IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1);
	if (errno)
		die("cannot prefetch");
	show("prefetch");
}

static void transfer(const char *operation)
{
	pid_t child = -1;

	target = map_aligned(size);
	fill(target, 1);
	fill(local, 2);
	if (options.snapshot) {
		make_private();
		target_mr = register_odp(target, size);
	} else {
		target_mr = register_odp(target, size);
		make_private();
	}
	if (options.cow)
		child = share();
	prefetch();

	if (!strcmp(operation, "atomic")) {
		atomics();
	} else {
		/* Whether the data goes to the target; it is seed 2 then. */
		bool in = true;

		if (!strcmp(operation, "write"))	/* responder writes */
			one_sided(IBV_WR_RDMA_WRITE, true);
		else if (!strcmp(operation, "read-in"))	/* requester writes */
			one_sided(IBV_WR_RDMA_READ, false);
		else if (!strcmp(operation, "recv"))
			two_sided(true);
		else if (!strcmp(operation, "read"))	/* responder reads */
			one_sided(IBV_WR_RDMA_READ, !(in = false));
		else if (!strcmp(operation, "write-out"))	/* requester reads */
			one_sided(IBV_WR_RDMA_WRITE, in = false);
		else if (!strcmp(operation, "send"))
			two_sided(in = false);
		else
			die("no such operation: %s", operation);
		show(operation);
		if (in)
			verify(target, 2, operation);
		else
			verify(local, 1, operation);
		verify(in ? local : target, in ? 2 : 1, "the source");
	}
	if (ibv_dereg_mr(target_mr))
		die("cannot deregister");
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	munmap(target, size);
}

/*
 * Races: one thread WRITEs a page with a number of its own and READs it back, another one invalidates pages.
 */
static atomic_bool stop;
static const char *race_kind;
static atomic_ulong disturbed;

/* What the page may hold: what was written last or, if its memory is thrown away by `disturb`, zeros. */
static void check_page(const uint32_t *page, uint32_t seed, bool may_be_zero)
{
	bool zero = may_be_zero && !page[0];
	size_t i;

	errno = 0;
	for (i = 0; i < PAGE / sizeof(*page); i++)
		if (page[i] != (zero ? 0 : word(seed, i)))
			die("word %zu is %#x, not %#x", i, page[i], zero ? 0 : word(seed, i));
}

static void disturb(void)
{
	static void *copy;

	if (!copy)
		copy = malloc(size);
	if (!strcmp(race_kind, "touch")) {
		volatile char *at = target;
		size_t i;

		for (i = 0; i < size; i += PAGE)
			(void)at[i];
	} else if (!strcmp(race_kind, "dontneed")) {
		madvise(target, size, MADV_DONTNEED);
	} else if (!strcmp(race_kind, "munmap")) {
		map(target, size);
	} else if (!strcmp(race_kind, "split")) {
		/* Another protection for a part of it has huge pages split. */
		mprotect(target, PAGE, PROT_READ);
		mprotect(target, PAGE, PROT_READ | PROT_WRITE);
		madvise(target, size, MADV_COLLAPSE);
	} else if (!strcmp(race_kind, "fork")) {
		pid_t pid = fork();

		if (!pid) {
			/* Its copy must not change, whatever the device writes. */
			uint32_t first[64];
			size_t i, round;

			for (i = 0; i < 64 && i * PAGE < size; i++)
				first[i] = *(volatile uint32_t *)(target + i * PAGE);
			for (round = 0; round < 10; round++) {
				usleep(1000);
				for (i = 0; i < 64 && i * PAGE < size; i++)
					if (*(volatile uint32_t *)(target + i * PAGE) != first[i])
						_exit(1);
			}
			_exit(0);
		}
		int status;

		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			die("fork");
		errno = 0;
		if (status)
			die("the memory of the child has changed");
	} else {
		die("no such race: %s", race_kind);
	}
	/* Back to the GPU; what is not there cannot go, and what is busy stays. */
	dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, target, copy, size / PAGE);
	disturbed++;
}

static void *disturber(void *unused)
{
	while (!stop)
		disturb();
	return unused;
}

/* Goes on until there were `rounds` of invalidation, and a transfer for each of them, however long this takes. */
static void race(unsigned long rounds)
{
	bool lossy = !strcmp(race_kind, "dontneed") || !strcmp(race_kind, "munmap");
	unsigned long transfers = 0;
	pthread_t thread;
	uint32_t *page;

	target = map_aligned(size);
	memset(target, 0, size);
	make_private();
	target_mr = register_odp(target, size);
	page = (uint32_t *)local;
	if (pthread_create(&thread, NULL, disturber, NULL))
		die("no thread");
	while (disturbed < rounds || transfers < rounds) {
		size_t where = transfers % (size / PAGE) * PAGE, i;
		uint32_t seed = transfers + 1;
		struct ibv_sge sge = element(page, PAGE, local_mr->lkey);
		struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge, target + where, target_mr->rkey);

		for (i = 0; i < PAGE / sizeof(*page); i++)
			page[i] = word(seed, i);
		succeed(pair_send(&ends, &wr), "WRITE");
		memset(page, 0x5a, PAGE);
		wr.opcode = IBV_WR_RDMA_READ;
		succeed(pair_send(&ends, &wr), "READ");
		check_page(page, seed, lossy);
		transfers++;
	}
	stop = true;
	pthread_join(thread, NULL);
	printf("race transfers %lu\nrace disturbed %lu\n", transfers,
	       (unsigned long)disturbed);
	show("race");
	if (ibv_dereg_mr(target_mr))
		die("cannot deregister");
}

/*
 * The children of an implicit region cover 1 GiB each. Pages are touched such that MTTs of pages which are mapped
 * already are written once more, and then all go.
 */
static void children(size_t count)
{
	const size_t distance = 1UL << 30;
	char *area = map(NULL, (count + 1) * distance);
	size_t i, page;

	options.implicit = true;
	target_mr = register_odp(NULL, 0);
	area = (char *)(((uintptr_t)area + distance - 1) & ~(distance - 1));
	for (i = 0; i < count; i++) {
		for (page = 0; page < 4; page++) {
			struct ibv_sge sge = element(local, PAGE, local_mr->lkey);
			struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge, area + i * distance + page * PAGE,
							target_mr->rkey);

			succeed(pair_send(&ends, &wr), "WRITE");
		}
	}
	printf("filled\n");
	fflush(stdout);
	if (getchar() != '\n')
		die("no newline on standard input");
	munmap(area, count * distance);
	printf("emptied\n");
	fflush(stdout);
	if (getchar() != '\n')
		die("no newline on standard input");
	if (ibv_dereg_mr(target_mr))
		die("cannot deregister");
}

/* An update of MTTs is done in steps of at most 1 MiB less 64 bytes; what was in one must not show in the next. */
static void absent(void)
{
	const size_t step = ((1UL << 20) - 64) / 8 * PAGE;
	char *area = map(NULL, 2 * step);
	struct ibv_sge sge;
	struct ibv_send_wr wr;
	size_t i;

	size = PAGE;
	fill(area, 3);
	target_mr = register_odp(area, 2 * step);
	sge = element(local, PAGE, local_mr->lkey);
	wr = request(IBV_WR_RDMA_READ, &sge, area + step, target_mr->rkey);
	succeed(pair_send(&ends, &wr), "READ");
	errno = 0;
	for (i = 0; i < PAGE; i++)
		if (local[i])
			die("byte %zu of a page that nobody has written is %#x", i, local[i]);
	wr.wr.rdma.remote_addr = (uintptr_t)area;
	succeed(pair_send(&ends, &wr), "READ");
	verify(local, 3, "the page that is there");
	if (ibv_dereg_mr(target_mr))
		die("cannot deregister");
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	int option;

	argc--;
	argv++;
	while ((option = getopt(argc, argv, "+n:irsa:tc")) >= 0) {
		switch (option) {
		case 'n': options.pages = strtoul(optarg, NULL, 0); break;
		case 'i': options.implicit = true; break;
		case 'r': options.relaxed = true; break;
		case 's': options.snapshot = true; break;
		case 'a': options.advice = atoi(optarg); break;
		case 't': options.huge = true; break;
		case 'c': options.cow = true; break;
		default: die("see the head of guest/src/odp.c");
		}
	}
	pair_open(&ends);
	size = options.pages * PAGE;
	local = map(NULL, size);
	local_mr = ibv_reg_mr(ends.pd, local, size,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
	if (!local_mr)
		die("cannot register the local region");
	if (!strcmp(command, "children") && optind < argc) {
		children(strtoul(argv[optind], NULL, 0));
		return 0;
	}
	if (!strcmp(command, "absent")) {
		absent();
		return 0;
	}
	gpu = dmirror_open();
	if (gpu < 0)
		die("no simulated GPU with a PCI BAR");
	if (!strcmp(command, "race") && optind + 1 < argc) {
		race_kind = argv[optind];
		race(strtoul(argv[optind + 1], NULL, 0));
		return 0;
	}
	if (strcmp(command, "transfer") || optind == argc)
		die("see the head of guest/src/odp.c");
	for (; optind < argc; optind++)
		transfer(argv[optind]);
	return 0;
}
