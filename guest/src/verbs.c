// SPDX-License-Identifier: GPL-2.0
/*
 * Link: -libverbs
 * RDMA that verifies every byte and every completion status; speaks KTAP.
 *
 *   verbs SERVER CLIENT     two verbs devices (or the same twice) on one subnet
 *
 * Both ends of each connection live in this process. Buffers are larger than what is transferred, filled with a pattern
 * that depends on the position, and compared whole: bytes beyond the transfer must not change.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BUFFER (9u << 20)
#define GUARD 4099		/* odd, so that nothing is aligned by chance */
#define SECONDS 60		/* within which a completion must come */
#define MANY_QPS 200
/* After so many bytes the pattern repeats itself. */
#define PERIOD 65536u
#define PROCESSES 4
#define QKEY 0x11111111
#define NULL_MKEY 0x200u	/* QUERY_SPECIAL_CONTEXTS of the device */

enum mr_kind { PINNED, ODP, IMPLICIT, MR_KINDS };

static const char *const mr_names[] = { "pinned", "odp", "implicit" };

/* One end of a connection: a device with memory. */
struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	unsigned char *buffer;
	uint16_t lid;
};

struct end {
	struct side *side;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
};

static struct side sides[2];
static char why[256];
static unsigned int number;

static bool fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	return false;
}

static void report(bool passed, const char *name)
{
	printf("%sok %u %s%s%s\n", passed ? "" : "not ", ++number, name, passed ? "" : " # ", passed ? "" : why);
	fflush(stdout);
}

/* ---------------------------------------------------------------- set up */

static bool side_open(struct side *side, const char *name)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);
	struct ibv_port_attr port;

	for (int i = 0; list && i < count; i++)
		if (!strcmp(ibv_get_device_name(list[i]), name))
			side->context = ibv_open_device(list[i]);
	if (list)
		ibv_free_device_list(list);
	if (!side->context)
		return fail("cannot open %s", name);
	if (ibv_query_port(side->context, 1, &port))
		return fail("ibv_query_port: %m");
	side->lid = port.lid;
	side->pd = ibv_alloc_pd(side->context);
	return side->pd || fail("ibv_alloc_pd: %m");
}

static bool side_register(struct side *side, enum mr_kind kind, int access)
{
	side->buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (side->buffer == MAP_FAILED)
		return fail("mmap: %m");
	if (kind == IMPLICIT)
		side->mr = ibv_reg_mr(side->pd, NULL, SIZE_MAX, access | IBV_ACCESS_ON_DEMAND);
	else
		side->mr = ibv_reg_mr(side->pd, side->buffer, BUFFER, access | (kind == ODP ? IBV_ACCESS_ON_DEMAND : 0));
	return side->mr || fail("ibv_reg_mr (%s): %m", mr_names[kind]);
}

static void side_unregister(struct side *side)
{
	if (side->mr)
		ibv_dereg_mr(side->mr);
	if (side->buffer)
		munmap(side->buffer, BUFFER);
	side->mr = NULL;
	side->buffer = NULL;
}

/* On `cq`, which is then the end's own, or on a new completion queue */
static bool end_create(struct end *end, struct side *side, enum ibv_qp_type type, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {
		.cap = { .max_send_wr = 64, .max_recv_wr = 64, .max_send_sge = 4, .max_recv_sge = 4, .max_inline_data = 128 },
		.qp_type = type,
	};

	end->side = side;
	end->cq = cq ? cq : ibv_create_cq(side->context, 256, NULL, NULL, 0);
	if (!end->cq)
		return fail("ibv_create_cq: %m");
	init.send_cq = init.recv_cq = end->cq;
	end->qp = ibv_create_qp(side->pd, &init);
	return end->qp || fail("ibv_create_qp: %m");
}

static void end_destroy(struct end *end)
{
	if (end->qp)
		ibv_destroy_qp(end->qp);
	if (end->cq)
		ibv_destroy_cq(end->cq);
	memset(end, 0, sizeof(*end));
}

