// SPDX-License-Identifier: GPL-2.0
/*
 * requests: one RDMA request at a time, as told line by line, between two memory regions of this process
 *
 * Link: -libverbs
 *
 *   register KIND PAGES    KIND is pinned or odp; both regions, with content. Or private: the responder's is odp, and its
 *                          memory is then migrated to the simulated GPU; the other one is pinned
 *   post OPERATION         write, read or send; answers with the request's number, which counts from 0
 *   poll END MILLISECONDS  a completion of queue pair END (0 sends, 1 receives) within that time: its number and status,
 *                          as words, or "none"
 *   compare                whether the regions have the same content: "same" or "different"
 *
 * Each line of the input is answered by "ok WORDS" or "error WHY".
 */
#include "hmm_dmirror.h"
#include "verbs.h"

#include <sys/mman.h>
#include <time.h>

enum { PAGE = 4096 };

static struct pair ends;
static struct ibv_mr *mr[2];
static char *memory[2];
static size_t size;
static uint64_t number;

static void answer(const char *text)
{
	printf("%s\n", text);
	fflush(stdout);
}

static void fail(const char *what)
{
	printf("error %s: %s\n", what, strerror(errno));
	fflush(stdout);
}

/* The memory of the responder's region goes to the simulated GPU, which stays open as long as this process. */
static bool migrate(size_t pages)
{
	int gpu = dmirror_open();
	void *copy = malloc(size);

	memset(memory[1], 0x5a, size);
	return gpu >= 0 && !dmirror(gpu, HMM_DMIRROR_MIGRATE_TO_DEV, memory[1], copy, pages);
}

static void do_register(const char *kind, size_t pages)
{
	const int basic = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
	const bool is_private = !strcmp(kind, "private");
	int i;

	size = pages * PAGE;
	for (i = 0; i < 2; i++) {
		memory[i] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory[i] == MAP_FAILED)
			return fail("mmap");
		mr[i] = ibv_reg_mr(ends.pd[i], memory[i], size,
				   basic | (!strcmp(kind, "odp") || (is_private && i) ? IBV_ACCESS_ON_DEMAND : 0));
		if (!mr[i])
			return fail("ibv_reg_mr");
	}
	for (size_t at = 0; at < size; at++)
		memory[0][at] = (char)(at * 7 + at / PAGE + 1);
	if (is_private && !migrate(pages))
		return fail("migrating to the simulated GPU");
	answer("ok");
}

static void do_post(const char *operation)
{
	struct ibv_sge local = { .addr = (uintptr_t)memory[0], .length = size, .lkey = mr[0]->lkey };
	struct ibv_sge remote = { .addr = (uintptr_t)memory[1], .length = size, .lkey = mr[1]->lkey };
	struct ibv_recv_wr receive = { .wr_id = number, .sg_list = &remote, .num_sge = 1 }, *bad_receive;
	struct ibv_send_wr send = {
		.wr_id = number, .sg_list = &local, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED,
		.opcode = !strcmp(operation, "send") ? IBV_WR_SEND :
			  !strcmp(operation, "read") ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE,
		.wr.rdma = { .remote_addr = (uintptr_t)memory[1], .rkey = mr[1]->rkey },
	}, *bad_send;

	if (send.opcode == IBV_WR_SEND) {
		errno = ibv_post_recv(ends.qp[1], &receive, &bad_receive);
		if (errno)
			return fail("ibv_post_recv");
	}
	errno = ibv_post_send(ends.qp[0], &send, &bad_send);
	if (errno)
		return fail("ibv_post_send");
	printf("ok %llu\n", (unsigned long long)number++);
	fflush(stdout);
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void do_poll(int end, double limit)
{
	double begin = seconds();
	struct ibv_wc wc;
	int n;

	do {
		n = ibv_poll_cq(ends.cq[end], 1, &wc);
	} while (!n && seconds() - begin < limit);
	if (n < 0)
		return fail("ibv_poll_cq");
	if (!n)
		return answer("ok none");
	printf("ok %llu %s\n", (unsigned long long)wc.wr_id, ibv_wc_status_str(wc.status));
	fflush(stdout);
}

int main(void)
{
	char line[256], word[64];
	unsigned long first, second;

	pair_open(&ends, NULL, NULL, RC);
	while (fgets(line, sizeof(line), stdin)) {
		errno = EINVAL;
		if (sscanf(line, "register %63s %li", word, &first) == 2)
			do_register(word, first);
		else if (sscanf(line, "post %63s", word) == 1 && mr[1])
			do_post(word);
		else if (sscanf(line, "poll %li %li", &first, &second) == 2 && first < 2)
			do_poll(first, second / 1e3);
		else if (!strcmp(line, "compare\n"))
			answer(memcmp(memory[0], memory[1], size) ? "ok different" : "ok same");
		else
			fail("not understood");
	}
	return 0;
}
