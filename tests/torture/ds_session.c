/*
   Unix SMB/CIFS implementation.

   smb2.durable-state: sessions and tree connects

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
#include "auth/credentials/credentials.h"
#include "auth/gensec/gensec.h"
#include "lib/cmdline/cmdline.h"
#include "lib/param/param.h"
#include "lib/util/tevent_ntstatus.h"
#include "libcli/security/security.h"
#include "torture/durable_state/ds_util.h"
#include "torture/durable_state/ds_relay.h"

/* Writes through an open handle and reads it back. */
static bool ds_use_handle(struct torture_context *tctx,
			  struct smb2_tree *tree,
			  struct smb2_handle h,
			  const char *text)
{
	struct smb2_read rd = {
		.in.file.handle = h,
		.in.length = strlen(text),
	};
	bool ret = true;

	CHECK_OK(smb2_util_write(tree, h, text, 0, strlen(text)));
	CHECK_OK(smb2_read(tree, tctx, &rd));
	CHECK_VAL(rd.out.data.length, strlen(text));
	torture_assert_mem_equal_goto(tctx,
				      rd.out.data.data,
				      text,
				      strlen(text),
				      ret,
				      done,
				      "data changed");
done:
	return ret;
}

/* A further session on the connection of c, with a tree connect. */
static bool ds_second_session(struct torture_context *tctx,
			      struct ds_client *c,
			      struct cli_credentials *creds,
			      struct smb2_session **_session,
			      struct smb2_tree **_tree)
{
	enum smb_encryption_setting encryption =
		cli_credentials_get_smb_encryption(creds);
	struct smb2_session *session = NULL;
	bool ret = true;

	session = smb2_session_init(c->transport,
				    lpcfg_gensec_settings(tctx, tctx->lp_ctx),
				    c);
	CHECK_TRUE(session != NULL);
	/* it is still the first session's as well */
	talloc_steal(c, c->transport);

	CHECK_OK(smb2_session_setup_spnego(session, creds, 0));
	if (encryption >= SMB_ENCRYPTION_DESIRED) {
		CHECK_OK(smb2cli_session_encryption_on(session->smbXcli));
	}
	CHECK_TRUE(torture_smb2_tree_connect(tctx, session, c, _tree));
	*_session = session;
done:
	return ret;
}

/*
 * Who uses an encrypted session that is gone is cut off: the server cannot
 * decrypt what it gets.
 */
static bool ds_encrypted(void)
{
	struct cli_credentials *creds = samba_cmdline_get_creds();

	return cli_credentials_get_smb_encryption(creds) >=
	       SMB_ENCRYPTION_DESIRED;
}

static NTSTATUS ds_open_tree(struct smb2_tree *tree,
			     const char *fname,
			     struct smb2_handle *h)
{
	return torture_smb2_testfile(tree, fname, h);
}

/* The session serves what was open and what is new. */
static bool test_session(struct torture_context *tctx, struct ds_client *c)
{
	uint64_t id = smb2cli_session_current_id(c->session->smbXcli);
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("session1"), &h1));
	RESTART();
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h1, "old"));
	CHECK_OK(ds_open_rw(c, DS_NAME("session2"), &h2));
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h2, "new"));
	CHECK_VAL(smb2cli_session_current_id(c->session->smbXcli), id);
done:
	ds_close(c, &h1);
	ds_close(c, &h2);
	return ret;
}

/* Two sessions on a connection; neither may use what the other opened. */
static bool test_two_sessions(struct torture_context *tctx,
			      struct ds_client *c)
{
	struct smb2_session *session2 = NULL;
	struct smb2_tree *tree2 = NULL;
	struct smb2_handle h1 = { .data = { 0 } };
	struct smb2_handle h2 = { .data = { 0 } };
	bool ret = true;

	CHECK_TRUE(ds_second_session(tctx,
				     c,
				     samba_cmdline_get_creds(),
				     &session2,
				     &tree2));
	CHECK_OK(ds_open_tree(c->tree, DS_NAME("two1"), &h1));
	CHECK_OK(ds_open_tree(tree2, DS_NAME("two2"), &h2));

	RESTART();