static bool end_connect(struct end *end, const struct end *other, enum ibv_qp_type type, int access)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = access, .qkey = QKEY };
	int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS);

	if (ibv_modify_qp(end->qp, &attr, mask))
		return fail("to INIT: %m");
	attr = (struct ibv_qp_attr) {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_4096, .dest_qp_num = other->qp->qp_num, .max_dest_rd_atomic = 4,
		.min_rnr_timer = 1, .ah_attr = { .dlid = other->side->lid, .port_num = 1 },
	};
	mask = IBV_QP_STATE;
	if (type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	if (type == IBV_QPT_RC)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	if (ibv_modify_qp(end->qp, &attr, mask))
		return fail("to RTR: %m");
	attr = (struct ibv_qp_attr) { .qp_state = IBV_QPS_RTS, .timeout = 10, .retry_cnt = 2, .rnr_retry = 2, .max_rd_atomic = 4 };
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	if (type == IBV_QPT_RC)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	return !ibv_modify_qp(end->qp, &attr, mask) || fail("to RTS: %m");
}

static bool pair_open_on(struct end *ends, enum ibv_qp_type type, int access, struct ibv_cq *cq)
{
	memset(ends, 0, 2 * sizeof(*ends));
	return end_create(&ends[0], &sides[0], type, cq) && end_create(&ends[1], &sides[1], type, NULL) &&
	       end_connect(&ends[0], &ends[1], type, access) && end_connect(&ends[1], &ends[0], type, access);
}

static bool pair_open(struct end *ends, enum ibv_qp_type type, int access)
{
	return pair_open_on(ends, type, access, NULL);
}

static void pair_close(struct end *ends)
{
	end_destroy(&ends[0]);
	end_destroy(&ends[1]);
}

/* ---------------------------------------------------------------- work */

static bool completed(struct end *end, enum ibv_wc_status wanted, struct ibv_wc *wc)
{
	time_t end_of_time = time(NULL) + SECONDS;
	int found;

	while (!(found = ibv_poll_cq(end->cq, 1, wc)))
		if (time(NULL) > end_of_time)
			return fail("no completion in %d s, expected %s", SECONDS, ibv_wc_status_str(wanted));
	if (found < 0)
		return fail("ibv_poll_cq: %d", found);
	return wc->status == wanted || fail("completed with '%s', expected '%s'", ibv_wc_status_str(wc->status), ibv_wc_status_str(wanted));
}

static bool post(struct end *end, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	int err = ibv_post_send(end->qp, wr, &bad);

	return !err || fail("ibv_post_send: %s", strerror(err));
}

static bool post_recv(struct end *end, struct ibv_sge *sge, int count)
{
	struct ibv_recv_wr wr = { .sg_list = sge, .num_sge = count }, *bad;
	int err = ibv_post_recv(end->qp, &wr, &bad);

	return !err || fail("ibv_post_recv: %s", strerror(err));
}

static struct ibv_sge piece(const struct side *side, size_t offset, uint32_t length)
{
	return (struct ibv_sge) { .addr = (uintptr_t)side->buffer + offset, .length = length, .lkey = side->mr->lkey };
}

static unsigned char pattern(size_t position, unsigned int seed)
{
	return (position * 31 + (position >> 8) * 7 + seed) & 0xff;
}

/* Two periods of the pattern, so that a period from anywhere in the first is in one piece. */
static const unsigned char *periods(unsigned int seed)
{
	static unsigned char made[256][2 * PERIOD];
	static bool known[256];
	unsigned char *block = made[seed & 0xff];

	if (!known[seed & 0xff])
		for (size_t i = 0; i < 2 * PERIOD; i++)
			block[i] = pattern(i, seed);
	known[seed & 0xff] = true;
	return block;
}

static void fill(struct side *side, size_t length, unsigned int seed)
{
	for (size_t i = 0; i < length; i += PERIOD)
		memcpy(side->buffer + i, periods(seed), length - i < PERIOD ? length - i : PERIOD);
}

