//! Finds the library under test.

use std::env;
use std::path::{Path, PathBuf};

/// Returns the root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the absolute path of the `libsopin.so` to test: `SOPIN_TEST_LIBRARY` if it
/// is set (another build, another libc), else the release build of this checkout. The
/// tests never build it, because cargo holds its lock on the target directory while
/// they run.
///
/// # Errors
/// A message for people if there is no such file.
pub fn path() -> Result<PathBuf, String> {
    let wanted =
        env::var_os("SOPIN_TEST_LIBRARY").map_or_else(|| checkout().join("target/release/libsopin.so"), PathBuf::from);
    wanted.canonicalize().map_err(|error| {
        format!(
            "the library under test, {}: {error}; run `make build`, \
             or set SOPIN_TEST_LIBRARY to a libsopin.so",
            wanted.display()
        )
    })
}
