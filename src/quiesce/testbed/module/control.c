// SPDX-License-Identifier: GPL-2.0-only
/* The files in debugfs: commands, and what the drivers hold. */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "qscript.h"

/* ---- what programs do --------------------------------------------------------------------------------------------- */

static bool file_is_open(struct pci_dev *pdev, struct script *s)
{
	struct binding *b;

	list_for_each_entry(b, &bindings, node) {
		if (b->open && b->pdev == pdev && !strcmp(b->script->name, s->name))
			return true;
	}
	return false;
}

/* Take the one file that a driver has for a device; another can only be opened once it is closed. */
static struct binding *take_file(const char *bdf)
{
	struct binding *b, *found = ERR_PTR(-ENODEV);

	mutex_lock(&lists);
	list_for_each_entry(b, &bindings, node) {
		if (!b->ready || strcmp(b->bdf, bdf))
			continue;
		found = file_is_open(b->pdev, b->script) ? ERR_PTR(-EBUSY) : b;
		if (!b->script->has[OPEN])
			found = ERR_PTR(-EOPNOTSUPP);
	}
	if (!IS_ERR(found)) {
		found->open = true;
		pci_dev_get(found->pdev);
	}
	mutex_unlock(&lists);
	return found;
}

static int open_file(char *bdf)
{
	struct binding *b = take_file(bdf);
	int error;

	if (IS_ERR(b))
		return PTR_ERR(b);
	mutex_lock(&b->lock);
	error = b->ready ? run(b, OPEN) : -ENODEV;
	if (error) {
		b->open = false;
		if (!b->bound)
			run(b, RELEASE);
	}
	mutex_unlock(&b->lock);
	if (error)
		pci_dev_put(b->pdev);
	return error;
}

static int close_file(char *bdf)
{
	struct binding *b;
	bool found = false;

	mutex_lock(&lists);
	list_for_each_entry(b, &bindings, node) {
		if (b->open && !strcmp(b->bdf, bdf)) {
			found = true;
			break;
		}
	}
	mutex_unlock(&lists);
	if (!found)
		return -ENOENT;
	mutex_lock(&b->lock);
	run(b, CLOSE);
	b->open = false;
	if (!b->bound)
		run(b, RELEASE);
	mutex_unlock(&b->lock);
	pci_dev_put(b->pdev);
	return 0;
}

static int hold(char *name)
{
	struct script *s;

	mutex_lock(&lists);
	s = find_script(name);
	if (s) {
		reinit_completion(&s->go);
		s->hold = true;
	}
	mutex_unlock(&lists);
	return s ? 0 : -ENOENT;
}

static int go(char *name)
{
	struct script *s;
	int error = -ENOENT;

	mutex_lock(&lists);
	s = find_script(name);
	if (s)
		error = s->waiting ? 0 : -EAGAIN;
	if (!error)
		complete(&s->go);
	mutex_unlock(&lists);
	return error;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

struct command {
	const char *name;
	int (*run)(char *text);
};

static const struct command commands[] = {
	{ "define", define },
	{ "undefine", undefine },
	{ "open", open_file },
	{ "close", close_file },
	{ "raise", raise_interrupt },
	{ "write", write_memory },
	{ "hold", hold },
	{ "go", go },
};

static ssize_t command_write(struct file *file, const char __user *user, size_t size, loff_t *offset)
{
	const struct command *command = file_inode(file)->i_private;
	char *text;
	int error;

	if (size > MOST_TEXT)
		return -E2BIG;
	text = memdup_user_nul(user, size);
	if (IS_ERR(text))
		return PTR_ERR(text);
	error = command->run(strim(text));
	kfree(text);
	return error ? error : size;
}

static const struct file_operations command_operations = {
	.owner = THIS_MODULE,
	.write = command_write,
};

static bool holds_something(struct binding *b)
{
	int i;

	for (i = 0; i < MOST_THINGS; i++) {
		if (b->handlers[i].requested || b->buffers[i].memory)
			return true;
	}
	return b->bound || b->open;
}

static void show_binding(struct seq_file *out, struct binding *b)
{
	const char *comma = "";
	int i;

	if (!holds_something(b))
		return;
	seq_printf(out, "%s %s bound=%d open=%d mapped=%d interrupts=%d handlers=", b->bdf, b->script->name, b->bound,
		   b->open, b->bound && mapped(b), atomic_read(&b->interrupts));
	for (i = 0; i < MOST_THINGS; i++) {
		if (b->handlers[i].requested) {
			seq_printf(out, "%s%s:%d", comma, b->handlers[i].name, b->handlers[i].irq);
			comma = ",";
		}
	}
	seq_puts(out, " buffers=");
	comma = "";
	for (i = 0; i < MOST_THINGS; i++) {
		if (b->buffers[i].memory) {
			seq_printf(out, "%s%s:%llx", comma, b->buffers[i].name, (u64)b->buffers[i].address);
			comma = ",";
		}
	}
	seq_putc(out, '\n');
}

static int state_show(struct seq_file *out, void *unused)
{
	struct binding *b;

	mutex_lock(&lists);
	list_for_each_entry(b, &bindings, node)
		show_binding(out, b);
	mutex_unlock(&lists);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

static int __init qscript_init(void)
{
	struct dentry *folder = debugfs_create_dir("qscript", NULL);
	int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		debugfs_create_file(commands[i].name, 0200, folder, (void *)&commands[i], &command_operations);
	debugfs_create_file("state", 0400, folder, NULL, &state_fops);
	return 0;
}
module_init(qscript_init);

MODULE_DESCRIPTION("PCI drivers defined by scripts, for test guests");
MODULE_LICENSE("GPL v2");