	CHECK_TRUE(ds_use_handle(tctx, c->tree, h1, "first"));
	CHECK_TRUE(ds_use_handle(tctx, tree2, h2, "second"));
	CHECK_STATUS(smb2_util_write(c->tree, h2, "x", 0, 1),
		     NT_STATUS_FILE_CLOSED);
	CHECK_STATUS(smb2_util_write(tree2, h1, "x", 0, 1),
		     NT_STATUS_FILE_CLOSED);
	CHECK_OK(smb2_logoff(session2));
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h1, "alone"));
done:
	ds_close(c, &h1);
	return ret;
}

static bool test_reauth(struct torture_context *tctx, struct ds_client *c)
{
	struct cli_credentials *creds = samba_cmdline_get_creds();
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("reauth"), &h));
	CHECK_OK(smb2_session_setup_spnego(c->session, creds, 0));
	RESTART();
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h, "before"));
	CHECK_OK(smb2_session_setup_spnego(c->session, creds, 0));
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h, "after"));
done:
	ds_close(c, &h);
	return ret;
}

static bool test_logoff(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_session *session2 = NULL;
	struct smb2_tree *tree2 = NULL;
	struct smb2_handle h = { .data = { 0 } };
	bool ret = true;

	CHECK_TRUE(ds_second_session(tctx,
				     c,
				     samba_cmdline_get_creds(),
				     &session2,
				     &tree2));
	CHECK_OK(ds_open_tree(tree2, DS_NAME("logoff2"), &h));
	RESTART();
	CHECK_OK(smb2_logoff(session2));
	if (!ds_encrypted()) {
		CHECK_STATUS(smb2_util_write(tree2, h, "x", 0, 1),
			     NT_STATUS_USER_SESSION_DELETED);
	}
	CHECK_TRUE(ds_exists(c, DS_NAME("logoff2")));
done:
	return ret;
}

/* A session that was logged off before does not come back. */
static bool test_logged_off(struct torture_context *tctx,
			    struct ds_client *c)
{
	struct smb2_session *session2 = NULL;
	struct smb2_tree *tree2 = NULL;
	struct smb2_handle h;
	bool ret = true;

	if (ds_encrypted()) {
		torture_skip(tctx, "the session is encrypted\n");
	}
	CHECK_TRUE(ds_second_session(tctx,
				     c,
				     samba_cmdline_get_creds(),
				     &session2,
				     &tree2));
	CHECK_OK(smb2_logoff(session2));
	RESTART();
	CHECK_STATUS(ds_open_tree(tree2, DS_NAME("logged-off"), &h),
		     NT_STATUS_USER_SESSION_DELETED);
	CHECK_OK(ds_echo(c));
done:
	return ret;
}

static bool test_login(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_session *session2 = NULL;
	struct smb2_tree *tree2 = NULL;
	struct smb2_handle h;
	bool ret = true;

	RESTART();
	CHECK_TRUE(ds_second_session(tctx,
				     c,
				     samba_cmdline_get_creds(),
				     &session2,
				     &tree2));
	CHECK_TRUE(smb2cli_session_current_id(session2->smbXcli) !=
		   smb2cli_session_current_id(c->session->smbXcli));
	CHECK_OK(ds_open_tree(tree2, DS_NAME("login"), &h));
	CHECK_TRUE(ds_use_handle(tctx, tree2, h, "login"));
	CHECK_OK(smb2_logoff(session2));
done:
	return ret;
}

/*
 * A login that is half done may fail, but must end; the session that was
 * there before goes on.
 */
static bool test_login_in_middle(struct torture_context *tctx,
				 struct ds_client *c)
{
	struct smb2_session *session2 = NULL;
	struct smb2_handle h = { .data = { 0 } };
	struct tevent_req *req = NULL;
	NTSTATUS status = NT_STATUS_OK;
	bool ret = true;

	CHECK_OK(ds_open_rw(c, DS_NAME("middle"), &h));
	session2 = smb2_session_init(c->transport,
				     lpcfg_gensec_settings(tctx,
							   tctx->lp_ctx),
				     c);
	CHECK_TRUE(session2 != NULL);
	talloc_steal(c, c->transport);

	/* the first leg reaches the server, its reply waits on our side */
	ds_relay_hold_replies(c->relay);
	req = smb2_session_setup_spnego_send(session2,
					     tctx->ev,
					     session2,
					     samba_cmdline_get_creds(),
					     0);
	CHECK_TRUE(req != NULL);
	ds_loop(tctx, 200);
	RESTART();
	ds_relay_release_replies(c->relay);

