// SPDX-License-Identifier: Apache-2.0
// The board: memory that a worker writes what it has read to, so that what it got to is there even when it blocks.
#ifndef QUIESCE_AGENT_BOARD_H
#define QUIESCE_AGENT_BOARD_H

#include <stddef.h>

struct board {
	volatile unsigned item;
	volatile size_t length;
	char name[64];
	char text[];
};

extern struct board *board;

void board_make(void);
void board_clear(void);
// A worker starts to read: the items up to `skip` were done before.
void board_begin(unsigned skip);
unsigned board_progress(void);

// Announces the next thing to read; 0 where a worker before this one did it or was stopped by it.
int begin(const char *name);
void add(const char *text, size_t length);
void add_text(const char *text);
void add_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
void add_escaped(const char *name, const char *text, size_t length);

#endif
