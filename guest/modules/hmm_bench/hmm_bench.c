// SPDX-License-Identifier: GPL-2.0
/*
 * hmm_bench: what does hmm_range_fault() cost?
 *
 * An ioctl() on /dev/hmm_bench walks a range of the caller's memory a number of
 * times, asking for write access, and returns what each walk took, and what the
 * last one found. The unit is that of get_cycles(). QEMU's -icount makes that
 * count instructions: with shift=0, one instruction takes one nanosecond of the
 * guest, and one cycle of its TSC.
 */
#include <linux/hmm.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timex.h>
#include <linux/uaccess.h>

#define MAX_PAGES	(SZ_1G >> PAGE_SHIFT)
#define MAX_WALKS	1024

#define FLAG_ALIASES	1	/* HMM_PFN_REQ_TRY_P2P, for the device @importer */
#define FLAG_OWNER	2	/* device private pages of @provider are the caller's */

/**
 * struct hmm_bench_cmd - argument of the ioctl()
 * @addr: start of the range, a multiple of the page size
 * @npages: number of pages
 * @walks: number of walks, one after the other
 * @flags: FLAG_
 * @provider: PCI bus << 8 | devfn of a device bound to test_hmm
 * @importer: the same of the device that wants the aliases
 * @cycles: pointer to @walks numbers of 64 bits, for what each walk took
 * @present: pages that the last walk found
 * @private: of these, device private ones
 * @alias: of these, aliases
 */
struct hmm_bench_cmd {
	__u64 addr;
	__u64 npages;
	__u32 walks;
	__u32 flags;
	__u32 provider;
	__u32 importer;
	__u64 cycles;
	__u64 present;
	__u64 private;
	__u64 alias;
};

#define HMM_BENCH	_IOWR('B', 0x01, struct hmm_bench_cmd)

/* What is found is not used, so nobody has to wait for its end. */
static bool hmm_bench_invalidate(struct mmu_interval_notifier *mni,
				 const struct mmu_notifier_range *range,
				 unsigned long cur_seq)
{
	mmu_interval_set_seq(mni, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops hmm_bench_notifier_ops = {
	.invalidate = hmm_bench_invalidate,
};

static struct pci_dev *hmm_bench_device(u32 number)
{
	return pci_get_domain_bus_and_slot(0, number >> 8, number & 0xff);
}

static void hmm_bench_count(struct hmm_bench_cmd *cmd,
			    const struct hmm_range *range)
{
	unsigned long i;

	cmd->present = 0;
	cmd->private = 0;
	cmd->alias = 0;
	for (i = 0; i < cmd->npages; i++) {
		struct page *page;

		if (!(range->hmm_pfns[i] & HMM_PFN_VALID))
			continue;
		page = hmm_pfn_to_page(range->hmm_pfns[i]);
		cmd->present++;
		cmd->private += is_device_private_page(page);
		cmd->alias += is_pci_p2pdma_page(page);
	}
}

/*
 * One walk. Like any user of hmm_range_fault(), it has to begin again when what it
 * finds has been invalidated, be it by a fault of its own; all of this counts.
 */
static int hmm_bench_walk(struct hmm_bench_cmd *cmd, struct hmm_range *range,
			  u64 *cycles)
{
	struct mm_struct *mm = current->mm;
	cycles_t begin;
	int ret;

	do {
		memset(range->hmm_pfns, 0, cmd->npages * sizeof(*range->hmm_pfns));
		range->notifier_seq = mmu_interval_read_begin(range->notifier);
		mmap_read_lock(mm);
		begin = get_cycles();
		ret = hmm_range_fault(range);
		*cycles += get_cycles() - begin;
		mmap_read_unlock(mm);
	} while (ret == -EBUSY && !fatal_signal_pending(current));
	return ret;
}

static int hmm_bench_walks(struct hmm_bench_cmd *cmd, struct hmm_range *range)
{
	u64 __user *out = u64_to_user_ptr(cmd->cycles);
	unsigned int i;
	int ret;

	for (i = 0; i < cmd->walks; i++) {
		u64 cycles = 0;

		ret = hmm_bench_walk(cmd, range, &cycles);
		if (ret)
			return ret;
		if (put_user(cycles, out + i))
			return -EFAULT;
		cond_resched();
	}
	hmm_bench_count(cmd, range);
	return 0;
}

static int hmm_bench_run(struct hmm_bench_cmd *cmd)
{
	struct pci_dev *provider = NULL, *importer = NULL;
	struct mmu_interval_notifier notifier = {};
	struct hmm_range range = {
		.notifier = &notifier,
		.start = cmd->addr,
		.end = cmd->addr + (cmd->npages << PAGE_SHIFT),
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	int ret = -ENODEV;

	if (cmd->flags & FLAG_OWNER) {
		provider = hmm_bench_device(cmd->provider);
		if (!provider)
			goto out;
		/* test_hmm uses the same for both. */
		range.dev_private_owner = pci_get_drvdata(provider);
	}
	if (cmd->flags & FLAG_ALIASES) {
		importer = hmm_bench_device(cmd->importer);
		if (!importer)
			goto out;
#ifdef HAVE_ALIASES
		range.default_flags |= HMM_PFN_REQ_TRY_P2P;
		range.dma_dev = &importer->dev;
#else
		ret = -EOPNOTSUPP;
		goto out;
#endif
	}

	ret = -ENOMEM;
	range.hmm_pfns = kvcalloc(cmd->npages, sizeof(*range.hmm_pfns), GFP_KERNEL);
	if (!range.hmm_pfns)
		goto out;
	ret = mmu_interval_notifier_insert(&notifier, current->mm, cmd->addr,
					   cmd->npages << PAGE_SHIFT,
					   &hmm_bench_notifier_ops);
	if (!ret) {
		ret = hmm_bench_walks(cmd, &range);
		mmu_interval_notifier_remove(&notifier);
	}
	kvfree(range.hmm_pfns);
out:
	pci_dev_put(provider);
	pci_dev_put(importer);
	return ret;
}

static long hmm_bench_ioctl(struct file *file, unsigned int command,
			    unsigned long arg)
{
	struct hmm_bench_cmd cmd;
	int ret;

	if (command != HMM_BENCH)
		return -ENOTTY;
	if (copy_from_user(&cmd, (void __user *)arg, sizeof(cmd)))
		return -EFAULT;
	if (!PAGE_ALIGNED(cmd.addr) || !cmd.npages || cmd.npages > MAX_PAGES ||
	    cmd.addr + (cmd.npages << PAGE_SHIFT) <= cmd.addr ||
	    !cmd.walks || cmd.walks > MAX_WALKS)
		return -EINVAL;

	ret = hmm_bench_run(&cmd);
	if (!ret && copy_to_user((void __user *)arg, &cmd, sizeof(cmd)))
		ret = -EFAULT;
	return ret;
}

static const struct file_operations hmm_bench_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= hmm_bench_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice hmm_bench_miscdev = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "hmm_bench",
	.fops	= &hmm_bench_fops,
};
module_misc_device(hmm_bench_miscdev);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("cost of hmm_range_fault()");
