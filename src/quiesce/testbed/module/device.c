// SPDX-License-Identifier: GPL-2.0-only
/* The registers of devices: letting a device run and interrupt, and asking it why. */
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/pci.h>

#include "qscript.h"

/*
 * edu has no interrupt enable. The source address of its copying engine, which is not used here, keeps one, so that it is
 * in the device, as that of others is.
 */
static const struct layout layouts[] = {
	{ 0x1234, 0x11e8, 1, 0x24, 0x64, 0x60, 0x80, 0x80, 0x80, 0x88, 0x90, 0x98 },	/* QEMU's edu */
	{ 0x8086, 0x100e, 4, 0xc0, 0xc0, 0xc8, 0xd0, 0xd8, 0xd0 },	/* e1000 */
	{ 0x8086, 0x10d3, 4, 0xc0, 0xc0, 0xc8, 0xd0, 0xd8, 0xd0 },	/* e1000e */
};

const struct layout *layout_of(struct pci_dev *pdev)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(layouts); i++) {
		if (layouts[i].vendor == pdev->vendor && layouts[i].device == pdev->device)
			return &layouts[i];
	}
	return NULL;
}

bool mapped(struct binding *b)
{
	return b->regs && b->regs != NOWHERE;
}

static bool device_answers(struct binding *b)
{
	u16 command;

	if (!b->bound || !mapped(b))
		return false;
	pci_read_config_word(b->pdev, PCI_COMMAND, &command);
	return command != 0xffff && command & (PCI_COMMAND_MEMORY | PCI_COMMAND_IO) &&
	       (!b->layout || ioread32(b->regs) != ~0U);
}

static void acknowledge(const struct layout *layout, void __iomem *regs)
{
	u32 status = ioread32(regs + layout->status);

	if (status && status != ~0U)
		iowrite32(status, regs + layout->acknowledge);
}

int call_answers(struct binding *b, const struct words *w)
{
	return device_answers(b) ? 0 : -EIO;
}

int call_start(struct binding *b, const struct words *w)
{
	if (!device_answers(b))
		return -EIO;
	if (b->layout)
		iowrite32(b->layout->cause, b->regs + b->layout->enable);
	return 0;
}

int call_mask(struct binding *b, const struct words *w)
{
	const struct layout *layout = b->layout;

	if (!layout || !device_answers(b))
		return 0;
	iowrite32(layout->disable == layout->enable ? 0 : ~0U, b->regs + layout->disable);
	acknowledge(layout, b->regs);
	return 0;
}

int call_stop(struct binding *b, const struct words *w)
{
	call_mask(b, w);
	if (b->layout && b->layout->target && device_answers(b))
		iowrite32(0, b->regs + b->layout->target);
	return 0;
}

irqreturn_t handle(int irq, void *data)
{
	struct binding *b = data;
	u32 status;

	if (!b->layout && mapped(b)) {	/* no way to ask the device: a message can only be meant for it */
		if (!b->pdev->msi_enabled && !b->pdev->msix_enabled)
			return IRQ_NONE;
		atomic_inc(&b->interrupts);
		return IRQ_HANDLED;
	}
	if (!b->regs)
		return IRQ_NONE;
	status = ioread32(b->regs + (b->layout ? b->layout->status : 0));
	if (!status || status == ~0U)
		return IRQ_NONE;
	iowrite32(status, b->regs + b->layout->acknowledge);
	atomic_inc(&b->interrupts);
	return IRQ_HANDLED;
}

int call_give(struct binding *b, const struct words *w)
{
	struct buffer *buffer = buffer_of(b, w->word[0]);

	if (buffer && b->layout && b->layout->target && device_answers(b))
		iowrite32(lower_32_bits(buffer->address), b->regs + b->layout->target);
	return 0;
}

int call_take(struct binding *b, const struct words *w)
{
	struct buffer *buffer = buffer_of(b, w->word[0]);

	if (buffer && b->layout && b->layout->target && device_answers(b))
		iowrite32(0, b->regs + b->layout->target);
	return 0;
}

/* ---- from outside ----------------------------------------------------------------------------------------------- */

static int device_raises(const struct layout *layout, void __iomem *regs)
{
	u32 enabled = ioread32(regs + layout->enabled);

	if (enabled == ~0U || !(enabled & layout->cause))
		return -EAGAIN;
	iowrite32(layout->cause, regs + layout->raise);
	return 0;
}

/* edu: copy from its own memory, where the interrupt enable is meanwhile, to what it was given; see edu's description */
static int device_writes(const struct layout *layout, void __iomem *regs)
{
	u32 enabled = ioread32(regs + layout->enabled);
	int i;

	if (!layout->target)
		return -EOPNOTSUPP;
	if (enabled == ~0U || !enabled || !ioread32(regs + layout->target))
		return -EAGAIN;
	iowrite32(0x40000, regs + layout->enabled);
	iowrite32(4, regs + layout->length);
	iowrite32(3, regs + layout->command);
	for (i = 0; i < 100 && ioread32(regs + layout->command) & 1; i++)
		msleep(10);
	iowrite32(enabled, regs + layout->enabled);
	return 0;
}

/* Do something with a device's registers from outside, whether or not a driver has it. */
static int with_registers(char *bdf, int (*act)(const struct layout *layout, void __iomem *regs))
{
	unsigned int domain, bus, slot, function;
	const struct layout *layout;
	struct pci_dev *pdev;
	void __iomem *regs;
	int error = -EOPNOTSUPP;
	u16 command;

	if (sscanf(bdf, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return -EINVAL;
	pdev = pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, function));
	if (!pdev)
		return -ENODEV;
	layout = layout_of(pdev);
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	if (layout)
		error = command != 0xffff && command & PCI_COMMAND_MEMORY ? 0 : -EAGAIN;
	regs = error ? NULL : ioremap(pci_resource_start(pdev, 0), pci_resource_len(pdev, 0));
	if (regs) {
		error = act(layout, regs);
		iounmap(regs);
	}
	pci_dev_put(pdev);
	return error;
}

int raise_interrupt(char *bdf)
{
	return with_registers(bdf, device_raises);
}

int write_memory(char *bdf)
{
	return with_registers(bdf, device_writes);
}