/* The bytes from `offset` to `end` are the pattern from `position` on. */
static bool same(const struct side *side, size_t offset, size_t end, size_t position, unsigned int seed, const char *where)
{
	while (offset < end) {
		const unsigned char *wanted = periods(seed) + position % PERIOD;
		size_t n = end - offset < PERIOD ? end - offset : PERIOD;

		if (memcmp(side->buffer + offset, wanted, n)) {
			for (; side->buffer[offset] == *wanted; wanted++)
				offset++;
			return fail("byte %zu (%s the transfer) is %#x, expected %#x", offset, where, side->buffer[offset], *wanted);
		}
		offset += n;
		position += n;
	}
	return true;
}

/* `length` bytes at `offset` are those of the other side at `from`, and around them is the side's own pattern. */
static bool verify(const struct side *side, size_t total, size_t offset, size_t length, unsigned int own, size_t from, unsigned int other)
{
	const size_t end = offset + length;

	return same(side, 0, offset, 0, own, "before") && same(side, offset, end, from, other, "in") &&
	       same(side, end, total, end, own, "after");
}

static const struct {
	const char *name;
	enum ibv_wr_opcode opcode;
	bool remote, immediate, receives;
} operations[] = {
	{ "write", IBV_WR_RDMA_WRITE, true, false, false },
	{ "write_imm", IBV_WR_RDMA_WRITE_WITH_IMM, true, true, true },
	{ "read", IBV_WR_RDMA_READ, true, false, false },
	{ "send", IBV_WR_SEND, false, false, true },
	{ "send_imm", IBV_WR_SEND_WITH_IMM, false, true, true },
};

static const uint32_t sizes[] = { 1, 7, 64, 4095, 4096, 4097, 65539, 1048583, 8 << 20 };

/* Side 0 asks, side 1 has the remote memory. The local range is cut into `sges` pieces. */
static bool transfer(struct end *ends, unsigned int op, uint32_t length, int sges, int flags)
{
	const size_t local = GUARD, remote = 2 * GUARD + 1, total = remote + length + GUARD;
	const bool read = operations[op].opcode == IBV_WR_RDMA_READ;
	struct ibv_send_wr wr = { .opcode = operations[op].opcode, .send_flags = IBV_SEND_SIGNALED | flags, .imm_data = 0x12345678 };
	struct ibv_sge sge[4], recv;
	struct ibv_wc wc;
	uint32_t done = 0;

	fill(&sides[0], total, 1);
	fill(&sides[1], total, 100);
	for (int i = 0; i < sges; i++) {
		uint32_t part = i + 1 < sges ? length / (sges + 1) : length - done;

		sge[i] = piece(&sides[0], local + done, part);
		done += part;
	}
	wr.sg_list = sge;
	wr.num_sge = sges;
	if (operations[op].remote) {
		wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer + remote;
		wr.wr.rdma.rkey = sides[1].mr->rkey;
	}
	recv = piece(&sides[1], remote, length);
	if (operations[op].receives && !post_recv(&ends[1], &recv, 1))
		return false;
	if (!post(&ends[0], &wr) || !completed(&ends[0], IBV_WC_SUCCESS, &wc))
		return false;
	if (operations[op].receives) {
		if (!completed(&ends[1], IBV_WC_SUCCESS, &wc))
			return false;
		if (wc.byte_len != length)
			return fail("byte_len is %u, expected %u", wc.byte_len, length);
		if (operations[op].immediate && (!(wc.wc_flags & IBV_WC_WITH_IMM) || wc.imm_data != 0x12345678))
			return fail("immediate is %#x, expected 0x12345678", wc.imm_data);
	}
	if (read)
		return verify(&sides[0], total, local, length, 1, remote, 100) && verify(&sides[1], total, 0, 0, 100, 0, 0);
	return verify(&sides[1], total, remote, length, 100, local, 1) && verify(&sides[0], total, 0, 0, 1, 0, 0);
}

/* ---------------------------------------------------------------- tests */

