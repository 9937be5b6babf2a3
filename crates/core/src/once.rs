//! A value that is made when it is first needed, without the panic of
//! `OnceCell::get_or_init`, which refuses to be entered twice.

pub use core::cell::OnceCell;

/// Returns the value of `cell`; calls `make` if the cell is empty. If `make` itself calls this
/// function with the same cell, the inner value stays.
pub fn get_or_init<T>(cell: &OnceCell<T>, make: impl FnOnce() -> T) -> &T {
    let mut make = Some(make);
    loop {
        if let Some(value) = cell.get() {
            return value;
        }
        if let Some(make) = make.take() {
            // `set` fails if `make` has filled the cell itself; the cell has a value in either
            // case.
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
