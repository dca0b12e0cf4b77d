# Sourced by the other scripts: one environment for configure, build and
# install.  waf compiles everything again when PATH, PYTHON or the flags
# differ between two of its runs.

TOP=$(cd "$(dirname "$0")/.." && pwd -P)
TREE=$TOP/build/samba

# A python3 in front of Debian's (pyenv, a virtual environment) lacks the
# modules that Samba needs.
PATH=/usr/bin:/bin:/usr/sbin:/sbin
PYTHON=/usr/bin/python3
unset PYTHONPATH PYTHONHOME LD_LIBRARY_PATH CPPFLAGS LDFLAGS

# waf's order of work, and so what it takes for changed, depends on it
PYTHONHASHSEED=1

# Samba's own default is not to optimise at all.  -g1 costs 2 % and is enough
# for a backtrace; whole debug information would take a third longer.
CFLAGS=${CFLAGS:--O2 -g1}

# A fresh clone in another directory finds what the last one compiled
if command -v ccache >/dev/null; then
	CC=${CC:-ccache gcc}
	CFLAGS="$CFLAGS -fdebug-prefix-map=$TREE=."
	export CCACHE_BASEDIR="$TREE"
else
	CC=${CC:-gcc}
fi

# Samba's waf reads MAKEFLAGS, ours is told the number of jobs
unset MAKEFLAGS MFLAGS WAF_MAKE

DS_RUN_PREFIX=$TOP/build/prefix

export TOP TREE PATH PYTHON PYTHONHASHSEED CC CFLAGS DS_RUN_PREFIX
