// SPDX-License-Identifier: GPL-2.0
/*
 * odp: RDMA through on-demand-paging memory regions, with verified data
 *
 * Link: -libverbs
 *
 *   odp transfer [OPTIONS] OPERATION...   the operations, one after the other, each on fresh memory
 *   odp measure [OPTIONS] OPERATION BYTES COUNT DEPTH ROUNDS
 *                                         ROUNDS times, how long COUNT operations of BYTES take, DEPTH of them at once
 *   odp race [OPTIONS] KINDS ROUNDS       READ and WRITE while something invalidates the memory that often, in one of the
 *                                         ways in KINDS (separated by commas)
 *   odp children COUNT                    fill and empty COUNT child regions of an implicit region
 *   odp absent                            READ of pages that were absent when a large region was registered
 *   odp discarded [-i] ROUNDS             READ of a page that was discarded a moment ago
 *   odp deregistered ROUNDS               an implicit region is deregistered amid page faults
 *
 * There are two memories. What an operation is about is the target, which is device private at first: in the PCI BAR of
 * the simulated GPU or, with -g, in the VRAM of a GPU that nouveau drives. The other end is local, and in the memory of
 * the system. After each operation there are lines "OPERATION NAME VALUE" for: private (pages of the target that still
 * are), private-local (of local, if it has any), and what `rdma statistic show mr` says about all regions together.
 * Content is verified through the CPU at the end, which brings the pages back. Exit status 1 and a message say that
 * something is wrong.
 *
 * Options: -n PAGES of each memory (default 8); -i implicit region; -r relaxed ordering; -R the same, taken away again; -a
 * ADVICE (0 read, 1 write, 2 no fault) prefetches the target first; -s register after the migration instead of before it; -t
 * migrate huge pages; -c share the target with a child (COW).
 * -g NODE: a render node of nouveau. -d DEVICE (twice): the verbs devices of requester and responder, instead of the first
 * one for both. -k KIND, -l KIND: what target and local are: pinned, odp, private, or dmabuf (a buffer object of nouveau).
 * -q SERVICE: rc, srq (RC with a shared receive queue), xrc or ud, which does no more than send. -m BYTES: what a request
 * of transfer moves; without it that is all, which is too much for a datagram of more than one page.
 * -S SEED: of what race chooses. Of measure only: -o BYTES between the places of one operation and the next; -f: in each
 * round the target's memory is new to the region, and the round is measured twice ("first", "again"); -p: before each
 * operation all private memory is migrated to the GPU, and "bind" is the time that this took.
 *
 * While race goes on, SIGUSR1 has it close the GPU, and SIGUSR2 open it again. SIGTERM ends it before it has done ROUNDS.
 * SIGHUP says that an HCA may go away from now on: if the traffic ends then, the race goes on without, until SIGTERM.
 */
#define _GNU_SOURCE
#include "hmm_dmirror.h"
#include "nouveau.h"
#include "verbs.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

enum kind { PINNED, ODP, PRIVATE, DMABUF, KINDS };

static const char *const kind_names[KINDS] = { "pinned", "odp", "private", "dmabuf" };

static struct options {
	size_t pages, step, message;
	bool implicit, relaxed, strict_again, snapshot, huge, cow, first_touch, ping_pong;
	int advice;
	const char *node, *device[2];
	enum kind target, local;
	enum service service;
	unsigned int seed;
} options = { .pages = 8, .advice = -1, .target = PRIVATE, .local = PINNED, .seed = 1 };

static struct pair ends;
static int gpu = -1;

/* The memory that a test is about, and what is at the other end. Both have `size` bytes. */
static char *target, *local;
static size_t size;
static struct ibv_mr *target_mr, *local_mr;

/* `side` is the end of the connection that the target is at: 0 is the requester. `in` says whether data goes to it. */
struct operation {
	const char *name;
	enum ibv_wr_opcode opcode;
	int side;
	bool in;
};

static const struct operation operations[] = {
	{ "write", IBV_WR_RDMA_WRITE, 1, true },
	{ "read-in", IBV_WR_RDMA_READ, 0, true },
	{ "recv", IBV_WR_SEND, 1, true },
	{ "read", IBV_WR_RDMA_READ, 1, false },
	{ "write-out", IBV_WR_RDMA_WRITE, 0, false },
	{ "send", IBV_WR_SEND, 0, false },
	{ "atomic", IBV_WR_ATOMIC_FETCH_AND_ADD, 1, true },
};

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