static const int all_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

static bool with_memory(enum mr_kind kind, int access, bool (*run)(void))
{
	bool good = side_register(&sides[0], kind, access) && side_register(&sides[1], kind, access) && run();

	side_unregister(&sides[0]);
	side_unregister(&sides[1]);
	return good;
}

static bool run_operations(void)
{
	struct end ends[2];
	bool good = pair_open(ends, IBV_QPT_RC, all_access);

	for (unsigned int op = 0; good && op < ARRAY_SIZE(operations); op++)
		for (unsigned int i = 0; good && i < ARRAY_SIZE(sizes); i++)
			if (!transfer(ends, op, sizes[i], 1 + (int)(i % 4), 0)) {
				char inner[200];

				snprintf(inner, sizeof(inner), "%s", why);
				good = fail("%s of %u bytes: %s", operations[op].name, sizes[i], inner);
			}
	pair_close(ends);
	return good;
}

static bool test_pinned(void) { return with_memory(PINNED, all_access, run_operations); }
static bool test_odp(void) { return with_memory(ODP, all_access, run_operations); }
static bool test_implicit(void) { return with_memory(IMPLICIT, all_access, run_operations); }

static bool run_inline(void)
{
	struct end ends[2];
	bool good = pair_open(ends, IBV_QPT_RC, all_access);

	for (uint32_t length = 1; good && length <= 128; length += 9)
		good = transfer(ends, 0, length, 2, IBV_SEND_INLINE) && transfer(ends, 3, length, 1, IBV_SEND_INLINE);
	pair_close(ends);
	return good;
}

static bool test_inline(void) { return with_memory(PINNED, all_access, run_inline); }

static bool run_atomics(void)
{
	struct end ends[2];
	struct ibv_sge sge = piece(&sides[0], 64, 8);
	volatile uint64_t *target = (uint64_t *)(sides[1].buffer + 4096);
	uint64_t *result = (uint64_t *)(sides[0].buffer + 64);
	uint64_t value = 0x0123456789abcdef;
	struct ibv_wc wc;
	bool good = pair_open(ends, IBV_QPT_RC, all_access);

	*target = value;
	for (unsigned int i = 0; good && i < 40; i++) {
		const bool swap = i & 1, equal = i & 2;
		struct ibv_send_wr wr = {
			.opcode = swap ? IBV_WR_ATOMIC_CMP_AND_SWP : IBV_WR_ATOMIC_FETCH_AND_ADD,
			.send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1,
		};
		uint64_t before = value;

		wr.wr.atomic.remote_addr = (uintptr_t)target;
		wr.wr.atomic.rkey = sides[1].mr->rkey;
		wr.wr.atomic.compare_add = swap ? (equal ? value : ~value) : 0x100000001ull * i;
		wr.wr.atomic.swap = value * 3 + i;
		value = !swap ? value + 0x100000001ull * i : equal ? value * 3 + i : value;
		good = post(&ends[0], &wr) && completed(&ends[0], IBV_WC_SUCCESS, &wc);
		if (good && (*target != value || *result != before))
			good = fail("operation %u: memory %#llx, result %#llx, expected %#llx and %#llx", i, (unsigned long long)*target,
				    (unsigned long long)*result, (unsigned long long)value, (unsigned long long)before);
	}
	pair_close(ends);
	return good;
}

static bool test_atomics(void) { return with_memory(PINNED, all_access, run_atomics) && with_memory(ODP, all_access, run_atomics); }

