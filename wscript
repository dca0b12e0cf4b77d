#!/usr/bin/env python

# durable_state: build, install, test.
#
# Run as "waf-scripts/waf COMMAND" or through the Makefile.  Samba's tree in
# build/samba has been prepared by then (waf-scripts/bootstrap), our sources
# are in it, and this file drives Samba's own waf there.

import glob
import os
import shlex
import subprocess
import sys

from waflib import Options
from waflib.Context import Context

top = '.'
out = 'build/waf'

TOP = os.environ['TOP']
TREE = os.environ['TREE']
RUN_PREFIX = os.environ['DS_RUN_PREFIX']
BUILD = os.path.join(TOP, 'build')
LOGS = os.path.join(BUILD, 'logs')
SCRIPTS = os.path.join(TOP, 'waf-scripts')

sys.path.insert(0, SCRIPTS)
import progress
import stamp


def options(opt):
    # --prefix, --destdir and --jobs are waf's own
    opt.add_option('--sysconfdir', help='for install [PREFIX/etc, /etc for /usr]')
    opt.add_option('--localstatedir', help='for install [PREFIX/var, /var for /usr]')


# ---- Samba's waf

def samba_waf(ctx, what, *args, **env):
    log = os.path.join(LOGS, '%s.log' % args[0])
    os.makedirs(LOGS, exist_ok=True)
    argv = [os.environ['PYTHON'], os.path.join(SCRIPTS, 'samba_waf'), *args]
    if progress.run(what, argv, log, cwd=TREE,
                    env=dict(os.environ, **env)) != 0:
        ctx.fatal('%s failed' % args[0])


def python_dir(prefix):
    """Debian's Python has several answers to where modules are installed, one
    of them outside of the prefix; samba-tool is told the directory."""
    if prefix == '/usr':
        return '/usr/lib/python3/dist-packages'
    return '%s/lib/python%d.%d/site-packages' % (prefix,
                                                 *sys.version_info[:2])


def configure_tree(ctx, prefix, dirs=()):
    """Configure the tree for a prefix, unless that is how it is."""
    with open(os.path.join(SCRIPTS, 'configure-options')) as f:
        opts = [line.strip() for line in f if line.startswith('--')]
    opts += ['--prefix=%s' % prefix, *dirs,
             '--pythondir=%s' % python_dir(prefix),
             '--pythonarchdir=%s' % python_dir(prefix)]

    mark = os.path.join(BUILD, 'stamps', 'configure')
    want = stamp.digest(opts, os.environ['CFLAGS'], TREE,
                        stamp.configure_files(TREE))
    if stamp.is_current(mark, want):
        return
    stamp.forget(mark)
    # A thousand test programs that no other run will ever find in the cache
    samba_waf(ctx, 'Configuring Samba for %s' % prefix, 'configure', *opts,
              CCACHE_DISABLE='1')
    # Samba has its dependency on the prefix by a name without Python's version,
    # so it would be installed as it was made for the last prefix.
    for path in glob.glob(os.path.join(
            TREE, 'bin/default/lib/talloc/pytalloc-util.*.pc')):
        os.remove(path)
    stamp.write(mark, want)


def build_tree(ctx, prefix, destdir=''):
    """Build what waf-scripts/targets lists and install it."""
    args = ['install', '--targets=chosen', '-j%d' % Options.options.jobs]
    if destdir:
        args.append('--destdir=%s' % destdir)
    samba_waf(ctx, 'Building for %s' % prefix, *args)


def in_place(ctx):
    """build/prefix, from where everything runs.

    The stamp of what it was built from is compared first: waf alone takes
    seconds to find out that there is nothing to do."""
    mark = os.path.join(BUILD, 'stamps', 'build')

    def inputs():
        return stamp.digest(
            stamp.tree(TREE), os.environ['CFLAGS'], RUN_PREFIX,
            *(stamp.content(os.path.join(SCRIPTS, f))
              for f in ('targets', 'configure-options', 'samba_waf')))

    smbd = os.path.join(RUN_PREFIX, 'sbin', 'smbd')
    if stamp.is_current(mark, inputs()) and os.path.exists(smbd):
        return
    stamp.forget(mark)
    configure_tree(ctx, RUN_PREFIX)
    # A file that is edited from here on is built now or the next time
    want = inputs()
    build_tree(ctx, RUN_PREFIX)
    stamp.write(mark, want)


def run(ctx, script, *args):
    """Run one of our test programs, tell it where things are."""
    env = dict(os.environ, DS_TOP=TOP, DS_PREFIX=RUN_PREFIX,
               PREFIX_DIR=RUN_PREFIX, DS_BUILD=os.path.join(TREE, 'bin'))
    status = subprocess.call([os.path.join(TOP, script), *args], env=env,
                             cwd=TOP)
    if status != 0:
        # The script has said why; waf would add a second, lesser, reason
        sys.exit(status if status > 0 else 1)


# ---- the commands
#
# Classes, and not functions: "configure", "build" and "install" by function
# would be those of waf, for a project that waf itself compiles.

class configure(Context):
    '''configures Samba for build/prefix'''
    cmd = 'configure'

    def execute(self):
        configure_tree(self, RUN_PREFIX)


class build(Context):
    '''builds everything and installs it into build/prefix'''
    cmd = 'build'

    def execute(self):
        in_place(self)


class install(Context):
    '''installs for real use: --prefix, --destdir'''
    cmd = 'install'

    def execute(self):
        # The same tree is configured for another prefix.  Only what has a
        # path compiled in is compiled again, some 200 files, and everything is
        # linked once more.  build/prefix stays as it is, and its stamp too.
        opt = Options.options
        prefix = os.path.abspath(opt.prefix)
        if prefix == RUN_PREFIX:
            return in_place(self)
        fhs = prefix == '/usr'
        sysconf = opt.sysconfdir or ('/etc' if fhs else prefix + '/etc')
        state = opt.localstatedir or ('/var' if fhs else prefix + '/var')
        configure_tree(self, prefix, ['--sysconfdir=%s' % sysconf,
                                      '--localstatedir=%s' % state])
        build_tree(self, prefix, opt.destdir)


class test(Context):
    '''builds, then runs all tests (TESTS=pattern: some)'''
    cmd = 'test'

    def execute(self):
        in_place(self)
        run(self, 'tests/run', *shlex.split(os.environ.get('TESTS', '')))


class demo(Context):
    '''builds, then shows what clients see of a restart'''
    cmd = 'demo'

    def execute(self):
        in_place(self)
        run(self, 'tests/demo/run')


class bench(Context):
    '''builds, then measures what durable_state costs'''
    cmd = 'bench'

    def execute(self):
        in_place(self)
        run(self, 'tests/bench/run')


class torture(Context):
    '''builds, then runs Samba's own smbtorture suites with and without us'''
    cmd = 'torture'

    def execute(self):
        in_place(self)
        run(self, 'tests/torture-run/run')


class check_patches(Context):
    '''checks that every patch applies (BUILD=1: and builds) by itself'''
    cmd = 'check-patches'

    def execute(self):
        run(self, 'waf-scripts/check-patches')
