// SPDX-License-Identifier: GPL-2.0
/*
 * hmm_walk: what hmm_range_fault() costs for memory of several kinds (guest/modules/hmm_bench)
 *
 *   hmm_walk small|huge PAGES WALKS [PROVIDER IMPORTER]
 *
 * Memory of PAGES pages, by 4 KiB or 2 MiB, is walked WALKS times in each of these ways:
 *   system     in the memory of the system
 *   owner      private to the simulated GPU, the caller is its owner
 *   alias      the same, the caller is the device IMPORTER and asks for aliases
 *   migration  the same, the caller asks for neither: it is migrated to the system, and back to the GPU before the next walk
 * The latter three only with PROVIDER and IMPORTER, which are PCI addresses, such as 0000:02:00.0. All walks ask for faults.
 *
 * Prints a line for each: "WAY PRESENT PRIVATE ALIAS CALLS CYCLES...": the pages that the last walk found, those of them that
 * are private and that are aliases, how often the GPU was asked for aliases in all walks, and what each walk took.
 */
#include "hmm_dmirror.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };
enum { ALIASES = 1, OWNER = 2 };

/* As guest/modules/hmm_bench/hmm_bench.c has it */
struct hmm_bench_cmd {
	uint64_t addr, npages;
	uint32_t walks, flags, provider, importer;
	uint64_t cycles, present, private, alias;
};

#define HMM_BENCH _IOWR('B', 0x01, struct hmm_bench_cmd)

static int bench = -1, gpu = -1;
static char *memory, *copy;
static uint64_t *cycles;
static uint32_t walks, provider, importer;
static size_t pages;

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "hmm_walk: %s: %s\n", what, errno ? strerror(errno) : "failed");
	exit(1);
}

static uint32_t pci_number(const char *address)
{
	unsigned int bus, device, function;

	errno = 0;
	if (sscanf(address, "%*x:%x:%x.%x", &bus, &device, &function) != 3)
		die(address);
	return bus << 8 | device << 3 | function;
}

static void migrate_to_gpu(void)
{
	if (dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, memory, copy, pages))
		die("cannot migrate to the GPU");
}

/* Lets all pages have aliases. Returns how often the GPU was asked for some since the last time. */
static uint64_t alias_calls(void)
{
	struct hmm_dmirror_alias alias = { .end = UINT64_MAX };

	if (gpu >= 0 && ioctl(gpu, HMM_DMIRROR_ALIAS, &alias))
		die("HMM_DMIRROR_ALIAS");
	return alias.calls;
}

/* Walks `count` times, and puts what they took at `taken`. */
static struct hmm_bench_cmd walk(uint32_t count, uint32_t flags, uint64_t *taken)
{
	struct hmm_bench_cmd cmd = { .addr = (uintptr_t)memory, .npages = pages, .walks = count, .flags = flags,
				     .provider = provider, .importer = importer, .cycles = (uintptr_t)taken };

	if (ioctl(bench, HMM_BENCH, &cmd))
		die("HMM_BENCH");
	return cmd;
}

static void tell(const char *way, struct hmm_bench_cmd found)
{
	uint32_t i;

	printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, way, found.present, found.private, found.alias, alias_calls());
	for (i = 0; i < walks; i++)
		printf(" %" PRIu64, cycles[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	struct hmm_bench_cmd found;
	size_t size;
	uint32_t i;

	if (argc != 4 && argc != 6) {
		fprintf(stderr, "usage: hmm_walk small|huge PAGES WALKS [PROVIDER IMPORTER]\n");
		return 2;
	}
	pages = strtoul(argv[2], NULL, 0);
	walks = strtoul(argv[3], NULL, 0);
	size = pages * PAGE;

	memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cycles = calloc(walks, sizeof(*cycles));
	copy = malloc(size);
	if (memory == MAP_FAILED || !cycles || !copy)
		die("memory");
	memory = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
	if (!strcmp(argv[1], "huge")) {
		memset(memory, 1, size);
		if (madvise(memory, size, MADV_COLLAPSE))
			die("MADV_COLLAPSE");
	} else {
		if (madvise(memory, size, MADV_NOHUGEPAGE))
			die("MADV_NOHUGEPAGE");
		memset(memory, 1, size);
	}
	bench = open("/dev/hmm_bench", O_RDWR);
	if (bench < 0)
		die("/dev/hmm_bench");
	tell("system", walk(walks, 0, cycles));
	if (argc == 4)
		return 0;

	provider = pci_number(argv[4]);
	importer = pci_number(argv[5]);
	gpu = dmirror_open();
	if (gpu < 0)
		die("no simulated GPU");
	migrate_to_gpu();
	alias_calls();
	tell("owner", walk(walks, OWNER, cycles));
	tell("alias", walk(walks, ALIASES, cycles));
	for (i = 0; i < walks; i++) {
		migrate_to_gpu();
		found = walk(1, 0, &cycles[i]);
	}
	tell("migration", found);
	return 0;
}
