// SPDX-License-Identifier: Apache-2.0
// Workers: processes made once that do one job after another. The agent never enters the kernel where it could block;
// a worker that does not come back is left behind and the next job gets another one.
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_WORKERS 64
#define MOST_DESCRIPTORS 1024
#define DIES_MILLISECONDS 2000

struct worker {
	pid_t pid;
	int jobs;
	int results;
	int kept;
};

struct job_head {
	job *function;
	size_t length;
};

struct result_head {
	int result;
	size_t length;
};

static struct worker workers[MOST_WORKERS];

static void serve(int jobs, int results)
{
	struct job_head head;

	while (!read_all(jobs, &head, sizeof(head))) {
		struct result_head answer;
		char *body = malloc(head.length + 1);

		if (read_all(jobs, body, head.length))
			break;
		body[head.length] = 0;
		reply_clear();
		answer.result = head.function(body, head.length);
		answer.length = reply_length();
		write_all(results, &answer, sizeof(answer));
		write_all(results, reply_text(), answer.length);
		free(body);
	}
	_exit(0);
}

// A worker must not keep open what belongs to the agent and to programs: their ends are noticed by closed pipes.
static void close_others(void)
{
	if (!syscall(SYS_close_range, 5u, ~0u, 0u))
		return;
	for (int fd = 5; fd < MOST_DESCRIPTORS; fd++)
		close(fd);
}

static void become_worker(int jobs, int results)
{
	usual_signals();
	setsid();
	jobs = fcntl(jobs, F_DUPFD, 10);
	results = fcntl(results, F_DUPFD, 10);
	dup2(jobs, 3);
	dup2(results, 4);
	close_others();
	serve(3, 4);
}

static int make(struct worker *worker)
{
	int jobs[2], results[2];

	if (pipe2(jobs, O_CLOEXEC) || pipe2(results, O_CLOEXEC))
		return -1;
	worker->pid = fork();
	if (!worker->pid)
		become_worker(jobs[0], results[1]);
	close(jobs[0]);
	close(results[1]);
	worker->jobs = jobs[1];
	worker->results = results[0];
	worker->kept = 0;
	return worker->pid > 0 ? 0 : -1;
}

static void dismiss(struct worker *worker)
{
	kill(worker->pid, SIGKILL);
	close(worker->jobs);
	close(worker->results);
	worker->pid = 0;
}

static struct worker *hire(void)
{
	for (int i = 0; i < MOST_WORKERS; i++) {
		if (workers[i].pid > 0 && !workers[i].kept)
			return &workers[i];
	}
	for (int i = 0; i < MOST_WORKERS; i++) {
		if (workers[i].pid <= 0)
			return make(&workers[i]) ? NULL : &workers[i];
	}
	return NULL;
}

static void give(struct worker *worker, job *function, const char *body, size_t length)
{
	struct job_head head = {function, length};

	write_all(worker->jobs, &head, sizeof(head));
	write_all(worker->jobs, body, length);
}

// The worker's pipe is closed: it was killed, by a kernel that oopsed or by someone else.
static int how_it_died(struct worker *worker)
{
	int status = 0;

	for (int waited = 0; waited < DIES_MILLISECONDS; waited += 10) {
		if (waitpid(worker->pid, &status, WNOHANG))
			break;
		usleep(10000);
	}
	dismiss(worker);
	return WIFSIGNALED(status) ? KILLED + WTERMSIG(status) : KILLED + SIGKILL;
}

static int take(struct worker *worker)
{
	struct result_head head;
	char *text;

	if (read_all(worker->results, &head, sizeof(head)))
		return how_it_died(worker);
	text = malloc(head.length + 1);
	if (!read_all(worker->results, text, head.length))
		put(text, head.length);
	free(text);
	return head.result;
}

static unsigned standing_still(void)
{
	return 0;
}

int work_watched(job *function, const char *body, size_t length, int milliseconds, unsigned (*progress)(void))
{
	struct worker *worker = hire();
	unsigned before;

	if (!worker)
		return EAGAIN;
	give(worker, function, body, length);
	do {
		before = progress();
		if (wait_readable(worker->results, milliseconds))
			return take(worker);
	} while (progress() != before);
	dismiss(worker);
	return DEADLINE;
}

int work_now(job *function, const char *body, size_t length, int milliseconds)
{
	return work_watched(function, body, length, milliseconds, standing_still);
}

pid_t work_behind(job *function, const char *body, size_t length)
{
	struct worker *worker = hire();

	if (!worker)
		return -1;
	worker->kept = 1;
	give(worker, function, body, length);
	return worker->pid;
}

// Returns 1 with its result once the job is done, 0 before that, -1 for a worker that has none.
int work_result(pid_t pid, int *result)
{
	for (int i = 0; i < MOST_WORKERS; i++) {
		if (workers[i].pid != pid || !workers[i].kept)
			continue;
		if (!wait_readable(workers[i].results, 0))
			return 0;
		workers[i].kept = 0;
		*result = take(&workers[i]);
		return 1;
	}
	return -1;
}
