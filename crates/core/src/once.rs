//! A value that is made when it is first needed, without the panic of
//! `OnceCell::get_or_init`, which refuses to be entered twice.

pub use core::cell::OnceCell;

/// Returns the value of `cell`, which `make` makes if there is none yet. Of two that are
/// made at once, by a `make` that comes back here, the first stays.
pub fn get_or_init<T>(cell: &OnceCell<T>, make: impl FnOnce() -> T) -> &T {
    let mut make = Some(make);
    loop {
        if let Some(value) = cell.get() {
            return value;
        }
        if let Some(make) = make.take() {
            // An error if `make` has set the cell itself; the cell has a value in any case.
            let _ = cell.set(make());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_the_value_once() {
        let cell = OnceCell::new();
        assert_eq!((*get_or_init(&cell, || 1), *get_or_init(&cell, || 2)), (1, 1));
    }

    #[test]
    fn keeps_the_first_of_two() {
        let cell = OnceCell::new();
        let outer = get_or_init(&cell, || *get_or_init(&cell, || 1) + 1);
        assert_eq!(*outer, 1);
    }
}
