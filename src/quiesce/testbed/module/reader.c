// SPDX-License-Identifier: GPL-2.0-only
/* Reading a script. */
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "qscript.h"

static const char * const section_names[SECTIONS] = {
	"probe", "remove", "shutdown", "suspend", "resume", "open", "close", "release",
};

static int read_words(char *text, struct words *w)
{
	char *name = strsep(&text, " \t");
	char *word;

	w->call = find_call(name);
	if (!w->call)
		return -EINVAL;
	while ((word = strsep(&text, " \t"))) {
		if (*word && w->count < MOST_WORDS)
			w->word[w->count++] = word;
		else if (*word && !takes_any_words(w->call))
			return -EINVAL;
	}
	return w->count < w->call->least || w->count > w->call->most ? -EINVAL : 0;
}

static int read_step(struct script *s, enum section section, char *text)
{
	struct step *step;
	char *undo;
	int error;

	if (section == NO_SECTION || s->count[section] == MOST_STEPS)
		return -EINVAL;
	step = &s->steps[section][s->count[section]++];
	undo = strstr(text, " undo ");
	if (undo) {
		*undo = 0;
		undo = skip_spaces(undo + strlen(" undo "));
	}
	if (!strncmp(text, "try ", 4)) {
		step->may_fail = true;
		text = skip_spaces(text + 4);
	}
	error = read_words(strim(text), &step->done);
	return error || !undo ? error : read_words(undo, &step->undo);
}

static int add_id(struct script *s, u32 vendor, u32 device, u32 class, u32 mask)
{
	struct pci_device_id *id = &s->ids[s->id_count];

	if (s->id_count == MOST_IDS)
		return -EINVAL;
	*id = (struct pci_device_id){
		.vendor = vendor, .device = device, .subvendor = PCI_ANY_ID, .subdevice = PCI_ANY_ID,
		.class = class, .class_mask = mask,
	};
	s->id_count++;
	return 0;
}

static int read_ids(struct script *s, char *text)
{
	unsigned int vendor, device, class;
	bool by_class = false;
	char *word;
	int error = 0;

	while (!error && text && (word = strsep(&text, " \t"))) {
		if (by_class && !kstrtouint(word, 16, &class))
			error = strlen(word) > 2 ? add_id(s, PCI_ANY_ID, PCI_ANY_ID, class << 8, 0xffff00) :
						   add_id(s, PCI_ANY_ID, PCI_ANY_ID, class << 16, 0xff0000);
		else if (!strcmp(word, "any"))
			error = add_id(s, PCI_ANY_ID, PCI_ANY_ID, 0, 0);
		else if (sscanf(word, "%4x:%4x", &vendor, &device) == 2)
			error = add_id(s, vendor, device, 0, 0);
		else if (*word && strcmp(word, "class"))
			error = -EINVAL;
		by_class = !strcmp(word, "class");
	}
	return error;
}

static int read_part(struct script *s, enum section *section, char *text)
{
	char *rest = strpbrk(text, " \t");
	size_t length = rest ? rest - text : strlen(text);
	int i;

	rest = rest ? strim(rest) : text + length;
	for (i = 0; i < SECTIONS; i++) {
		if (strlen(section_names[i]) == length && !strncmp(text, section_names[i], length)) {
			*section = i;
			s->has[i] = true;
			return *rest ? read_step(s, *section, rest) : 0;
		}
	}
	if (length == 6 && !strncmp(text, "driver", length))
		return strscpy(s->name, rest, NAME_SIZE) > 0 ? 0 : -EINVAL;
	if (length == 3 && !strncmp(text, "ids", length))
		return read_ids(s, rest);
	if (length == 10 && !strncmp(text, "operations", length))
		return 0;	/* what the events are called is of no interest here */
	return read_step(s, *section, text);
}

int read_script(struct script *s)
{
	enum section section = NO_SECTION;
	char *text = s->text, *line, *part;
	int error = 0, number = 0;

	while (!error && (line = strsep(&text, "\n"))) {
		number++;
		line = strim(line);
		while (!error && *line != '#' && (part = strsep(&line, ";"))) {
			part = strim(part);
			if (*part)
				error = read_part(s, &section, part);
			if (!line)
				break;
		}
	}
	if (!error && !s->name[0])
		error = -EINVAL;
	if (error)
		pr_err("qscript: line %d cannot be read\n", number);
	return error;
}
