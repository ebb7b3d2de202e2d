// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's end of the rig: runs commands for the host over a virtio-serial port.
 *
 * The host's end is rig/agent.py, which describes the protocol in words; docs/testing.md shows it in use.
 * Every frame, in both directions, is a little-endian header and a payload:
 *
 *	bytes 0-3	"RIG1"
 *	byte  4		frame type
 *	bytes 5-7	zero
 *	bytes 8-11	id: which command or file transfer the frame belongs to, chosen by the host, not 0
 *	bytes 12-15	length of the payload, at most 64 KiB
 *
 * A header that breaks these rules is reported once, and the agent looks for the next magic. One thread, one poll loop:
 * nothing here may block except waiting in poll(). When the port hangs up, what was begun goes on, and what the host has
 * to know waits for it: the guest may have slept. A HELLO is that of a new host, and every command of the last is killed.
 *
 * Usage: agent [--fd N]	N: talk on an open stream socket instead of the virtio-serial port, and end with it
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_NAME	"org.hmm-p2p.rig"
#define PROTOCOL	1
#define MAX_PAYLOAD	65536u
#define MAX_JOBS	64
#define MAX_STRINGS	4096
/* Producers (command output, file reads) pause while this much waits for the host to read it. */
#define TX_HIGH_WATER	(4 * MAX_PAYLOAD)

enum frame_type {
	/* both ways */
	FRAME_HELLO = 1,	/* host: 8-byte nonce. agent: the nonce, then "key=value\n" lines */
	FRAME_DATA = 2,		/* part of a file; an empty one ends a PUT */
	/* host to agent */
	FRAME_EXEC = 16,	/* u32 argc, u32 envc, u32 flags, then cwd, argv..., env... each ending in NUL */
	FRAME_STDIN = 17,	/* bytes for the command's stdin; an empty one closes it */
	FRAME_KILL = 18,	/* u32 signal number, for the command's process group */
	FRAME_PUT = 19,		/* u32 mode, path ending in NUL; DATA frames follow */
	FRAME_GET = 20,		/* path ending in NUL */
	FRAME_PING = 21,	/* answered by DONE */
	FRAME_MARK = 22,	/* one line for the kernel log */
	FRAME_POWEROFF = 23,
	/* agent to host */
	FRAME_STDOUT = 32,
	FRAME_STDERR = 33,
	FRAME_EXIT = 34,	/* u32 kind (0 exited, 1 killed by a signal), u32 exit status or signal number */
	FRAME_DONE = 35,
	FRAME_ERROR = 36,	/* u32 errno, text; ends what the id stands for. id 0: a malformed frame */
};

#define EXEC_STDIN	1u	/* flag: the host sends STDIN frames; otherwise stdin is /dev/null */

struct header {
	char magic[4];
	uint8_t type;
	uint8_t zero[3];
	uint32_t id;
	uint32_t length;
};

_Static_assert(sizeof(struct header) == 16, "the header is 16 bytes on the wire");

struct buffer {
	uint8_t *data;
	size_t start, end, size;
};

enum job_kind { JOB_NONE, JOB_COMMAND, JOB_PUT, JOB_GET };

struct job {
	enum job_kind kind;
	uint32_t id;
	int fd;			/* PUT, GET: the file */
	int error;		/* PUT: errno of the first failed write */
	pid_t pid;		/* COMMAND: the leader of its session and group */
	bool dead;		/* COMMAND: the leader was reaped; `status` is valid */
	int status;
	int in, out[2];		/* COMMAND: its stdin, stdout and stderr; -1 when closed */
	bool in_eof;		/* COMMAND: close `in` once `pending` is written */
	struct buffer pending;	/* COMMAND: stdin that the command has not read yet */
};

static struct job jobs[MAX_JOBS];
static struct buffer rx, tx;
static int port = -1;
static bool desynchronised;

