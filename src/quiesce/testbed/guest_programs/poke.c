// SPDX-License-Identifier: Apache-2.0
// poke BDF BAR OFFSET [VALUE]: reads, or writes, a 32-bit register of a device through its resource file.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int complain(const char *what)
{
	int error = errno;

	fprintf(stderr, "%s: %s\n", what, strerror(error));
	return error;
}

int main(int count, char **words)
{
	volatile uint32_t *registers;
	unsigned long offset, page;
	char path[128];
	int fd;

	if (count < 4 || count > 5) {
		fprintf(stderr, "usage: poke BDF BAR OFFSET [VALUE]\n");
		return EINVAL;
	}
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource%s", words[1], words[2]);
	offset = strtoul(words[3], NULL, 0);
	page = offset & ~0xffful;
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0)
		return complain(path);
	registers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
	if (registers == MAP_FAILED)
		return complain("mmap");
	if (count == 5)
		registers[(offset - page) / 4] = strtoul(words[4], NULL, 0);
	else
		printf("%#x\n", registers[(offset - page) / 4]);
	return 0;
}
