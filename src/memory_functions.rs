//! The library's own `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp` and `strlen`.
//!
//! The compiler makes calls of these wherever something is copied or compared. Bound to
//! the C library's symbols they reach whoever interposes those. The runtimes of
//! `ThreadSanitizer` and its like do: they take our copies for accesses of the program,
//! do not know our lock, which they cannot see, and report data races in our memory, for
//! which a host exits with status 66. A debugging `memcpy` that allocates would come
//! back into us.
//!
//! The definitions are hidden: the linker binds the references of this library to them,
//! those of `core` included, and no other object sees them. They are written in assembly,
//! one file per architecture, because the compiler would turn a loop that copies into a
//! call of `memcpy`. `tests/imports.rs` shows that no reference is left.

/// Opens the function `$name`, which has some other names as well, with the instruction
/// that marks a target of branches.
macro_rules! begin {
    ($mark:literal, $name:literal $(, $alias:literal)*) => {
        concat!(
            ".pushsection .text.sopin_", $name, ",\"ax\",%progbits\n.p2align 5\n",
            $(".globl ", $alias, "\n.hidden ", $alias, "\n.type ", $alias, ",%function\n", $alias, ":\n",)*
            ".globl ", $name, "\n.hidden ", $name, "\n.type ", $name, ",%function\n", $name, ":\n",
            ".cfi_startproc\n", $mark
        )
    };
}

/// Closes it.
macro_rules! end {
    ($name:literal) => {
        concat!(".cfi_endproc\n.size ", $name, ", . - ", $name, "\n.popsection")
    };
}

#[cfg_attr(target_arch = "x86_64", path = "memory_functions/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "memory_functions/aarch64.rs")]
mod assembly;
