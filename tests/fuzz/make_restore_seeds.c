/*
   durable_state: what a killed process leaves, as input of fuzzers

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

/*
 * usage: make_restore_seeds CORPUS
 *
 * CORPUS has the directories fuzz_records and fuzz_restore. What is made is of
 * the version that is compiled, so these inputs are made anew each time: what
 * is in tests/fuzz/corpus need not be of use with the next one.
 */

#include "replace.h"
#include "system/filesys.h"
#include <talloc.h>
#include "lib/util/byteorder.h"
#include "lib/util/data_blob.h"
#include "libcli/smb/smb2_constants.h"
#include "durable_state/ndr_durable_state.h"
#include "fuzz_common.h"
#include "fuzz_restore.h"

static const char *corpus;

/* ---- records */

static DATA_BLOB record(uint32_t type,
			const void *object,
			ndr_push_flags_fn_t push)
{
	DATA_BLOB blob;
	DATA_BLOB seed;

	FUZZ_CHECK(NDR_ERR_CODE_IS_SUCCESS(
		ndr_push_struct_blob(&blob, NULL, object, push)));
	seed = data_blob_talloc(NULL, NULL, 1 + blob.length);
	seed.data[0] = type;
	memcpy(seed.data + 1, blob.data, blob.length);
	fuzz_write_seed(corpus, "fuzz_records", seed.data, seed.length);
	fuzz_write_seed(corpus, "fuzz_restore", seed.data, seed.length);
	data_blob_free(&seed);
	return blob;
}

static void effects(void)
{
	struct ds_effect effect = {
		.session_id = 1, .tcon_id = 2, .name = "new", .size = 3,
	};

	for (effect.kind = DS_EFFECT_FILE; effect.kind <= DS_EFFECT_UNLINK;
	     effect.kind++) {
		DATA_BLOB blob = record(
			DS_RECORD_EFFECT,
			&effect,
			(ndr_push_flags_fn_t)ndr_push_ds_effect);

		data_blob_free(&blob);
		effect.former_name = "old";
		effect.compound = !effect.compound;
	}
}

static DATA_BLOB an_open(void)
{
	struct ds_lock locks[2] = { { .size = 1, }, { .start = 1, }, };
	struct ds_notify_change changes[2] = {
		{ .action = 1, .name = "a", }, { .action = 2, .name = "b", },
	};
	struct ds_notify notify = {
		.filter = 1, .num_changes = 2, .changes = changes,
	};
	struct ds_scan scan = { .wcard = "*", .overflow_fname = "c", };
	struct ds_open op = {
		.session_id = 1,
		.tcon_id = 2,
		.fd = DS_NO_FD,
		.base_name = "dir/file",
		.stream_name = ":stream",
		.num_locks = 2,
		.locks = locks,
		.scan = &scan,
		.notify = &notify,
	};

	return record(DS_RECORD_OPEN,
		      &op,
		      (ndr_push_flags_fn_t)ndr_push_ds_open);
}

/* ---- buffers */

/* Where things are in them */
#define AT_CHANNEL 0
#define AT_SLOTS 144
#define AT_REPLIES 256
#define AT_PDU 640
#define AT_OPEN 960
#define SIZE 1600

/* What the image knows of the streams, until there is more */
#define RECEIVED 1000
#define COMPLETED 500

struct seed {
	struct fuzz_killed killed;
	uint8_t buffers[SIZE];
};

static DATA_BLOB open_record;

static struct ds_channel *channel(struct seed *s)
{
	return (struct ds_channel *)(s->buffers + AT_CHANNEL);
}

static struct ds_slot *slot(struct seed *s)
{
	return (struct ds_slot *)(s->buffers + AT_SLOTS);
}

static struct seed *begin(void)
{
	struct seed *s = talloc_zero(NULL, struct seed);
	struct ds_stream stream = {
		.received = RECEIVED,
		.completed = COMPLETED,
		.seq_low = 10,
		.seq_range = 20,
		.granted = 20,
	};
	size_t i;

	s->killed.read = RECEIVED;
	s->killed.written = COMPLETED;
	s->killed.is_smb2 = 1;
	s->killed.channel.offset = AT_CHANNEL;
	s->killed.channel.num = 1;
	s->killed.slots.offset = AT_SLOTS;
	s->killed.open.offset = AT_OPEN;
	s->killed.open.num = open_record.length;
	FUZZ_CHECK(sizeof(struct ds_channel) <= AT_SLOTS - AT_CHANNEL);
	FUZZ_CHECK(sizeof(struct ds_slot) <= AT_REPLIES - AT_SLOTS);
	FUZZ_CHECK(open_record.length <= SIZE - AT_OPEN);
	memcpy(s->buffers + AT_OPEN, open_record.data, open_record.length);
	for (i = 0; i < 2; i++) {
		channel(s)->stream[i] = stream;
	}
	return s;
}

