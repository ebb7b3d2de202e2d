/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the RDMA test programs share: failing with a message, and a pair of queue pairs that are connected to each other,
 * on one port or on those of two devices, so that one process is both ends.
 */
#ifndef VERBS_H
#define VERBS_H

#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
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

/* How queue pairs are connected: SRQ is RC with a shared receive queue. */
enum service { RC, SRQ, XRC, UD, SERVICES };

/*
 * Two connected queue pairs, each with a completion queue of its own: [0] is the requester unless said otherwise. If both
 * are of the same device then they share context and protection domain. `srq` is where [1] receives, if it is not the queue
 * pair, and `ah` how a datagram gets there. A datagram is preceded by room for a header, to which `header` refers.
 */
struct pair {
	enum service service;
	struct ibv_context *context[2];
	struct ibv_pd *pd[2];
	struct ibv_cq *cq[2];
	struct ibv_qp *qp[2];
	struct ibv_srq *srq;
	uint32_t srq_number;
	struct ibv_ah *ah;
	struct ibv_sge header;
};

enum { PAIR_DEPTH = 64, PAIR_QKEY = 0x1234, GRH_BYTES = 40 };

static inline void pair_modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask, const char *state)
{
	errno = ibv_modify_qp(qp, attr, mask);
	if (errno)
		die("cannot bring a queue pair to %s", state);
}

/* The last GID of a port's table, which with RoCE is one of the newest kind; returns its index, -1 without any. */
static inline int pair_gid(struct ibv_context *context, const struct ibv_port_attr *port, union ibv_gid *gid)
{
	const union ibv_gid none = { 0 };
	int i;

	for (i = port->gid_tbl_len - 1; i >= 0; i--)
		if (!ibv_query_gid(context, 1, i, gid) && memcmp(gid, &none, sizeof(none)))
			break;
	return i;
}

/* Connects queue pair `i` to the other one, which is INIT, RTR and RTS. */
static inline void pair_connect(struct pair *pair, int i)
{
	const bool datagrams = pair->service == UD, sends = pair->service != XRC || !i, receives = pair->service != XRC || i;
	struct ibv_port_attr own, other;
	union ibv_gid own_gid, other_gid;
	int own_index, other_index;

	if (ibv_query_port(pair->context[i], 1, &own) || ibv_query_port(pair->context[!i], 1, &other))
		die("no port");
	own_index = pair_gid(pair->context[i], &own, &own_gid);
	other_index = pair_gid(pair->context[!i], &other, &other_gid);
	if (own.link_layer == IBV_LINK_LAYER_ETHERNET && (own_index < 0 || other_index < 0))
		die("no GID");
	pair_modify(pair->qp[i], &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = PAIR_QKEY,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
	}, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (datagrams ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS), "INIT");
	if (datagrams) {
		struct ibv_ah_attr to = { .dlid = other.lid, .port_num = 1 };

		pair_modify(pair->qp[i], &(struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR }, IBV_QP_STATE, "RTR");
		pair_modify(pair->qp[i], &(struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS }, IBV_QP_STATE | IBV_QP_SQ_PSN, "RTS");
		if (!i)
			pair->ah = ibv_create_ah(pair->pd[0], &to);
		if (!pair->ah)
			die("no address handle");
		return;
	}
	pair_modify(pair->qp[i], &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR, .path_mtu = own.active_mtu, .dest_qp_num = pair->qp[!i]->qp_num,
		.max_dest_rd_atomic = 4, .min_rnr_timer = 12,
		.ah_attr = {
			.dlid = other.lid, .port_num = 1, .is_global = own.link_layer == IBV_LINK_LAYER_ETHERNET,
			.grh = { .dgid = other_gid, .sgid_index = own_index, .hop_limit = 64 },
		},
	}, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		(receives ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0), "RTR");
	if (!sends)
		return;
	pair_modify(pair->qp[i], &(struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 4,
	}, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		IBV_QP_MAX_QP_RD_ATOMIC, "RTS");
}

/* Opens a verbs device by its name, the first one for NULL. */
static inline struct ibv_context *pair_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL), **at = list;
	struct ibv_context *context;

	while (at && *at && name && strcmp(ibv_get_device_name(*at), name))
		at++;
	if (!at || !*at)
		die("no RDMA device%s%s", name ? " " : "", name ? name : "");
	context = ibv_open_device(*at);
	if (!context)
		die("cannot open %s", ibv_get_device_name(*at));
	ibv_free_device_list(list);
	return context;
}

