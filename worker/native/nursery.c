/*
 * Has torch make its tensors in blocks of shared memory that are free: a result that was made there is sent as it is.
 *
 * Owns a table of blocks, which comfy_airlock.memory.nursery offers and takes back. libc10's calls of posix_memalign and
 * free come here: the one takes an offered block of the size that is asked for, where there is one, and the other gives
 * it back. All other code of the process calls libc's as ever.
 *
 * Invariant: a block is taken for as long as anything in this process can look at what torch made there, and what is
 * leased does not change. So one that is taken as it is leased is mapped privately from then on, at the same address:
 * whoever looks at it here, by whatever pointer, sees it as before, and writes to pages of its own.
 *
 * Needs nothing but libc, and never the interpreter's lock. Linux, with pages of 4096 bytes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "redirect.h"

#define PAGE_BYTES 4096
/* What one table of the last level maps. */
#define TABLE_BYTES ((size_t)2 << 20)
/* Of a block. Most tensors are smaller, and made without a look at the table. */
#define BYTES_MIN ((size_t)1 << 20)
#define BLOCKS_MAX 256
#define EXPORTED __attribute__((visibility("default")))

struct block {
  char *address;
  size_t bytes;
  int descriptor; /* of its segment */
  off_t offset;   /* in its segment */
  char *aside;    /* where it is mapped shared and writable while it is private at its address; NULL where nowhere */
  unsigned holds; /* by leases, and by messages that may become such */
  uint64_t freed; /* when, counted in blocks that were */
  bool is_taken;
  bool was_taken; /* since it was offered, or let rest */
  bool is_private;
  bool is_spent;     /* what is in its segment must stay for good */
  bool is_abandoned; /* its segment is nobody's here any more */
  bool is_unmapped;  /* at its address lies nothing, or something of others */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block blocks[BLOCKS_MAX];
static int count;
static uint64_t frees;
/* All that were ever offered lie between these. Read without the lock, to let pass what lies elsewhere. */
static _Atomic uintptr_t low = UINTPTR_MAX;
static _Atomic uintptr_t high = 0;

static struct block *find(const void *address) {
  for (int i = 0; i < count; i++)
    if (blocks[i].address == address) return &blocks[i];
  return NULL;
}

static void forget(struct block *block) { *block = blocks[--count]; }

static void unmap(struct block *block) {
  if (!block->is_unmapped) munmap(block->address, block->bytes);
  if (block->aside != NULL) munmap(block->aside, block->bytes);
  block->aside = NULL;
  block->is_unmapped = true;
}

/* Nobody else's mapping may come to lie at an address that is in the table: it would be taken for the block. */
static void reserve(struct block *block) {
  if (!block->is_unmapped)
    mmap(block->address, block->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  if (block->aside != NULL) munmap(block->aside, block->bytes);
  block->aside = NULL;
}

/* Mappings change at once, for all threads: what another writes meanwhile it has written before or after. */

static bool map_privately(struct block *block) {
  return mmap(block->address, block->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, block->descriptor,
              block->offset) != MAP_FAILED;
}

/* Whether a mapping of a file can be moved and leave an empty one where it was, as from Linux 5.13 on. */
static bool moves_files;

static bool can_move_files(void) {
  int file = memfd_create("airlock-nursery", MFD_CLOEXEC);
  if (file < 0) return false;
  void *mapped = MAP_FAILED;
  if (ftruncate(file, PAGE_BYTES) == 0) mapped = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return false;
  void *moved = mremap(mapped, PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
  munmap(mapped, PAGE_BYTES);
  return moved != MAP_FAILED && munmap(moved, PAGE_BYTES) == 0;
}

/* Where tables of pages begin as they do at its address, they are moved whole, not page by page. */
static void *move_aside(struct block *block) {
  size_t bytes = block->bytes;
  char *reserved = mmap(NULL, bytes + TABLE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return NULL;
  size_t before = ((uintptr_t)block->address - (uintptr_t)reserved) % TABLE_BYTES;
  char *aside = reserved + before;
  bool is_moved = mremap(block->address, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, aside) == aside;
  /* Where it failed, what was reserved there may be somebody else's by now. */
  munmap(aside + bytes, TABLE_BYTES - before);
  if (before > 0) munmap(reserved, before);
  return is_moved ? aside : NULL;
}

/* Its segment may be sealed by now, so the mapping that can be written to is kept, with its pages. */
static bool make_private(struct block *block) {
  void *aside = moves_files ? move_aside(block) : NULL;
  if (aside == NULL) return false;
  if (!map_privately(block)) {
    munmap(aside, block->bytes);
    return false;
  }
  block->aside = aside;
  return block->is_private = true;
}

static void make_shared(struct block *block) {
  void *moved = mremap(block->aside, block->bytes, block->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, block->address);
  if (moved == MAP_FAILED) {
    /* What was there may be unmapped by then. */
    block->is_spent = block->is_unmapped = true;
    unmap(block);
    return;
  }
  block->aside = NULL;
  block->is_private = false;
}

/* To be called when less looks at a block than before. */
static void settle(struct block *block) {
  if (block->is_taken || block->holds > 0) return;
  if (block->is_abandoned) {
    unmap(block);
    forget(block);
  } else if (block->is_spent) {
    reserve(block);
  } else if (block->is_private) {
    make_shared(block);
  }
}

/* What libc10 calls. */

static void *take(size_t bytes) {
  struct block *best = NULL;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++) {
    struct block *each = &blocks[i];
    bool fits = each->bytes == bytes && !each->is_taken && each->holds == 0 && !each->is_private && !each->is_spent;
    /* The one that was freed last: most of it is in the caches. */
    if (fits && (best == NULL || each->freed > best->freed)) best = each;
  }
  if (best != NULL) best->is_taken = best->was_taken = true;
  void *address = best == NULL ? NULL : best->address;
  pthread_mutex_unlock(&lock);
  return address;
}

static bool give_back(const void *address) {
  uintptr_t at = (uintptr_t)address;
  if (at % PAGE_BYTES != 0 || at < low || at >= high) return false;
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL) {
    block->is_taken = false;
    block->freed = ++frees;
    settle(block);
  }
  pthread_mutex_unlock(&lock);
  return block != NULL;
}

/* As posix_memalign. */
EXPORTED int nursery_memalign(void **made, size_t alignment, size_t bytes) {
  if (bytes >= BYTES_MIN && alignment <= PAGE_BYTES && bytes <= SIZE_MAX - PAGE_BYTES) {
    void *taken = take((bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    if (taken != NULL) {
      *made = taken;
      return 0;
    }
  }
  return posix_memalign(made, alignment, bytes);
}

/* As free. */
EXPORTED void nursery_free(void *address) {
  if (!give_back(address)) free(address);
}

/*
 * Forks. Segments are kept out of children, who would write to them as their owner does. But what torch made there a
 * child may look at, and neither side sees what the other writes to it from then on: so it becomes private on both
 * sides, and what is in its segment stays for good, as nobody tells when the child is done with it.
 */

static void before_fork(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++) {
    struct block *each = &blocks[i];
    if (!each->is_taken) continue;
    if (!each->is_private) each->is_private = map_privately(each);
    each->is_spent = each->is_private;
  }
}

static void after_fork_in_parent(void) { pthread_mutex_unlock(&lock); }

static void after_fork_in_child(void) {
  /* What is not taken is not mapped here. What is taken must not come to libc's free. */
  for (int i = count - 1; i >= 0; i--) {
    struct block *each = &blocks[i];
    if (!each->is_taken) {
      forget(each);
      continue;
    }
    each->aside = NULL;
    each->holds = 0;
    each->is_abandoned = true;
    each->is_unmapped = !each->is_private;
  }
  pthread_mutex_unlock(&lock);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool hears_of_forks;

static void begin(void) {
  hears_of_forks = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0;
  moves_files = can_move_files();
}

/* What the nursery calls. */

/*
 * Offers `bytes` at `address`, where the segment of this descriptor is mapped from `offset` on: whole pages.
 * False where there are too many, or no memory.
 */
EXPORTED bool nursery_offer(void *address, size_t bytes, int descriptor, off_t offset) {
  pthread_once(&once, begin);
  pthread_mutex_lock(&lock);
  bool has_room = hears_of_forks && count < BLOCKS_MAX;
  if (has_room) {
    blocks[count++] = (struct block){
        .address = address, .bytes = bytes, .descriptor = descriptor, .offset = offset, .freed = ++frees};
    uintptr_t at = (uintptr_t)address;
    if (at < low) low = at;
    if (at + bytes > high) high = at + bytes;
  }
  pthread_mutex_unlock(&lock);
  return has_room;
}

enum withdrawn { IN_USE = 0, WITHDRAWN = 1, WITHDRAWN_SPENT = 2 };

/*
 * Ends an offer, unless the block is taken or held; with `spares_used`, also unless it was taken since it was offered, and
 * can be again. One that is spent is mapped no more.
 */
EXPORTED int nursery_withdraw(void *address, bool spares_used) {
  enum withdrawn withdrawn = IN_USE;
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL && !block->is_taken && block->holds == 0 &&
      (block->is_spent || !(spares_used && block->was_taken))) {
    withdrawn = block->is_spent ? WITHDRAWN_SPENT : WITHDRAWN;
    if (block->is_spent) unmap(block);
    forget(block);
  }
  pthread_mutex_unlock(&lock);
  return withdrawn;
}

/* Bytes of all blocks that nobody has. */
EXPORTED size_t nursery_spare_bytes(void) {
  size_t bytes = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < count; i++)
    if (!blocks[i].is_taken && blocks[i].holds == 0) bytes += blocks[i].bytes;
  pthread_mutex_unlock(&lock);
  return bytes;
}

/* Counts what took a block until now as forgotten. */
EXPORTED void nursery_let_rest(void *address) {
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL) block->was_taken = block->is_taken;
  pthread_mutex_unlock(&lock);
}

enum held { NOT_TAKEN = 0, HELD = 1, HELD_PRIVATE = 2 };

/* Has nobody else take a block that is taken, until nursery_let_go. Tells whether it may be written to privately. */
EXPORTED int nursery_hold(void *address) {
  enum held held = NOT_TAKEN;
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL && block->is_taken) {
    block->holds++;
    held = block->is_private ? HELD_PRIVATE : HELD;
  }
  pthread_mutex_unlock(&lock);
  return held;
}

