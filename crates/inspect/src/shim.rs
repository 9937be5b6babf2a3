//! The library in a process: whether it is loaded, and how it is recognised.

use sopin_core::LIBRARY;
use sopin_core::mode::Mode;

use crate::loader::List;
use crate::maps::{self, Mapping};
use crate::object::InspectedObject;
use crate::published::Published;
use crate::report::Shim;

/// Returns the library, if it is loaded.
pub fn shim(
    objects: &[InspectedObject],
    list: Option<&List>,
    maps: &[Mapping],
    published: Option<&Published>,
) -> Option<Shim> {
    let known = |path: &[u8]| Shim {
        path: String::from_utf8_lossy(path).into_owned(),
        version: published.map(|published| published.version.clone()).filter(|version| !version.is_empty()),
        mode: published.and_then(|published| published.mode).map(mode_word),
    };
    if list.is_some() {
        return objects.iter().find(|object| is_library(&object.name)).map(|object| known(&object.name));
    }
    let of_library = |mapping: &&Mapping| {
        let (path, _) = mapping.names();
        is_library(path) || path.strip_prefix(b"/memfd:sopin:").is_some_and(is_library)
    };
    let mut found = maps.iter().filter(of_library);
    let original = found.clone().find(|mapping| maps::copy_at(mapping).is_none());
    original.or_else(|| found.next()).map(|mapping| known(mapping.names().0))
}

fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Full => "full",
        Mode::Relocated => "relocated",
        Mode::Off => "off",
    }
}

/// Returns whether a path is that of the library, `libsopin.so` or `libsopin.so.0.1.0`.
pub fn is_library(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let rest = name.strip_prefix(LIBRARY.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
}

/// Returns whether the text of `/proc/PID/maps` may have the library in it.
pub fn mentions_library(text: &[u8]) -> bool {
    let name = LIBRARY.as_bytes();
    text.windows(name.len()).any(|window| window == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_known_by_its_name() {
        for path in ["/usr/local/lib/libsopin.so", "libsopin.so.0", "/x/libsopin.so.0.1.0"] {
            assert!(is_library(path.as_bytes()), "{path}");
        }
        for path in ["", "/x/libsopin.sox", "/x/mylibsopin.so", "/libsopin.so/x"] {
            assert!(!is_library(path.as_bytes()), "{path}");
        }
    }
}