static void die(const char *what)
{
	fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Buffers ------------------------------------------------------------------------------------------------------- */

static size_t buffer_used(const struct buffer *b)
{
	return b->end - b->start;
}

static uint8_t *buffer_room(struct buffer *b, size_t room)
{
	if (b->size - b->end < room) {
		if (b->start)
			memmove(b->data, b->data + b->start, buffer_used(b));
		b->end -= b->start;
		b->start = 0;
		if (b->size - b->end < room) {
			size_t size = b->end + room;

			b->data = realloc(b->data, size);
			if (!b->data)
				die("out of memory");
			b->size = size;
		}
	}
	return b->data + b->end;
}

static void buffer_append(struct buffer *b, const void *data, size_t length)
{
	uint8_t *to = buffer_room(b, length);

	if (length)
		memcpy(to, data, length);
	b->end += length;
}

static void buffer_drop(struct buffer *b, size_t length)
{
	b->start += length;
	if (b->start == b->end)
		b->start = b->end = 0;
}

static void buffer_free(struct buffer *b)
{
	free(b->data);
	*b = (struct buffer){};
}

/* Sending ------------------------------------------------------------------------------------------------------- */

static void send_frame(enum frame_type type, uint32_t id, const void *payload, size_t length)
{
	struct header h = { .magic = "RIG1", .type = type, .id = htole32(id), .length = htole32(length) };

	buffer_append(&tx, &h, sizeof(h));
	buffer_append(&tx, payload, length);
}

static void send_error(uint32_t id, int error, const char *format, ...)
{
	char payload[512];
	uint32_t code = htole32(error);
	va_list args;
	int length;

	memcpy(payload, &code, sizeof(code));
	va_start(args, format);
	length = vsnprintf(payload + sizeof(code), sizeof(payload) - sizeof(code), format, args);
	va_end(args);
	if (length < 0)
		length = 0;
	if ((size_t)length >= sizeof(payload) - sizeof(code))
		length = sizeof(payload) - sizeof(code) - 1;
	send_frame(FRAME_ERROR, id, payload, sizeof(code) + length);
}

static bool tx_full(void)
{
	return buffer_used(&tx) >= TX_HIGH_WATER;
}

/* Jobs ---------------------------------------------------------------------------------------------------------- */

static struct job *job_find(uint32_t id)
{
	for (int i = 0; i < MAX_JOBS; i++)
		if (jobs[i].kind != JOB_NONE && jobs[i].id == id)
			return &jobs[i];
	return NULL;
}

/* A free slot for the host's `id`, or NULL after telling the host why there is none. */
static struct job *job_new(uint32_t id, enum job_kind kind)
{
	if (!id || job_find(id)) {
		send_error(id, EEXIST, "id %u is %s", id, id ? "in use" : "not allowed");
		return NULL;
	}
	for (int i = 0; i < MAX_JOBS; i++) {
		if (jobs[i].kind == JOB_NONE) {
			jobs[i] = (struct job){ .kind = kind, .id = id, .fd = -1, .in = -1, .out = { -1, -1 } };
			return &jobs[i];
		}
	}
	send_error(id, EBUSY, "%d commands and transfers are running already", MAX_JOBS);
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void job_free(struct job *job)
{
	close_fd(&job->fd);
	close_fd(&job->in);
	close_fd(&job->out[0]);
	close_fd(&job->out[1]);
	buffer_free(&job->pending);
	job->kind = JOB_NONE;
}

/* Commands ------------------------------------------------------------------------------------------------------ */

/* Take `count` NUL-terminated strings off [*at, end) into list, NULL-terminated. False: they are not all there. */
static bool take_strings(char **at, char *end, uint32_t count, char **list)
{
	for (uint32_t i = 0; i < count; i++) {
		char *nul = memchr(*at, 0, end - *at);

		if (!nul)
			return false;
		list[i] = *at;
		*at = nul + 1;
	}
	list[count] = NULL;
	return true;
}

static void run_child(char **argv, char **env, const char *cwd, int in, const int *out, int report)
{
	sigset_t none;
	int error;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	if (dup2(in, 0) < 0 || dup2(out[0], 1) < 0 || dup2(out[1], 2) < 0)
		goto fail;
	for (; *env; env++)
		putenv(*env);
	if (*cwd && chdir(cwd) < 0)
		goto fail;
	execvp(argv[0], argv);
fail:
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

static void handle_exec(uint32_t id, uint8_t *payload, size_t length)
{
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, report[2] = { -1, -1 }, error = 0;
	char *argv[MAX_STRINGS + 1], *env[MAX_STRINGS + 1], *cwd[2];
	char *at = (char *)payload + 12, *end = (char *)payload + length;
	uint32_t argc, envc, flags;
	struct job *job;
	pid_t pid;

	if (length < 12)
		goto malformed;
	memcpy(&argc, payload, 4);
	memcpy(&envc, payload + 4, 4);
	memcpy(&flags, payload + 8, 4);
	argc = le32toh(argc);
	envc = le32toh(envc);
	flags = le32toh(flags);
	if (!argc || argc > MAX_STRINGS || envc > MAX_STRINGS || (flags & ~EXEC_STDIN) ||
	    !take_strings(&at, end, 1, cwd) || !take_strings(&at, end, argc, argv) ||
	    !take_strings(&at, end, envc, env) || at != end)
		goto malformed;

	job = job_new(id, JOB_COMMAND);
	if (!job)
		return;

	if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0)
		goto fail;
	if (flags & EXEC_STDIN) {
		if (pipe2(in, O_CLOEXEC) < 0)
			goto fail;
	} else {
		in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (in[0] < 0)
			goto fail;
	}
	pid = fork();
	if (pid < 0)
		goto fail;
	if (!pid)
		run_child(argv, env, cwd[0], in[0], (int[]){ out[1], err[1] }, report[1]);

	/* The child holds the only other end: this waits for its execvp(), not for the command. */
	close_fd(&report[1]);
	if (read(report[0], &error, sizeof(error)) == sizeof(error)) {
		waitpid(pid, NULL, 0);
		errno = error;
		goto fail;
	}
	close_fd(&report[0]);
	close_fd(&in[0]);
	close_fd(&out[1]);
	close_fd(&err[1]);
	job->pid = pid;
	job->in = in[1];
	job->out[0] = out[0];
	job->out[1] = err[0];
	fcntl(job->out[0], F_SETFL, O_NONBLOCK);
	fcntl(job->out[1], F_SETFL, O_NONBLOCK);
	if (job->in >= 0)
		fcntl(job->in, F_SETFL, O_NONBLOCK);
	return;

fail:
	send_error(id, errno, "cannot run %s: %s", argv[0], strerror(errno));
	for (int i = 0; i < 2; i++) {
		close_fd(&in[i]);
		close_fd(&out[i]);
		close_fd(&err[i]);
		close_fd(&report[i]);
	}
	job_free(job);
	return;

malformed:
	send_error(id, EINVAL, "malformed EXEC");
}

/* Pass on what the command wrote to one of its pipes. Returns true when there may be more. */
static bool forward_output(struct job *job, int which)
{
	uint8_t chunk[16384];
	ssize_t got;

	if (job->out[which] < 0 || tx_full())
		return false;
	got = read(job->out[which], chunk, sizeof(chunk));
	if (got > 0) {
		send_frame(which ? FRAME_STDERR : FRAME_STDOUT, job->id, chunk, got);
		return true;
	}
	if (got == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(&job->out[which]);
	return false;
}

static void feed_stdin(struct job *job)
{
	while (job->in >= 0 && buffer_used(&job->pending)) {
		ssize_t put = write(job->in, job->pending.data + job->pending.start, buffer_used(&job->pending));

		if (put < 0) {
			if (errno == EAGAIN || errno == EINTR)
				return;
			close_fd(&job->in);	/* the command reads no more */
			break;
		}
		buffer_drop(&job->pending, put);
	}
	if (job->in < 0)
		buffer_drop(&job->pending, buffer_used(&job->pending));
	else if (job->in_eof)
		close_fd(&job->in);
}

/*
 * A command ends with its leader: its output so far is passed on, whatever is left of its group has been killed, and
 * writers that left the group (setsid) lose their pipe. Waits for the host to make room, so it may take several rounds.
 */
static void finish_command(struct job *job)
{
	uint32_t result[2];

	for (int which = 0; which < 2; which++) {
		while (forward_output(job, which))
			;
		if (job->out[which] >= 0 && tx_full())
			return;
	}
	result[0] = htole32(WIFSIGNALED(job->status));
	result[1] = htole32(WIFSIGNALED(job->status) ? WTERMSIG(job->status) : WEXITSTATUS(job->status));
	send_frame(FRAME_EXIT, job->id, result, sizeof(result));
	job_free(job);
}

static void reap_children(void)
{
	siginfo_t info;

	for (;;) {
		int status;

		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
			return;
		/* Still a zombie, so its number cannot have been given to another group. */
		kill(-info.si_pid, SIGKILL);
		if (waitpid(info.si_pid, &status, 0) < 0)
			return;
		for (int i = 0; i < MAX_JOBS; i++) {
			if (jobs[i].kind == JOB_COMMAND && jobs[i].pid == info.si_pid) {
				jobs[i].dead = true;
				jobs[i].status = status;
			}
		}
	}
}

static void drop_all_jobs(void)
{
	for (int i = 0; i < MAX_JOBS; i++) {
		if (jobs[i].kind == JOB_COMMAND && !jobs[i].dead)
			kill(-jobs[i].pid, SIGKILL);
		if (jobs[i].kind != JOB_NONE)
			job_free(&jobs[i]);
	}
}

/* Files --------------------------------------------------------------------------------------------------------- */

static void handle_put(uint32_t id, const uint8_t *payload, size_t length)
{
	const char *path = (const char *)payload + 4;
	struct job *job;
	uint32_t mode;

	if (length < 6 || memchr(path, 0, length - 4) != payload + length - 1) {
		send_error(id, EINVAL, "malformed PUT");
		return;
	}
	memcpy(&mode, payload, 4);
	job = job_new(id, JOB_PUT);
	if (!job)
		return;
	job->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, le32toh(mode) & 07777);
	if (job->fd < 0) {
		send_error(id, errno, "cannot write %s: %s", path, strerror(errno));
		job_free(job);
	}
}

static void put_data(struct job *job, const uint8_t *data, size_t length)
{
	if (!length) {
		if (close(job->fd) < 0 && !job->error)
			job->error = errno;
		job->fd = -1;
		if (job->error)
			send_error(job->id, job->error, "write: %s", strerror(job->error));
		else
			send_frame(FRAME_DONE, job->id, NULL, 0);
		job_free(job);
		return;
	}
	while (length && !job->error) {
		ssize_t put = write(job->fd, data, length);

		if (put < 0 && errno != EINTR)
			job->error = errno;
		if (put > 0) {
			data += put;
			length -= put;
		}
	}
}

static void handle_get(uint32_t id, const uint8_t *payload, size_t length)
{
	const char *path = (const char *)payload;
	struct job *job;

	if (length < 2 || memchr(path, 0, length) != payload + length - 1) {
		send_error(id, EINVAL, "malformed GET");
		return;
	}
	job = job_new(id, JOB_GET);
	if (!job)
		return;
	job->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (job->fd < 0) {
		send_error(id, errno, "cannot read %s: %s", path, strerror(errno));
		job_free(job);
	}
}

static void get_data(struct job *job)
{
	uint8_t chunk[32768];
	ssize_t got = read(job->fd, chunk, sizeof(chunk));

	if (got > 0) {
		send_frame(FRAME_DATA, job->id, chunk, got);
		return;
	}
	if (got < 0 && errno == EINTR)
		return;
	/* EAGAIN: a stream such as trace_pipe has nothing more for now, which is its end for us */
	if (got < 0 && errno != EAGAIN)
		send_error(job->id, errno, "read: %s", strerror(errno));
	else
		send_frame(FRAME_DONE, job->id, NULL, 0);
	job_free(job);
}

/* Frames from the host ------------------------------------------------------------------------------------------ */

static void handle_hello(const uint8_t *payload, size_t length)
{
	struct utsname u;
	char text[1024];
	int used;

	if (length != 8) {
		send_error(0, EINVAL, "malformed HELLO");
		return;
	}
	/* A new host: nothing of the last one's may reach it. */
	drop_all_jobs();
	uname(&u);
	memcpy(text, payload, 8);
	used = snprintf(text + 8, sizeof(text) - 8, "protocol=%d\nrelease=%s\nversion=%s\nmachine=%s\npid=%d\n",
			PROTOCOL, u.release, u.version, u.machine, (int)getpid());
	send_frame(FRAME_HELLO, 0, text, 8 + used);
}

static void handle_mark(uint32_t id, const uint8_t *payload, size_t length)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, payload, length) != (ssize_t)length)
		send_error(id, errno, "/dev/kmsg: %s", strerror(errno));
	else
		send_frame(FRAME_DONE, id, NULL, 0);
	close_fd(&fd);
}

