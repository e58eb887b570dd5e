// SPDX-License-Identifier: GPL-2.0-only
/* The calls that a step can make. */
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "qscript.h"

/* ---- what differs between kernels --------------------------------------------------------------------------------- */

#ifndef PCI_IRQ_INTX
#define PCI_IRQ_INTX PCI_IRQ_LEGACY	/* before 6.8 */
#endif

/* INTx in the managed way of this kernel: before drivers could call pcim_intx(), pci_intx() was that on their devices */
static int managed_intx(struct pci_dev *pdev, int enable)
{
#ifdef HAVE_PCIM_INTX
	return pcim_intx(pdev, enable);
#else
	pci_intx(pdev, enable);
	return 0;
#endif
}

/* ---- registers and regions ---------------------------------------------------------------------------------------- */

static int register_bar(struct pci_dev *pdev)
{
	int bar;

	for (bar = 0; bar < PCI_STD_NUM_BARS; bar++) {
		if (pci_resource_start(pdev, bar) && pci_resource_len(pdev, bar))
			return bar;
	}
	return -1;
}

static int call_iomap(struct binding *b, const struct words *w)
{
	int bar = register_bar(b->pdev);

	b->regs = bar < 0 ? NULL : pci_iomap(b->pdev, bar, 0);
	if (bar >= 0 && !b->regs) {
		b->regs = NOWHERE;
		return -ENOMEM;
	}
	return 0;
}

static int call_iounmap(struct binding *b, const struct words *w)
{
	if (mapped(b) && !b->managed_map)
		pci_iounmap(b->pdev, b->regs);
	b->regs = NOWHERE;
	return 0;
}

static int call_iomap_regions(struct binding *b, const struct words *w)
{
	int bar = register_bar(b->pdev);
	int error = pcim_iomap_regions(b->pdev, bar < 0 ? 0 : BIT(bar), b->script->name);

	if (error)
		return error;
	b->managed_map = true;
	b->regs = bar < 0 ? NULL : pcim_iomap_table(b->pdev)[bar];
	return 0;
}

/* ---- handlers ----------------------------------------------------------------------------------------------------- */

static struct handler *handler_of(struct binding *b, const char *name, bool make)
{
	int i;

	for (i = 0; i < MOST_THINGS; i++) {
		if (!strcmp(b->handlers[i].name, name))
			return &b->handlers[i];
	}
	for (i = 0; make && i < MOST_THINGS; i++) {
		if (!b->handlers[i].name[0]) {
			strscpy(b->handlers[i].name, name, NAME_SIZE);
			return &b->handlers[i];
		}
	}
	return NULL;
}

static unsigned long handler_flags(struct binding *b, const struct words *w)
{
	const char *how = w->count > 1 ? w->word[1] : "";
	bool message = b->pdev->msi_enabled || b->pdev->msix_enabled;

	if (!strcmp(how, "shared") || (!strcmp(how, "shared-line") && !message))
		return IRQF_SHARED;
	return 0;
}

static int request(struct binding *b, const struct words *w, bool managed)
{
	struct handler *h = handler_of(b, w->word[0], true);
	unsigned long flags = handler_flags(b, w);
	int irq, error;

	if (!h)
		return -ENOSPC;
	irq = pci_irq_vector(b->pdev, 0);
	if (irq < 0)
		return irq;
	error = managed ? devm_request_irq(&b->pdev->dev, irq, handle, flags, h->name, b) :
			  request_irq(irq, handle, flags, h->name, b);
	if (error)
		return error;
	h->irq = irq;
	h->requested = true;
	h->managed = managed;
	return 0;
}

static int call_request(struct binding *b, const struct words *w)
{
	return request(b, w, false);
}

static int call_devm_request(struct binding *b, const struct words *w)
{
	return request(b, w, true);
}

/* A handler that was requested once can be freed as often as the script likes. */
static int call_free(struct binding *b, const struct words *w)
{
	struct handler *h = handler_of(b, w->word[0], false);

	if (h && h->irq) {
		free_irq(h->irq, b);
		h->requested = false;
	}
	return 0;
}

static int call_devm_free(struct binding *b, const struct words *w)
{
	struct handler *h = handler_of(b, w->word[0], false);

	if (h && h->irq) {
		devm_free_irq(&b->pdev->dev, h->irq, b);
		h->requested = false;
	}
	return 0;
}

static int call_alloc_vectors(struct binding *b, const struct words *w)
{
	unsigned int least, most, kinds = 0;
	int i;

	if (kstrtouint(w->word[0], 10, &least) || kstrtouint(w->word[1], 10, &most))
		return -EINVAL;
	for (i = 2; i < w->count; i++) {
		kinds |= !strcmp(w->word[i], "msix") ? PCI_IRQ_MSIX : 0;
		kinds |= !strcmp(w->word[i], "msi") ? PCI_IRQ_MSI : 0;
		kinds |= !strcmp(w->word[i], "intx") ? PCI_IRQ_INTX : 0;
	}
	return pci_alloc_irq_vectors(b->pdev, least, most, kinds);
}

/* ---- the other calls ---------------------------------------------------------------------------------------------- */

static int call_set_power(struct binding *b, const struct words *w)
{
	static const char * const names[] = { "D0", "D1", "D2", "D3hot" };
	int state = match_string(names, ARRAY_SIZE(names), w->word[0]);

	return state < 0 ? state : pci_set_power_state(b->pdev, (__force pci_power_t)state);
}

