// SPDX-License-Identifier: Apache-2.0
// Programs that the agent starts. SIGCHLD stays blocked except while waiting for one, so that no end is missed.
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_CHILDREN 256

struct child {
	pid_t pid;
	int ended;
	int abandoned;
	int result;
};

static struct child children[MOST_CHILDREN];
static sigset_t while_waiting;

static void child_ended(int signal)
{
	(void)signal;
}

void children_start(void)
{
	struct sigaction action = {.sa_handler = child_ended};
	sigset_t blocked;

	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGCHLD, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &while_waiting);
}

void usual_signals(void)
{
	struct sigaction usual = {.sa_handler = SIG_DFL};

	sigaction(SIGCHLD, &usual, NULL);
	sigaction(SIGPIPE, &usual, NULL);
	sigprocmask(SIG_SETMASK, &while_waiting, NULL);
}

static struct child *find_child(pid_t pid)
{
	for (int i = 0; i < MOST_CHILDREN; i++) {
		if (children[i].pid == pid)
			return &children[i];
	}
	return NULL;
}

static int result_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED + WTERMSIG(status);
}

// As PID 1 the agent also inherits orphans, which it only lets go.
static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *child = find_child(pid);

		if (!child)
			continue;
		child->ended = 1;
		child->result = result_of(status);
		if (child->abandoned)
			child->pid = 0;
	}
}

static void become(char *const words[], int input, int output, int errors)
{
	usual_signals();
	setsid();
	dup2(input, 0);
	dup2(output, 1);
	dup2(errors, 2);
	execv(words[0], words);
	_exit(127);
}

// vfork, because copying page tables is most of what a program costs on an emulated processor.
pid_t start_program(char *const words[], int input, int output, int errors)
{
	struct child *child;
	pid_t pid;

	reap();
	child = find_child(0);
	if (!child)
		return -1;
	pid = vfork();
	if (!pid)
		become(words, input, output, errors);
	if (pid > 0)
		*child = (struct child){.pid = pid};
	return pid;
}

// Returns 1 with its result once the child has ended, 0 before that, -1 for a child that is not known.
int child_result(pid_t pid, int *result)
{
	struct child *child;

	reap();
	child = pid > 0 ? find_child(pid) : NULL;
	if (!child)
		return -1;
	if (!child->ended)
		return 0;
	*result = child->result;
	child->pid = 0;
	return 1;
}

static void abandon(pid_t pid)
{
	struct child *child = find_child(pid);

	kill(-pid, SIGKILL);
	if (child)
		child->abandoned = 1;
	reap();
}

static long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int wait_readable(int fd, int milliseconds)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, milliseconds) > 0;
}

// As wait_readable, but the end of any child ends the wait too.
static int wait_readable_or_end(int fd, long milliseconds)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000L};

	return ppoll(&poll_fd, 1, &limit, &while_waiting) > 0;
}

// Returns 1 with the child's result, or 0 when the deadline has passed.
int wait_child(pid_t pid, int milliseconds, int *result)
{
	long end = now() + milliseconds;

	while (child_result(pid, result) == 0) {
		long left = end - now();

		if (left <= 0)
			return 0;
		wait_readable_or_end(-1, left);
	}
	return 1;
}

static int drain(int fd)
{
	char buffer[4096];
	ssize_t got = read(fd, buffer, sizeof(buffer));

	if (got > 0)
		put(buffer, got);
	return got > 0;
}

// A descendant that runs on may hold the pipe open, so the end of the child counts, not the end of its output.
static int collect(pid_t pid, int output, int milliseconds)
{
	long end = now() + milliseconds;
	int result = DEADLINE;

	while (!child_result(pid, &result)) {
		long left = end - now();

		if (left <= 0) {
			abandon(pid);
			return DEADLINE;
		}
		if (wait_readable_or_end(output, left) && !drain(output))
			output = -1;
	}
	while (output >= 0 && wait_readable(output, 0) && drain(output))
		;
	return result;
}

int run_shell(const char *script, int milliseconds)
{
	char *words[] = {"/bin/sh", "-c", (char *)script, NULL};
	int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int ends[2], result;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return errno;
	pid = start_program(words, input, ends[1], ends[1]);
	close(ends[1]);
	close(input);
	result = pid < 0 ? EAGAIN : collect(pid, ends[0], milliseconds);
	close(ends[0]);
	return result;
}