/* Memory of `size` bytes, and for a buffer object a file descriptor of its dma-buf. */
static char *allocate(enum kind kind, int *dmabuf)
{
	char *memory = kind == DMABUF ? nouveau_gem(gpu, size, dmabuf) : map_aligned(size);

	if (!memory)
		die("no buffer object");
	/* What is huge from the start need not be collapsed later, which takes much longer. */
	if (options.huge && kind != DMABUF && madvise(memory, size, MADV_HUGEPAGE))
		die("cannot ask for huge pages");
	return memory;
}

/* For the end `side` of the connection. An implicit region is of the target only. */
static struct ibv_mr *register_memory(int side, void *memory, size_t bytes, enum kind kind, bool implicit, int dmabuf)
{
	int access = access_flags() & (kind == PINNED || kind == DMABUF ? ~IBV_ACCESS_ON_DEMAND : ~0);
	struct ibv_mr *mr;

	if (kind == DMABUF)
		mr = ibv_reg_dmabuf_mr(ends.pd[side], 0, bytes, (uintptr_t)memory, dmabuf, access);
	else if (implicit)
		mr = ibv_reg_mr(ends.pd[side], NULL, SIZE_MAX, access);
	else
		mr = ibv_reg_mr(ends.pd[side], memory, bytes, access);
	if (!mr)
		die("cannot register an %s%s region", implicit ? "implicit " : "", kind_names[kind]);
	access &= ~IBV_ACCESS_RELAXED_ORDERING;
	if (options.strict_again && ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, access))
		die("cannot register an %s%s region without relaxed ordering", implicit ? "implicit " : "", kind_names[kind]);
	return mr;
}

static struct ibv_mr *register_odp(void *memory, size_t bytes)
{
	return register_memory(1, memory, bytes, ODP, options.implicit, -1);
}

static void register_local(int side)
{
	local_mr = register_memory(side, local, size, options.local, false, -1);
}

static void deregister(struct ibv_mr *mr)
{
	if (ibv_dereg_mr(mr))
		die("cannot deregister");
}

static void open_gpu(void)
{
	gpu = options.node ? nouveau_open_svm(options.node) : dmirror_open();
	if (gpu < 0)
		die("cannot open %s", options.node ? options.node : "a simulated GPU with a PCI BAR");
}

/* How many pages of a memory are private to the GPU */
static size_t count_private(const char *memory)
{
	size_t pages = size / PAGE, count = 0, i;
	unsigned char *where;

	if (options.node)
		return nouveau_private_pages((uintptr_t)memory, size);
	where = calloc(pages, 1);
	if (dmirror(gpu, HMM_DMIRROR_SNAPSHOT, (void *)memory, where, pages))
		die("cannot ask where pages are");
	for (i = 0; i < pages; i++)
		count += (where[i] & HMM_DMIRROR_WHERE_MASK) == HMM_DMIRROR_PRIVATE_LOCAL;
	free(where);
	return count;
}

/* What is not there, or busy, stays where it is. Returns that of ioctl(). */
static int migrate(char *memory)
{
	static void *copy;

	if (options.node)
		return nouveau_bind(gpu, (uintptr_t)memory, size);
	if (!copy)
		copy = malloc(size);
	return dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, memory, copy, size / PAGE);
}

static void make_private(char *memory)
{
	if (options.huge && madvise(memory, size, MADV_COLLAPSE))
		die("cannot make huge pages");
	if (migrate(memory))
		die("cannot migrate to the GPU");
	errno = 0;
	/* nouveau does not say whether it succeeded. */
	if (options.node && count_private(memory) != size / PAGE)
		die("only %zu of %zu pages are in VRAM", count_private(memory), size / PAGE);
}

