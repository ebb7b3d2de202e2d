// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the guest: mounts what programs expect, starts the runner's agent and, if asked, an interactive shell, and
 * reaps whatever is orphaned. It loads no driver by itself.
 *
 * Kernel command line:
 *   rig.shell=1           an interactive shell on the console; the machine powers off when it ends
 *   rig.modules=A,B       modules to load with modprobe before anything is started
 *
 * Signals, those of busybox's poweroff, reboot and halt: SIGUSR2 powers off, SIGTERM and SIGINT reboot, SIGUSR1 halts.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BIN "/opt/hmm-p2p/bin"
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* What a process is given to end after SIGTERM at shutdown, in seconds. */
#define GRACE 2

struct filesystem {
	const char *target;
	const char *source;
	const char *type;
	unsigned long flags;
	const char *data;
	bool optional;		/* the kernel or the machine may lack it */
};

/* The initramfs hands over /dev, /proc and /sys; a root mounted without it has none of them. */
static const struct filesystem filesystems[] = {
	{ "/dev/pts", "devpts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666,gid=5", false },
	{ "/dev/shm", "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false },
	{ "/dev/hugepages", "hugetlbfs", "hugetlbfs", MS_NOSUID | MS_NODEV, NULL, true },
	{ "/dev/mqueue", "mqueue", "mqueue", MS_NOSUID | MS_NODEV, NULL, true },
	{ "/run", "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755", false },
	{ "/tmp", "tmpfs", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", false },
	{ "/sys/kernel/debug", "debugfs", "debugfs", 0, NULL, true },
	{ "/sys/kernel/tracing", "tracefs", "tracefs", 0, NULL, true },
	{ "/sys/kernel/config", "configfs", "configfs", 0, NULL, true },
	{ "/sys/fs/cgroup", "cgroup2", "cgroup2", 0, NULL, true },
	{ "/host", "host", "9p", MS_NOSUID | MS_NODEV, "trans=virtio,version=9p2000.L,msize=512000", true },
};

static const char *const fd_links[][2] = {
	{ "/dev/fd", "/proc/self/fd" },
	{ "/dev/stdin", "/proc/self/fd/0" },
	{ "/dev/stdout", "/proc/self/fd/1" },
	{ "/dev/stderr", "/proc/self/fd/2" },
};

static void complain(const char *what, const char *name)
{
	fprintf(stderr, "rig: %s %s: %s\n", what, name, strerror(errno));
}

static void mount_all(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(filesystems); i++) {
		const struct filesystem *fs = &filesystems[i];

		mkdir(fs->target, 0755);
		if (mount(fs->source, fs->target, fs->type, fs->flags, fs->data) && !fs->optional)
			complain("cannot mount", fs->target);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fd_links); i++)
		if (symlink(fd_links[i][1], fd_links[i][0]) && errno != EEXIST)
			complain("cannot make", fd_links[i][0]);
}

/* The value of the kernel parameter @name in a buffer of this function's, "" when it is not there. */
static const char *parameter(const char *name)
{
	static char line[4096];
	size_t length = strlen(name);
	ssize_t got = 0;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		got = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	line[got > 0 ? got : 0] = '\0';
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, length) && word[length] == '=')
			return word + length + 1;
	return "";
}

static void bring_up_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0) {
		if (ioctl(fd, SIOCSIFFLAGS, &request))
			complain("cannot bring up", "lo");
		close(fd);
	}
}

/* Start a program in a session of its own with default signals; on @tty as its controlling terminal, if given. */
static pid_t start(char *const argv[], const char *tty)
{
	pid_t pid = fork();
	sigset_t none;

	if (pid < 0)
		complain("cannot start", argv[0]);
	if (pid)
		return pid;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (tty) {
		int fd = open(tty, O_RDWR);

		if (fd < 0 || ioctl(fd, TIOCSCTTY, 1))
			complain("cannot take the terminal", tty);
		for (int i = 0; fd >= 0 && i < 3; i++)
			dup2(fd, i);
		if (fd > 2)
			close(fd);
	}
	execv(argv[0], argv);
	complain("cannot run", argv[0]);
	_exit(127);
}

