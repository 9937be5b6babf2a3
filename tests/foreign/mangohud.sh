# MangoHud's overlay, which interposes dlsym, before and behind the library. Without a
# display it draws nothing: the test is that loading works as without the library.
# packages: mangohud gcc libgl1 zlib1g
# needs: cc /usr/lib/x86_64-linux-gnu/mangohud/libMangoHud_dlsym.so
# pinned: /libMangoHud_dlsym\.so
# pinned: /libMangoHud\.so
# pinned: /libz\.so
# pinned: /libGLX?\.so
# results: 19
# quick
. "$SOURCES/interposers/load"
export MANGOHUD=1
directory=/usr/lib/x86_64-linux-gnu/mangohud
load_with "$directory/libMangoHud_dlsym.so:$directory/libMangoHud.so"