/* Each breaks one thing in an operation that is good otherwise, and ends the connection. */
static const struct {
	const char *name;
	enum ibv_wr_opcode opcode;
	uint32_t rkey_xor, lkey_xor;
	int64_t remote_offset;
	uint32_t recv_length;		/* 0: none is posted */
	int qp_access;
	bool gone;			/* the other QP is destroyed first */
	enum ibv_wc_status here, there;	/* SUCCESS there: nothing completes */
} errors[] = {
	{ "rkey", IBV_WR_RDMA_WRITE, 0x100, 0, 0, 0, -1, false, IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS },
	{ "read rkey", IBV_WR_RDMA_READ, 1, 0, 0, 0, -1, false, IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS },
	{ "bounds", IBV_WR_RDMA_WRITE, 0, 0, BUFFER - 99, 0, -1, false, IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS },
	{ "before the region", IBV_WR_RDMA_READ, 0, 0, -1, 0, -1, false, IBV_WC_REM_ACCESS_ERR, IBV_WC_SUCCESS },
	{ "QP permission", IBV_WR_RDMA_WRITE, 0, 0, 0, 0, IBV_ACCESS_REMOTE_READ, false, IBV_WC_REM_INV_REQ_ERR, IBV_WC_SUCCESS },
	{ "lkey", IBV_WR_SEND, 0, 0x100, 0, 100, -1, false, IBV_WC_LOC_PROT_ERR, IBV_WC_SUCCESS },
	{ "receive too short", IBV_WR_SEND, 0, 0, 0, 99, -1, false, IBV_WC_REM_INV_REQ_ERR, IBV_WC_LOC_LEN_ERR },
	{ "nothing posted", IBV_WR_SEND, 0, 0, 0, 0, -1, false, IBV_WC_RNR_RETRY_EXC_ERR, IBV_WC_SUCCESS },
	{ "nobody there", IBV_WR_RDMA_WRITE, 0, 0, 0, 0, -1, true, IBV_WC_RETRY_EXC_ERR, IBV_WC_SUCCESS },
};

static bool run_errors(void)
{
	bool good = true;

	for (unsigned int i = 0; good && i < ARRAY_SIZE(errors); i++) {
		struct ibv_sge sge = piece(&sides[0], 0, 100), recv = piece(&sides[1], 0, errors[i].recv_length);
		struct ibv_send_wr wr = { .opcode = errors[i].opcode, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };
		struct end ends[2];
		struct ibv_wc wc;
		char inner[200];

		good = pair_open(ends, IBV_QPT_RC, errors[i].qp_access < 0 ? all_access : errors[i].qp_access);
		sge.lkey ^= errors[i].lkey_xor;
		wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer + errors[i].remote_offset;
		wr.wr.rdma.rkey = sides[1].mr->rkey ^ errors[i].rkey_xor;
		if (errors[i].gone)
			end_destroy(&ends[1]);
		if (good && errors[i].recv_length)
			good = post_recv(&ends[1], &recv, 1);
		good = good && post(&ends[0], &wr) && completed(&ends[0], errors[i].here, &wc);
		if (errors[i].there)
			good = good && completed(&ends[1], errors[i].there, &wc);
		/* The connection is broken: what follows is flushed. */
		sge.lkey = sides[0].mr->lkey;
		good = good && post(&ends[0], &wr) && completed(&ends[0], IBV_WC_WR_FLUSH_ERR, &wc);
		good = good && post_recv(&ends[0], &sge, 1) && completed(&ends[0], IBV_WC_WR_FLUSH_ERR, &wc);
		snprintf(inner, sizeof(inner), "%s", why);
		good = good || fail("%s: %s", errors[i].name, inner);
		pair_close(ends);
	}
	return good;
}

static bool test_errors(void) { return with_memory(PINNED, all_access, run_errors); }

/* Nothing is behind the key of what implicit regions lack, and no page fault of it ever ends. */
static const struct {
	const char *name;
	enum ibv_wr_opcode opcode;
	bool local, remote, received;	/* where the key is */
	enum ibv_wc_status here;
} null_keys[] = {
	{ "sent", IBV_WR_RDMA_WRITE, true, false, false, IBV_WC_LOC_PROT_ERR },
	{ "remote", IBV_WR_RDMA_READ, false, true, false, IBV_WC_REM_ACCESS_ERR },
	{ "received", IBV_WR_SEND, false, false, true, IBV_WC_REM_OP_ERR },
};