static void prepare(char *memory, enum kind kind)
{
	if (kind == PRIVATE)
		make_private(memory);
	else if (options.huge && kind != DMABUF && madvise(memory, size, MADV_COLLAPSE))
		die("cannot make huge pages");
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
	struct { char name[32]; unsigned long value; } sums[16] = { 0 };
	char line[1024], *word_;
	size_t count = 0, i;
	FILE *rdma;

	if (gpu >= 0) {
		printf("%s private %zu\n", operation, count_private(target));
		if (options.local == PRIVATE)
			printf("%s private-local %zu\n", operation, count_private(local));
	}
	rdma = popen("rdma statistic show mr", "r");
	if (!rdma)
		die("cannot run rdma");
	/* Pairs of name and value, on several lines for each region; only ODP regions have any of these. */
	while (fgets(line, sizeof(line), rdma)) {
		char *name = NULL;

		for (word_ = strtok(line, " \n"); word_; word_ = strtok(NULL, " \n")) {
			if (name && (!strncmp(name, "page_", 5) || !strncmp(name, "alias_", 6))) {
				for (i = 0; i < count && strcmp(sums[i].name, name); i++)
					;
				if (i == sizeof(sums) / sizeof(sums[0]))
					die("too many counters");
				if (i == count)
					snprintf(sums[count++].name, sizeof(sums[0].name), "%s", name);
				sums[i].value += strtoul(word_, NULL, 0);
			}
			name = word_;
		}
	}
	if (pclose(rdma))
		die("rdma statistic show mr failed");
	for (i = 0; i < count; i++)
		printf("%s %s %lu\n", operation, sums[i].name, sums[i].value);
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

/* Starts an operation on `bytes` at an offset of both memories. */
static void start(const struct operation *operation, size_t offset, size_t bytes)
{
	struct ibv_sge here = element(target + offset, bytes, target_mr->lkey);
	struct ibv_sge there = element(local + offset, bytes, local_mr->lkey);
	struct ibv_sge *sge[2] = { operation->side ? &there : &here, operation->side ? &here : &there };
	struct ibv_send_wr wr = request(operation->opcode, sge[0], (void *)(uintptr_t)sge[1]->addr,
					operation->side ? target_mr->rkey : local_mr->rkey);

	if (operation->opcode == IBV_WR_SEND)
		pair_receive(&ends, sge[1]);
	pair_post(&ends, &wr);
}

/* Waits for the end of an operation, in the order in which they were started. */
static void finish(const struct operation *operation)
{
	succeed(pair_wait(&ends, 0), operation->name);
	if (operation->opcode == IBV_WR_SEND)
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

static void prefetch(int side)
{
	struct ibv_sge sge = element(target, size, target_mr->lkey);

	if (options.advice < 0)
		return;
	errno = ibv_advise_mr(ends.pd[side], options.advice, IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1);
	if (errno)
		die("cannot prefetch");
	show("prefetch");
}

static const struct operation *find_operation(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (!strcmp(operations[i].name, name))
			return &operations[i];
	die("no such operation: %s", name);
}

/* Both memories with content and registered, target and local as the options say, for an operation. */
static void set_up(const struct operation *operation)
{
	int dmabuf = -1;

	target = allocate(options.target, &dmabuf);
	local = allocate(options.local, &dmabuf);
	fill(target, 1);
	fill(local, 2);
	prepare(local, options.local);
	register_local(!operation->side);
	if (options.snapshot)
		prepare(target, options.target);
	target_mr = register_memory(operation->side, target, size, options.target, options.implicit, dmabuf);
	if (!options.snapshot)
		prepare(target, options.target);
}

static void tear_down(void)
{
	deregister(target_mr);
	deregister(local_mr);
	munmap(target, size);
	munmap(local, size);
}

static void transfer(const struct operation *operation)
{
	const size_t message = options.message ? options.message : size;
	pid_t child = -1;
	size_t at;

	set_up(operation);
	if (options.cow)
		child = share();
	prefetch(operation->side);

	if (operation->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		atomics();
	} else {
		for (at = 0; at < size; at += message) {
			start(operation, at, at + message < size ? message : size - at);
			finish(operation);
		}
		show(operation->name);
		verify(operation->in ? target : local, operation->in ? 2 : 1, operation->name);
		verify(operation->in ? local : target, operation->in ? 2 : 1, "the source");
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	tear_down();
}

/*
 * Times. A line "NAME NANOSECONDS" for each round and for each thing that it consists of.
 */
static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void bind_all(void)
{
	if ((options.target == PRIVATE && migrate(target)) || (options.local == PRIVATE && migrate(local)))
		die("cannot migrate to the GPU");
}

/* Does `count` operations, at most `depth` at once. Returns the time that migrating to the GPU took of it. */
static uint64_t run(const struct operation *operation, size_t bytes, size_t count, size_t depth)
{
	size_t places = options.step ? (size - bytes) / options.step + 1 : 1;
	size_t started, finished = 0;
	uint64_t binding = 0;

	for (started = 0; started < count; started++) {
		if (options.ping_pong) {
			uint64_t begin = now();

			bind_all();
			binding += now() - begin;
		}
		start(operation, started % places * options.step, bytes);
		if (started + 1 - finished == depth) {
			finish(operation);
			finished++;
		}
	}
	for (; finished < count; finished++)
		finish(operation);
	return binding;
}

static void measure(const struct operation *operation, size_t bytes, size_t count, size_t depth, size_t rounds)
{
	size_t i;

	errno = 0;
	if (!bytes || bytes > size || !depth || depth > PAIR_DEPTH || (options.ping_pong && depth > 1) ||
	    (options.first_touch && options.target != ODP && options.target != PRIVATE))
		die("measure: these numbers and options do not go together");
	set_up(operation);
	/* The first round, which nobody measures, gets everything where it is used. */
	for (i = 0; i <= rounds; i++) {
		uint64_t begin, end, binding;

		if (options.first_touch) {
			map(target, size);
			fill(target, 1);
			prepare(target, options.target);
		}
		begin = now();
		binding = run(operation, bytes, count, depth);
		end = now();
		if (i)
			printf("%s %" PRIu64 "\n", options.first_touch ? "first" : "all", end - begin);
		if (i && options.ping_pong)
			printf("bind %" PRIu64 "\n", binding);
		if (i && options.first_touch) {
			begin = now();
			run(operation, bytes, count, depth);
			printf("again %" PRIu64 "\n", now() - begin);
		}
	}
	show("measure");
	tear_down();
}

/*
 * Races: one thread READs what a page holds, WRITEs something new there and READs it back, another one invalidates pages.
 * What each page has to hold is known at any time.
 */
enum {
	FORKED_PAGES = 64,		/* that a child looks at */
	MOMENT = 250 * 1000000,		/* ns */
};

static volatile sig_atomic_t want_gpu = true, want_end, hca_may_go;
static atomic_bool stop, traffic_over;
static atomic_ulong disturbed, completed;

/* What each page holds. Where memory is thrown away (`lossy`) it may also be zeros. */
static uint32_t *seeds;
static bool lossy;

/* What was to be written when the traffic ended: its page, -1 if there is none, holds either this or what it held before. */
static ssize_t unsure_page = -1;
static uint32_t unsure_seed;

/* The index of the first word that is not as it should be, the number of words if there is none. */
static size_t wrong_word(const uint32_t *page, uint32_t seed)
{
	bool zeros = lossy && !page[0];
	size_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		if (page[i] != (zeros ? 0 : word(seed, i)))
			break;
	return i;
}

static void check_page(const uint32_t *page, size_t number, const char *what)
{
	size_t i = wrong_word(page, seeds[number]);

	errno = 0;
	if (i == PAGE / sizeof(*page))
		return;
	if ((ssize_t)number == unsure_page && wrong_word(page, unsure_seed) == PAGE / sizeof(*page))
		return;
	die("%s: word %zu of page %zu is %#x, not %#x", what, i, number, page[i], word(seeds[number], i));
}

static void fill_page(uint32_t *page, uint32_t seed)
{
	size_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = word(seed, i);
}

/*
 * IB core gives a page fault up when it was invalidated again for longer than a second (HMM_RANGE_DEFAULT_TIMEOUT), and
 * mlx5 then fails the request, after a second try: memory that somebody changes all the time is of no use to an HCA, and
 * where a page takes milliseconds that is easily so. Traffic is sure to get on if what disturbs lets a request begin and end
 * after each thing that it does, and now and then in what takes long. Where the HCA may go there is nothing to wait for.
 */
static void give_way(void)
{
	unsigned long until = completed + 2;
	uint64_t begin = now();

	while (completed < until && !stop && !traffic_over && !want_end && !(hca_may_go && now() - begin > MOMENT))
		usleep(200);
}

/* Reads all of it, which brings it back to the memory of the system. */
static void touch(void)
{
	volatile char *at = target;
	uint64_t begin = now();
	size_t i;

	for (i = 0; i < size; i += PAGE) {
		(void)at[i];
		if (now() - begin > MOMENT) {
			give_way();
			begin = now();
		}
	}
}

static void discard(void)
{
	madvise(target, size, MADV_DONTNEED);
}

static void replace(void)
{
	map(target, size);
}

/* The pages of another mapping, some of which are private already, take the place of the target's. */
static void move_here(void)
{
	char *other = map_aligned(size);

	memset(other, 0, size / 2);
	migrate(other);
	if (mremap(other, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		die("mremap");
}

/* Another protection for a part of it has huge pages split. */
static void split(void)
{
	mprotect(target, PAGE, PROT_READ);
	mprotect(target, PAGE, PROT_READ | PROT_WRITE);
	madvise(target, size, MADV_COLLAPSE);
}

static void page_out(void)
{
	madvise(target, size, MADV_PAGEOUT);
}

static void fork_child(void)
{
	static char copy[FORKED_PAGES * PAGE];
	size_t bytes = size < sizeof(copy) ? size : sizeof(copy);
	int status, round;
	pid_t pid = fork();

	if (!pid) {
		/* Its memory must not change, whatever the device writes. */
		memcpy(copy, target, bytes);
		for (round = 0; round < 10; round++) {
			usleep(1000);
			if (memcmp(copy, target, bytes))
				_exit(1);
		}
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		die("fork");
	errno = 0;
	if (status)
		die("the memory of the child has changed, or it died: status %#x", status);
}

static const struct disturbance {
	const char *name;
	void (*disturb)(void);
	bool lossy;
} disturbances[] = {
	{ "touch", touch, false },
	{ "dontneed", discard, true },
	{ "munmap", replace, true },
	{ "mremap", move_here, true },
	{ "split", split, false },
	{ "pageout", page_out, false },
	{ "fork", fork_child, false },
};

static const struct disturbance *chosen[sizeof(disturbances) / sizeof(disturbances[0])];
static unsigned long done[sizeof(disturbances) / sizeof(disturbances[0])];
static size_t chosen_count;

/* Names separated by commas */
static void choose(char *names)
{
	size_t i;

	for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
		for (i = 0; i < sizeof(disturbances) / sizeof(disturbances[0]); i++)
			if (!strcmp(disturbances[i].name, name))
				break;
		if (i == sizeof(disturbances) / sizeof(disturbances[0]) ||
		    chosen_count == sizeof(chosen) / sizeof(chosen[0]))
			die("no such race, or too many: %s", name);
		chosen[chosen_count++] = &disturbances[i];
		lossy |= disturbances[i].lossy;
	}
}

static void want(int signal)
{
	switch (signal) {
	case SIGHUP: hca_may_go = true; break;
	case SIGTERM: want_end = true; break;
	default: want_gpu = signal == SIGUSR2; break;
	}
}

static void open_or_close_gpu(void)
{
	if (want_gpu && gpu < 0) {
		open_gpu();
	} else if (!want_gpu && gpu >= 0) {
		close(gpu);
		gpu = -1;
	} else {
		return;
	}
	printf("gpu %s\n", gpu < 0 ? "closed" : "open");
	fflush(stdout);
}

static void disturb(void)
{
	size_t choice = rand_r(&options.seed) % chosen_count;

	open_or_close_gpu();
	chosen[choice]->disturb();
	done[choice]++;
	give_way();
	/* Back to the GPU, most of the time; what is not there cannot go, and what is busy stays. */
	if (gpu >= 0 && rand_r(&options.seed) % 4) {
		migrate(target);
		give_way();
	}
	disturbed++;
}

static void *disturber(void *unused)
{
	while (!stop)
		disturb();
	return unused;
}

/* Returns whether the request came to a good end. If not, the traffic is over. */
static bool request_done(enum ibv_wr_opcode opcode, uint32_t *page, size_t number)
{
	struct ibv_sge sge = element(page, PAGE, local_mr->lkey);
	struct ibv_send_wr wr = request(opcode, &sge, target + number * PAGE, target_mr->rkey);
	const char *name = opcode == IBV_WR_RDMA_READ ? "READ" : "WRITE";
	struct ibv_wc wc;
	int n;

	pair_post(&ends, &wr);
	while (!(n = ibv_poll_cq(ends.cq[0], 1, &wc)) && !(hca_may_go && want_end))
		sched_yield();
	if (n < 0)
		die("cannot poll a completion queue");
	if (n && wc.status != IBV_WC_SUCCESS && hca_may_go) {
		printf("%s completed with: %s\n", name, ibv_wc_status_str(wc.status));
		fflush(stdout);
	} else if (n) {
		succeed(wc.status, name);
		completed++;
		return true;
	}
	return false;
}

/* READ, WRITE and READ of a page. */
static bool race_once(uint32_t *page, size_t number, uint32_t seed)
{
	memset(page, 0x5a, PAGE);
	if (!request_done(IBV_WR_RDMA_READ, page, number))
		return false;
	check_page(page, number, "READ");

	fill_page(page, seed);
	unsure_page = number;
	unsure_seed = seed;
	if (!request_done(IBV_WR_RDMA_WRITE, page, number))
		return false;
	seeds[number] = seed;
	unsure_page = -1;

	memset(page, 0x5a, PAGE);
	if (!request_done(IBV_WR_RDMA_READ, page, number))
		return false;
	check_page(page, number, "READ after WRITE");
	return true;
}

/* Goes on until there were `rounds` of invalidation, and a transfer for each of them, however long this takes. */
static void race(unsigned long rounds)
{
	const int signals[] = { SIGHUP, SIGTERM, SIGUSR1, SIGUSR2 };
	unsigned int choice = ~options.seed;
	unsigned long transfers = 0;
	pthread_t thread;
	size_t i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], want);
	target = map_aligned(size);
	local = map_aligned(size);
	seeds = calloc(size / PAGE, sizeof(*seeds));
	for (i = 0; i < size / PAGE; i++) {
		seeds[i] = i | 1u << 31;
		fill_page((uint32_t *)(target + i * PAGE), seeds[i]);
	}
	register_local(0);
	make_private(target);
	target_mr = register_odp(target, size);
	if (pthread_create(&thread, NULL, disturber, NULL))
		die("no thread");
	while (!want_end && (disturbed < rounds || transfers < rounds) && !traffic_over) {
		if (race_once((uint32_t *)local, rand_r(&choice) % (size / PAGE), transfers + 1))
			transfers++;
		else
			traffic_over = true;
	}
	while (traffic_over && !want_end)
		usleep(10000);
	stop = true;
	pthread_join(thread, NULL);
	for (i = 0; i < size / PAGE; i++)
		check_page((const uint32_t *)(target + i * PAGE), i, "in the end");
	printf("race transfers %lu\nrace disturbed %lu\n", transfers, (unsigned long)disturbed);
	for (i = 0; i < chosen_count; i++)
		printf("race %s %lu\n", chosen[i]->name, done[i]);
	/* What an HCA had that is gone cannot be given back. */
	if (hca_may_go)
		return;
	show("race");
	tear_down();
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

	local = map_aligned(size);
	register_local(0);
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
	deregister(target_mr);
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
	local = map_aligned(size);
	register_local(0);
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
	deregister(target_mr);
}

/*
 * What was discarded is zeros, and not an error. With an implicit region its child goes as well, as there is no other page
 * in it, and the request comes while it goes.
 */
static void discarded(unsigned long rounds)
{
	struct ibv_sge sge;
	unsigned long i, at;

	size = PAGE;
	target = map_aligned(size);
	local = map_aligned(size);
	register_local(0);
	target_mr = register_odp(target, size);
	sge = element(local, PAGE, local_mr->lkey);
	for (i = 1; i <= rounds; i++) {
		struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge, target, target_mr->rkey);

		fill(local, i);
		succeed(pair_send(&ends, &wr), "WRITE");
		verify(target, i, "what was written");
		discard();
		wr.opcode = IBV_WR_RDMA_READ;
		succeed(pair_send(&ends, &wr), "READ");
		errno = 0;
		for (at = 0; at < PAGE; at++)
			if (local[at])
				die("round %lu: byte %lu of a discarded page is %#x", i, at, local[at]);
	}
	deregister(target_mr);
}

/*
 * An implicit region is deregistered while page faults of it are handled, each of which makes a child of its own. The requests
 * end in whatever way, and so does the connection, which is made anew for the next round.
 */
static void deregistered(unsigned long rounds)
{
	enum { REQUESTS = 4, DELAY = 4000 /* us */ };
	const size_t distance = 1UL << 30;
	unsigned long round, done = 0;
	struct ibv_sge sge;
	struct ibv_wc wc;
	char *area;
	int i, n;

	size = PAGE;
	local = map_aligned(size);
	register_local(0);
	sge = element(local, PAGE, local_mr->lkey);
	options.implicit = true;
	for (round = 0; round < rounds; round++) {
		area = map(NULL, REQUESTS * distance);
		for (i = 0; i < 2; i++)
			pair_modify(ends.qp[i], &(struct ibv_qp_attr){ .qp_state = IBV_QPS_RESET }, IBV_QP_STATE, "RESET");
		for (i = 0; i < 2; i++)
			pair_connect(&ends, i);
		target_mr = register_odp(NULL, 0);
		for (i = 0; i < REQUESTS; i++) {
			struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge, area + i * distance, target_mr->rkey);

			pair_post(&ends, &wr);
		}
		usleep(rand_r(&options.seed) % DELAY);
		deregister(target_mr);
		for (i = 0; i < REQUESTS; i += n) {
			n = ibv_poll_cq(ends.cq[0], 1, &wc);
			if (n < 0)
				die("cannot poll a completion queue");
			done += n && wc.status == IBV_WC_SUCCESS;
		}
		/* What a child has that was forgotten is told of this. */
		munmap(area, REQUESTS * distance);
	}
	printf("deregistered done %lu\nderegistered failed %lu\n", done, rounds * REQUESTS - done);
}

static enum kind find_kind(const char *name)
{
	enum kind kind;

	for (kind = 0; kind < KINDS; kind++)
		if (!strcmp(kind_names[kind], name))
			return kind;
	die("no such kind of memory: %s", name);
}

static enum service find_service(const char *name)
{
	static const char *const names[SERVICES] = { "rc", "srq", "xrc", "ud" };
	enum service service;

	for (service = 0; service < SERVICES; service++)
		if (!strcmp(names[service], name))
			return service;
	die("no such service: %s", name);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	unsigned long numbers[4] = { 0 };
	int option, i;

	argc--;
	argv++;
	while ((option = getopt(argc, argv, "+n:irRsa:tcg:d:k:l:m:o:fpq:S:")) >= 0) {
		switch (option) {
		case 'n': options.pages = strtoul(optarg, NULL, 0); break;
		case 'i': options.implicit = true; break;
		case 'R': options.strict_again = true; /* fall through */
		case 'r': options.relaxed = true; break;
		case 's': options.snapshot = true; break;
		case 'a': options.advice = atoi(optarg); break;
		case 't': options.huge = true; break;
		case 'c': options.cow = true; break;
		case 'g': options.node = optarg; break;
		case 'd': options.device[options.device[0] ? 1 : 0] = optarg; break;
		case 'k': options.target = find_kind(optarg); break;
		case 'l': options.local = find_kind(optarg); break;
		case 'm': options.message = strtoul(optarg, NULL, 0); break;
		case 'o': options.step = strtoul(optarg, NULL, 0); break;
		case 'f': options.first_touch = true; break;
		case 'p': options.ping_pong = true; break;
		case 'q': options.service = find_service(optarg); break;
		case 'S': options.seed = strtoul(optarg, NULL, 0); break;
		default: die("see the head of guest/src/odp.c");
		}
	}
	pair_open(&ends, options.device[0], options.device[1], options.service);
	size = options.pages * PAGE;
	if (!strcmp(command, "children") && optind < argc) {
		children(strtoul(argv[optind], NULL, 0));
		return 0;
	}
	if (!strcmp(command, "absent")) {
		absent();
		return 0;
	}
	if (!strcmp(command, "deregistered") && optind < argc) {
		deregistered(strtoul(argv[optind], NULL, 0));
		return 0;
	}
	if (!strcmp(command, "discarded") && optind < argc) {
		discarded(strtoul(argv[optind], NULL, 0));
		return 0;
	}
	if (options.target >= PRIVATE || options.local >= PRIVATE)
		open_gpu();
	if (!strcmp(command, "race") && optind + 1 < argc) {
		choose(argv[optind]);
		race(strtoul(argv[optind + 1], NULL, 0));
		return 0;
	}
	if (!strcmp(command, "measure") && optind + 4 < argc) {
		for (i = 0; i < 4; i++)
			numbers[i] = strtoul(argv[optind + 1 + i], NULL, 0);
		measure(find_operation(argv[optind]), numbers[0], numbers[1], numbers[2], numbers[3]);
		return 0;
	}
	if (strcmp(command, "transfer") || optind == argc)
		die("see the head of guest/src/odp.c");
	for (; optind < argc; optind++)
		transfer(find_operation(argv[optind]));
	return 0;
}