static void handle_frame(enum frame_type type, uint32_t id, uint8_t *payload, size_t length)
{
	struct job *job = job_find(id);
	uint32_t number;

	switch (type) {
	case FRAME_HELLO:
		handle_hello(payload, length);
		return;
	case FRAME_EXEC:
		handle_exec(id, payload, length);
		return;
	case FRAME_STDIN:
		/* The command may have ended while this was under way. */
		if (job && job->kind == JOB_COMMAND && job->in >= 0) {
			if (length)
				buffer_append(&job->pending, payload, length);
			else
				job->in_eof = true;
			feed_stdin(job);
		}
		return;
	case FRAME_KILL:
		if (length != sizeof(number)) {
			send_error(0, EINVAL, "malformed KILL");
			return;
		}
		memcpy(&number, payload, sizeof(number));
		if (job && job->kind == JOB_COMMAND && !job->dead)
			kill(-job->pid, le32toh(number));
		return;
	case FRAME_PUT:
		handle_put(id, payload, length);
		return;
	case FRAME_DATA:
		if (job && job->kind == JOB_PUT)
			put_data(job, payload, length);
		return;
	case FRAME_GET:
		handle_get(id, payload, length);
		return;
	case FRAME_PING:
		send_frame(FRAME_DONE, id, NULL, 0);
		return;
	case FRAME_MARK:
		handle_mark(id, payload, length);
		return;
	case FRAME_POWEROFF:
		sync();
		reboot(RB_POWER_OFF);
		send_error(id, errno, "reboot: %s", strerror(errno));
		return;
	default:
		send_error(id, ENOSYS, "unknown frame type %u", type);
	}
}

