// SPDX-License-Identifier: Apache-2.0
// DMA mappings, resets, config space and BARs of a VFIO device.
#include "vfio.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define NO_REGION (~0ull)

static int device_fd(void)
{
	return current ? current->fd : -1;
}

static void map(char **words)
{
	struct vfio_iommu_type1_dma_map request = {.argsz = sizeof(request)};
	size_t size = number(words[2]);
	void *memory;

	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		failed("mmap");
		return;
	}
	memset(memory, 0x5a, size);
	request.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	request.vaddr = (uintptr_t)memory;
	request.iova = number(words[1]);
	request.size = size;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &request) < 0)
		failed("map");
	else
		ok(" va=%p", memory);
}

static void unmap(char **words)
{
	struct vfio_iommu_type1_dma_unmap request = {.argsz = sizeof(request)};

	request.iova = number(words[1]);
	request.size = number(words[2]);
	if (ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request) < 0)
		failed("unmap");
	else
		ok(" %llu", (unsigned long long)request.size);
}

static void peek(char **words)
{
	ok(" %08x", *(volatile uint32_t *)(uintptr_t)number(words[1]));
}

static void poke(char **words)
{
	*(volatile uint32_t *)(uintptr_t)number(words[1]) = number(words[2]);
	ok("%s", "");
}

static void reset(char **words)
{
	(void)words;
	done(ioctl(device_fd(), VFIO_DEVICE_RESET), "reset");
}

static void hot_reset_info(char **words)
{
	static char buffer[4096];
	struct vfio_pci_hot_reset_info *info = (struct vfio_pci_hot_reset_info *)buffer;

	(void)words;
	memset(buffer, 0, sizeof(buffer));
	info->argsz = sizeof(buffer);
	if (ioctl(device_fd(), VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info) < 0) {
		failed("hotinfo");
		return;
	}
	printf("OK %u", info->count);
	for (unsigned i = 0; i < info->count; i++)
		printf(" g%u:%02x:%02x.%x", info->devices[i].group_id, info->devices[i].bus,
		       info->devices[i].devfn >> 3, info->devices[i].devfn & 7);
	printf("\n");
}

static void hot_reset(char **words)
{
	char buffer[64];
	struct vfio_pci_hot_reset *request = (struct vfio_pci_hot_reset *)buffer;

	(void)words;
	request->argsz = sizeof(*request) + sizeof(int);
	request->flags = 0;
	request->count = 1;
	request->group_fds[0] = current_group;
	done(ioctl(device_fd(), VFIO_DEVICE_PCI_HOT_RESET, request), "hotreset");
}

static uint64_t region_offset(unsigned index)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = index};

	if (ioctl(device_fd(), VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		return NO_REGION;
	return info.offset;
}

static void region(char **words)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = number(words[1])};

	if (ioctl(device_fd(), VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		failed("region");
	else
		ok(" size=%llx flags=%x", (unsigned long long)info.size, info.flags);
}

static void read_region(unsigned index, uint64_t at, size_t size, const char *what)
{
	uint64_t start = region_offset(index);
	uint32_t value = 0;

	if (start == NO_REGION || size > sizeof(value) || pread(device_fd(), &value, size, start + at) < 0)
		failed(what);
	else
		ok(" %x", value);
}

static void write_region(unsigned index, uint64_t at, size_t size, uint32_t value, const char *what)
{
	uint64_t start = region_offset(index);

	if (start == NO_REGION || size > sizeof(value) || pwrite(device_fd(), &value, size, start + at) < 0)
		failed(what);
	else
		ok("%s", "");
}

static void read_config(char **words)
{
	read_region(VFIO_PCI_CONFIG_REGION_INDEX, number(words[1]), number(words[2]), "rcfg");
}

static void write_config(char **words)
{
	write_region(VFIO_PCI_CONFIG_REGION_INDEX, number(words[1]), number(words[2]), number(words[3]), "wcfg");
}

static void read_bar(char **words)
{
	read_region(number(words[1]), number(words[2]), 4, "rbar");
}

static void write_bar(char **words)
{
	write_region(number(words[1]), number(words[2]), 4, number(words[3]), "wbar");
}

const struct command memory_commands[] = {
	{"map", map},
	{"unmap", unmap},
	{"peek", peek},
	{"poke", poke},
	{"reset", reset},
	{"hotinfo", hot_reset_info},
	{"hotreset", hot_reset},
	{"region", region},
	{"rcfg", read_config},
	{"wcfg", write_config},
	{"rbar", read_bar},
	{"wbar", write_bar},
	{NULL, NULL},
};
