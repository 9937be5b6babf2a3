//! The library's own `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp` and `strlen`.
//!
//! The compiler generates calls of these functions wherever code copies or compares memory.
//! If the calls were bound to the C library's symbols, they would reach any library that
//! interposes those. The runtimes of `ThreadSanitizer` and similar tools do: they take the
//! library's copies for accesses of the program, do not see the library's lock, and report
//! data races in its memory, for which a host exits with status 66. A debugging `memcpy`
//! that allocates could call this library again.
//!
//! The definitions are hidden: the linker binds the references of this library to them,
//! those of `core` included, and no other object sees them. They are written in assembly,
//! with one file for each architecture, because the compiler would turn a loop that copies
//! into a call of `memcpy`. `tests/imports.rs` shows that no reference to other definitions
//! is left.

/// Begins the function `$name`, which has the names `$alias` as well, with the instruction
/// `$mark` that marks a branch target.
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

/// Ends the function `$name`.
macro_rules! end {
    ($name:literal) => {
        concat!(".cfi_endproc\n.size ", $name, ", . - ", $name, "\n.popsection")
    };
}

#[cfg_attr(target_arch = "x86_64", path = "memory_functions/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "memory_functions/aarch64.rs")]
mod assembly;