/* Throw away one byte and what follows up to the next byte that can start a frame; complain once per run of garbage. */
static void resynchronise(void)
{
	uint8_t *next;

	if (!desynchronised)
		send_error(0, EPROTO, "malformed frame header");
	desynchronised = true;
	buffer_drop(&rx, 1);
	next = memchr(rx.data + rx.start, 'R', buffer_used(&rx));
	buffer_drop(&rx, next ? (size_t)(next - (rx.data + rx.start)) : buffer_used(&rx));
}

static void handle_input(void)
{
	while (buffer_used(&rx) >= sizeof(struct header) && !tx_full()) {
		struct header h;

		memcpy(&h, rx.data + rx.start, sizeof(h));
		h.length = le32toh(h.length);
		if (memcmp(h.magic, "RIG1", 4) || h.zero[0] || h.zero[1] || h.zero[2] || h.length > MAX_PAYLOAD) {
			resynchronise();
			continue;
		}
		if (buffer_used(&rx) < sizeof(h) + h.length)
			return;
		desynchronised = false;
		/* Handlers only append to tx and to jobs, so the payload stays where it is. */
		handle_frame(h.type, le32toh(h.id), rx.data + rx.start + sizeof(h), h.length);
		buffer_drop(&rx, sizeof(h) + h.length);
	}
}

