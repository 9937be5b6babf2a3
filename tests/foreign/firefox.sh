# Firefox, headless, with its sandbox: a page with WebAssembly, sound, WebGL, a worker and
# crypto.subtle. No process may be killed.
# packages: firefox-esr strace python3 util-linux
# needs: firefox-esr strace python3 setpriv
# needs-success: unshare --user true
# pinned: /libxul\.so
# pinned: /libnss3\.so
# results: 6
. "$SOURCES/browsers/visit"
mkdir -p home/profile
[ "$(id -u)" != 0 ] || chown -R nobody:nogroup home
export MOZ_SANDBOX_LOGGING=1
visit firefox-esr --headless --no-remote --profile "$WORK/home/profile"
