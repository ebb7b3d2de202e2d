// SPDX-License-Identifier: GPL-2.0
/*
 * p2pmap: which P2PDMA mapping type does the kernel choose for two devices?
 *
 * The driver has no IDs of its own.  Bind it to a PCI function through
 * driver_override or new_id:
 *
 *   echo p2pmap > /sys/bus/pci/devices/$PROVIDER/driver_override
 *   echo $PROVIDER > /sys/bus/pci/drivers_probe
 *
 * A function with memory in BAR 2 (parameter "bar"), such as p2pdev or
 * ivshmem-plain, becomes a provider.  One without such a BAR can still be a
 * client: being bound gives it a 64-bit DMA mask.  Any other driver's device can
 * be a client as well.  To ask:
 *
 *   cd /sys/bus/pci/devices/$PROVIDER/p2pmap
 *   echo $CLIENT > client
 *   cat type           # bus-addr, host-bridge or not-supported
 *   cat dma_address    # what the client would put into its requests, or 0
 *
 * Writing to "client" maps one page of the provider's memory for the client,
 * looks at the result and unmaps it: nothing is left behind for either device
 * or for the module to wait for.
 */

#include <linux/cleanup.h>
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/scatterlist.h>
#include <linux/string.h>
#include <linux/sysfs.h>

static unsigned int bar = 2;
module_param(bar, uint, 0444);
MODULE_PARM_DESC(bar, "BAR to make P2PDMA memory of (default: 2)");

/**
 * struct p2pmap - one bound function
 * @lock: protects @type and @dma_address
 * @provider: the BAR has been added as P2PDMA memory
 * @type: answer to the last question, "none" before the first one
 * @dma_address: address of the page as the client would see it, 0 if none
 */
struct p2pmap {
	struct mutex lock;	/* see above */
	bool provider;
	const char *type;
	dma_addr_t dma_address;
};

/*
 * Map one page of @pdev's memory for @client.  Returns 0 with the answer in
 * @map, or an error that is not an answer.
 */
static int p2pmap_try(struct p2pmap *map, struct pci_dev *pdev,
		      struct device *client)
{
	struct sg_table sgt;
	void *mem;
	int ret;

	mem = pci_alloc_p2pmem(pdev, PAGE_SIZE);
	if (!mem)
		return -ENOMEM;

	ret = sg_alloc_table(&sgt, 1, GFP_KERNEL);
	if (ret)
		goto free_mem;
	sg_set_page(sgt.sgl, virt_to_page(mem), PAGE_SIZE, 0);

	map->dma_address = 0;
	ret = dma_map_sgtable(client, &sgt, DMA_BIDIRECTIONAL, 0);
	if (ret == -EREMOTEIO) {
		map->type = "not-supported";
		ret = 0;
	} else if (!ret) {
		map->type = sg_dma_is_bus_address(sgt.sgl) ? "bus-addr" :
							     "host-bridge";
		map->dma_address = sg_dma_address(sgt.sgl);
		dma_unmap_sgtable(client, &sgt, DMA_BIDIRECTIONAL, 0);
	}

	sg_free_table(&sgt);
free_mem:
	pci_free_p2pmem(pdev, mem, PAGE_SIZE);
	return ret;
}

static ssize_t client_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct p2pmap *map = dev_get_drvdata(dev);
	char name[sizeof("0000:00:00.0")] = "";
	struct device *client;
	ssize_t ret;

	if (sscanf(buf, "%12s", name) != 1)
		return -EINVAL;
	if (!map->provider) {
		dev_err(dev, "BAR %u is no P2PDMA memory, this is no provider\n",
			bar);
		return -ENXIO;
	}
	client = bus_find_device_by_name(&pci_bus_type, NULL, name);
	if (!client) {
		dev_err(dev, "no PCI function \"%s\", expected like 0000:01:00.0\n",
			name);
		return -ENODEV;
	}

	/*
	 * Keeps the client's driver, whose DMA mask counts, in place.  Only
	 * try: two functions can be each other's client, and unbinding waits
	 * for this function with the lock of its device held.
	 */
	if (!device_trylock(client)) {
		ret = -EBUSY;
		goto put;
	}
	if (!client->driver) {
		dev_err(dev, "%s has no driver, bind it to p2pmap or its own\n",
			name);
		ret = -ENODEV;
		goto unlock;
	}
	scoped_guard(mutex, &map->lock) {
		map->type = "none";
		ret = p2pmap_try(map, to_pci_dev(dev), client);
	}
	if (ret)
		dev_err(dev, "mapping for %s failed: %zd\n", name, ret);
unlock:
	device_unlock(client);
put:
	put_device(client);
	return ret ?: count;
}
static DEVICE_ATTR_WO(client);

static ssize_t type_show(struct device *dev, struct device_attribute *attr,
			 char *buf)
{
	struct p2pmap *map = dev_get_drvdata(dev);

	guard(mutex)(&map->lock);
	return sysfs_emit(buf, "%s\n", map->type);
}
static DEVICE_ATTR_RO(type);

static ssize_t dma_address_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	struct p2pmap *map = dev_get_drvdata(dev);

	guard(mutex)(&map->lock);
	return sysfs_emit(buf, "%pad\n", &map->dma_address);
}
static DEVICE_ATTR_RO(dma_address);

static struct attribute *p2pmap_attrs[] = {
	&dev_attr_client.attr,
	&dev_attr_type.attr,
	&dev_attr_dma_address.attr,
	NULL,
};

static const struct attribute_group p2pmap_group = {
	.name = "p2pmap",
	.attrs = p2pmap_attrs,
};

/* The core adds them after probe() and takes them away before anything else */
static const struct attribute_group *p2pmap_groups[] = {
	&p2pmap_group,
	NULL,
};

static int p2pmap_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct p2pmap *map;
	int ret;

	map = devm_kzalloc(&pdev->dev, sizeof(*map), GFP_KERNEL);
	if (!map)
		return -ENOMEM;
	ret = devm_mutex_init(&pdev->dev, &map->lock);
	if (ret)
		return ret;
	map->type = "none";

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;

	if (bar < PCI_STD_NUM_BARS &&
	    (pci_resource_flags(pdev, bar) & IORESOURCE_MEM)) {
		ret = pcim_request_region(pdev, bar, KBUILD_MODNAME);
		if (ret)
			return ret;
		ret = pci_p2pdma_add_resource(pdev, bar, 0, 0);
		if (ret)
			return dev_err_probe(&pdev->dev, ret,
					     "cannot make P2PDMA memory of BAR %u (%pR), it must be 2 MiB aligned\n",
					     bar, &pdev->resource[bar]);
		map->provider = true;
	}
	pci_set_drvdata(pdev, map);
	return 0;
}

static struct pci_driver p2pmap_driver = {
	.name = KBUILD_MODNAME,
	.probe = p2pmap_probe,
	.dev_groups = p2pmap_groups,
};
module_pci_driver(p2pmap_driver);

MODULE_DESCRIPTION("Report the P2PDMA mapping type of two PCI functions");
MODULE_LICENSE("GPL");
