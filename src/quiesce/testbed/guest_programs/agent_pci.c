// SPDX-License-Identifier: Apache-2.0
// Everything that sysfs shows of PCI, as text:
//
//   DEVICE 0000:00:01.0         then, for each attribute that is there, one line of
//     name=value                what was read; escaped are backslash, newline (\n) and runs of zeros (\z12;)
//     name?13                   the errno that reading gave
//     name!                     reading did not come back: it waits for a lock that something else holds
//   GROUP 7                     the same for an IOMMU group
//   INTERRUPTS                  then /proc/interrupts as it is
//
// A worker does the reading and writes to shared memory. Where it makes no progress another one takes over behind the
// attribute that blocked, so that one held lock costs one deadline and hides one attribute. Runs of zeros are escaped
// because the serial line is what takes the time.
#define _GNU_SOURCE
#include "agent.h"
#include "agent_board.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LARGEST_CONFIG 4096u
#define DEVICES "/sys/bus/pci/devices"
#define GROUPS "/sys/kernel/iommu_groups"

struct wish {
	const char *only;
	unsigned config;
	unsigned skip;
};

static const char *const attributes[] = {
	"vendor", "device", "class", "irq", "enable", "power_state", "driver_override", "msi_bus", "d3cold_allowed",
	"numa_node", "reset_method", "sriov_numvfs", "sriov_totalvfs", "power/runtime_status", "power/control",
	"resource", "secondary_bus_number", "subordinate_bus_number", NULL,
};

static const char *const links[] = {"driver", "iommu_group", "iommu", "physfn", NULL};

static struct wish wish;
static char value[1 << 16];

static void add_error(const char *name, int error)
{
	add_format("%s?%d\n", name, error);
}

static void read_attribute(const char *folder, const char *name)
{
	char path[512];
	ssize_t length;

	if (!begin(name))
		return;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	length = read_whole(path, value, sizeof(value));
	if (length >= 0)
		add_escaped(name, value, length);
	else if (length != -ENOENT)
		add_error(name, -length);
}

static void read_link(const char *folder, const char *name)
{
	char path[512], target[512];
	char *last;
	ssize_t length;

	if (!begin(name))
		return;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return;
	target[length] = 0;
	last = strrchr(target, '/');
	last = last ? last + 1 : target;
	add_escaped(name, last, strlen(last));
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

// What the numbered files of a folder hold: "24:msi,25:msi".
static void read_numbered(const char *folder, const char *name)
{
	char path[512], file[800], text[128];
	struct dirent **entries;
	size_t used = 0;
	int count;

	if (!begin(name))
		return;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	count = scandir(path, &entries, visible, versionsort);
	if (count < 0)
		return;
	for (int i = 0; i < count; i++) {
		ssize_t length;

		snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
		length = read_whole(file, text, sizeof(text));
		while (length > 0 && text[length - 1] == '\n')
			text[--length] = 0;
		used += snprintf(value + used, sizeof(value) - used, "%s%s:%s", i ? "," : "", entries[i]->d_name,
				 length > 0 ? text : "?");
		free(entries[i]);
	}
	free(entries);
	add_escaped(name, value, used);
}

static void read_names(const char *folder, const char *name)
{
	char path[512];
	struct dirent **entries;
	size_t used = 0;
	int count;

	if (!begin(name))
		return;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	count = scandir(path, &entries, visible, alphasort);
	if (count < 0)
		return;
	for (int i = 0; i < count; i++) {
		used += snprintf(value + used, sizeof(value) - used, "%s%s", i ? "," : "", entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	add_escaped(name, value, used);
}

static void read_config(const char *folder)
{
	static const char digits[] = "0123456789abcdef";
	static char text[2 * LARGEST_CONFIG];
	char path[512];
	ssize_t length;

	if (!wish.config || !begin("config"))
		return;
	snprintf(path, sizeof(path), "%s/config", folder);
	length = read_whole(path, value, wish.config + 1);
	if (length < 0) {
		add_error("config", -length);
		return;
	}
	for (ssize_t i = 0; i < length; i++) {
		unsigned char byte = value[i];

		text[2 * i] = digits[byte >> 4];
		text[2 * i + 1] = digits[byte & 15];
	}
	add_escaped("config", text, 2 * length);
}

static void head(const char *kind, const char *name)
{
	if (!begin(kind))
		return;
	add_text(kind);
	add_text(" ");
	add_text(name);
	add_text("\n");
}

static void read_path(const char *folder)
{
	char target[512];
	ssize_t length;
	char *start;

	if (!begin("path"))
		return;
	length = readlink(folder, target, sizeof(target) - 1);
	if (length < 0)
		return;
	target[length] = 0;
	start = strstr(target, "devices/");
	if (start)
		add_escaped("path", start + 8, strlen(start + 8));
}

static void read_device(const char *name)
{
	char folder[400];

	snprintf(folder, sizeof(folder), DEVICES "/%s", name);
	head("DEVICE", name);
	read_path(folder);
	for (int i = 0; attributes[i]; i++)
		read_attribute(folder, attributes[i]);
	for (int i = 0; links[i]; i++)
		read_link(folder, links[i]);
	read_numbered(folder, "msi_irqs");
	read_config(folder);
}

static void read_group(const char *name)
{
	char folder[400];

	snprintf(folder, sizeof(folder), GROUPS "/%s", name);
	head("GROUP", name);
	read_names(folder, "devices");
	read_attribute(folder, "type");
	read_attribute(folder, "reserved_regions");
}

static int wanted(const char *name)
{
	return !wish.only[0] || strstr(wish.only, name);
}

static void for_each(const char *folder, void (*function)(const char *), int (*filter)(const char *))
{
	struct dirent **entries;
	int count = scandir(folder, &entries, visible, versionsort);

	for (int i = 0; i < count; i++) {
		if (!filter || filter(entries[i]->d_name))
			function(entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

static int parse_wish(char *body)
{
	int used = 0;

	if (sscanf(body, "%u %u %n", &wish.skip, &wish.config, &used) < 2 || wish.config > LARGEST_CONFIG)
		return EINVAL;
	wish.only = body + used;
	return 0;
}

// The job. Body: "SKIP CONFIG_BYTES ONLY".
static int read_state(char *body, size_t length)
{
	int error = parse_wish(body);
	ssize_t got;

	(void)length;
	if (error)
		return error;
	board_begin(wish.skip);
	for_each(DEVICES, read_device, wanted);
	for_each(GROUPS, read_group, NULL);
	got = read_whole("/proc/interrupts", value, sizeof(value));
	if (got > 0) {
		add_text("INTERRUPTS\n");
		add(value, got);
	}
	return 0;
}

// Body: "MILLISECONDS CONFIG_BYTES ONLY", the last a list of devices or nothing for all.
int pci_state(char *body)
{
	int milliseconds, result, used = 0;
	unsigned skip = 0;
	char *job;

	if (sscanf(body, "%d %n", &milliseconds, &used) < 1 || !board)
		return EINVAL;
	board_clear();
	for (;;) {
		if (asprintf(&job, "%u %s", skip, body + used) < 0)
			return ENOMEM;
		result = work_watched(read_state, job, strlen(job), milliseconds, board_progress);
		free(job);
		if (result != DEADLINE && result < KILLED)
			break;
		if (board->item == skip)
			break;
		skip = board->item;
		add_format("%s!\n", board->name);
	}
	put(board->text, board->length);
	return result;
}
