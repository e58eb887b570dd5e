// SPDX-License-Identifier: Apache-2.0
// A user of VFIO devices, as a virtual machine monitor is one: reads a command a line, answers a line:
// "OK ..." or "ERR WHAT ERRNO TEXT". Device commands act on the device opened last, or chosen with `use`.
//
//   container  group N  attach  unset  device BDF  use BDF  close dev|group|container
//   iommufd  cdev PATH|BDF                                     (kernels that have them)
//   irq intx|msi|msix|err [N]      eventfds, triggered by the device   irqoff KIND
//   detach KIND | attach KIND      take the eventfd away, give it back, interrupt stays on
//   mask KIND  unmask KIND  trigger KIND  irqinfo KIND  events MS
//   irqfd-unmask                   let an eventfd unmask INTx, and signal it
//   req  reqpoll                   the host's wish to have the device back
//   map IOVA SIZE  unmap IOVA SIZE  peek ADDRESS  poke ADDRESS VALUE
//   reset  hotinfo  hotreset  region N
//   rcfg OFFSET SIZE  wcfg OFFSET SIZE VALUE  rbar BAR OFFSET  wbar BAR OFFSET VALUE
#include "vfio.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ok(const char *format, ...)
{
	va_list arguments;

	printf("OK");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

void failed(const char *what)
{
	int error = errno;

	printf("ERR %s %d %s\n", what, error, strerror(error));
}

void done(int result, const char *what)
{
	if (result < 0)
		failed(what);
	else
		ok("%s", "");
}

uint64_t number(const char *word)
{
	return strtoull(word, NULL, 0);
}

static const struct command *find(const struct command *commands, const char *name)
{
	for (; commands->name; commands++) {
		if (!strcmp(commands->name, name))
			return commands;
	}
	return NULL;
}

static const struct command *command_named(const char *name)
{
	const struct command *found = find(open_commands, name);

	if (!found)
		found = find(irq_commands, name);
	if (!found)
		found = find(memory_commands, name);
	return found;
}

static void obey(char *line)
{
	static char nothing[] = "";
	const struct command *command;
	char *words[MOST_WORDS];
	char *next = strtok(line, " \n");

	for (int i = 0; i < MOST_WORDS; i++) {
		words[i] = next ? next : nothing;
		if (next)
			next = strtok(NULL, " \n");
	}
	command = command_named(words[0]);
	if (command) {
		command->run(words);
	} else {
		errno = ENOSYS;
		failed(words[0][0] ? words[0] : "nothing");
	}
}

int main(void)
{
	char line[512];

	while (fgets(line, sizeof(line), stdin)) {
		obey(line);
		fflush(stdout);
	}
	return 0;
}
