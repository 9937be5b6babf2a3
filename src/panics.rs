//! The panic handler, and why the release build never calls it.
//!
//! A panic would be a bug in this library, and no reaction to it is harmless for the host. So
//! the release build contains no code that can panic, neither of this library nor of `core`
//! (`tests/panics.rs` looks for such code in the file). It is linked with neither the
//! standard library with its backtraces nor an unwinder, which would be more than half of
//! the library and would allocate. This holds for the release profile in Cargo.toml. A build
//! without that optimisation, with overflow checks, or by a compiler that leaves such code
//! in, ends the program by SIGILL where it would panic.
//!
//! Builds for development contain such code and unwind. They are linked with the standard
//! library, which reports panics.

#[cfg(not(panic = "abort"))]
extern crate std;

#[cfg(panic = "abort")]
mod handler {
    macro_rules! end_by {
        ($trap:literal) => {
            // The function has a section of its own, which the linker discards if no code refers
            // to it.
            core::arch::global_asm!(
                ".pushsection .text.sopin_panicked,\"ax\",%progbits",
                ".globl sopin_panicked",
                ".hidden sopin_panicked",
                ".type sopin_panicked,%function",
                "sopin_panicked:",
                $trap,
                ".size sopin_panicked, . - sopin_panicked",
                ".popsection",
            );
        };
    }
    #[cfg(target_arch = "x86_64")]
    end_by!("ud2");
    #[cfg(target_arch = "aarch64")]
    end_by!("udf #0");

    unsafe extern "C" {
        /// Ends the program by an invalid instruction.
        safe fn sopin_panicked() -> !;
    }

    // The error "found duplicate lang item" means that another member of the workspace has turned
    // on the feature `std` of a dependency. The library must have no such dependency.
    #[panic_handler]
    fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
        sopin_panicked()
    }
}
