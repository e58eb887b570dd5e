// SPDX-License-Identifier: Apache-2.0
// A program that uses devices through VFIO, one command a line; see vfio.c.
#ifndef QUIESCE_VFIO_USER_H
#define QUIESCE_VFIO_USER_H

#include <stdint.h>

#define MOST_WORDS 8
#define MOST_DEVICES 16
#define MOST_VECTORS 64

struct device {
	char name[64];
	int fd;
	int group;
	int vectors;
	int events[MOST_VECTORS];
	int unmask_event;
	int request_event;
	int error_event;
};

struct command {
	const char *name;
	void (*run)(char **words);
};

extern int container;
extern int current_group;
extern struct device *current;

void ok(const char *format, ...) __attribute__((format(printf, 1, 2)));
void failed(const char *what);
void done(int result, const char *what);
uint64_t number(const char *word);

extern const struct command open_commands[];
extern const struct command irq_commands[];
extern const struct command memory_commands[];

#endif