/* Has what is in the segment of a held block stay as it is, until nursery_let_go. False where it can't be had so. */
EXPORTED bool nursery_lease(void *address) {
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  bool is_leased = block != NULL && (!block->is_taken || block->is_private || make_private(block));
  pthread_mutex_unlock(&lock);
  return is_leased;
}

/* Holds a block once less. */
EXPORTED void nursery_let_go(void *address) {
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL && block->holds > 0) {
    block->holds--;
    settle(block);
  }
  pthread_mutex_unlock(&lock);
}

/*
 * Its segment is closed. What torch has of it is private from now on, or as it is where that can't be had, and is
 * unmapped as torch frees it.
 */
EXPORTED void nursery_abandon(void *address) {
  pthread_mutex_lock(&lock);
  struct block *block = find(address);
  if (block != NULL) {
    if (!block->is_private) block->is_private = map_privately(block);
    block->is_abandoned = block->is_spent = true;
    settle(block);
  }
  pthread_mutex_unlock(&lock);
}

/*
 * Has a library's calls of posix_memalign and free come here, for good. `library` is how its path ends.
 * False where it is not loaded, calls others, or can't be changed: then all is as it was, or as good as that.
 */
EXPORTED bool nursery_attach(const char *library) {
  const struct redirection redirections[] = {
      /* What gives back comes first: from the first block on that is taken, it must find its way here. */
      {"free", (void *)(uintptr_t)nursery_free},
      {"posix_memalign", (void *)(uintptr_t)nursery_memalign},
  };
  return sysconf(_SC_PAGESIZE) == PAGE_BYTES && redirect_calls(library, redirections, 2);
}
