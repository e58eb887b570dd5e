// SPDX-License-Identifier: Apache-2.0
// Containers, groups, devices: getting hold of them and letting them go.
#include "vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <sys/ioctl.h>
#include <unistd.h>

// Numbers of the newer interface, which older headers lack.
#define IOMMUFD_IOAS_ALLOC _IO(';', 0x81)
#define CDEV_BIND _IO(VFIO_TYPE, VFIO_BASE + 18)
#define CDEV_ATTACH _IO(VFIO_TYPE, VFIO_BASE + 19)

struct ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t id;
};

struct cdev_bind {
	uint32_t size;
	uint32_t flags;
	int32_t iommufd;
	uint32_t id;
};

struct cdev_attach {
	uint32_t size;
	uint32_t flags;
	uint32_t table;
};

int container = -1;
int current_group = -1;
struct device *current;

static struct device devices[MOST_DEVICES];
static int iommufd = -1;
static uint32_t ioas;

static void open_container(char **words)
{
	(void)words;
	container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (container < 0)
		failed("container");
	else
		ok(" api=%d type1=%d type1v2=%d", ioctl(container, VFIO_GET_API_VERSION),
		   ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU),
		   ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU));
}

static void open_group(char **words)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	char path[128];

	snprintf(path, sizeof(path), "/dev/vfio/%s", words[1]);
	current_group = open(path, O_RDWR | O_CLOEXEC);
	if (current_group < 0 || ioctl(current_group, VFIO_GROUP_GET_STATUS, &status) < 0)
		failed("group");
	else
		ok(" viable=%d", !!(status.flags & VFIO_GROUP_FLAGS_VIABLE));
}

// With a word this is `attach KIND` of vfio_irq.c.
void attach_event(const char *kind);

static void attach(char **words)
{
	if (words[1][0])
		attach_event(words[1]);
	else if (ioctl(current_group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
		failed("set_container");
	else
		done(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "set_iommu");
}

static void unset(char **words)
{
	(void)words;
	done(ioctl(current_group, VFIO_GROUP_UNSET_CONTAINER), "unset_container");
}

static struct device *device_slot(const char *name)
{
	for (int i = 0; i < MOST_DEVICES; i++) {
		if (!strcmp(devices[i].name, name))
			return &devices[i];
	}
	return NULL;
}

static int keep_device(const char *name, int fd)
{
	struct device *device = device_slot(name);

	if (!device)
		device = device_slot("");
	if (!device) {
		errno = ENOSPC;
		return -1;
	}
	snprintf(device->name, sizeof(device->name), "%s", name);
	device->fd = fd;
	device->group = current_group;
	device->vectors = 0;
	device->unmask_event = -1;
	device->request_event = -1;
	device->error_event = -1;
	current = device;
	return 0;
}

static void describe_device(int fd)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	char text[256] = "";
	int used = 0;

	ioctl(fd, VFIO_DEVICE_GET_INFO, &info);
	for (unsigned i = 0; i < info.num_irqs && i < 5; i++) {
		struct vfio_irq_info irq = {.argsz = sizeof(irq), .index = i};

		if (!ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, &irq))
			used += snprintf(text + used, sizeof(text) - used, " irq%u=%u/%x", i, irq.count, irq.flags);
	}
	ok(" flags=%x regions=%u irqs=%u%s", info.flags, info.num_regions, info.num_irqs, text);
}

static void open_device(char **words)
{
	int fd = ioctl(current_group, VFIO_GROUP_GET_DEVICE_FD, words[1]);

	if (fd < 0 || keep_device(words[1], fd) < 0)
		failed("device_fd");
	else
		describe_device(fd);
}

static void use(char **words)
{
	struct device *found = words[1][0] ? device_slot(words[1]) : NULL;

	errno = ENODEV;
	if (found)
		current = found;
	done(found ? 0 : -1, "use");
}

static void open_iommufd(char **words)
{
	struct ioas_alloc request = {.size = sizeof(request)};

	(void)words;
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommufd < 0 || ioctl(iommufd, IOMMUFD_IOAS_ALLOC, &request) < 0) {
		failed("iommufd");
		return;
	}
	ioas = request.id;
	ok(" ioas=%u", ioas);
}

// The character device of a PCI device is named in its vfio-dev folder.
static int cdev_path(const char *name, char *path, size_t size)
{
	char folder[128];
	struct dirent *entry;
	DIR *entries;

	if (name[0] == '/')
		return snprintf(path, size, "%s", name);
	snprintf(folder, sizeof(folder), "/sys/bus/pci/devices/%s/vfio-dev", name);
	entries = opendir(folder);
	if (!entries)
		return -1;
	while ((entry = readdir(entries)) && entry->d_name[0] == '.')
		;
	if (entry)
		snprintf(path, size, "/dev/vfio/devices/%s", entry->d_name);
	else
		errno = ENODEV;
	closedir(entries);
	return entry ? 0 : -1;
}

static void open_cdev(char **words)
{
	struct cdev_bind bind = {.size = sizeof(bind), .iommufd = iommufd};
	struct cdev_attach table = {.size = sizeof(table), .table = ioas};
	char path[300];
	int fd;

	if (cdev_path(words[1], path, sizeof(path)) < 0) {
		failed("cdev");
		return;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		failed("cdev");
	else if (ioctl(fd, CDEV_BIND, &bind) < 0)
		failed("bind_iommufd");
	else if (ioctl(fd, CDEV_ATTACH, &table) < 0)
		failed("attach_ioas");
	else if (keep_device(words[1], fd) < 0)
		failed("cdev");
	else
		describe_device(fd);
}

static void close_one(char **words)
{
	int *fd = &container;

	if (!strcmp(words[1], "group"))
		fd = &current_group;
	if (!strcmp(words[1], "dev") && current)
		fd = &current->fd;
	done(close(*fd), "close");
	*fd = -1;
}

const struct command open_commands[] = {
	{"container", open_container},
	{"group", open_group},
	{"attach", attach},
	{"unset", unset},
	{"device", open_device},
	{"use", use},
	{"iommufd", open_iommufd},
	{"cdev", open_cdev},
	{"close", close_one},
	{NULL, NULL},
};
