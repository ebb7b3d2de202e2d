// SPDX-License-Identifier: GPL-2.0
/*
 * hmm_walk: what hmm_range_fault() costs for memory of several kinds (guest/modules/hmm_bench)
 *
 *   hmm_walk KIND PAGES WALKS [PROVIDER IMPORTER]
 *
 * KIND is small or huge (memory of the system, by 4 KiB or 2 MiB), followed by nothing, or by one of these, for which
 * it is made private to the simulated GPU before: -owner (the caller is its owner), -alias, and -migrate (the caller
 * asks for neither, so that the first walk brings it back, and only that is of interest). All walks ask for faults.
 * PROVIDER and IMPORTER are PCI addresses, such as 0000:02:00.0.
 *
 * Prints "cycles" and what each walk took, then "present", "private" and "alias" with the pages that the last one found,
 * and "calls" with how often the provider was asked for an alias in all walks together.
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
enum { FAULT = 1, ALIASES = 2, OWNER = 4 };

/* As guest/modules/hmm_bench/hmm_bench.c has it */
struct hmm_bench_cmd {
	uint64_t addr, npages;
	uint32_t walks, flags, provider, importer;
	uint64_t cycles, present, private, alias;
};

#define HMM_BENCH _IOWR('B', 0x01, struct hmm_bench_cmd)

/* As in lib/test_hmm_uapi.h */
struct hmm_dmirror_alias {
	uint64_t first, end, skip, calls;
};

#define HMM_DMIRROR_ALIAS _IOWR('H', 0x0a, struct hmm_dmirror_alias)

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

/* Lets all pages have aliases. Returns how often the provider was asked since the last time. */
static uint64_t alias_calls(int gpu)
{
	struct hmm_dmirror_alias alias = { .end = UINT64_MAX };

	if (gpu >= 0 && ioctl(gpu, HMM_DMIRROR_ALIAS, &alias))
		die("HMM_DMIRROR_ALIAS");
	return alias.calls;
}

int main(int argc, char **argv)
{
	size_t pages = argc > 3 ? strtoul(argv[2], NULL, 0) : 0, size = pages * PAGE, i;
	uint32_t walks = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	struct hmm_bench_cmd cmd = { .npages = pages, .walks = walks, .flags = FAULT };
	const char *how;
	uint64_t *cycles;
	int bench, gpu = -1;
	char *memory, *copy;

	if (!pages || !walks || (argc != 4 && argc != 6)) {
		fprintf(stderr, "usage: hmm_walk KIND PAGES WALKS [PROVIDER IMPORTER]\n");
		return 2;
	}
	memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cycles = calloc(walks, sizeof(*cycles));
	copy = malloc(size);
	if (memory == MAP_FAILED || !cycles || !copy)
		die("memory");
	memory = (char *)(((uintptr_t)memory + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
	if (!strncmp(argv[1], "huge", 4)) {
		memset(memory, 1, size);
		if (madvise(memory, size, MADV_COLLAPSE))
			die("MADV_COLLAPSE");
	} else {
		madvise(memory, size, MADV_NOHUGEPAGE);
		memset(memory, 1, size);
	}

	how = strchr(argv[1], '-');
	if (how) {
		if (argc != 6)
			die("PROVIDER and IMPORTER are needed");
		cmd.provider = pci_number(argv[4]);
		cmd.importer = pci_number(argv[5]);
		gpu = dmirror_open();
		if (gpu < 0)
			die("no simulated GPU");
		if (dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, memory, copy, pages))
			die("cannot migrate to the GPU");
		if (!strcmp(how, "-owner"))
			cmd.flags |= OWNER;
		else if (!strcmp(how, "-alias"))
			cmd.flags |= ALIASES;
		else if (strcmp(how, "-migrate"))
			die("no such kind");
	}
	bench = open("/dev/hmm_bench", O_RDWR);
	if (bench < 0)
		die("/dev/hmm_bench");
	alias_calls(gpu);
	cmd.addr = (uintptr_t)memory;
	cmd.cycles = (uintptr_t)cycles;
	if (ioctl(bench, HMM_BENCH, &cmd))
		die("HMM_BENCH");

	printf("cycles");
	for (i = 0; i < walks; i++)
		printf(" %" PRIu64, cycles[i]);
	printf("\npresent %" PRIu64 "\nprivate %" PRIu64 "\nalias %" PRIu64 "\ncalls %" PRIu64 "\n", cmd.present, cmd.private,
	       cmd.alias, alias_calls(gpu));
	return 0;
}
