// SPDX-License-Identifier: GPL-2.0
/*
 * frmr_pools: prints the pools that RDMA devices take memory keys from, one a line:
 *
 *   device INDEX ats 0|1 blocks N in_use N queued N
 *
 * It is what `rdma resource show frmr_pools` does, for kernels that are newer than the rdma tool. The numbers are those
 * of include/uapi/rdma/rdma_netlink.h of Linux 7.3.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	NLDEV_CLIENT = 5,
	CMD_FRMR_POOLS_GET = 29,
	ATTR_DEV_INDEX = 1,
	ATTR_POOLS = 105,
	ATTR_POOL_ENTRY = 106,
	ATTR_POOL_KEY = 107,
	ATTR_KEY_ATS = 108,
	ATTR_KEY_BLOCKS = 111,
	ATTR_QUEUED = 112,
	ATTR_IN_USE = 114,
};

struct pool {
	uint64_t ats, blocks, in_use, queued;
};

static uint64_t number(const struct nlattr *attr)
{
	uint64_t value = 0;

	/* Little endian, of any size */
	memcpy(&value, attr + 1, attr->nla_len - NLA_HDRLEN);
	return value;
}

static void parse(uint32_t device, const void *data, size_t size, struct pool *pool)
{
	while (size >= NLA_HDRLEN) {
		const struct nlattr *attr = data;
		size_t all = NLA_ALIGN(attr->nla_len);
		struct pool entry = { 0 };

		switch (attr->nla_type & NLA_TYPE_MASK) {
		case ATTR_POOLS:
		case ATTR_POOL_KEY:
			parse(device, attr + 1, attr->nla_len - NLA_HDRLEN, pool);
			break;
		case ATTR_POOL_ENTRY:
			parse(device, attr + 1, attr->nla_len - NLA_HDRLEN, &entry);
			printf("device %" PRIu32 " ats %" PRIu64 " blocks %" PRIu64 " in_use %" PRIu64 " queued %" PRIu64 "\n",
			       device, entry.ats, entry.blocks, entry.in_use, entry.queued);
			break;
		case ATTR_KEY_ATS:
			pool->ats = number(attr);
			break;
		case ATTR_KEY_BLOCKS:
			pool->blocks = number(attr);
			break;
		case ATTR_IN_USE:
			pool->in_use = number(attr);
			break;
		case ATTR_QUEUED:
			pool->queued = number(attr);
			break;
		}
		if (all > size)
			break;
		data = (const char *)data + all;
		size -= all;
	}
}

/* Returns 0, or a negative error of the kernel. */
static int show(int fd, uint32_t device)
{
	static _Alignas(struct nlmsghdr) char answer[1 << 16];
	struct {
		struct nlmsghdr header;
		struct nlattr attr;
		uint32_t device;
	} request = {
		.header = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = NLDEV_CLIENT << 10 | CMD_FRMR_POOLS_GET,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.attr = { .nla_len = NLA_HDRLEN + sizeof(device), .nla_type = ATTR_DEV_INDEX },
		.device = device,
	};
	struct pool none = { 0 };

	if (send(fd, &request, sizeof(request), 0) != sizeof(request))
		return -errno;
	for (;;) {
		ssize_t size = recv(fd, answer, sizeof(answer), 0);
		struct nlmsghdr *header = (void *)answer;

		if (size <= 0)
			return -errno;
		for (; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
			if (header->nlmsg_type == NLMSG_ERROR || header->nlmsg_type == NLMSG_DONE)
				return *(int *)NLMSG_DATA(header);
			parse(device, NLMSG_DATA(header), NLMSG_PAYLOAD(header, 0), &none);
		}
	}
}

int main(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);
	unsigned int found = 0;
	uint32_t device;

	if (fd < 0) {
		perror("NETLINK_RDMA");
		return 1;
	}
	for (device = 0; device < 16; device++) {
		int error = show(fd, device);

		if (!error)
			found++;
		else if (error != -EINVAL && error != -ENODEV) {
			fprintf(stderr, "device %u: %s\n", device, strerror(-error));
			return 1;
		}
	}
	if (!found)
		fprintf(stderr, "no RDMA device\n");
	return !found;
}
