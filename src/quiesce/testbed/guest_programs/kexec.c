// SPDX-License-Identifier: Apache-2.0
// kexec load KERNEL INITRD COMMAND_LINE | kexec exec | kexec unload
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

static int report(const char *what, long result)
{
	int error = errno;

	if (!result)
		return 0;
	fprintf(stderr, "%s: %s\n", what, strerror(error));
	return error;
}

static int load(const char *kernel_path, const char *initrd_path, const char *command_line)
{
	int kernel = open(kernel_path, O_RDONLY | O_CLOEXEC);
	int initrd = open(initrd_path, O_RDONLY | O_CLOEXEC);

	if (kernel < 0 || initrd < 0)
		return report("open", -1);
	return report("kexec_file_load",
		      syscall(SYS_kexec_file_load, kernel, initrd, strlen(command_line) + 1, command_line, 0UL));
}

static int unload(void)
{
	return report("unload", syscall(SYS_kexec_file_load, -1, -1, 0UL, NULL, (unsigned long)KEXEC_FILE_UNLOAD));
}

static int jump(void)
{
	return report("reboot", syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
					LINUX_REBOOT_CMD_KEXEC, 0));
}

int main(int count, char **words)
{
	if (count == 5 && !strcmp(words[1], "load"))
		return load(words[2], words[3], words[4]);
	if (count == 2 && !strcmp(words[1], "unload"))
		return unload();
	if (count == 2 && !strcmp(words[1], "exec"))
		return jump();
	fprintf(stderr, "usage: kexec load KERNEL INITRD COMMAND_LINE | kexec exec | kexec unload\n");
	return EINVAL;
}