	CHECK_TRUE(tevent_req_poll_ntstatus(req, tctx->ev, &status));
	status = smb2_session_setup_spnego_recv(req);
	torture_comment(tctx, "the login: %s\n", nt_errstr(status));
	CHECK_TRUE(smbXcli_conn_is_connected(c->transport->conn));
	CHECK_TRUE(ds_use_handle(tctx, c->tree, h, "first"));
done:
	ds_relay_release_replies(c->relay);
	ds_close(c, &h);
	return ret;
}

/* "previous session id" still finds the session, and ends it. */
static bool test_previous_session(struct torture_context *tctx,
				  struct ds_client *c)
{
	struct ds_client *c2 = NULL;
	struct ds_client *c3 = NULL;
	struct smb2_session *session3 = NULL;
	struct smb2_handle h;
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_NEGPROT_ONLY,
	};
	bool ret = true;

	c2 = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("previous"), &h));

	RESTART();

	CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "previous"));
	c3 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c3 != NULL);
	CHECK_TRUE(torture_smb2_session_setup(
		tctx,
		c3->transport,
		smb2cli_session_current_id(c2->session->smbXcli),
		c3,
		&session3));
	talloc_steal(c3, c3->transport);
	CHECK_STATUS(smb2_util_write(c2->tree, h, "x", 0, 1),
		     ds_encrypted() ? NT_STATUS_CONNECTION_DISCONNECTED
				    : NT_STATUS_USER_SESSION_DELETED);
done:
	TALLOC_FREE(c3);
	TALLOC_FREE(c2);
	return ret;
}

/* Who has no account is a guest, if the server lets him. */
static struct cli_credentials *ds_guest(TALLOC_CTX *mem_ctx)
{
	struct cli_credentials *creds = cli_credentials_init(mem_ctx);

	if (creds == NULL) {
		return NULL;
	}
	cli_credentials_set_kerberos_state(creds,
					   CRED_USE_KERBEROS_DISABLED,
					   CRED_SPECIFIED);
	cli_credentials_set_workstation(creds, "DS-GUEST", CRED_SPECIFIED);
	cli_credentials_set_domain(creds, "NOWHERE", CRED_SPECIFIED);
	cli_credentials_set_username(creds, "ds-nobody", CRED_SPECIFIED);
	cli_credentials_set_password(creds, "none", CRED_SPECIFIED);
	return creds;
}

/* A guest may read the file, others may write to it. */
static bool ds_guest_reads(struct torture_context *tctx,
			   struct smb2_tree *tree,
			   struct smb2_handle h,
			   const char *fname)
{
	struct smb2_create io = {
		.in.fname = fname,
		.in.desired_access = SEC_FILE_WRITE_DATA,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = NTCREATEX_DISP_OPEN,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	struct smb2_read rd = {
		.in.file.handle = h,
		.in.length = 5,
	};
	bool ret = true;

	CHECK_OK(smb2_read(tree, tctx, &rd));
	CHECK_VAL(rd.out.data.length, 5);
	CHECK_STATUS(smb2_util_write(tree, h, "x", 0, 1),
		     NT_STATUS_ACCESS_DENIED);
	CHECK_STATUS(smb2_create(tree, tctx, &io), NT_STATUS_ACCESS_DENIED);
	io.in.desired_access = SEC_FILE_READ_DATA;
	CHECK_OK(smb2_create(tree, tctx, &io));
	CHECK_OK(smb2_util_close(tree, io.out.file.handle));
done:
	return ret;
}

/*
 * A guest beside a user, on a connection of their own: each goes on as what
 * it was.
 */
static bool test_guest(struct torture_context *tctx, struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_UNSIGNED,
	};
	struct smb2_session *session = NULL;
	struct smb2_tree *tree = NULL;
	struct ds_client *c2 = NULL;
	struct smb2_handle h = { .data = { 0 } };
	struct smb2_create io = {
		.in.fname = DS_NAME("guest"),
		.in.desired_access = SEC_FILE_READ_DATA,
		.in.share_access = NTCREATEX_SHARE_ACCESS_MASK,
		.in.create_disposition = NTCREATEX_DISP_OPEN,
		.in.impersonation_level =
			NTCREATEX_IMPERSONATION_IMPERSONATION,
	};
	NTSTATUS status;
	uint64_t id;
	bool ret = true;
	int i;

	if (ds_encrypted()) {
		torture_skip(tctx, "a guest cannot encrypt\n");
	}
	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("guest"), &h));
	CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "guest"));

	session = smb2_session_init(c2->transport,
				    lpcfg_gensec_settings(tctx, tctx->lp_ctx),
				    c2);
	CHECK_TRUE(session != NULL);
	talloc_steal(c2, c2->transport);
	status = smb2_session_setup_spnego(session, ds_guest(tctx), 0);
	if (!NT_STATUS_IS_OK(status) ||
	    !smbXcli_session_is_guest(session->smbXcli))
	{
		TALLOC_FREE(c2);
		torture_skip(tctx,
			     talloc_asprintf(tctx,
					     "no guests: %s\n",
					     nt_errstr(status)));
	}
	CHECK_TRUE(torture_smb2_tree_connect(tctx, session, c2, &tree));
	CHECK_OK(smb2_create(tree, tctx, &io));
	id = smb2cli_session_current_id(session->smbXcli);

	for (i = 0; i < 2; i++) {
		CHECK_TRUE(ds_guest_reads(tctx,
					  tree,
					  io.out.file.handle,
					  DS_NAME("guest")));
		CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "owner"));
		if (i == 0) {
			RESTART();
		}
	}
	CHECK_VAL(smb2cli_session_current_id(session->smbXcli), id);
	CHECK_TRUE(ds_check_connection(tctx, c2));
	CHECK_OK(smb2_logoff(session));
	CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "alone"));