static void load_modules(void)
{
	const char *names = parameter("rig.modules");
	char *list, *argv[64] = { "/usr/sbin/modprobe", "-a" };
	size_t count = 2;
	int status;
	pid_t pid;

	if (!*names)
		return;
	list = strdup(names);
	for (char *name = strtok(list, ","); name && count < ARRAY_SIZE(argv) - 1; name = strtok(NULL, ","))
		argv[count++] = name;
	pid = start(argv, NULL);
	if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
		fprintf(stderr, "rig: modprobe of rig.modules=%s failed\n", parameter("rig.modules"));
	free(list);
}

/* The terminal behind /dev/console, which itself cannot be anybody's controlling terminal. */
static const char *console_tty(void)
{
	static char path[64] = "/dev/";
	char active[256] = "";
	char *last;
	int fd = open("/sys/class/tty/console/active", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t got = read(fd, active, sizeof(active) - 1);

		active[got > 0 ? got : 0] = '\0';
		close(fd);
	}
	active[strcspn(active, "\n")] = '\0';
	last = strrchr(active, ' ');
	snprintf(path + 5, sizeof(path) - 5, "%s", last ? last + 1 : active);
	return path;
}

static void shut_down(int how)
{
	const struct timespec tick = { .tv_nsec = 20 * 1000 * 1000 };
	struct timespec now, start_time;

	clock_gettime(CLOCK_MONOTONIC, &start_time);
	kill(-1, SIGTERM);
	kill(-1, SIGCONT);
	kill(-1, SIGHUP);	/* interactive shells ignore SIGTERM */
	do {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0)
			break;
		if (!pid)
			nanosleep(&tick, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - start_time.tv_sec < GRACE);
	kill(-1, SIGKILL);
	sync();
	reboot(how);
	complain("cannot", "power off");
	for (;;)
		pause();
}

static void report_end(const char *name, int status)
{
	if (WIFSIGNALED(status))
		fprintf(stderr, "rig: %s was killed by signal %d\n", name, WTERMSIG(status));
	else
		fprintf(stderr, "rig: %s ended with status %d\n", name, WEXITSTATUS(status));
}

int main(void)
{
	char *const agent_argv[] = { BIN "/agent", NULL };
	char *const shell_argv[] = { "/bin/bash", "-l", NULL };
	pid_t agent = 0, shell = 0;
	sigset_t all;
	int status;

	if (getpid() != 1) {
		fprintf(stderr, "init: this is the guest's PID 1, not a program to run\n");
		return 1;
	}
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	reboot(RB_DISABLE_CAD);		/* Ctrl-Alt-Del becomes SIGINT */
	umask(022);
	setenv("PATH", BIN ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("TERM", "vt100", 0);
	mount_all();
	if (chdir("/root") || sethostname("guest", 5))
		complain("cannot set up", "/root");
	bring_up_loopback();
	load_modules();
	if (!access(agent_argv[0], X_OK))
		agent = start(agent_argv, NULL);
	if (!strcmp(parameter("rig.shell"), "1"))
		shell = start(shell_argv, console_tty());

	for (;;) {
		siginfo_t info;
		pid_t pid;

		switch (sigwaitinfo(&all, &info)) {
		case SIGCHLD:
			while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
				if (pid == shell)
					shut_down(RB_POWER_OFF);
				if (pid == agent)
					report_end("the agent", status);
			}
			break;
		case SIGUSR1:
			shut_down(RB_HALT_SYSTEM);
			break;
		case SIGUSR2:
			shut_down(RB_POWER_OFF);
			break;
		case SIGINT:
		case SIGTERM:
			shut_down(RB_AUTOBOOT);
			break;
		}
	}
}
