"""Run a long command: its output into a log, how far it is onto the screen."""

import re
import subprocess
import sys
import time

# waf's "[ 12/345] Compiling ...", and configure's "Checking for ..."
STEP = re.compile(rb'^\[ *(\d+)/(\d+)\] ')
CHECK = re.compile(rb'^Checking ')

# waf learns of most steps when it has done the first thousand
FEW = 2000

# On a terminal one line that changes, in a log file one line now and then
EVERY = 0.2 if sys.stdout.isatty() else 10


def show(text, last=False):
    if sys.stdout.isatty():
        sys.stdout.write('\r%-70s%s' % (text, '\n' if last else ''))
    else:
        print(text)
    sys.stdout.flush()


def minutes(seconds):
    return '%d:%02d' % divmod(int(seconds), 60)


def run(what, argv, log, **kwargs):
    """Run argv, return its exit status.  "what" names it on the screen; if it
    fails the end of the log is shown."""
    start = shown = time.monotonic()
    where = ''
    checks = 0

    show('==> %s' % what, last=True)
    with open(log, 'wb') as out:
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             **kwargs)
        for line in p.stdout:
            out.write(line)
            step = STEP.match(line)
            if step:
                done, total = map(int, step.groups())
                where = 'step %d of %d' % (done, total)
                # what is generated first decides how much there is to compile
                if total < FEW:
                    where += ' known so far'
            elif CHECK.match(line):
                checks += 1
                where = '%d checks' % checks
            now = time.monotonic()
            if where and now - shown >= EVERY:
                shown = now
                show('    %s, %s' % (where, minutes(now - start)))
        status = p.wait()

    took = minutes(time.monotonic() - start)
    if status == 0:
        show('    done in %s' % took, last=True)
        return 0

    with open(log, 'rb') as f:
        tail = f.read().splitlines()[-40:]
    show('    failed after %s' % took, last=True)
    for line in tail:
        print('    | ' + line.decode(errors='replace'))
    print('%s failed, the whole log is %s' % (what, log))
    return status
