// SPDX-License-Identifier: Apache-2.0
// Helper programs: a line in, a line out. A helper that is blocked in the kernel blocks nobody else; the answer it
// still owes is read by the next request, so that questions and answers never get out of step.
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOST_PROGRAMS 32
#define MOST_ARGUMENTS 32
#define LONGEST_LINE 8192

struct program {
	char name[64];
	pid_t pid;
	int input;
	int output;
	int owed;
	size_t used;
	char line[LONGEST_LINE];
};

static struct program programs[MOST_PROGRAMS];

static struct program *find_program(const char *name)
{
	for (int i = 0; i < MOST_PROGRAMS; i++) {
		if (programs[i].pid && !strcmp(programs[i].name, name))
			return &programs[i];
	}
	return NULL;
}

static struct program *free_program(void)
{
	for (int i = 0; i < MOST_PROGRAMS; i++) {
		if (!programs[i].pid)
			return &programs[i];
	}
	return NULL;
}

static int launch(struct program *program, char *const words[])
{
	int input[2], output[2];

	if (pipe2(input, O_CLOEXEC))
		return errno;
	if (pipe2(output, O_CLOEXEC)) {
		close(input[0]);
		close(input[1]);
		return EMFILE;
	}
	program->pid = start_program(words, input[0], output[1], 2);
	close(input[0]);
	close(output[1]);
	program->input = input[1];
	program->output = output[0];
	program->owed = 0;
	program->used = 0;
	if (program->pid > 0)
		return 0;
	program->pid = 0;
	close(input[1]);
	close(output[0]);
	return EAGAIN;
}

// Body: name, program and its arguments, one in a line.
int program_start(char *body)
{
	char *words[MOST_ARGUMENTS];
	struct program *program = free_program();
	char *name = strtok(body, "\n");
	int count = 0, error;

	while (count < MOST_ARGUMENTS - 1 && (words[count] = strtok(NULL, "\n")))
		count++;
	if (!name || !count || !program)
		return EINVAL;
	if (find_program(name))
		return EEXIST;
	if (access(words[0], X_OK))
		return errno;
	snprintf(program->name, sizeof(program->name), "%s", name);
	error = launch(program, words);
	print("%d", program->pid);
	return error;
}

static void forget(struct program *program)
{
	close(program->input);
	close(program->output);
	program->pid = 0;
}

static int ended(struct program *program)
{
	int result = 0;

	wait_child(program->pid, 1000, &result);
	reply_clear();
	print("ended %d", result);
	forget(program);
	return EPIPE;
}

// Reads one line into the program's buffer.
static int read_answer(struct program *program, int milliseconds)
{
	char c;

	do {
		if (!wait_readable(program->output, milliseconds))
			return ETIMEDOUT;
		if (read(program->output, &c, 1) <= 0)
			return ended(program);
		if (c != '\n' && program->used < LONGEST_LINE)
			program->line[program->used++] = c;
	} while (c != '\n');
	reply_clear();
	put(program->line, program->used);
	program->used = 0;
	program->owed--;
	return 0;
}

// Body: "NAME MILLISECONDS\nLINE"; an empty line only waits for an answer that is still owed.
int program_tell(char *body)
{
	char *line = strchr(body, '\n');
	struct program *program;
	char name[64];
	int milliseconds, error = 0;

	if (!line || sscanf(body, "%63s %d", name, &milliseconds) != 2)
		return EINVAL;
	program = find_program(name);
	if (!program)
		return ESRCH;
	line++;
	while (program->owed && !error && *line)
		error = read_answer(program, milliseconds);
	if (error)
		return error;
	if (!*line && !program->owed)
		return ENODATA;
	if (*line) {
		dprintf(program->input, "%s\n", line);
		program->owed++;
	}
	return read_answer(program, milliseconds);
}

// Body: "NAME MILLISECONDS". Closing its input lets a helper end; one that does not is killed.
int program_end(char *body)
{
	struct program *program;
	int milliseconds, result = 0;
	char name[64];

	if (sscanf(body, "%63s %d", name, &milliseconds) != 2)
		return EINVAL;
	program = find_program(name);
	if (!program)
		return ESRCH;
	close(program->input);
	program->input = -1;
	if (!wait_child(program->pid, milliseconds / 2, &result)) {
		kill(-program->pid, SIGKILL);
		if (!wait_child(program->pid, milliseconds / 2, &result))
			return ETIMEDOUT;
	}
	print("%d", result);
	forget(program);
	return 0;
}