static void end(struct seed *s)
{
	/* 0 is in front of it, instead of the type of a record */
	uint8_t *data = talloc_zero_size(NULL, 1 + sizeof(*s));

	memcpy(data + 1, s, sizeof(*s));
	fuzz_write_seed(corpus, "fuzz_restore", data, 1 + sizeof(*s));
	TALLOC_FREE(data);
	TALLOC_FREE(s);
}

/*
 * A part of a PDU: a header, a body of so many bytes in which each id is
 * FUZZ_OPEN_ID, and "dyn" bytes. Returns where the next one is.
 */
static size_t part(struct seed *s,
		   size_t ofs,
		   uint16_t opcode,
		   uint16_t body,
		   size_t dyn,
		   bool last)
{
	uint8_t *hdr = s->buffers + AT_PDU + ofs;
	size_t fixed = body & ~1;
	size_t size = SMB2_HDR_BODY + fixed + dyn;
	size_t next = (size + 7) & ~(size_t)7;
	size_t i;

	SIVAL(hdr, SMB2_HDR_PROTOCOL_ID, SMB2_MAGIC);
	SSVAL(hdr, SMB2_HDR_LENGTH, SMB2_HDR_BODY);
	SSVAL(hdr, SMB2_HDR_OPCODE, opcode);
	for (i = 8; i + 8 <= fixed; i += 8) {
		SBVAL(hdr, SMB2_HDR_BODY + i, FUZZ_OPEN_ID);
	}
	SSVAL(hdr, SMB2_HDR_BODY, body);
	if (!last) {
		SIVAL(hdr, SMB2_HDR_NEXT_COMMAND, next);
	}
	FUZZ_CHECK(ofs + next <= AT_OPEN - AT_PDU);
	return ofs + (last ? size : next);
}

static struct seed *begin_slot(size_t length)
{
	struct seed *s = begin();

	s->killed.slots.num = 1;
	*slot(s) = (struct ds_slot) {
		.begin = RECEIVED - 4 - length,
		.offset = AT_PDU,
		.length = length,
		.flags = DS_SLOT_USED,
	};
	return s;
}

static struct seed *begin_request(uint16_t opcode, uint16_t body, size_t dyn)
{
	size_t length = SMB2_HDR_BODY + (body & ~1) + dyn;
	struct seed *s = begin_slot(length);

	FUZZ_CHECK(part(s, 0, opcode, body, dyn, true) == length);
	return s;
}

/* The PDU that is being read: so much of it, and the length in front of it */
static void reading(uint64_t got, uint64_t crashes)
{
	struct seed *s = begin();
	size_t length = part(s, 0, SMB2_OP_FLUSH, 0x18, 0, true);

	s->killed.read = RECEIVED + got;
	RSIVAL(channel(s)->nbt, 0, length);
	channel(s)->reading = (struct ds_reading) {
		.offset = AT_PDU,
		.length = length,
		.crashes = crashes,
		.received = RECEIVED,
	};
	end(s);
}

/* Two replies, of 100 bytes each, of which so much was written */
static void replies(uint64_t written)
{
	struct seed *s = begin();
	struct ds_reply *reply = (struct ds_reply *)(s->buffers + AT_REPLIES);
	struct ds_segment *segments = (struct ds_segment *)(reply + 1);
	size_t size = sizeof(*reply) + sizeof(*segments) + 104;

	*reply = (struct ds_reply) {
		.begin = COMPLETED,
		.length = 100,
		.next = AT_REPLIES + size,
		.size = size,
		.num_segments = 1,
	};
	segments[0].offset = DS_SEGMENT_INLINE;
	segments[0].length = 100;

	reply = (struct ds_reply *)(s->buffers + AT_REPLIES + size);
	segments = (struct ds_segment *)(reply + 1);
	*reply = (struct ds_reply) {
		.begin = COMPLETED + 100,
		.length = 100,
		.size = sizeof(*reply) + 2 * sizeof(*segments) + 20,
		.num_segments = 2,
	};
	segments[0].offset = DS_SEGMENT_INLINE;
	segments[0].length = 20;
	segments[1].offset = AT_PDU;
	segments[1].length = 80;
	FUZZ_CHECK(size + reply->size <= AT_PDU - AT_REPLIES);

	channel(s)->stream[0].replies = AT_REPLIES;
	channel(s)->stream[0].completed += 200;
	s->killed.written += written;
	end(s);
}

