/*
 * A function that an indirect branch may go to, and one that it may not go to where the
 * processor checks branch targets: it begins with no landing instruction. With
 * -DTEXT_RELOCATION the loader has to store an address into the text. The constructor
 * unwinds the stack, which has signed return addresses, through the library's entry stub.
 */
#include <stddef.h>
#include <unwind.h>

__asm__(".text\n"
        ".globl not_landing\n"
        ".type not_landing, %function\n"
        "not_landing:\n"
        "    mov w0, #7\n"
        "    ret\n");

#ifdef TEXT_RELOCATION
int landing_too(void);
int landing_too(void) { return 7; }
__asm__(".text\n"
        ".p2align 3\n"
        "    .quad landing_too\n");
#endif

int landing(void);
int landing(void) { return 7; }

int main(int count, char **arguments);
int unwinds_to_main;

static _Unwind_Reason_Code look_at(struct _Unwind_Context *frame, void *unused) {
    (void)unused;
    if (_Unwind_FindEnclosingFunction((void *)_Unwind_GetIP(frame)) == (void *)main)
        unwinds_to_main = 1;
    return _URC_NO_REASON;
}

__attribute__((constructor)) static void unwind(void) { _Unwind_Backtrace(look_at, NULL); }
