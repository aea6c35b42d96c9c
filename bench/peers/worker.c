/* A worker whose only node answers with its input. `worker`, with AIRLOCK_SOCKET and AIRLOCK_TOKEN as the server sets them. */
#include "peer.h"

/* What a node's tuple of one int is: extension 1 of six bytes, an array of one, and the int. */
static const uint8_t result_head[] = {0xc7, 6, 1, 0x91};
enum { INT_BYTES = 5 };

static void answer(struct peer *peer, const struct frame *call) {
    uint8_t body[sizeof result_head + INT_BYTES];
    if (call->header.length < INT_BYTES) die("a call without an int");
    memcpy(body, result_head, sizeof result_head);
    memcpy(body + sizeof result_head, call->body + call->header.length - INT_BYTES, INT_BYTES);
    queue_frame(peer, RESULT, call->header.peer, call->header.call, body, sizeof body);
}

int main(void) {
    static struct peer peer;
    const char *path = getenv("AIRLOCK_SOCKET"), *token = getenv("AIRLOCK_TOKEN");
    if (path == NULL || token == NULL) die("AIRLOCK_SOCKET and AIRLOCK_TOKEN must be set");
    join(&peer, path, "worker", token);
    do {
        struct frame frame;
        while (next_buffered(&peer, &frame)) {
            if (frame.header.kind == CALL) answer(&peer, &frame);
            else if (frame.header.kind == ERROR) return 0;
        }
        flush(&peer);
    } while (receive(&peer));
    return 0;
}