static bool run_null_key(void)
{
	bool good = true;

	for (unsigned int i = 0; good && i < ARRAY_SIZE(null_keys); i++) {
		struct ibv_sge sge = piece(&sides[0], 0, 100), recv = piece(&sides[1], 0, 100);
		struct ibv_send_wr wr = { .opcode = null_keys[i].opcode, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };
		struct end ends[2];
		struct ibv_wc wc;
		char inner[200];

		good = pair_open(ends, IBV_QPT_RC, all_access);
		if (null_keys[i].local)
			sge.lkey = NULL_MKEY;
		wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer;
		wr.wr.rdma.rkey = null_keys[i].remote ? NULL_MKEY : sides[1].mr->rkey;
		if (null_keys[i].received) {
			recv.lkey = NULL_MKEY;
			good = good && post_recv(&ends[1], &recv, 1);
		}
		good = good && post(&ends[0], &wr) && completed(&ends[0], null_keys[i].here, &wc);
		if (null_keys[i].received)
			good = good && completed(&ends[1], IBV_WC_LOC_PROT_ERR, &wc);
		snprintf(inner, sizeof(inner), "%s", why);
		good = good || fail("%s: %s", null_keys[i].name, inner);
		pair_close(ends);
	}
	return good;
}

/* With regions that page faults are possible for, so that the driver listens to them */
static bool test_null_key(void) { return with_memory(ODP, all_access, run_null_key); }

static bool run_read_only(void)
{
	struct ibv_sge sge = piece(&sides[0], 0, 8);
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };
	struct end ends[2];
	struct ibv_wc wc;
	bool good = pair_open(ends, IBV_QPT_RC, all_access);

	wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer;
	wr.wr.rdma.rkey = sides[1].mr->rkey;
	good = good && post(&ends[0], &wr) && completed(&ends[0], IBV_WC_REM_ACCESS_ERR, &wc);
	pair_close(ends);
	return good;
}

static bool test_region_permission(void) { return with_memory(PINNED, IBV_ACCESS_REMOTE_READ, run_read_only); }

static bool run_many(void)
{
	static struct end ends[MANY_QPS][2];
	struct ibv_wc wc;
	bool good = true;

	fill(&sides[0], 4096 * MANY_QPS, 5);
	memset(sides[1].buffer, 0, 4096 * MANY_QPS);
	for (unsigned int i = 0; good && i < MANY_QPS; i++)
		good = pair_open(ends[i], IBV_QPT_RC, all_access);
	for (unsigned int i = 0; good && i < MANY_QPS; i++) {
		struct ibv_sge sge = piece(&sides[0], 4096 * i, 4096);
		struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };

		wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer + 4096 * i;
		wr.wr.rdma.rkey = sides[1].mr->rkey;
		good = post(&ends[i][0], &wr);
	}
	for (unsigned int i = 0; good && i < MANY_QPS; i++)
		good = completed(&ends[i][0], IBV_WC_SUCCESS, &wc);
	good = good && verify(&sides[1], 4096 * MANY_QPS, 0, 4096 * MANY_QPS, 0, 0, 5);
	for (unsigned int i = 0; i < MANY_QPS; i++)
		pair_close(ends[i]);
	return good;
}

static bool test_many_qps(void) { return with_memory(ODP, all_access, run_many); }

static bool run_unconnected(void)
{
	struct end ends[2];
	bool good = pair_open(ends, IBV_QPT_UC, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);

	for (unsigned int i = 0; good && i < ARRAY_SIZE(sizes); i++)
		good = transfer(ends, 0, sizes[i], 1, 0) && transfer(ends, 4, sizes[i], 2, 0);
	pair_close(ends);
	return good;
}

static bool test_uc(void) { return with_memory(PINNED, all_access, run_unconnected); }

