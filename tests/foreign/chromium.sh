# Chromium, headless, with its sandbox: the page of firefox.sh.
# packages: chromium strace python3 util-linux
# needs: chromium strace python3 setpriv
# needs-success: unshare --user true
# pinned: /chromium/chromium
# results: 6
. "$SOURCES/browsers/visit"
visit chromium --headless --no-first-run --user-data-dir="$WORK/home/profile" --enable-logging=stderr \
    --remote-debugging-port=0
