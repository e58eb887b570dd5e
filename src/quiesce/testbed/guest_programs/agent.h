// SPDX-License-Identifier: Apache-2.0
// The agent of a test guest: PID 1, which does what the host asks over the second serial line.
#ifndef QUIESCE_AGENT_H
#define QUIESCE_AGENT_H

#include <stddef.h>
#include <sys/types.h>

// The result of an operation is 0 or an errno; of what another process did also 128 + the signal that ended it (as a
// kernel that oopsed does), or DEADLINE where it did not end in time.
enum { KILLED = 128, DEADLINE = 1000 };

// agent_wire.c: requests "ID OP LENGTH\nBODY" and replies "ID RESULT LENGTH\nBODY" on a raw serial line.
struct request {
	unsigned id;
	char op[16];
	char *body;
	size_t length;
};

int wire_open(const char *path);
void wire_receive(struct request *request);
void wire_reply(unsigned id, int result);

// The body of the reply being made.
void put(const void *data, size_t length);
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *reply_text(void);
size_t reply_length(void);
void reply_clear(void);

int read_all(int fd, void *data, size_t length);
void write_all(int fd, const void *data, size_t length);
// Returns the bytes read into `buffer` (always ended by a zero) or minus an errno.
ssize_t read_whole(const char *path, char *buffer, size_t size);
// Splits "FIRST\nREST" and returns REST, or NULL.
char *split(char *body);

// agent_children.c: programs, and waiting with a deadline.
void children_start(void);
pid_t start_program(char *const words[], int input, int output, int errors);
int child_result(pid_t pid, int *result);
int wait_readable(int fd, int milliseconds);
int wait_child(pid_t pid, int milliseconds, int *result);
int run_shell(const char *script, int milliseconds);
void usual_signals(void);

// agent_workers.c: processes that do what may block in the kernel. What a job prints is part of the reply.
typedef int job(char *body, size_t length);

int work_now(job *function, const char *body, size_t length, int milliseconds);
pid_t work_behind(job *function, const char *body, size_t length);
int work_result(pid_t pid, int *result);
// Ends a job that makes no progress: `progress` is asked every so many milliseconds for a number that must change.
int work_watched(job *function, const char *body, size_t length, int milliseconds, unsigned (*progress)(void));

// agent_files.c: jobs on files. Bodies: PATH, or PATH\nDATA.
int read_file(char *body, size_t length);
int list_folder(char *body, size_t length);
int write_file(char *body, size_t length);
int append_file(char *body, size_t length);
int load_modules(char *body, size_t length);

// agent_programs.c: helper programs that are given one line at a time and answer one line.
int program_start(char *body);
int program_tell(char *body);
int program_end(char *body);

// agent_pci.c: everything that sysfs shows of PCI.
int pci_state(char *body);

#endif
