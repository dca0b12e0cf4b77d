/*
   durable_state: the records of an image, for fuzzers

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

#include "replace.h"
#include <talloc.h>
#include "lib/util/data_blob.h"
#include "lib/util/talloc_stack.h"
#include "librpc/gen_ndr/ndr_smbXsrv.h"
#include "durable_state/ndr_durable_state.h"
#include "fuzz_common.h"
#include "fuzz_ndr.h"

/* Globals need not be read to their end, in the module too */
#define KIND(t, name, all) { \
	.type = t, \
	.size = sizeof(struct name), \
	.push = (ndr_push_flags_fn_t)ndr_push_##name, \
	.pull = (ndr_pull_flags_fn_t)ndr_pull_##name, \
	.whole = all, \
}

static const struct fuzz_kind {
	uint32_t type;
	size_t size;
	ndr_push_flags_fn_t push;
	ndr_pull_flags_fn_t pull;
	bool whole;
} fuzz_kinds[] = {
	KIND(DS_RECORD_CLIENT, ds_client, true),
	KIND(DS_RECORD_CONNECTION, ds_connection, true),
	KIND(DS_RECORD_SESSION, ds_session, true),
	KIND(DS_RECORD_TCON, ds_tcon, true),
	KIND(DS_RECORD_EFFECT, ds_effect, true),
	KIND(DS_RECORD_OPEN, ds_open, true),
	KIND(DS_RECORD_REQUEST, ds_request, true),
	KIND(FUZZ_RECORD_SESSION_GLOBAL, smbXsrv_session_globalB, false),
	KIND(FUZZ_RECORD_TCON_GLOBAL, smbXsrv_tcon_globalB, false),
	KIND(FUZZ_RECORD_OPEN_GLOBAL, smbXsrv_open_globalB, false),
};

static void fuzz_again(TALLOC_CTX *frame,
		       const struct fuzz_kind *kind,
		       const void *record)
{
	void *second = talloc_zero_size(frame, kind->size);
	DATA_BLOB one;
	DATA_BLOB two;
	enum ndr_err_code ndr_err;

	ndr_err = ndr_push_struct_blob(&one, frame, record, kind->push);
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		/* what can be pulled need not make sense */
		return;
	}
	ndr_err = ndr_pull_struct_blob_all(&one, frame, second, kind->pull);
	FUZZ_CHECK(NDR_ERR_CODE_IS_SUCCESS(ndr_err));
	ndr_err = ndr_push_struct_blob(&two, frame, second, kind->push);
	FUZZ_CHECK(NDR_ERR_CODE_IS_SUCCESS(ndr_err));
	FUZZ_CHECK(data_blob_cmp(&one, &two) == 0);
}

void fuzz_record(uint32_t type, DATA_BLOB data)
{
	TALLOC_CTX *frame = talloc_stackframe();
	const struct fuzz_kind *kind = NULL;
	enum ndr_err_code ndr_err;
	void *record = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fuzz_kinds); i++) {
		if (fuzz_kinds[i].type == type) {
			kind = &fuzz_kinds[i];
		}
	}
	if (kind == NULL) {
		goto done;
	}

	record = talloc_zero_size(frame, kind->size);
	if (kind->whole) {
		ndr_err = ndr_pull_struct_blob_all(
			&data, frame, record, kind->pull);
	} else {
		ndr_err = ndr_pull_struct_blob(
			&data, frame, record, kind->pull);
	}
	if (!NDR_ERR_CODE_IS_SUCCESS(ndr_err)) {
		goto done;
	}
	fuzz_again(frame, kind, record);

	switch (type) {
	case DS_RECORD_SESSION: {
		const struct ds_session *session = record;

		fuzz_record(FUZZ_RECORD_SESSION_GLOBAL, session->global);
		break;
	}
	case DS_RECORD_TCON: {
		const struct ds_tcon *tcon = record;

		fuzz_record(FUZZ_RECORD_TCON_GLOBAL, tcon->global);
		break;
	}
	case DS_RECORD_OPEN: {
		const struct ds_open *op = record;

		fuzz_record(FUZZ_RECORD_OPEN_GLOBAL, op->global);
		break;
	}
	}
done:
	TALLOC_FREE(frame);
}
