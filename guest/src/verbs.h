/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the RDMA test programs share: failing with a message, and a pair of RC queue pairs that are connected to each
 * other on one InfiniBand port, so that one process is both ends.
 */
#ifndef VERBS_H
#define VERBS_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ends the process with exit status 1 after a message, which has errno's if there is one. */
__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	fflush(stdout);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
	exit(1);
}

/* Two connected queue pairs, each with a completion queue of its own: [0] is the requester unless said otherwise. */
struct pair {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq[2];
	struct ibv_qp *qp[2];
};

enum { PAIR_DEPTH = 64 };

static inline void pair_modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, const char *state)
{
	errno = ibv_modify_qp(qp, attr, mask);
	if (errno)
		die("cannot bring a queue pair to %s", state);
}

/* Connects `qp` to number `remote` at `lid`, which is INIT, RTR and RTS. */
static inline void pair_connect(struct ibv_qp *qp, uint32_t remote, uint16_t lid)
{
	pair_modify(qp, &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_INIT, .port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
	}, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, "INIT");
	pair_modify(qp, &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_4096, .dest_qp_num = remote, .max_dest_rd_atomic = 4,
		.min_rnr_timer = 12, .ah_attr = { .dlid = lid, .port_num = 1 },
	}, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
		IBV_QP_MIN_RNR_TIMER, "RTR");
	pair_modify(qp, &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4,
	}, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		IBV_QP_MAX_QP_RD_ATOMIC, "RTS");
}

/* Opens the first RDMA device and connects a pair on it. */
static inline void pair_open(struct pair *pair)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_port_attr port;
	int i;

	if (!list || !list[0])
		die("no RDMA device");
	pair->context = ibv_open_device(list[0]);
	if (!pair->context)
		die("cannot open %s", ibv_get_device_name(list[0]));
	ibv_free_device_list(list);
	pair->pd = ibv_alloc_pd(pair->context);
	if (!pair->pd || ibv_query_port(pair->context, 1, &port))
		die("no protection domain, or no port");
	for (i = 0; i < 2; i++) {
		struct ibv_qp_init_attr init = {
			.qp_type = IBV_QPT_RC,
			.cap = { .max_send_wr = PAIR_DEPTH, .max_recv_wr = PAIR_DEPTH, .max_send_sge = 1, .max_recv_sge = 1 },
		};

		pair->cq[i] = ibv_create_cq(pair->context, 2 * PAIR_DEPTH, NULL, NULL, 0);
		init.send_cq = pair->cq[i];
		init.recv_cq = pair->cq[i];
		pair->qp[i] = pair->cq[i] ? ibv_create_qp(pair->pd, &init) : NULL;
		if (!pair->qp[i])
			die("cannot create a queue pair");
	}
	for (i = 0; i < 2; i++)
		pair_connect(pair->qp[i], pair->qp[!i]->qp_num, port.lid);
}

/* Waits for one completion of queue pair `i`, and returns its status. */
static inline enum ibv_wc_status pair_wait(struct pair *pair, int i)
{
	struct ibv_wc wc;
	int n;

	while (!(n = ibv_poll_cq(pair->cq[i], 1, &wc)))
		;
	if (n < 0)
		die("cannot poll a completion queue");
	return wc.status;
}

/* Posts a request on queue pair 0, waits until it has completed, and returns its status. */
static inline enum ibv_wc_status pair_send(struct pair *pair, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	wr->send_flags |= IBV_SEND_SIGNALED;
	errno = ibv_post_send(pair->qp[0], wr, &bad);
	if (errno)
		die("cannot post a request");
	return pair_wait(pair, 0);
}

#endif