static bool run_datagrams(void)
{
	struct end ends[2];
	bool good = pair_open(ends, IBV_QPT_UD, 0);
	struct ibv_ah_attr to = { .dlid = sides[1].lid, .port_num = 1 };
	struct ibv_ah *ah = good ? ibv_create_ah(sides[0].pd, &to) : NULL;
	struct ibv_wc wc;

	good = ah || fail("ibv_create_ah: %m");
	for (uint32_t length = 1; good && length <= 4096; length += 455) {
		struct ibv_sge sge = piece(&sides[0], GUARD, length), recv = piece(&sides[1], GUARD, length + 40);
		struct ibv_send_wr wr = { .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = &sge, .num_sge = 1 };

		wr.wr.ud.ah = ah;
		wr.wr.ud.remote_qpn = ends[1].qp->qp_num;
		wr.wr.ud.remote_qkey = QKEY;
		fill(&sides[0], 16384, 1);
		fill(&sides[1], 16384, 100);
		good = post_recv(&ends[1], &recv, 1) && post(&ends[0], &wr) && completed(&ends[0], IBV_WC_SUCCESS, &wc) &&
		       completed(&ends[1], IBV_WC_SUCCESS, &wc);
		if (good && (wc.byte_len != length + 40 || wc.src_qp != ends[0].qp->qp_num || wc.slid != sides[0].lid))
			good = fail("byte_len %u, src_qp %#x, slid %u", wc.byte_len, wc.src_qp, wc.slid);
		/* The first 40 bytes are the place of a GRH, valid or not. */
		for (unsigned int i = 0; good && i < 40; i++)
			sides[1].buffer[GUARD + i] = pattern(GUARD + i, 100);
		good = good && verify(&sides[1], 16384, GUARD + 40, length, 100, GUARD, 1);
	}
	if (ah)
		ibv_destroy_ah(ah);
	pair_close(ends);
	return good;
}

static bool test_ud(void) { return with_memory(PINNED, all_access, run_datagrams); }

static bool post_write(struct end *ends, struct ibv_sge *sge)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED, .sg_list = sge, .num_sge = 1 };

	wr.wr.rdma.remote_addr = (uintptr_t)sides[1].buffer;
	wr.wr.rdma.rkey = sides[1].mr->rkey;
	return post(&ends[0], &wr);
}

/* Another size while there are completions in the queue, some of which nobody has seen yet, and while more come. */
static bool run_resize(void)
{
	static const int cqes[] = { 8, 1000, 63, 300, 9 };
	struct ibv_sge sge = piece(&sides[0], 0, 8);
	struct end ends[2];
	bool good = pair_open(ends, IBV_QPT_RC, all_access);
	struct ibv_wc wc;

	for (unsigned int round = 0; good && round < 50; round++) {
		int cqe = cqes[round % ARRAY_SIZE(cqes)], err;

		for (unsigned int i = 0; good && i < 8; i++)
			good = post_write(ends, &sge);
		good = good && completed(&ends[0], IBV_WC_SUCCESS, &wc);
		err = good ? ibv_resize_cq(ends[0].cq, cqe) : 0;
		if (err || (good && ends[0].cq->cqe < cqe))
			good = fail("ibv_resize_cq: %s, %d entries of %d", strerror(err), ends[0].cq->cqe, cqe);
		for (unsigned int i = 1; good && i < 8; i++)
			good = completed(&ends[0], IBV_WC_SUCCESS, &wc);
		if (good && ibv_poll_cq(ends[0].cq, 1, &wc))
			good = fail("one completion too many");
	}
	pair_close(ends);
	return good;
}

static bool test_resize(void) { return with_memory(PINNED, all_access, run_resize); }

static bool read_clock(uint64_t *cycles)
{
	struct ibv_values_ex values = { .comp_mask = IBV_VALUES_MASK_RAW_CLOCK };

	if (ibv_query_rt_values_ex(sides[0].context, &values))
		return fail("ibv_query_rt_values_ex: %m");
	*cycles = values.raw_clock.tv_sec * 1000000000ull + values.raw_clock.tv_nsec;
	return true;
}

