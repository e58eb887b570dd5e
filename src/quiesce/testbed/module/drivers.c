// SPDX-License-Identifier: GPL-2.0-only
/* Drivers: what the kernel calls, and how they come and go. */
#include <linux/bitmap.h>
#include <linux/pci.h>
#include <linux/pm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "qscript.h"

DEFINE_MUTEX(lists);
LIST_HEAD(scripts);
LIST_HEAD(bindings);

static bool stops(enum section section)
{
	return section == PROBE || section == SUSPEND || section == RESUME || section == OPEN;
}

/* Make the calls of a section; called with the binding's lock held. */
int run(struct binding *b, enum section section)
{
	struct script *s = b->script;
	struct step *steps = s->steps[section];
	DECLARE_BITMAP(done, MOST_STEPS) = { 0 };
	int i, error;

	for (i = 0; i < s->count[section]; i++) {
		error = steps[i].done.call->make(b, &steps[i].done);
		if (error >= 0)
			__set_bit(i, done);
		else if (!steps[i].may_fail && stops(section))
			goto undo;
	}
	return 0;
undo:
	while (--i >= 0) {
		if (steps[i].undo.call && test_bit(i, done))
			steps[i].undo.call->make(b, &steps[i].undo);
	}
	return error;
}

/* ---- callbacks ---------------------------------------------------------------------------------------------------- */

static struct script *script_of(struct pci_dev *pdev)
{
	return container_of(to_pci_driver(pdev->dev.driver), struct script, driver);
}

static struct binding *new_binding(struct pci_dev *pdev)
{
	struct binding *b = kzalloc(sizeof(*b), GFP_KERNEL);

	if (!b)
		return NULL;
	mutex_init(&b->lock);
	b->script = script_of(pdev);
	b->pdev = pdev;
	strscpy(b->bdf, pci_name(pdev), sizeof(b->bdf));
	b->regs = NOWHERE;
	b->layout = layout_of(pdev);
	b->bound = true;
	mutex_lock(&lists);
	list_add_tail(&b->node, &bindings);
	mutex_unlock(&lists);
	return b;
}

/* The driver has let go: what devres takes back is not ours any more, and nobody may use the registers. */
static void end_binding(struct binding *b)
{
	int i;

	b->bound = false;
	b->ready = false;
	if (!b->managed_map)
		b->regs = NOWHERE;
	for (i = 0; i < MOST_THINGS; i++) {
		if (b->buffers[i].managed)
			b->buffers[i].memory = NULL;
		if (b->handlers[i].managed)
			b->handlers[i].requested = false;
	}
}

static int qscript_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct binding *b = new_binding(pdev);
	int error;

	if (!b)
		return -ENOMEM;
	pci_set_drvdata(pdev, b);
	mutex_lock(&b->lock);
	error = run(b, PROBE);
	if (error)
		end_binding(b);
	else
		b->ready = true;
	mutex_unlock(&b->lock);
	return error;
}

static void qscript_remove(struct pci_dev *pdev)
{
	struct binding *b = pci_get_drvdata(pdev);

	mutex_lock(&b->lock);
	b->ready = false;
	run(b, REMOVE);
	end_binding(b);
	if (!b->open)
		run(b, RELEASE);
	mutex_unlock(&b->lock);
}

static int run_bound(struct pci_dev *pdev, enum section section)
{
	struct binding *b = pci_get_drvdata(pdev);
	int error;

	mutex_lock(&b->lock);
	error = run(b, section);
	mutex_unlock(&b->lock);
	return error;
}

static void qscript_shutdown(struct pci_dev *pdev)
{
	run_bound(pdev, SHUTDOWN);
}

static int qscript_suspend(struct device *dev)
{
	return run_bound(to_pci_dev(dev), SUSPEND);
}

static int qscript_resume(struct device *dev)
{
	return run_bound(to_pci_dev(dev), RESUME);
}

static const struct dev_pm_ops qscript_pm = {
	SET_SYSTEM_SLEEP_PM_OPS(qscript_suspend, qscript_resume)
};

/* ---- coming and going --------------------------------------------------------------------------------------------- */

struct script *find_script(const char *name)
{
	struct script *s;

	lockdep_assert_held(&lists);
	list_for_each_entry(s, &scripts, node) {
		if (s->defined && !strcmp(s->name, name))
			return s;
	}
	return NULL;
}

static int add_script(struct script *s)
{
	int error = 0;

	mutex_lock(&lists);
	if (find_script(s->name))
		error = -EEXIST;
	else
		list_add_tail(&s->node, &scripts);
	s->defined = !error;
	mutex_unlock(&lists);
	return error;
}

static void drop_script(struct script *s)
{
	mutex_lock(&lists);
	s->defined = false;
	mutex_unlock(&lists);
}

static int register_script(struct script *s)
{
	int error;

	s->driver.name = s->name;
	s->driver.id_table = s->id_count ? s->ids : NULL;
	s->driver.probe = qscript_probe;
	s->driver.remove = qscript_remove;
	s->driver.shutdown = s->has[SHUTDOWN] ? qscript_shutdown : NULL;
	s->driver.driver.pm = s->has[SUSPEND] || s->has[RESUME] ? &qscript_pm : NULL;
	init_completion(&s->go);
	error = pci_register_driver(&s->driver);
	if (error)
		drop_script(s);
	return error;
}

int define(char *text)
{
	struct script *s = kzalloc(sizeof(*s), GFP_KERNEL);
	int error;

	if (!s)
		return -ENOMEM;
	strscpy(s->text, text, sizeof(s->text));
	error = read_script(s);
	if (!error)
		error = add_script(s);
	if (error) {
		kfree(s);
		return error;
	}
	return register_script(s);	/* stays in memory for ever, registered or not */
}

int undefine(char *name)
{
	struct script *s;

	mutex_lock(&lists);
	s = find_script(name);
	mutex_unlock(&lists);
	if (!s)
		return -ENOENT;
	pci_unregister_driver(&s->driver);
	drop_script(s);
	return 0;
}
