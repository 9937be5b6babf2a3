/*
 * A function that an indirect branch may go to, and one that it may not go to where the
 * processor checks branch targets: it begins with no landing instruction. With
 * -DTEXT_RELOCATION the loader has to store an address into the text.
 */
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
