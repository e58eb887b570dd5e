// SPDX-License-Identifier: GPL-2.0-only
/* Buffers for DMA. */
#include <linux/dma-mapping.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "qscript.h"

struct buffer *buffer_of(struct binding *b, const char *name)
{
	int i;

	for (i = 0; i < MOST_THINGS; i++) {
		if (b->buffers[i].memory && !strcmp(b->buffers[i].name, name))
			return &b->buffers[i];
	}
	return NULL;
}

static struct buffer *new_buffer(struct binding *b, const char *name)
{
	int i;

	for (i = 0; i < MOST_THINGS; i++) {
		if (!b->buffers[i].memory) {
			memset(&b->buffers[i], 0, sizeof(b->buffers[i]));
			strscpy(b->buffers[i].name, name, NAME_SIZE);
			return &b->buffers[i];
		}
	}
	return NULL;
}

int call_map(struct binding *b, const struct words *w)
{
	struct buffer *buffer = new_buffer(b, w->word[0]);
	void *memory = kzalloc(BUFFER_SIZE, GFP_KERNEL);

	if (!buffer || !memory) {
		kfree(memory);
		return -ENOMEM;
	}
	buffer->address = dma_map_single(&b->pdev->dev, memory, BUFFER_SIZE, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(&b->pdev->dev, buffer->address)) {
		kfree(memory);
		return -ENOMEM;
	}
	buffer->memory = memory;
	return 0;
}

int call_unmap(struct binding *b, const struct words *w)
{
	struct buffer *buffer = buffer_of(b, w->word[0]);

	if (buffer) {
		dma_unmap_single(&b->pdev->dev, buffer->address, BUFFER_SIZE, DMA_BIDIRECTIONAL);
		kfree(buffer->memory);
		buffer->memory = NULL;
	}
	return 0;
}

int call_alloc_coherent(struct binding *b, const struct words *w)
{
	struct buffer *buffer = new_buffer(b, w->word[0]);

	if (!buffer)
		return -ENOMEM;
	buffer->coherent = true;
	buffer->memory = dma_alloc_coherent(&b->pdev->dev, BUFFER_SIZE, &buffer->address, GFP_KERNEL);
	return buffer->memory ? 0 : -ENOMEM;
}

int call_free_coherent(struct binding *b, const struct words *w)
{
	struct buffer *buffer = buffer_of(b, w->word[0]);

	if (buffer) {
		dma_free_coherent(&b->pdev->dev, BUFFER_SIZE, buffer->memory, buffer->address);
		buffer->memory = NULL;
	}
	return 0;
}

int call_alloc_managed(struct binding *b, const struct words *w)
{
	struct buffer *buffer = new_buffer(b, w->word[0]);

	if (!buffer)
		return -ENOMEM;
	buffer->managed = true;
	buffer->memory = dmam_alloc_coherent(&b->pdev->dev, BUFFER_SIZE, &buffer->address, GFP_KERNEL);
	return buffer->memory ? 0 : -ENOMEM;
}
