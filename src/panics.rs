//! That nothing here panics.
//!
//! A panic would be a bug of ours, and nothing that could be done then is harmless for the
//! host. So there is none: the release build has no code left that could panic, neither
//! ours nor that of `core` (`tests/panics.rs` looks for it in the file), and neither the
//! standard library, its backtraces nor an unwinder is linked. They would be more than half
//! of the library, and allocate. That is true of the profile in Cargo.toml: a build without
//! its optimisation, with overflow checks or by a compiler that leaves such code in ends the
//! program at the bug, by SIGILL.
//!
//! Builds for development have such code and unwind: they are linked with the standard
//! library, which reports panics.

#[cfg(not(panic = "abort"))]
extern crate std;

#[cfg(panic = "abort")]
mod handler {
    macro_rules! end_by {
        ($trap:literal) => {
            // In a section of its own, which the linker leaves out if nothing refers to it.
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
        /// Ends the program.
        safe fn sopin_panicked() -> !;
    }

    // "found duplicate lang item" means that a dependency has got its feature `std`: no
    // dependency of the library may have one that another member of the workspace turns on.
    #[panic_handler]
    fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
        sopin_panicked()
    }
}
