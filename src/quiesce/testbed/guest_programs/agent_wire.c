// SPDX-License-Identifier: Apache-2.0
// The serial line to the host, and the reply that is being made.
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define LONGEST_BODY (1u << 24)

static int line_fd = -1;
static char *reply;
static size_t reply_used, reply_size;

int wire_open(const char *path)
{
	struct termios settings;

	line_fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (line_fd < 0)
		return -1;
	tcgetattr(line_fd, &settings);
	cfmakeraw(&settings);
	settings.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&settings, B115200);
	settings.c_cc[VMIN] = 1;
	settings.c_cc[VTIME] = 0;
	return tcsetattr(line_fd, TCSANOW, &settings);
}

void write_all(int fd, const void *data, size_t length)
{
	const char *next = data;

	while (length) {
		ssize_t written = write(fd, next, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return;
		next += written;
		length -= written;
	}
}

// Returns 0, or -1 when the other end is closed before all has come.
int read_all(int fd, void *data, size_t length)
{
	char *next = data;

	while (length) {
		ssize_t got = read(fd, next, length);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return -1;
		next += got;
		length -= got;
	}
	return 0;
}

static void read_line(char *line, size_t size)
{
	size_t used = 0;
	char c;

	for (;;) {
		read_all(line_fd, &c, 1);
		if (c == '\n')
			break;
		if (used + 1 < size)
			line[used++] = c;
	}
	line[used] = 0;
}

// Lines that are no request (what a serial line carries across a reset) are passed over.
void wire_receive(struct request *request)
{
	char line[256];
	unsigned long length;

	do {
		read_line(line, sizeof(line));
	} while (sscanf(line, "%u %15s %lu", &request->id, request->op, &length) != 3 || length > LONGEST_BODY);
	request->length = length;
	request->body = malloc(length + 1);
	read_all(line_fd, request->body, length);
	request->body[length] = 0;
}

void wire_reply(unsigned id, int result)
{
	char head[64];
	int length = snprintf(head, sizeof(head), "%u %d %zu\n", id, result, reply_used);

	write_all(line_fd, head, length);
	write_all(line_fd, reply, reply_used);
}

void put(const void *data, size_t length)
{
	if (reply_used + length + 1 > reply_size) {
		reply_size = (reply_used + length + 1) * 2;
		reply = realloc(reply, reply_size);
	}
	memcpy(reply + reply_used, data, length);
	reply_used += length;
	reply[reply_used] = 0;
}

void print(const char *format, ...)
{
	char text[4096];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	if (length >= (int)sizeof(text))
		length = sizeof(text) - 1;
	if (length > 0)
		put(text, length);
}

const char *reply_text(void)
{
	return reply_used ? reply : "";
}

size_t reply_length(void)
{
	return reply_used;
}

void reply_clear(void)
{
	reply_used = 0;
}

ssize_t read_whole(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;

	if (fd < 0)
		return -errno;
	while (used < size - 1) {
		ssize_t got = read(fd, buffer + used, size - 1 - used);

		if (got < 0) {
			int error = errno;

			close(fd);
			return -error;
		}
		if (!got)
			break;
		used += got;
	}
	close(fd);
	buffer[used] = 0;
	return used;
}

char *split(char *body)
{
	char *rest = strchr(body, '\n');

	if (!rest)
		return NULL;
	*rest = 0;
	return rest + 1;
}
