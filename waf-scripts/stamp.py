"""Has anything changed since the last time?  A stamp is a file that holds the
checksum of what a step was made from."""

import hashlib
import os

# What the build makes, or what changes without any meaning for it
NOT_SOURCE = {'bin', '.git', '.pc', '__pycache__',
              'kerberos_implementation.py'}

# What configure reads, and so what it has to be run again for
CONFIGURE_FILES = ('wscript', 'wscript_configure')


def digest(*parts):
    h = hashlib.sha256()
    for p in parts:
        h.update(str(p).encode() + b'\0')
    return h.hexdigest()


def content(path):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def walk(top):
    """All source files below top, in a fixed order."""
    for entry in sorted(os.scandir(top), key=lambda e: e.name):
        if entry.name in NOT_SOURCE or entry.name.startswith('.lock-'):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        else:
            yield entry


def tree(top):
    """Size and time of every source file: some 15,000, so not the content."""
    parts = []
    for entry in walk(top):
        st = entry.stat(follow_symlinks=False)
        parts.append((entry.path, st.st_size, st.st_mtime_ns))
    return digest(*parts)


def configure_files(top):
    """Content of what configure reads of the tree."""
    return digest(*((e.path, content(e.path)) for e in walk(top)
                    if e.name.startswith(CONFIGURE_FILES)
                    and not e.name.startswith('wscript_build')))


def is_current(path, value):
    try:
        with open(path) as f:
            return f.read() == value
    except FileNotFoundError:
        return False


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(value)


def forget(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
