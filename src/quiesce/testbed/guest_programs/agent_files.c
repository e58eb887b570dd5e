// SPDX-License-Identifier: Apache-2.0
// Jobs on files.
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LARGEST_FILE (4u << 20)

int read_file(char *body, size_t length)
{
	char *buffer = malloc(LARGEST_FILE);
	ssize_t got = read_whole(body, buffer, LARGEST_FILE);

	(void)length;
	if (got > 0)
		put(buffer, got);
	free(buffer);
	return got < 0 ? -got : 0;
}

int list_folder(char *body, size_t length)
{
	DIR *folder = opendir(body);
	struct dirent *entry;

	(void)length;
	if (!folder)
		return errno;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] != '.')
			print("%s\n", entry->d_name);
	}
	closedir(folder);
	return 0;
}

static int write_with(int flags, char *body, size_t length)
{
	char *data = split(body);
	int error = 0;
	int fd;

	if (!data)
		return EINVAL;
	fd = open(body, O_WRONLY | O_CLOEXEC | flags, 0755);
	if (fd < 0)
		return errno;
	if (write(fd, data, length - (data - body)) < 0)
		error = errno;
	close(fd);
	return error;
}

int write_file(char *body, size_t length)
{
	return write_with(0, body, length);
}

int append_file(char *body, size_t length)
{
	return write_with(O_CREAT | O_APPEND, body, length);
}

static int load_module(const char *name)
{
	char path[300];
	int fd, error;

	snprintf(path, sizeof(path), "/mod/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	error = syscall(SYS_finit_module, fd, "", 0) ? errno : 0;
	close(fd);
	return error;
}

// Loads what /mod/order names, and prints "NAME ERRNO" for each.
int load_modules(char *body, size_t length)
{
	FILE *order = fopen("/mod/order", "re");
	char name[256];

	(void)body;
	(void)length;
	if (!order)
		return errno;
	while (fscanf(order, "%255s", name) == 1)
		print("%s %d\n", name, load_module(name));
	fclose(order);
	return 0;
}