/* The port ------------------------------------------------------------------------------------------------------ */

/* The name of our virtio-serial port in /dev and in sysfs (there is no udev). False: not there (yet). */
static bool find_port(char *name, size_t size)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char path[512], text[64] = "";
		int fd;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, text, sizeof(text) - 1) > 0) {
			text[strcspn(text, "\n")] = 0;
			found = !strcmp(text, PORT_NAME);
		}
		close(fd);
		snprintf(name, size, "%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Open the port; the driver may create it after we start, so wait for kernel events in between. */
static int open_port(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int events = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT), fd;
	char name[256], path[512], event[8192];

	if (events < 0 || bind(events, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("cannot listen for kernel events");
	for (;;) {
		if (find_port(name, sizeof(name))) {
			snprintf(path, sizeof(path), "/dev/%s", name);
			fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
			if (fd >= 0)
				break;
			if (errno != ENOENT)
				die(path);
		}
		if (recv(events, event, sizeof(event), 0) < 0 && errno != ENOBUFS && errno != EINTR)
			die("kernel events");
	}
	close(events);
	/* The driver sends SIGIO when a host connects; poll() would only repeat POLLHUP until then. */
	if (fcntl(fd, F_SETOWN, getpid()) < 0 || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK | O_ASYNC) < 0)
		die("cannot ask for SIGIO");
	return fd;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/*
 * The port hung up: the host is gone, or the guest slept. For sleep the driver forgets that a host is there
 * (virtcons_freeze()), and when it asks QEMU again it has no buffer yet for the answer, which is lost
 * (virtcons_restore(), send_control_msg() in virtio-serial-bus.c). A driver that is bound anew does not make that mistake.
 */
static void renew_port(void)
{
	char name[256], link[512], device[512], *slash;
	ssize_t length;

	if (!find_port(name, sizeof(name))) {
		errno = ENODEV;
		die("the port");
	}
	close_fd(&port);
	snprintf(link, sizeof(link), "/sys/class/virtio-ports/%s/device", name);
	length = readlink(link, device, sizeof(device) - 1);
	if (length < 0)
		die(link);
	device[length] = 0;
	slash = strrchr(device, '/');
	write_file("/sys/bus/virtio/drivers/virtio_console/unbind", slash ? slash + 1 : device);
	write_file("/sys/bus/virtio/drivers/virtio_console/bind", slash ? slash + 1 : device);
	port = open_port();
}

/* Returns false when the host closed the port. */
static bool read_port(void)
{
	ssize_t got = read(port, buffer_room(&rx, MAX_PAYLOAD), MAX_PAYLOAD);

	if (got > 0)
		rx.end += got;
	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static bool write_port(void)
{
	ssize_t put = write(port, tx.data + tx.start, buffer_used(&tx));

	if (put > 0)
		buffer_drop(&tx, put);
	return put > 0 || (put < 0 && (errno == EAGAIN || errno == EINTR));
}

static bool port_has_host(void)
{
	struct pollfd p = { .fd = port, .events = POLLIN };

	return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

static void add_poll(struct pollfd *list, nfds_t *count, int fd, short events)
{
	list[(*count)++] = (struct pollfd){ .fd = fd, .events = events };
}

static void serve(int signals, bool one_host)
{
	bool connected = one_host || port_has_host();

	for (;;) {
		struct pollfd list[2 + 3 * MAX_JOBS];
		bool full = tx_full(), reading = false;
		nfds_t count = 0;

		add_poll(list, &count, signals, POLLIN);
		if (connected)
			add_poll(list, &count, port, (full ? 0 : POLLIN) | (buffer_used(&tx) ? POLLOUT : 0));
		for (int i = 0; connected && i < MAX_JOBS; i++) {
			struct job *job = &jobs[i];

			if (job->kind == JOB_GET)
				reading = true;
			if (job->kind != JOB_COMMAND)
				continue;
			if (job->in >= 0 && buffer_used(&job->pending))
				add_poll(list, &count, job->in, POLLOUT);
			if (job->out[0] >= 0 && !full)
				add_poll(list, &count, job->out[0], POLLIN);
			if (job->out[1] >= 0 && !full)
				add_poll(list, &count, job->out[1], POLLIN);
		}
		/* A GET reads whenever there is room: regular files are always ready. */
		if (poll(list, count, reading && !full ? 0 : -1) < 0 && errno != EINTR)
			die("poll");

		if (list[0].revents & POLLIN) {
			struct signalfd_siginfo info;

			while (read(signals, &info, sizeof(info)) == sizeof(info))
				;
			reap_children();
			if (!connected)
				connected = port_has_host();
		}
		if (connected && count > 1 && list[1].fd == port && list[1].revents) {
			short got = list[1].revents;
			bool alive = !(got & POLLOUT) || write_port();

			/* Read what is left even after a hang-up, unless there is no room for the answers. */
			if (alive && (got & POLLIN) && !tx_full())
				alive = read_port();
			else if (got & (POLLHUP | POLLERR))
				alive = false;
			if (!alive && one_host) {
				drop_all_jobs();
				return;
			}
			if (!alive) {
				renew_port();
				connected = port_has_host();
			}
		}
		handle_input();
		for (int i = 0; i < MAX_JOBS; i++) {
			struct job *job = &jobs[i];

			if (job->kind == JOB_GET && !tx_full())
				get_data(job);
			if (job->kind != JOB_COMMAND)
				continue;
			feed_stdin(job);
			if (job->dead) {
				finish_command(job);
			} else {
				forward_output(job, 0);
				forward_output(job, 1);
			}
		}
	}
}

int main(int argc, char **argv)
{
	bool one_host = argc == 3 && !strcmp(argv[1], "--fd");
	sigset_t set;
	int signals;

	if (argc != 1 && !one_host) {
		fprintf(stderr, "usage: agent [--fd N]\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd");
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
	setenv("HOME", "/root", 0);
	if (one_host) {
		port = atoi(argv[2]);
		if (fcntl(port, F_SETFL, O_NONBLOCK) < 0 || fcntl(port, F_SETFD, FD_CLOEXEC) < 0)
			die("--fd");
	} else {
		port = open_port();
	}
	serve(signals, one_host);
	reap_children();
	return 0;
}
