// SPDX-License-Identifier: GPL-2.0
/*
 * /init of the initramfs: loads the drivers that the kernel needs for its disks and does not have built in, stacks the
 * squashfs images on the virtio disks (vda lowest) under a tmpfs, and goes on with the init of that root.
 *
 * One static program, as every program that a shell would start costs a debug kernel under TCG a good part of a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define INIT "/opt/hmm-p2p/bin/init"

static const char squashfs_magic[4] = "hsqs";

/* What the root that comes next gets from this one. */
static const struct {
	const char *target, *type;
} handed_over[] = {
	{ "/dev", "devtmpfs" },
	{ "/proc", "proc" },
	{ "/sys", "sysfs" },
};

/* Say why there is nothing to boot, with errno where @error is set, and power off: the runner shows it. */
__attribute__((format(printf, 2, 3), noreturn))
static void fail(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "rig: boot failed: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "%s%s\n", error ? ": " : "", error ? strerror(error) : "");
	va_end(args);
	reboot(RB_POWER_OFF);
	abort();
}

static void mount_or_fail(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data))
		fail(errno, "cannot mount %s at %s", source, target);
}

/* Load the modules that /modules/order names, one a line; it is not there where all drivers are built in. */
static void load_modules(void)
{
	FILE *order = fopen("/modules/order", "re");
	char name[256], path[sizeof("/modules/") + sizeof(name)];

	while (order && fgets(name, sizeof(name), order)) {
		int fd;

		name[strcspn(name, "\n")] = '\0';
		snprintf(path, sizeof(path), "/modules/%s", name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			fail(errno, "cannot load %s", name);
		close(fd);
		unlink(path);		/* nobody needs it any more, and it takes memory */
	}
	if (order)
		fclose(order);
}

/* Mount every disk that has a squashfs image; the directories for overlayfs, highest first, in @lower. */
static void mount_layers(char *lower, size_t size)
{
	char disk[] = "/dev/vd?", layer[] = "/layers/vd?";
	char *end = lower + size - 1;
	char *begin = end;		/* grows towards the front, as the last disk is the highest layer */

	*end = '\0';
	mkdir("/layers", 0755);
	for (char letter = 'a'; letter <= 'z'; letter++) {
		char magic[sizeof(squashfs_magic)];
		int fd;

		disk[sizeof(disk) - 2] = letter;
		layer[sizeof(layer) - 2] = letter;
		fd = open(disk, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, magic, sizeof(magic)) == sizeof(magic) && !memcmp(magic, squashfs_magic, sizeof(magic))) {
			mount_or_fail(disk, layer, "squashfs", MS_RDONLY, NULL);
			if (begin != end)
				*--begin = ':';
			begin -= strlen(layer);
			memcpy(begin, layer, strlen(layer));
		}
		close(fd);
	}
	if (begin == end)
		fail(0, "no virtio disk has a squashfs image (does the kernel have virtio_pci, virtio_blk, squashfs?)");
	memmove(lower, begin, end - begin + 1);
}

/* Make /root the root directory, and what is open on the console the console of that root. */
static void enter_root(void)
{
	int fd;

	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fail(errno, "cannot change to the new root");
	fd = open("/dev/console", O_RDWR);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

int main(void)
{
	static char lower[26 * sizeof("/layers/vd?") + 1], options[sizeof(lower) + 100];

	for (size_t i = 0; i < ARRAY_SIZE(handed_over); i++)
		mount_or_fail(handed_over[i].type, handed_over[i].target, handed_over[i].type, 0, NULL);
	load_modules();
	mount_layers(lower, sizeof(lower));
	mount_or_fail("tmpfs", "/changes", "tmpfs", 0, "mode=755");
	mkdir("/changes/upper", 0755);
	mkdir("/changes/work", 0755);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=/changes/upper,workdir=/changes/work", lower);
	mount_or_fail("overlay", "/root", "overlay", 0, options);
	for (size_t i = 0; i < ARRAY_SIZE(handed_over); i++) {
		char target[16];

		snprintf(target, sizeof(target), "/root%s", handed_over[i].target);
		if (mount(handed_over[i].target, target, NULL, MS_MOVE, NULL))
			fail(errno, "cannot move %s", handed_over[i].target);
	}
	enter_root();
	execl(INIT, INIT, NULL);
	fail(errno, "cannot run " INIT);
}