/* What [1] receives from, where that is shared. */
static inline void pair_open_srq(struct pair *pair, struct ibv_xrcd *xrcd)
{
	struct ibv_srq_init_attr_ex init = {
		.attr = { .max_wr = PAIR_DEPTH, .max_sge = 1 },
		.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | (xrcd ? IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ : 0),
		.srq_type = xrcd ? IBV_SRQT_XRC : IBV_SRQT_BASIC, .pd = pair->pd[1], .xrcd = xrcd, .cq = pair->cq[1],
	};

	pair->srq = ibv_create_srq_ex(pair->context[1], &init);
	if (!pair->srq)
		die("no shared receive queue");
	if (xrcd && ibv_get_srq_num(pair->srq, &pair->srq_number))
		die("the shared receive queue has no number");
}

static inline void pair_open_qp(struct pair *pair, int i)
{
	static const enum ibv_qp_type types[SERVICES] = { IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_XRC_SEND, IBV_QPT_UD };
	const bool receives = pair->service != XRC;
	struct ibv_qp_init_attr_ex init = {
		.qp_type = types[pair->service], .send_cq = pair->cq[i], .recv_cq = pair->cq[i],
		.cap = {
			.max_send_wr = PAIR_DEPTH, .max_send_sge = 1,
			.max_recv_wr = receives ? PAIR_DEPTH : 0, .max_recv_sge = receives ? 2 : 0,
		},
		.comp_mask = IBV_QP_INIT_ATTR_PD, .pd = pair->pd[i],
	};

	if (i && pair->service == XRC) {
		struct ibv_xrcd_init_attr domain = {
			.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT,
		};

		init = (struct ibv_qp_init_attr_ex){
			.qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD,
			.xrcd = ibv_open_xrcd(pair->context[1], &domain),
		};
		if (!init.xrcd)
			die("no XRC domain");
		pair_open_srq(pair, init.xrcd);
	} else if (i && pair->service == SRQ) {
		pair_open_srq(pair, NULL);
		init.srq = pair->srq;
	}
	pair->qp[i] = ibv_create_qp_ex(pair->context[i], &init);
	if (!pair->qp[i])
		die("cannot create a queue pair");
}

/* Opens a device for each end, by name or NULL for the first one, and connects a pair on them. */
static inline void pair_open(struct pair *pair, const char *first, const char *second, enum service service)
{
	bool same = first == second || (first && second && !strcmp(first, second));
	static char header[GRH_BYTES];
	int i;

	pair->service = service;
	for (i = 0; i < 2; i++) {
		pair->context[i] = i && same ? pair->context[0] : pair_device(i ? second : first);
		pair->pd[i] = i && same ? pair->pd[0] : ibv_alloc_pd(pair->context[i]);
		if (!pair->pd[i])
			die("no protection domain");
		pair->cq[i] = ibv_create_cq(pair->context[i], 2 * PAIR_DEPTH, NULL, NULL, 0);
		if (!pair->cq[i])
			die("cannot create a completion queue");
		pair_open_qp(pair, i);
	}
	for (i = 0; i < 2; i++)
		pair_connect(pair, i);
	if (service == UD) {
		struct ibv_mr *mr = ibv_reg_mr(pair->pd[1], header, sizeof(header), IBV_ACCESS_LOCAL_WRITE);

		if (!mr)
			die("cannot register room for a header");
		pair->header = (struct ibv_sge){ .addr = (uintptr_t)header, .length = sizeof(header), .lkey = mr->lkey };
	}
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

/* Posts a receive to where queue pair 1 takes them from. */
static inline void pair_receive(struct pair *pair, struct ibv_sge *sge)
{
	struct ibv_sge both[2] = { pair->header, *sge };
	struct ibv_recv_wr wr = { .sg_list = pair->ah ? both : sge, .num_sge = pair->ah ? 2 : 1 }, *bad;

	errno = pair->srq ? ibv_post_srq_recv(pair->srq, &wr, &bad) : ibv_post_recv(pair->qp[1], &wr, &bad);
	if (errno)
		die("cannot post a receive");
}

/* Posts a request on queue pair 0, which says so when it has completed. */
static inline void pair_post(struct pair *pair, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	wr->send_flags |= IBV_SEND_SIGNALED;
	wr->qp_type.xrc.remote_srqn = pair->srq_number;
	if (pair->ah) {
		wr->wr.ud.ah = pair->ah;
		wr->wr.ud.remote_qpn = pair->qp[1]->qp_num;
		wr->wr.ud.remote_qkey = PAIR_QKEY;
	}
	errno = ibv_post_send(pair->qp[0], wr, &bad);
	if (errno)
		die("cannot post a request");
}

/* Posts a request on queue pair 0, waits until it has completed, and returns its status. */
static inline enum ibv_wc_status pair_send(struct pair *pair, struct ibv_send_wr *wr)
{
	pair_post(pair, wr);
	return pair_wait(pair, 0);
}

#endif