/* A time stamp is between what the device's clock shows before and after. */
static bool run_time_stamps(void)
{
	struct ibv_cq_init_attr_ex init = { .cqe = 64, .wc_flags = IBV_WC_EX_WITH_COMPLETION_TIMESTAMP };
	struct ibv_cq_ex *cq = ibv_create_cq_ex(sides[0].context, &init);
	struct ibv_sge sge = piece(&sides[0], 0, 8);
	struct ibv_device_attr_ex device;
	struct end ends[2] = { 0 };
	bool good = cq || fail("ibv_create_cq_ex: %m");

	if (good && (ibv_query_device_ex(sides[0].context, NULL, &device) || !device.hca_core_clock))
		good = fail("the frequency of the device's clock is unknown");
	good = good && pair_open_on(ends, IBV_QPT_RC, all_access, ibv_cq_ex_to_cq(cq));
	for (unsigned int i = 0; good && i < 10; i++) {
		struct ibv_poll_cq_attr poll = { 0 };
		uint64_t before, after, stamp;
		int err;

		good = read_clock(&before) && post_write(ends, &sge);
		if (!good)
			break;
		do
			err = ibv_start_poll(cq, &poll);
		while (err == ENOENT);
		stamp = err ? 0 : ibv_wc_read_completion_ts(cq);
		if (err || cq->status != IBV_WC_SUCCESS)
			good = fail("ibv_start_poll: %d, completed with %d", err, cq->status);
		if (!err)
			ibv_end_poll(cq);
		good = good && read_clock(&after);
		if (good && (stamp < before || stamp > after))
			good = fail("a time stamp of %ju, between %ju and %ju", (uintmax_t)stamp, (uintmax_t)before, (uintmax_t)after);
	}
	pair_close(ends);
	return good;
}

static bool test_time_stamps(void) { return with_memory(PINNED, all_access, run_time_stamps); }

static bool open_sides(char **names)
{
	return side_open(&sides[0], names[0]) && side_open(&sides[1], names[1]);
}

static char **device_names;

static bool test_processes(void)
{
	bool good = true;

	for (int i = 0; i < PROCESSES; i++) {
		pid_t child = fork();

		if (child == 0) {
			bool passed = open_sides(device_names) && with_memory(i & 1 ? ODP : PINNED, all_access, run_operations);

			if (!passed)
				printf("# process %d: %s\n", i, why);
			fflush(stdout);
			_exit(!passed);
		}
		if (child < 0)
			good = fail("fork: %m");
	}
	for (int status; wait(&status) > 0; )
		if (status)
			good = fail("a process ended with status %#x", status);
	return good;
}

static const struct {
	const char *name;
	bool (*run)(void);
	bool own_devices;		/* the test opens them, in processes of its own */
} tests[] = {
	{ "pinned", test_pinned, false },
	{ "odp", test_odp, false },
	{ "implicit", test_implicit, false },
	{ "inline", test_inline, false },
	{ "atomics", test_atomics, false },
	{ "errors", test_errors, false },
	{ "null_key", test_null_key, false },
	{ "region_permission", test_region_permission, false },
	{ "many_qps", test_many_qps, false },
	{ "uc", test_uc, false },
	{ "ud", test_ud, false },
	{ "resize", test_resize, false },
	{ "time_stamps", test_time_stamps, false },
	{ "processes", test_processes, true },
};

int main(int argc, char **argv)
{
	unsigned int failed = 0;

	if (argc < 3) {
		fprintf(stderr, "usage: %s SERVER CLIENT\n", argv[0]);
		return 2;
	}
	device_names = argv + 1;
	printf("KTAP version 1\n1..%zu\n", ARRAY_SIZE(tests));
	fflush(stdout);
	for (unsigned int i = 0; i < ARRAY_SIZE(tests); i++) {
		bool passed;

		if (!tests[i].own_devices && !sides[0].context && !open_sides(device_names)) {
			printf("Bail out! %s\n", why);
			return 2;
		}
		passed = tests[i].run();
		failed += !passed;
		report(passed, tests[i].name);
	}
	return failed > 0;
}