done:
	TALLOC_FREE(c2);
	return ret;
}

/* The only session of a connection is a guest's. */
static bool test_guest_alone(struct torture_context *tctx,
			     struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_NEGPROT_ONLY | DS_CONNECT_UNSIGNED,
	};
	struct ds_client *c2 = NULL;
	struct smb2_handle h = { .data = { 0 } };
	NTSTATUS status;
	bool ret = true;
	int i;

	CHECK_OK(ds_create_file(c, DS_NAME("guest"), "guest", 5));
	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	c2->session = smb2_session_init(
		c2->transport,
		lpcfg_gensec_settings(tctx, tctx->lp_ctx),
		c2);
	CHECK_TRUE(c2->session != NULL);
	talloc_steal(c2, c2->transport);
	status = smb2_session_setup_spnego(c2->session, ds_guest(tctx), 0);
	if (!NT_STATUS_IS_OK(status) ||
	    !smbXcli_session_is_guest(c2->session->smbXcli))
	{
		TALLOC_FREE(c2);
		torture_skip(tctx,
			     talloc_asprintf(tctx,
					     "no guests: %s\n",
					     nt_errstr(status)));
	}
	CHECK_TRUE(torture_smb2_tree_connect(tctx,
					     c2->session,
					     c2,
					     &c2->tree));
	CHECK_OK(ds_open(c2,
			 DS_NAME("guest"),
			 SEC_FILE_READ_DATA,
			 NTCREATEX_SHARE_ACCESS_MASK,
			 NTCREATEX_DISP_OPEN,
			 0,
			 &h));
	for (i = 0; i < 2; i++) {
		CHECK_TRUE(ds_guest_reads(tctx,
					  c2->tree,
					  h,
					  DS_NAME("guest")));
		if (i == 0) {
			RESTART();
		}
	}
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	return ret;
}

static bool test_anonymous(struct torture_context *tctx, struct ds_client *c)
{
	struct cli_credentials *creds = cli_credentials_init_anon(tctx);
	struct smb2_session *session2 = NULL;
	NTSTATUS status;
	bool ret = true;

	session2 = smb2_session_init(c->transport,
				     lpcfg_gensec_settings(tctx,
							   tctx->lp_ctx),
				     c);
	CHECK_TRUE(session2 != NULL);
	talloc_steal(c, c->transport);
	status = smb2_session_setup_spnego(session2, creds, 0);
	if (!NT_STATUS_IS_OK(status)) {
		torture_skip(tctx, "no anonymous session\n");
	}

	RESTART();

	CHECK_OK(smb2_logoff(session2));
done:
	return ret;
}

