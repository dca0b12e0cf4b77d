/*
   durable_state: options

   Copyright (C) The durable_state developers 2026

   This program is free software; you can redistribute it and/or modify
   it under the terms of the GNU General Public License as published by
   the Free Software Foundation; either version 3 of the License, or
   (at your option) any later version.

   This program is distributed in the hope that it will be useful,
   but WITHOUT ANY WARRANTY; without even the implied warranty of
   MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
   GNU General Public License for more details.

   You should have received a copy of the GNU General Public License
   along with this program.  If not, see <http://www.gnu.org/licenses/>.
*/

#include "includes.h"
#include "smbd/smbd.h"
#include "dynconfig/dynconfig.h"
#include "lib/util/util_file.h"
#include "lib/util/smb_strtox.h"
#include "options.h"

#define DS_PREFIX "durable_state"

enum ds_option_type { DS_OPTION_SECONDS, DS_OPTION_CHOICE, DS_OPTION_PATH };

struct ds_option {
	const char *name;
	enum ds_option_type type;
	unsigned int min;
	unsigned int max;
	/* the values of a choice, in the order of its enum */
	const char *choices[3];
};

/* All hold for the whole server. The defaults stand in ds_config_load() */
static const struct ds_option ds_options[] = {
	{
		.name = "drain timeout",
		.type = DS_OPTION_SECONDS,
		.min = 1,
		.max = 600,
	},{
		.name = "hold time",
		.type = DS_OPTION_SECONDS,
		.min = 1,
		.max = 3600,
	},{
		.name = "restore timeout",
		.type = DS_OPTION_SECONDS,
		.min = 1,
		.max = 600,
	},{
		.name = "on stop",
		.type = DS_OPTION_CHOICE,
		.choices = { "keep", "drop" },
	},{
		.name = "unprotected",
		.type = DS_OPTION_CHOICE,
		.choices = { "cut", "veto" },
	},{
		.name = "keeper",
		.type = DS_OPTION_PATH,
	},{
		/* fault.h */
		.name = "test kill",
		.type = DS_OPTION_PATH,
	}
};

static const struct ds_option *ds_option_find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ds_options); i++) {
		if (strwicmp(ds_options[i].name, name) == 0) {
			return &ds_options[i];
		}
	}
	return NULL;
}

/*
 * What is wrong with this value? NULL if nothing is.
 */
static const char *ds_option_check(TALLOC_CTX *mem_ctx,
				   const struct ds_option *option,
				   const char *value)
{
	unsigned long number;
	int error = 0;
	size_t i;

	switch (option->type) {
	case DS_OPTION_SECONDS:
		number = smb_strtoul(value, NULL, 10, &error, SMB_STR_FULL_STR_CONV);
		if ((error != 0) || (number < option->min) ||
		    (number > option->max))
		{
			return talloc_asprintf(
				mem_ctx,
				"must be a number of seconds from %u to %u",
				option->min,
				option->max);
		}
		return NULL;
	case DS_OPTION_CHOICE:
		for (i = 0; option->choices[i] != NULL; i++) {
			if (strequal(option->choices[i], value)) {
				return NULL;
			}
		}
		return talloc_asprintf(mem_ctx,
				       "must be '%s' or '%s'",
				       option->choices[0],
				       option->choices[1]);
	case DS_OPTION_PATH:
		return (value[0] == '/') ? NULL : "must be an absolute path";
	}
	return NULL;
}

/*
 * loadparm takes any white space around a name and a value for nothing.
 */
static char *ds_strip(char *s)
{
	size_t len;

	while (isspace((unsigned char)s[0])) {
		s += 1;
	}
	len = strlen(s);
	while ((len > 0) && isspace((unsigned char)s[len - 1])) {
		len -= 1;
	}
	s[len] = '\0';
	return s;
}

/*
 * The first thing that is wrong is kept for those who ask later.
 */
static void ds_config_wrong(struct ds_config *config, const char *fmt, ...)
	PRINTF_ATTRIBUTE(2, 3);

static void ds_config_wrong(struct ds_config *config, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = talloc_vasprintf(config, fmt, ap);
	va_end(ap);

	DBG_ERR("%s\n", text != NULL ? text : "out of memory");
	if (config->problem == NULL) {
		config->problem = text != NULL ? text : "out of memory";
	} else {
		TALLOC_FREE(text);
	}
}

/*
 * loadparm keeps parametric options without the lines they came from: go
 * through the file for these, so that the message can name one. section is
 * NULL in [global].
 */
