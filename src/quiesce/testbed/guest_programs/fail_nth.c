// SPDX-License-Identifier: Apache-2.0
// fail_nth N PATH DATA: writes DATA to PATH while the kernel fails the N-th allocation of this task that can fail.
// Prints "ERRNO INJECTED": what the write gave, and whether there was an N-th one (a kernel with fault injection).
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int complain(const char *what)
{
	int error = errno;

	fprintf(stderr, "%s: %s\n", what, strerror(error));
	return error;
}

static int fail_file(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d/fail-nth", getpid());
	return open(path, O_RDWR | O_CLOEXEC);
}

// What is left to count after the write; 0 when the failure took place.
static int left(int fd)
{
	char text[32] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return -1;
	return atoi(text);
}

int main(int count, char **words)
{
	int control, target, error, remaining;

	if (count != 4) {
		fprintf(stderr, "usage: fail_nth N PATH DATA\n");
		return EINVAL;
	}
	control = fail_file();
	target = open(words[2], O_WRONLY | O_CLOEXEC);
	if (control < 0 || target < 0)
		return complain(control < 0 ? "fail-nth" : words[2]);
	if (pwrite(control, words[1], strlen(words[1]), 0) < 0)
		return complain("fail-nth");
	error = write(target, words[3], strlen(words[3])) < 0 ? errno : 0;
	remaining = left(control);
	pwrite(control, "0", 1, 0);
	printf("%d %d\n", error, remaining == 0);
	return 0;
}
