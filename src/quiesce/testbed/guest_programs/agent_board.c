// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "agent_board.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define BOARD_SIZE (8u << 20)
#define SHORTEST_RUN 6

struct board *board;

static unsigned item, skipped;

void board_make(void)
{
	void *memory = mmap(NULL, BOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	board = memory == MAP_FAILED ? NULL : memory;
}

void board_clear(void)
{
	board->item = 0;
	board->length = 0;
}

void board_begin(unsigned skip)
{
	item = 0;
	skipped = skip;
}

unsigned board_progress(void)
{
	return board->item;
}

void add(const char *text, size_t length)
{
	if (board->length + length > BOARD_SIZE - sizeof(*board))
		return;
	memcpy(board->text + board->length, text, length);
	board->length += length;
}

void add_text(const char *text)
{
	add(text, strlen(text));
}

void add_format(const char *format, ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	add_text(text);
}

int begin(const char *name)
{
	item++;
	if (item <= skipped)
		return 0;
	snprintf(board->name, sizeof(board->name), "%s", name);
	board->item = item;
	return 1;
}

static size_t zeros_at(const char *text, size_t length)
{
	size_t count = 0;

	while (count < length && text[count] == '0')
		count++;
	return count;
}

void add_escaped(const char *name, const char *text, size_t length)
{
	while (length && text[length - 1] == '\n')
		length--;
	add_text(name);
	add_text("=");
	for (size_t i = 0; i < length; i++) {
		size_t zeros = zeros_at(text + i, length - i);

		if (zeros >= SHORTEST_RUN) {
			add_format("\\z%zu;", zeros);
			i += zeros - 1;
		} else if (text[i] == '\n') {
			add_text("\\n");
		} else if (text[i] == '\\') {
			add_text("\\\\");
		} else {
			add(text + i, 1);
		}
	}
	add_text("\n");
}
