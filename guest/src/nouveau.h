/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory of a process in the VRAM of a GPU that nouveau drives: SVM, which migrates ordinary memory, and buffer objects.
 * Functions that return int return 0, or -1 with errno set.
 */
#ifndef NOUVEAU_H
#define NOUVEAU_H

#include <drm/nouveau_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* SVM_INIT wants a part of the address space for what is no SVM; nothing of ours may be there. */
#define NOUVEAU_UNMANAGED (64ul << 20)
#define NOUVEAU_PAGE 4096ul

/* Opens a DRM render node; returns a file descriptor. */
static inline int nouveau_open(const char *node)
{
	return open(node, O_RDWR | O_CLOEXEC);
}

/* The same, and makes the GPU's address space that of the process (SVM_INIT). */
static inline int nouveau_open_svm(const char *node)
{
	struct drm_nouveau_svm_init init = { .unmanaged_size = NOUVEAU_UNMANAGED, .unmanaged_addr = 4ul << 30 };
	void *reserved = mmap((void *)init.unmanaged_addr, NOUVEAU_UNMANAGED, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	int gpu;

	if (reserved == MAP_FAILED && errno != EEXIST)
		return -1;
	gpu = nouveau_open(node);
	if (gpu >= 0 && ioctl(gpu, DRM_IOCTL_NOUVEAU_SVM_INIT, &init)) {
		close(gpu);
		return -1;
	}
	return gpu;
}

/* Migrates what can be migrated of a range of whole pages to VRAM (SVM_BIND). */
static inline int nouveau_bind(int gpu, uint64_t address, uint64_t size)
{
	struct drm_nouveau_svm_bind bind = {
		.header = (uint64_t)NOUVEAU_SVM_BIND_COMMAND__MIGRATE << NOUVEAU_SVM_BIND_COMMAND_SHIFT |
			  (uint64_t)NOUVEAU_SVM_BIND_TARGET__GPU_VRAM << NOUVEAU_SVM_BIND_TARGET_SHIFT,
		.va_start = address,
		.va_end = address + size,
	};

	return ioctl(gpu, DRM_IOCTL_NOUVEAU_SVM_BIND, &bind);
}

/*
 * A channel, which is in the same address space. Returns its number, or -1. There are channels only where the driver has found
 * a graphics engine.
 */
static inline int nouveau_channel(int gpu)
{
	struct drm_nouveau_channel_alloc channel = { 0 };

	return ioctl(gpu, DRM_IOCTL_NOUVEAU_CHANNEL_ALLOC, &channel) ? -1 : channel.channel;
}

/*
 * A buffer object of the driver in VRAM, mapped; NULL if that fails. It lives as long as the GPU is open and it is
 * mapped; munmap() alone does not free it. If `dmabuf` is not NULL then it becomes a file descriptor of its dma-buf.
 */
static inline void *nouveau_gem(int gpu, size_t size, int *dmabuf)
{
	struct drm_nouveau_gem_new new = { .info = { .domain = NOUVEAU_GEM_DOMAIN_VRAM, .size = size } };
	void *at;

	if (ioctl(gpu, DRM_IOCTL_NOUVEAU_GEM_NEW, &new))
		return NULL;
	if (dmabuf) {
		struct drm_prime_handle prime = { .handle = new.info.handle, .flags = O_RDWR | O_CLOEXEC };

		if (ioctl(gpu, DRM_IOCTL_PRIME_HANDLE_TO_FD, &prime))
			return NULL;
		*dmabuf = prime.fd;
	}
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gpu, new.info.map_handle);
	return at == MAP_FAILED ? NULL : at;
}

/* The number of pages that the CPU does not map, but that have an entry in the page table: device private, or swapped out */
static inline size_t nouveau_private_pages(uint64_t address, uint64_t size)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t count = 0, pages = size / NOUVEAU_PAGE, i, n;
	uint64_t entries[512];

	for (i = 0; i < pages; i += n) {
		n = pages - i < 512 ? pages - i : 512;
		if (pread(fd, entries, n * 8, (address / NOUVEAU_PAGE + i) * 8) != (ssize_t)n * 8)
			break;
		for (size_t j = 0; j < n; j++)
			count += entries[j] >> 62 == 1;
	}
	close(fd);
	return count;
}

#endif