/* Kerberos: the session ends when it would have ended without a restart. */
static bool test_expiry(struct torture_context *tctx, struct ds_client *c)
{
	struct cli_credentials *creds = samba_cmdline_get_creds();
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *c2 = NULL;
	bool ret = true;

	if (cli_credentials_get_kerberos_state(creds) !=
	    CRED_USE_KERBEROS_REQUIRED) {
		torture_skip(tctx, "needs --use-kerberos=required\n");
	}

	cli_credentials_invalidate_ccache(creds, CRED_SPECIFIED);
	lpcfg_set_option(tctx->lp_ctx,
			 "gensec_gssapi:requested_life_time=6");
	c2 = ds_connect(tctx, tctx, NULL);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("expiry"), &h));

	RESTART();

	CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "not yet"));
	ds_loop(tctx, 13000);
	CHECK_STATUS(smb2_util_write(c2->tree, h, "x", 0, 1),
		     NT_STATUS_NETWORK_SESSION_EXPIRED);
	cli_credentials_invalidate_ccache(creds, CRED_SPECIFIED);
	CHECK_OK(smb2_session_setup_spnego(c2->session, creds, 0));
	CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "renewed"));
done:
	lpcfg_set_option(tctx->lp_ctx,
			 "gensec_gssapi:requested_life_time=0");
	/* the short ticket must not serve the tests that follow */
	cli_credentials_invalidate_ccache(creds, CRED_SPECIFIED);
	TALLOC_FREE(c2);
	return ret;
}

/* Signatures are demanded and checked on both sides of the restart. */
static bool test_signing(struct torture_context *tctx, struct ds_client *c)
{
	const struct ds_connect_params params = { .flags = DS_CONNECT_SIGN };
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *c2 = NULL;
	bool ret = true;
	int i;

	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	CHECK_OK(ds_open_rw(c2, DS_NAME("signing"), &h));
	for (i = 0; i < 2; i++) {
		CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "signed"));
		RESTART();
		CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "signed"));
	}
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	return ret;
}

/* The server goes on encrypting, and never with a nonce that it has used. */
static bool test_encryption(struct torture_context *tctx,
			    struct ds_client *c)
{
	const struct ds_connect_params params = {
		.flags = DS_CONNECT_SIGN | DS_CONNECT_RELAY,
	};
	struct smb2_handle h = { .data = { 0 } };
	struct ds_client *c2 = NULL;
	NTSTATUS status;
	bool ret = true;
	size_t num;
	int i;

	if (ds_protocol(c) < PROTOCOL_SMB3_00) {
		torture_skip(tctx, "encryption needs SMB 3.00\n");
	}
	c2 = ds_connect(tctx, tctx, &params);
	CHECK_TRUE(c2 != NULL);
	status = smb2cli_session_encryption_on(c2->session->smbXcli);
	if (NT_STATUS_EQUAL(status, NT_STATUS_NOT_SUPPORTED)) {
		TALLOC_FREE(c2);
		torture_skip(tctx, "the server does not encrypt\n");
	}
	CHECK_OK(status);
	CHECK_OK(ds_open_rw(c2, DS_NAME("encryption"), &h));
	for (i = 0; i < 3; i++) {
		CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "encrypted"));
		num = ds_relay_encrypted(c2->relay);
		RESTART();
		CHECK_TRUE(ds_use_handle(tctx, c2->tree, h, "encrypted"));
		CHECK_TRUE(ds_relay_encrypted(c2->relay) > num);
	}
	CHECK_TRUE(ds_relay_nonces_unique(c2->relay));
	CHECK_TRUE(ds_check_connection(tctx, c2));
done:
	TALLOC_FREE(c2);
	return ret;
}

static bool test_tcons(struct torture_context *tctx, struct ds_client *c)
{
	const char *share = torture_setting_string(tctx, "share", NULL);
	struct smb2_tree *trees[20] = { NULL };
	struct smb2_handle h[20];
	uint32_t ids[20];
	bool ret = true;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(trees); i++) {
		char *name = talloc_asprintf(tctx, DS_NAME("tcon%zu"), i);

		trees[i] = ds_tcon(tctx, c, share);
		CHECK_TRUE(trees[i] != NULL);
		ids[i] = smb2cli_tcon_current_id(trees[i]->smbXcli);
		CHECK_OK(ds_open_tree(trees[i], name, &h[i]));
	}

	RESTART();

	for (i = 0; i < ARRAY_SIZE(trees); i++) {
		CHECK_VAL(smb2cli_tcon_current_id(trees[i]->smbXcli), ids[i]);
		CHECK_TRUE(ds_use_handle(tctx, trees[i], h[i], "tcon"));
		CHECK_OK(smb2_util_close(trees[i], h[i]));
	}
