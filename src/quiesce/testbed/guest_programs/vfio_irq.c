// SPDX-License-Identifier: Apache-2.0
// Interrupts of a VFIO device.
#include "vfio.h"

#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BY_NOTHING VFIO_IRQ_SET_DATA_NONE
#define BY_EVENTFD VFIO_IRQ_SET_DATA_EVENTFD

static int index_of(const char *kind)
{
	static const char *const kinds[] = {"intx", "msi", "msix", "err", "req"};

	for (int i = 0; i < 5; i++) {
		if (!strcmp(kinds[i], kind))
			return i;
	}
	return VFIO_PCI_INTX_IRQ_INDEX;
}

static int device_fd(void)
{
	return current ? current->fd : -1;
}

static int set_irqs(int index, unsigned count, unsigned flags, const int *fds)
{
	char buffer[sizeof(struct vfio_irq_set) + MOST_VECTORS * sizeof(int)];
	struct vfio_irq_set *set = (struct vfio_irq_set *)buffer;
	size_t length = fds ? count * sizeof(int) : 0;

	set->argsz = sizeof(*set) + length;
	set->flags = flags;
	set->index = index;
	set->start = 0;
	set->count = count;
	if (fds)
		memcpy(set->data, fds, length);
	return ioctl(device_fd(), VFIO_DEVICE_SET_IRQS, set);
}

static int set_trigger(const char *kind, unsigned count, const int *fds)
{
	return set_irqs(index_of(kind), count, BY_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, fds);
}

static int need_device(const char *what)
{
	if (current)
		return 1;
	errno = EBADF;
	failed(what);
	return 0;
}

static void forget_events(void)
{
	for (int i = 0; i < current->vectors; i++)
		close(current->events[i]);
	current->vectors = 0;
}

static void irq_on(char **words)
{
	int count = words[2][0] ? (int)number(words[2]) : 1;

	if (!need_device("irq"))
		return;
	forget_events();
	if (count < 1 || count > MOST_VECTORS)
		count = 1;
	for (int i = 0; i < count; i++)
		current->events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	current->vectors = count;
	done(set_trigger(words[1], count, current->events), "set_irqs");
}

static void irq_off(char **words)
{
	done(set_irqs(index_of(words[1]), 0, BY_NOTHING | VFIO_IRQ_SET_ACTION_TRIGGER, NULL), "irqoff");
}

static void detach_event(char **words)
{
	int nothing = -1;

	done(set_trigger(words[1], 1, &nothing), "detach");
}

void attach_event(const char *kind)
{
	if (!need_device("attach"))
		return;
	if (!current->vectors) {
		current->events[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		current->vectors = 1;
	}
	done(set_trigger(kind, 1, current->events), "attach");
}

static void mask(char **words)
{
	done(set_irqs(index_of(words[1]), 1, BY_NOTHING | VFIO_IRQ_SET_ACTION_MASK, NULL), "mask");
}

static void unmask(char **words)
{
	done(set_irqs(index_of(words[1]), 1, BY_NOTHING | VFIO_IRQ_SET_ACTION_UNMASK, NULL), "unmask");
}

static void trigger(char **words)
{
	done(set_irqs(index_of(words[1]), 1, BY_NOTHING | VFIO_IRQ_SET_ACTION_TRIGGER, NULL), "trigger");
}

// The kernel unmasks the line when the eventfd is written, from its work queue or at once.
static void unmask_by_event(char **words)
{
	uint64_t one = 1;

	(void)words;
	if (!need_device("irqfd-unmask"))
		return;
	if (current->unmask_event < 0) {
		current->unmask_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (set_irqs(VFIO_PCI_INTX_IRQ_INDEX, 1, BY_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK,
			     &current->unmask_event) < 0) {
			failed("irqfd-unmask");
			close(current->unmask_event);
			current->unmask_event = -1;
			return;
		}
	}
	done(write(current->unmask_event, &one, sizeof(one)) == sizeof(one) ? 0 : -1, "signal");
}

static void irq_info(char **words)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index_of(words[1])};

	if (ioctl(device_fd(), VFIO_DEVICE_GET_IRQ_INFO, &info) < 0)
		failed("irqinfo");
	else
		ok(" count=%u flags=%x", info.count, info.flags);
}

static unsigned long long taken(int fd)
{
	uint64_t count = 0;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}

// Waits for the first event, then tells how often each vector was signalled since last asked.
static void events(char **words)
{
	struct pollfd polled[MOST_VECTORS];

	if (!need_device("events"))
		return;
	for (int i = 0; i < current->vectors; i++)
		polled[i] = (struct pollfd){.fd = current->events[i], .events = POLLIN};
	poll(polled, current->vectors, number(words[1]));
	printf("OK");
	for (int i = 0; i < current->vectors; i++)
		printf(" %llu", taken(current->events[i]));
	printf("\n");
}

static void want_request(char **words)
{
	(void)words;
	if (!need_device("req"))
		return;
	if (current->request_event < 0)
		current->request_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	done(set_trigger("req", 1, &current->request_event), "req");
}

static void poll_request(char **words)
{
	(void)words;
	if (need_device("reqpoll"))
		ok(" %llu", taken(current->request_event));
}

const struct command irq_commands[] = {
	{"irq", irq_on},
	{"irqoff", irq_off},
	{"detach", detach_event},
	{"mask", mask},
	{"unmask", unmask},
	{"trigger", trigger},
	{"irqfd-unmask", unmask_by_event},
	{"irqinfo", irq_info},
	{"events", events},
	{"req", want_request},
	{"reqpoll", poll_request},
	{NULL, NULL},
};