static void ds_config_check_line(struct ds_config *config,
				 const char *file,
				 int lineno,
				 const char *section,
				 char *line)
{
	const struct ds_option *option = NULL;
	const char *wrong = NULL;
	char *value = NULL;

	if (strncasecmp_m(line, DS_PREFIX, strlen(DS_PREFIX)) != 0) {
		return;
	}
	line += strlen(DS_PREFIX);
	line += strspn(line, " \t");
	value = strchr(line, '=');
	if ((line[0] != ':') || (value == NULL)) {
		return;
	}
	*value = '\0';
	value += 1;
	line += 1;
	line = ds_strip(line);
	value = ds_strip(value);

	option = ds_option_find(line);
	if (option == NULL) {
		ds_config_wrong(config,
				"%s:%d: there is no option "
				"'durable_state:%s'",
				file, lineno, line);
		return;
	}
	if (section != NULL) {
		ds_config_wrong(config,
				"%s:%d: 'durable_state:%s' holds for the "
				"whole server: it belongs in [global], not "
				"in [%s]",
				file, lineno, option->name, section);
		return;
	}
	wrong = ds_option_check(config, option, value);
	if (wrong != NULL) {
		ds_config_wrong(config,
				"%s:%d: 'durable_state:%s' %s, not '%s'",
				file, lineno, option->name, wrong, value);
	}
}

static void ds_config_check_file(struct ds_config *config, const char *file)
{
	const char *section = NULL;
	char **lines = NULL;
	int num_lines = 0;
	int i;

	lines = file_lines_load(file, &num_lines, 0, talloc_tos());
	for (i = 0; (lines != NULL) && (i < num_lines); i++) {
		char *line = ds_strip(lines[i]);
		char *end = strchr(line, ']');

		if ((line[0] == '[') && (end != NULL)) {
			*end = '\0';
			section = ds_strip(line + 1);
			if ((strwicmp(section, GLOBAL_NAME) == 0) ||
			    (strwicmp(section, GLOBAL_NAME2) == 0))
			{
				section = NULL;
			}
			continue;
		}
		ds_config_check_line(config, file, i + 1, section, line);
	}
	TALLOC_FREE(lines);
}

/*
 * What did not stand in the file itself (include, registry) is checked
 * here, without its line.
 */
static const char *ds_config_value(struct ds_config *config,
				   const char *name,
				   const char *def)
{
	const char *value = lp_parm_const_string(
		GLOBAL_SECTION_SNUM, DS_PREFIX, name, def);
	const char *wrong = ds_option_check(
		config, ds_option_find(name), value);

	if (wrong != NULL) {
		ds_config_wrong(config,
				"'durable_state:%s' %s, not '%s'",
				name, wrong, value);
		return def;
	}
	return value;
}

/*
 * A share without the option has the value of [global]: not an equal one,
 * the same.
 */
static void ds_config_check_share(struct ds_config *config, int snum)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ds_options); i++) {
		const char *name = ds_options[i].name;

		if (lp_parm_const_string(snum, DS_PREFIX, name, NULL) ==
		    lp_parm_const_string(
			    GLOBAL_SECTION_SNUM, DS_PREFIX, name, NULL))
		{
			continue;
		}
		ds_config_wrong(config,
				"'durable_state:%s' holds for the whole "
				"server: it belongs in [global], not in [%s]",
				name,
				lp_const_servicename(snum));
	}
}

bool ds_config_load(TALLOC_CTX *mem_ctx, struct ds_config **_config)
{
	struct ds_config *config = NULL;
	char *keeper = NULL;
	int snum;

	config = talloc_zero(mem_ctx, struct ds_config);
	keeper = talloc_asprintf(
		config, "%s/durable_stated", get_dyn_SBINDIR());
	if ((config == NULL) || (keeper == NULL)) {
		TALLOC_FREE(config);
		return false;
	}

	ds_config_check_file(config, get_dyn_CONFIGFILE());

	config->drain_timeout = atoi(
		ds_config_value(config, "drain timeout", "5"));
	config->hold_time = atoi(ds_config_value(config, "hold time", "60"));
	config->restore_timeout = atoi(
		ds_config_value(config, "restore timeout", "20"));
	config->on_stop = DS_ON_STOP_KEEP;
	if (strequal(ds_config_value(config, "on stop", "keep"), "drop")) {
		config->on_stop = DS_ON_STOP_DROP;
	}
	config->unprotected = DS_UNPROTECTED_CUT;
	if (strequal(ds_config_value(config, "unprotected", "cut"), "veto")) {
		config->unprotected = DS_UNPROTECTED_VETO;
	}
	/* loadparm's own copy goes with the next reload */
	config->keeper = talloc_strdup(
		config, ds_config_value(config, "keeper", keeper));

	/* what is known with its line needs no second message */
	for (snum = 0;
	     (config->problem == NULL) && (snum < lp_numservices());
	     snum++)
	{
		if (lp_snum_ok(snum)) {
			ds_config_check_share(config, snum);
		}
	}

	*_config = config;
	return (config->problem == NULL);
}

char *ds_config_directory(TALLOC_CTX *mem_ctx)
{
	return talloc_asprintf(
		mem_ctx, "%s/durable_state", lp_lock_directory());
}

bool ds_config_share(int snum)
{
	const char **objects = lp_vfs_objects(snum);

	return (objects != NULL) && str_list_check(objects, "durable_state");
}

bool ds_config_used(void)
{
	int snum;

	/* -1 is what [global] says for all shares that say nothing */
	for (snum = -1; snum < lp_numservices(); snum++) {
		if (ds_config_share(snum)) {
			return true;
		}
	}
	return false;
}