done:
	return ret;
}

static bool test_tcon_disconnect(struct torture_context *tctx,
				 struct ds_client *c)
{
	const char *share = torture_setting_string(tctx, "share", NULL);
	struct smb2_tree *tree2 = ds_tcon(tctx, c, share);
	struct smb2_tree *tree3 = ds_tcon(tctx, c, share);
	struct smb2_handle h;
	bool ret = true;

	CHECK_TRUE(tree2 != NULL);
	CHECK_TRUE(tree3 != NULL);
	CHECK_OK(ds_open_tree(tree3, DS_NAME("tcon"), &h));
	CHECK_OK(smb2_tdis(tree2));

	RESTART();

	/* gone before, gone after */
	CHECK_STATUS(ds_open_tree(tree2, DS_NAME("tcon"), &h),
		     NT_STATUS_NETWORK_NAME_DELETED);
	CHECK_OK(smb2_tdis(tree3));
	CHECK_STATUS(ds_open_tree(tree3, DS_NAME("tcon"), &h),
		     NT_STATUS_NETWORK_NAME_DELETED);
	CHECK_OK(ds_open_tree(c->tree, DS_NAME("tcon"), &h));
	CHECK_OK(smb2_util_close(c->tree, h));
done:
	return ret;
}

static bool test_tcon_new(struct torture_context *tctx, struct ds_client *c)
{
	const char *share = torture_setting_string(tctx, "share", NULL);
	struct smb2_tree *tree2 = NULL;
	struct smb2_handle h;
	bool ret = true;

	RESTART();
	tree2 = ds_tcon(tctx, c, share);
	CHECK_TRUE(tree2 != NULL);
	CHECK_TRUE(smb2cli_tcon_current_id(tree2->smbXcli) !=
		   smb2cli_tcon_current_id(c->tree->smbXcli));
	CHECK_OK(ds_open_tree(tree2, DS_NAME("tcon"), &h));
	CHECK_TRUE(ds_use_handle(tctx, tree2, h, "new"));
	CHECK_OK(smb2_util_close(tree2, h));
	CHECK_OK(smb2_tdis(tree2));
done:
	return ret;
}

static bool test_tcon_ipc(struct torture_context *tctx, struct ds_client *c)
{
	struct smb2_tree *ipc = ds_tcon(tctx, c, "IPC$");
	bool ret = true;

	CHECK_TRUE(ipc != NULL);
	RESTART();
	CHECK_OK(smb2_tdis(ipc));
done:
	return ret;
}

void ds_session_tests(struct torture_suite *suite)
{
	ds_add_test1(suite, "session", test_session);
	ds_add_test1(suite, "session-two", test_two_sessions);
	ds_add_test1(suite, "session-reauth", test_reauth);
	ds_add_test1(suite, "session-logoff", test_logoff);
	ds_add_test1(suite, "session-logged-off", test_logged_off);
	ds_add_test1(suite, "session-login", test_login);
	ds_add_relay_test1(suite, "session-in-middle", test_login_in_middle);
	ds_add_test1(suite, "session-previous", test_previous_session);
	ds_add_test1(suite, "session-guest", test_guest);
	ds_add_test1(suite, "session-guest-alone", test_guest_alone);
	ds_add_test1(suite, "session-anonymous", test_anonymous);
	ds_add_test1(suite, "session-expiry", test_expiry);
	ds_add_test1(suite, "session-signing", test_signing);
	ds_add_test1(suite, "session-encryption", test_encryption);
	ds_add_test1(suite, "tcon-many", test_tcons);
	ds_add_test1(suite, "tcon-disconnect", test_tcon_disconnect);
	ds_add_test1(suite, "tcon-new", test_tcon_new);
	ds_add_test1(suite, "tcon-ipc", test_tcon_ipc);
}
