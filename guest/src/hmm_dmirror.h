/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Device private memory of the kernel's simulated GPU (lib/test_hmm.c) with a PCI BAR behind it. The layout of its
 * ioctl()s is that of lib/test_hmm_uapi.h, which is not among the installed headers.
 */
#ifndef HMM_DMIRROR_H
#define HMM_DMIRROR_H

#include <fcntl.h>
#include <glob.h>
#include <linux/ioctl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

struct hmm_dmirror_cmd {
	uint64_t addr;
	uint64_t ptr;
	uint64_t npages;
	uint64_t cpages;
	uint64_t faults;
};

struct hmm_dmirror_alias {
	uint64_t first;
	uint64_t end;
	uint64_t skip;
	uint64_t max;
	uint64_t calls;
};

#define HMM_DMIRROR_MIGRATE_TO_DEV	_IOWR('H', 0x02, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_SNAPSHOT		_IOWR('H', 0x04, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_ALIAS		_IOWR('H', 0x0a, struct hmm_dmirror_alias)

/* Of a byte that HMM_DMIRROR_SNAPSHOT tells about a page */
#define HMM_DMIRROR_WHERE_MASK		0x30
#define HMM_DMIRROR_PRIVATE_LOCAL	0x20

/* Opens the first simulated GPU that is a PCI device (from number 4 on); -1 if there is none. */
static inline int dmirror_open(void)
{
	glob_t paths;
	int fd = -1;

	if (!glob("/dev/hmm_dmirror[4-7]", 0, NULL, &paths))
		fd = open(paths.gl_pathv[0], O_RDWR | O_CLOEXEC);
	globfree(&paths);
	return fd;
}

/* Does `request` for `pages` pages at `addr`; `ptr` is a buffer as the request needs it. Returns that of ioctl(). */
static inline int dmirror(int fd, unsigned long request, void *addr, void *ptr, size_t pages)
{
	struct hmm_dmirror_cmd cmd = { .addr = (uintptr_t)addr, .ptr = (uintptr_t)ptr, .npages = pages };

	return ioctl(fd, request, &cmd);
}

#endif