/* [MS-SMB2] 2.2: StructureSize of each */
static const struct {
	uint16_t opcode;
	uint16_t body;
	size_t dyn;
} commands[] = {
	{ SMB2_OP_LOGOFF, 0x04, 0 },
	{ SMB2_OP_TDIS, 0x04, 0 },
	{ SMB2_OP_CREATE, 0x39, 16 },
	{ SMB2_OP_CLOSE, 0x18, 0 },
	{ SMB2_OP_FLUSH, 0x18, 0 },
	{ SMB2_OP_READ, 0x31, 1 },
	{ SMB2_OP_WRITE, 0x31, 10 },
	{ SMB2_OP_LOCK, 0x30, 0 },
	{ SMB2_OP_IOCTL, 0x39, 8 },
	{ SMB2_OP_QUERY_DIRECTORY, 0x21, 2 },
	{ SMB2_OP_NOTIFY, 0x20, 0 },
	{ SMB2_OP_GETINFO, 0x29, 1 },
	{ SMB2_OP_SETINFO, 0x21, 8 },
	{ SMB2_OP_BREAK, 0x18, 0 },
	{ SMB2_OP_BREAK, 0x24, 0 },
};

static void requests(void)
{
	struct seed *s = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		uint16_t opcode = commands[i].opcode;
		uint16_t body = commands[i].body;
		size_t dyn = commands[i].dyn;
		uint8_t *p = NULL;

		s = begin_request(opcode, body, dyn);
		p = s->buffers + AT_PDU + SMB2_HDR_BODY;
		if (body == 0x24) {
			/* the lease of the open that is there */
			memset(p + 8, 0, body - 8);
			SIVAL(p, 0x18, SMB2_LEASE_READ);
		}
		end(s);

		/* it waited, and for an open that is gone */
		s = begin_request(opcode, body, dyn);
		slot(s)->interim = COMPLETED;
		slot(s)->async_id = 3;
		memset(s->buffers + AT_PDU + SMB2_HDR_BODY + 8, 0, 8);
		end(s);

		/* too many have ended over it: it is said of which file */
		s = begin_request(opcode, body, dyn);
		p = s->buffers + AT_PDU + SMB2_HDR_BODY;
		slot(s)->crashes = 2;
		if (opcode == SMB2_OP_CREATE) {
			SSVAL(p, 0x2E, dyn);
			memset(p + (body & ~1), 'x', dyn);
		}
		end(s);
	}

	/* cannot be run again */
	s = begin_request(SMB2_OP_WRITE, 0x31, 10);
	SBVAL(s->buffers + AT_PDU + SMB2_HDR_BODY, 0x08, UINT64_MAX);
	end(s);
	s = begin_request(SMB2_OP_READ, 0x31, 1);
	slot(s)->flags |= DS_SLOT_LOST;
	end(s);

	/* answered, as the image knows, and as it does not */
	s = begin_request(SMB2_OP_READ, 0x31, 1);
	slot(s)->answered = COMPLETED;
	end(s);
	s = begin_request(SMB2_OP_READ, 0x31, 1);
	slot(s)->answered = COMPLETED + 100;
	slot(s)->interim = COMPLETED + 100;
	slot(s)->parts = COMPLETED + 100;
	end(s);
}

/* So many parts of it were answered */
static void compound(uint32_t num_parts)
{
	struct seed *s = begin_slot(0);
	size_t ofs = 0;

	ofs = part(s, ofs, SMB2_OP_CREATE, 0x39, 16, false);
	ofs = part(s, ofs, SMB2_OP_NOTIFY, 0x20, 0, false);
	ofs = part(s, ofs, SMB2_OP_CLOSE, 0x18, 0, true);
	slot(s)->begin -= ofs;
	slot(s)->length = ofs;
	slot(s)->parts = (num_parts != 0) ? COMPLETED : 0;
	slot(s)->num_parts = num_parts;
	slot(s)->last_session_id = 1;
	slot(s)->last_tid = 2;
	slot(s)->chain_open = FUZZ_OPEN_ID;
	end(s);
}

int main(int argc, char *argv[])
{
	struct seed *s = NULL;
	size_t i;

	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS\n", argv[0]);
		return 1;
	}
	corpus = argv[1];

	effects();
	open_record = an_open();

	reading(0, 0);
	reading(2, 0);
	reading(4 + 40, 0);
	reading(4 + SMB2_HDR_BODY + 0x18, 0);
	reading(4 + SMB2_HDR_BODY + 0x18, 2);
	for (i = 0; i <= 200; i += 50) {
		replies(i);
	}
	requests();
	for (i = 0; i <= 3; i++) {
		compound(i);
	}

	/* message ids that came before others */
	s = begin();
	s->killed.num_seen = 2;
	s->killed.seen[0] = 12;
	s->killed.seen[1] = 15;
	channel(s)->stream[0].num_seen = 2;
	end(s);

	/* a connection on which nothing was said */
	s = begin();
	s->killed.is_smb2 = 0;
	s->killed.read = 0;
	end(s);

	data_blob_free(&open_record);
	return 0;
}
