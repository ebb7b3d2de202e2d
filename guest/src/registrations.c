// SPDX-License-Identifier: GPL-2.0
/*
 * Registers memory for on-demand paging by one of the functions that libibverbs has for that, then connects a pair of
 * queue pairs, writes to the memory and reads it back. It is for the preload library odp_vram.so, which must know of all
 * these functions; so nothing but the HCA looks at the memory after it has been filled.
 *
 * Link: -libverbs
 *
 *   registrations FUNCTION
 *
 *   ibv_reg_mr, ibv_reg_mr_iova, ibv_reg_mr_iova2	as they are named; the last two with another address for the HCA
 *   rereg-moved		a region for on-demand paging gets other memory (IBV_REREG_MR_CHANGE_TRANSLATION)
 *   rereg-on			a pinned region gets other memory and on-demand paging
 *   rereg-off			a region for on-demand paging gets other memory, pinned
 *
 * It says "region START-END" (hexadecimal), the memory's address, before the queue pairs are connected.
 */
#include "verbs.h"

#include <stdint.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 16, SIZE = PAGES * PAGE };
/* Constants, as the macros of these functions take other ones for what is not. */
#define BASIC (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)
#define ODP (BASIC | IBV_ACCESS_ON_DEMAND)
#define IOVA 0x7000000000ull

static struct pair ends;

/* Private anonymous memory, filled. */
static char *memory(char content)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return memset(at, content, SIZE);
}

static struct ibv_mr *rereg(struct ibv_mr *mr, int flags, char *to, int access)
{
	if (ibv_rereg_mr(mr, flags, NULL, to, SIZE, access))
		die("ibv_rereg_mr");
	return mr;
}

/* Registers `target` by what is called `function`, and sets the address that the HCA has for it. */
static struct ibv_mr *make(const char *function, char *target, uint64_t *iova)
{
	struct ibv_pd *pd = ends.pd[1];

	*iova = (uintptr_t)target;
	if (!strcmp(function, "ibv_reg_mr"))
		return ibv_reg_mr(pd, target, SIZE, ODP);
	if (!strcmp(function, "rereg-moved"))
		return rereg(ibv_reg_mr(pd, memory('x'), SIZE, ODP), IBV_REREG_MR_CHANGE_TRANSLATION, target, 0);
	if (!strcmp(function, "rereg-on"))
		return rereg(ibv_reg_mr(pd, memory('x'), SIZE, BASIC),
			     IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_ACCESS, target, ODP);
	if (!strcmp(function, "rereg-off"))
		return rereg(ibv_reg_mr(pd, memory('x'), SIZE, ODP),
			     IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_ACCESS, target, BASIC);
	*iova = IOVA;
	if (!strcmp(function, "ibv_reg_mr_iova"))
		return ibv_reg_mr_iova(pd, target, SIZE, IOVA, ODP);
	if (!strcmp(function, "ibv_reg_mr_iova2"))
		return ibv_reg_mr_iova2(pd, target, SIZE, IOVA, ODP | IBV_ACCESS_RELAXED_ORDERING);
	die("see the head of guest/src/registrations.c");
}

static void transfer(enum ibv_wr_opcode opcode, char *local, struct ibv_mr *remote, uint64_t iova)
{
	struct ibv_mr *mr = ibv_reg_mr(ends.pd[0], local, SIZE, BASIC);
	struct ibv_sge sge = { .addr = (uintptr_t)local, .length = SIZE, .lkey = mr ? mr->lkey : 0 };
	struct ibv_send_wr wr = {
		.opcode = opcode, .sg_list = &sge, .num_sge = 1,
		.wr.rdma = { .remote_addr = iova, .rkey = remote->rkey },
	};

	if (!mr)
		die("cannot register what is local");
	pair_post(&ends, &wr);
	if (pair_wait(&ends, 0) != IBV_WC_SUCCESS)
		die("the request failed");
	ibv_dereg_mr(mr);
}

int main(int argc, char **argv)
{
	char *target = memory('t'), *source = memory('s'), *back = memory('b');
	struct ibv_mr *mr;
	uint64_t iova;
	int i;

	pair_open(&ends, NULL, NULL, RC);
	mr = make(argc > 1 ? argv[1] : "", target, &iova);
	if (!mr)
		die("cannot register memory");
	for (i = 0; i < SIZE; i++)
		source[i] = (char)(i * 7 + i / PAGE + 1);
	printf("region %lx-%lx\n", (unsigned long)target, (unsigned long)target + SIZE);
	for (i = 0; i < 2; i++)
		pair_modify(ends.qp[i], &(struct ibv_qp_attr){ .qp_state = IBV_QPS_RESET }, IBV_QP_STATE, "RESET");
	for (i = 0; i < 2; i++)
		pair_connect(&ends, i);
	transfer(IBV_WR_RDMA_WRITE, source, mr, iova);
	transfer(IBV_WR_RDMA_READ, back, mr, iova);
	if (memcmp(source, back, SIZE))
		die("what was read is not what was written");
	if (ibv_dereg_mr(mr))
		die("cannot deregister the region");
	return 0;
}
