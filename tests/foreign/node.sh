# Node's own tests of add-ons: of its C++ interface, of Node-API, and of the part of
# Node-API that concerns the language; also in workers, forks and many contexts.
# packages: g++
# needs: node python3
# needs-success: [ "$(cat target/foreign-node/.made)" = "$(node --version)" ]
# pinned: /node: |/libnode\.so
# pinned: /hello-world/build/Release/binding\.node
# pinned: /test_threadsafe_function/build/Release/binding\.node
# pinned: /worker-addon/build/Release/binding\.node
# results: 150
export NODE_TEST_DIR="$WORK"
python3 "$SOURCES/../../target/foreign-node/source/tools/test.py" --progress tap -j 2 --shell "$(command -v node)" \
    addons js-native-api node-api >tap 2>errors || [ $? = 1 ] || { cat errors >&2; exit 2; }
sed -nE 's/^((not )?ok) [0-9]+ /\1 /p' tap | sort
