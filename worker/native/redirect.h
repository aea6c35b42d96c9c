/* Has one library's calls of functions of others go to functions of ours. */
#pragma once
#include <stdbool.h>

struct redirection {
  const char *name; /* of what is called */
  void *function;   /* of the same type, to be called instead */
};

/*
 * Leads all calls of these by the library whose path ends so, one after the other in their order, for good. True also
 * where they lead there already.
 *
 * False, and nothing is changed, where the library is not loaded, does not call all of them, or calls another build of
 * ours: that would not know what it has given away. False where the loader's tables can't be written to, too; what came
 * before in the order leads to ours then.
 */
bool redirect_calls(const char *library, const struct redirection *redirections, int count);
