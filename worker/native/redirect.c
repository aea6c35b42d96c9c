/*
 * The entries by which a loaded library calls functions of others: ELF's relocations of functions, as the loader has
 * filled them in.
 *
 * A call is one read of an entry, and an entry is written at once: whoever calls meanwhile calls the one or the other.
 */
#define _GNU_SOURCE
#include "redirect.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REDIRECTIONS_MAX 2
/* Of one function: one for calls, and one for its address. */
#define ENTRIES_MAX 8

#if defined(__x86_64__)
#define IS_OF_A_FUNCTION(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT)
#elif defined(__aarch64__)
#define IS_OF_A_FUNCTION(type) ((type) == R_AARCH64_JUMP_SLOT || (type) == R_AARCH64_GLOB_DAT)
#else
#error "the relocations of this kind of processor are not known here"
#endif

struct entries {
  void **at[ENTRIES_MAX];
  int count;
};

struct calls {
  const char *library; /* by the end of its path */
  const struct redirection *redirections;
  int count;
  struct entries entries[REDIRECTIONS_MAX];
  ElfW(Addr) read_only, read_only_end; /* what the loader has made so */
};

static void note(struct calls *calls, const char *name, void **entry) {
  for (int i = 0; i < calls->count; i++) {
    struct entries *of = &calls->entries[i];
    if (strcmp(name, calls->redirections[i].name) == 0 && of->count < ENTRIES_MAX) of->at[of->count++] = entry;
  }
}

static void note_all(struct calls *calls, ElfW(Addr) base, const ElfW(Dyn) * dynamic) {
  const ElfW(Sym) *symbols = NULL;
  const char *names = NULL;
  ElfW(Addr) tables[2] = {0, 0}; /* of functions, and of all else */
  size_t sizes[2] = {0, 0};
  for (const ElfW(Dyn) *each = dynamic; each->d_tag != DT_NULL; each++) {
    /* glibc's loader has added the base to these; others leave them as they are. */
    ElfW(Addr) at = each->d_un.d_ptr < base ? base + each->d_un.d_ptr : each->d_un.d_ptr;
    switch (each->d_tag) {
      case DT_SYMTAB: symbols = (const ElfW(Sym) *)at; break;
      case DT_STRTAB: names = (const char *)at; break;
      case DT_JMPREL: tables[0] = at; break;
      case DT_PLTRELSZ: sizes[0] = each->d_un.d_val; break;
      case DT_RELA: tables[1] = at; break;
      case DT_RELASZ: sizes[1] = each->d_un.d_val; break;
    }
  }
  if (symbols == NULL || names == NULL) return;
  for (int table = 0; table < 2; table++) {
    const ElfW(Rela) *relocations = (const ElfW(Rela) *)tables[table];
    for (size_t i = 0; relocations != NULL && i < sizes[table] / sizeof *relocations; i++) {
      if (!IS_OF_A_FUNCTION(ELF64_R_TYPE(relocations[i].r_info))) continue;
      const char *name = names + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name;
      note(calls, name, (void **)(base + relocations[i].r_offset));
    }
  }
}

static ElfW(Addr) page_of(ElfW(Addr) at) { return at & ~((ElfW(Addr))sysconf(_SC_PAGESIZE) - 1); }

static int look_at(struct dl_phdr_info *object, size_t size, void *data) {
  (void)size;
  struct calls *calls = data;
  size_t length = strlen(object->dlpi_name), wanted = strlen(calls->library);
  if (length < wanted || strcmp(object->dlpi_name + length - wanted, calls->library) != 0) return 0;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &object->dlpi_phdr[i];
    ElfW(Addr) at = object->dlpi_addr + part->p_vaddr;
    if (part->p_type == PT_DYNAMIC) note_all(calls, object->dlpi_addr, (const ElfW(Dyn) *)at);
    if (part->p_type == PT_GNU_RELRO) {
      calls->read_only = at;
      calls->read_only_end = page_of(at + part->p_memsz);
    }
  }
  return 1;
}

/* Whether a function is that of another build of this library. */
static bool is_anothers(void *function, void *ours) {
  Dl_info theirs, own;
  if (function == ours || dladdr(function, &theirs) == 0 || dladdr(ours, &own) == 0) return false;
  return theirs.dli_sname != NULL && own.dli_sname != NULL && strcmp(theirs.dli_sname, own.dli_sname) == 0;
}

static bool lead(const struct calls *calls, void **entry, void *function) {
  ElfW(Addr) at = (ElfW(Addr))entry;
  void *page = (void *)page_of(at);
  size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
  bool is_read_only = at >= calls->read_only && at < calls->read_only_end;
  if (is_read_only && mprotect(page, bytes, PROT_READ | PROT_WRITE) != 0) return false;
  __atomic_store_n(entry, function, __ATOMIC_RELEASE);
  if (is_read_only) mprotect(page, bytes, PROT_READ);
  return true;
}

bool redirect_calls(const char *library, const struct redirection *redirections, int count) {
  struct calls calls = {.library = library, .redirections = redirections, .count = count};
  if (count > REDIRECTIONS_MAX || dl_iterate_phdr(look_at, &calls) == 0) return false;
  for (int i = 0; i < count; i++) {
    const struct entries *of = &calls.entries[i];
    if (of->count == 0 || is_anothers(*of->at[0], redirections[i].function)) return false;
  }
  for (int i = 0; i < count; i++)
    for (int entry = 0; entry < calls.entries[i].count; entry++)
      if (!lead(&calls, calls.entries[i].at[entry], redirections[i].function)) return false;
  return true;
}
