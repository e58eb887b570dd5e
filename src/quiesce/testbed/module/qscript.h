/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * qscript - PCI drivers that are defined while the kernel runs, by the text of the calls that each callback makes.
 *
 * A text written to /sys/kernel/debug/qscript/define registers a pci_driver. The callbacks then make the calls of
 * their section, one after the other. docs/scripted-drivers.md of quiesce describes the language; the reader of it
 * in Python checks a text in detail, the one below only so far that no text can do harm by accident.
 *
 * Drivers exist to show mistakes: one may leave its handler on a line after it has gone. So nothing that a handler could
 * look at is ever freed, and the module cannot be unloaded. It is for guests that live for a test.
 */
#ifndef QSCRIPT_H
#define QSCRIPT_H

#include <linux/completion.h>
#include <linux/interrupt.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>

#define MOST_TEXT 4000
#define MOST_STEPS 32
#define MOST_IDS 4
#define MOST_WORDS 6
#define MOST_THINGS 4
#define NAME_SIZE 24
#define BUFFER_SIZE 4096
#define HOLD_SECONDS 30

/* Where the registers are before they are mapped and after: nowhere. A handler that reads there faults. */
#define NOWHERE ((void __iomem *)0xffffdead00000000UL)

enum section { PROBE, REMOVE, SHUTDOWN, SUSPEND, RESUME, OPEN, CLOSE, RELEASE, SECTIONS, NO_SECTION = -1 };

struct binding;
struct call;

struct words {
	const struct call *call;
	int count;
	char *word[MOST_WORDS];
};

struct call {
	const char *name;
	int least, most;	/* how many words come after the name */
	int (*make)(struct binding *b, const struct words *w);
};

struct step {
	struct words done, undo;	/* undo.call is NULL for a step that nothing takes back */
	bool may_fail;
};

struct script {
	struct list_head node;
	struct pci_driver driver;
	struct pci_device_id ids[MOST_IDS + 1];
	int id_count;
	bool defined;
	bool has[SECTIONS];
	int count[SECTIONS];
	struct step steps[SECTIONS][MOST_STEPS];
	struct completion go;
	bool hold, waiting;
	char name[NAME_SIZE];
	char text[MOST_TEXT + 1];
};

/* Registers of devices that can be told to interrupt; all in BAR 0 and 32 bits wide. */
struct layout {
	u16 vendor, device;
	u32 cause;		/* the interrupt that is raised */
	u16 status, acknowledge, raise;
	u16 enable, disable;	/* where the interrupt enable is set and cleared, by one bits */
	u16 enabled;		/* where it is read */
	u16 target, length, command;	/* how the device is told to write to memory; 0 for never */
};

struct handler {
	char name[NAME_SIZE];
	int irq;
	bool requested, managed;
};

struct buffer {
	char name[NAME_SIZE];
	void *memory;
	dma_addr_t address;
	bool coherent, managed;
};

struct binding {
	struct list_head node;
	struct mutex lock;	/* held while a section of it runs */
	struct script *script;
	struct pci_dev *pdev;
	char bdf[16];
	bool bound, ready, open;
	void __iomem *regs;
	bool managed_map;
	const struct layout *layout;
	struct handler handlers[MOST_THINGS];
	struct buffer buffers[MOST_THINGS];
	atomic_t interrupts;
};

/* the two lists, and the lock that guards them; it is never held while a section runs */
extern struct mutex lists;
extern struct list_head scripts, bindings;

/* device.c: registers */
const struct layout *layout_of(struct pci_dev *pdev);
bool mapped(struct binding *b);
irqreturn_t handle(int irq, void *data);
int call_answers(struct binding *b, const struct words *w);
int call_start(struct binding *b, const struct words *w);
int call_stop(struct binding *b, const struct words *w);
int call_mask(struct binding *b, const struct words *w);
int call_give(struct binding *b, const struct words *w);
int call_take(struct binding *b, const struct words *w);
int raise_interrupt(char *bdf);
int write_memory(char *bdf);

/* buffers.c */
struct buffer *buffer_of(struct binding *b, const char *name);
int call_map(struct binding *b, const struct words *w);
int call_unmap(struct binding *b, const struct words *w);
int call_alloc_coherent(struct binding *b, const struct words *w);
int call_free_coherent(struct binding *b, const struct words *w);
int call_alloc_managed(struct binding *b, const struct words *w);

/* calls.c, reader.c, drivers.c */
const struct call *find_call(const char *name);
bool takes_any_words(const struct call *call);
int read_script(struct script *s);
int run(struct binding *b, enum section section);
struct script *find_script(const char *name);
int define(char *text);
int undefine(char *name);

#endif
