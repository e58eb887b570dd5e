// SPDX-License-Identifier: Apache-2.0
// The agent: the first and only lasting process of a test guest.
//
// Requests and replies are described in agent.h. Operations, with their bodies:
//   ping                         nothing
//   sh    MS\nSCRIPT             run by busybox; the result is its exit status
//   rd    MS\nPATH               read a file
//   ls    MS\nPATH               names in a folder, one in a line
//   wr    MS\nPATH\nDATA         write to a file; the result is the errno
//   put   MS\nPATH\nDATA         append to a file of the initramfs (made if missing)
//   wb    PATH\nDATA             write in a process that may block as long as it likes; replies its number
//   wp    NUMBER                 "running", or "ended RESULT"
//   mods  MS\n                   load the modules that /mod/order names; replies "NAME ERRNO" lines
//   snap  MS CONFIG_BYTES ONLY   agent_pci.c
//   kmsg                         kernel messages since the last kmsg, as /dev/kmsg gives them
//   co, cs, ck                   agent_programs.c: start, tell, end
#define _GNU_SOURCE
#include "agent.h"
#include "agent_board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int kernel_log = -1;

// A record that was overwritten before it was read gives EPIPE; the host sees the gap in the sequence numbers.
static int read_kernel_log(void)
{
	char record[1 << 15];

	for (;;) {
		ssize_t length = read(kernel_log, record, sizeof(record));

		if (length > 0)
			put(record, length);
		else if (length == 0 || errno != EPIPE)
			return length == 0 || errno == EAGAIN ? 0 : errno;
	}
}

// Body: "MILLISECONDS\nWHAT THE JOB IS ABOUT".
static int with_deadline(job *function, char *body, size_t length)
{
	char *rest = split(body);

	return rest ? work_now(function, rest, length - (rest - body), atoi(body)) : EINVAL;
}

static int shell(char *body)
{
	char *script = split(body);

	return script ? run_shell(script, atoi(body)) : EINVAL;
}

static int write_behind(const char *body, size_t length)
{
	pid_t pid = work_behind(write_file, body, length);

	if (pid < 0)
		return EAGAIN;
	print("%d", pid);
	return 0;
}

static int poll_write(const char *body)
{
	int result;

	switch (work_result(atoi(body), &result)) {
	case 0:
		print("running");
		return 0;
	case 1:
		print("ended %d", result);
		return 0;
	default:
		return ESRCH;
	}
}

static int operate_on_files(struct request *request)
{
	static const struct {
		const char *op;
		job *function;
	} jobs[] = {
		{"rd", read_file}, {"ls", list_folder}, {"wr", write_file}, {"put", append_file}, {"mods", load_modules},
	};

	for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
		if (!strcmp(request->op, jobs[i].op))
			return with_deadline(jobs[i].function, request->body, request->length);
	}
	return ENOSYS;
}

static int operate(struct request *request)
{
	const char *op = request->op;
	char *body = request->body;

	if (!strcmp(op, "ping"))
		return 0;
	if (!strcmp(op, "sh"))
		return shell(body);
	if (!strcmp(op, "wb"))
		return write_behind(body, request->length);
	if (!strcmp(op, "wp"))
		return poll_write(body);
	if (!strcmp(op, "snap"))
		return pci_state(body);
	if (!strcmp(op, "kmsg"))
		return read_kernel_log();
	if (!strcmp(op, "co"))
		return program_start(body);
	if (!strcmp(op, "cs"))
		return program_tell(body);
	if (!strcmp(op, "ck"))
		return program_end(body);
	return operate_on_files(request);
}

static void mount_everything(void)
{
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	mount("configfs", "/sys/kernel/config", "configfs", 0, NULL);
}

static void use_console(void)
{
	int console = open("/dev/console", O_RDWR);

	if (console < 0)
		return;
	dup2(console, 0);
	dup2(console, 1);
	dup2(console, 2);
}

static void greet(void)
{
	char uptime[128];

	reply_clear();
	if (read_whole("/proc/uptime", uptime, sizeof(uptime)) > 0)
		print("%s", uptime);
	wire_reply(0, 0);
}

int main(void)
{
	struct request request;

	mount_everything();
	use_console();
	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/", 1);
	children_start();
	board_make();
	kernel_log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (wire_open("/dev/ttyS1")) {
		perror("agent: /dev/ttyS1");
		pause();
	}
	greet();
	for (;;) {
		int result;

		wire_receive(&request);
		reply_clear();
		result = operate(&request);
		wire_reply(request.id, result);
		free(request.body);
	}
}