static int call_kzalloc(struct binding *b, const struct words *w)
{
	void *memory = kzalloc(64, GFP_KERNEL);	/* nothing is kept in it: all that matters is whether there is some */

	kfree(memory);
	return memory ? 0 : -ENOMEM;
}

static int call_window(struct binding *b, const struct words *w)
{
	struct script *s = b->script;

	if (!s->hold)
		return 0;
	s->hold = false;
	s->waiting = true;
	wait_for_completion_timeout(&s->go, HOLD_SECONDS * HZ);
	s->waiting = false;
	return 0;
}

static int call_fail(struct binding *b, const struct words *w)
{
	static const struct { const char *name; int error; } errors[] = {
		{ "ENODEV", ENODEV }, { "EIO", EIO }, { "ENOMEM", ENOMEM }, { "EBUSY", EBUSY },
		{ "EINVAL", EINVAL }, { "ENXIO", ENXIO }, { "EPROBE_DEFER", EPROBE_DEFER },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		if (!strcmp(errors[i].name, w->word[0]))
			return -errors[i].error;
	}
	return -EINVAL;
}

#define PLAIN(name, expression)							\
	static int call_##name(struct binding *b, const struct words *w)	\
	{									\
		struct pci_dev *pdev = b->pdev;					\
										\
		return expression;						\
	}

PLAIN(enable, pci_enable_device(pdev))
PLAIN(disable, (pci_disable_device(pdev), 0))
PLAIN(enable_managed, pcim_enable_device(pdev))
PLAIN(pin, (pcim_pin_device(pdev), 0))
PLAIN(set_master, (pci_set_master(pdev), 0))
PLAIN(clear_master, (pci_clear_master(pdev), 0))
PLAIN(set_mwi, pcim_set_mwi(pdev))
PLAIN(request_regions, pci_request_regions(pdev, b->script->name))
PLAIN(release_regions, (pci_release_regions(pdev), 0))
PLAIN(intx, (pci_intx(pdev, w->word[0][0] == '1'), 0))
PLAIN(intx_managed, managed_intx(pdev, w->word[0][0] == '1'))
PLAIN(free_vectors, (pci_free_irq_vectors(pdev), 0))
PLAIN(enable_msi, pci_enable_msi(pdev))
PLAIN(disable_msi, (pci_disable_msi(pdev), 0))
PLAIN(save_state, pci_save_state(pdev))
PLAIN(restore_state, (pci_restore_state(pdev), 0))
PLAIN(get, (pci_dev_get(pdev), 0))
PLAIN(put, (pci_dev_put(pdev), 0))

static const struct call calls[] = {
	{ "pci_enable_device", 0, 0, call_enable },
	{ "pci_disable_device", 0, 0, call_disable },
	{ "pcim_enable_device", 0, 0, call_enable_managed },
	{ "pcim_pin_device", 0, 0, call_pin },
	{ "pci_set_master", 0, 0, call_set_master },
	{ "pci_clear_master", 0, 0, call_clear_master },
	{ "pcim_set_mwi", 0, 0, call_set_mwi },
	{ "pci_request_regions", 0, 0, call_request_regions },
	{ "pci_release_regions", 0, 0, call_release_regions },
	{ "pci_iomap", 0, 0, call_iomap },
	{ "pci_iounmap", 0, 0, call_iounmap },
	{ "pcim_iomap_regions", 0, 0, call_iomap_regions },
	{ "pci_intx", 1, 1, call_intx },
	{ "pcim_intx", 1, 1, call_intx_managed },
	{ "pci_alloc_irq_vectors", 3, 5, call_alloc_vectors },
	{ "pci_free_irq_vectors", 0, 0, call_free_vectors },
	{ "pci_enable_msi", 0, 0, call_enable_msi },
	{ "pci_disable_msi", 0, 0, call_disable_msi },
	{ "request_irq", 1, 2, call_request },
	{ "free_irq", 1, 1, call_free },
	{ "devm_request_irq", 1, 2, call_devm_request },
	{ "devm_free_irq", 1, 1, call_devm_free },
	{ "dma_map_single", 1, 1, call_map },
	{ "dma_unmap_single", 1, 1, call_unmap },
	{ "dma_alloc_coherent", 1, 1, call_alloc_coherent },
	{ "dma_free_coherent", 1, 1, call_free_coherent },
	{ "dmam_alloc_coherent", 1, 1, call_alloc_managed },
	{ "pci_save_state", 0, 0, call_save_state },
	{ "pci_restore_state", 0, 0, call_restore_state },
	{ "pci_set_power_state", 1, 1, call_set_power },
	{ "pci_dev_get", 0, 0, call_get },
	{ "pci_dev_put", 0, 0, call_put },
	{ "kzalloc", 1, 1, call_kzalloc },
	{ "answers", 0, 0, call_answers },
	{ "start_device", 0, 0, call_start },
	{ "stop_device", 0, 0, call_stop },
	{ "mask_device", 0, 0, call_mask },
	{ "give_to_device", 1, 1, call_give },
	{ "take_from_device", 1, 1, call_take },
	{ "window", 0, MOST_WORDS, call_window },
	{ "fail", 1, 1, call_fail },
};

const struct call *find_call(const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		if (!strcmp(calls[i].name, name))
			return &calls[i];
	}
	return NULL;
}

bool takes_any_words(const struct call *call)
{
	return call->make == call_window;
}
