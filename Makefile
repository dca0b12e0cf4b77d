# Thin over waf, as Samba's own: what happens is in wscript.

WAF = waf-scripts/waf

# for "make install"
PREFIX ?= /usr/local
DESTDIR ?=

all:
	@$(WAF) build

test demo bench torture configure:
	@$(WAF) $@

install:
	@$(WAF) install --prefix='$(PREFIX)' --destdir='$(DESTDIR)' \
		$(if $(SYSCONFDIR),--sysconfdir='$(SYSCONFDIR)') \
		$(if $(LOCALSTATEDIR),--localstatedir='$(LOCALSTATEDIR)')

check-patches dev-tree:
	@waf-scripts/$@

clean:
	rm -rf build/samba.new build/check-patches build/stamps build/prefix \
		build/samba/bin build/fuzz

# Also Samba's source, unless the tree in build/samba is a developer's
distclean: clean
	rm -rf build/source build/logs build/test-logs
	test -e build/samba/.git || rm -rf build/samba

.PHONY: all test demo bench torture configure install check-patches dev-tree \
	clean distclean
.NOTPARALLEL:
