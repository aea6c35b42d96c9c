/*
 * A host that keeps a number of calls under way. `host SOCKET FOLDER CALLS DEPTH…`
 *
 * Opens the pack in FOLDER and, for each DEPTH, makes CALLS calls of its node Echo with DEPTH of them in flight. Prints
 * one JSON object: calls a second, by depth. Every answer must be the int that was sent, in the order of the calls.
 */
#include <time.h>

#include "peer.h"

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static uint32_t open_pack(struct peer *peer, const char *folder) {
    struct message call = {0};
    put_array(&call, 3);
    put_text(&call, "open");
    put_array(&call, 0);
    put_map(&call, 1);
    put_text(&call, "folder");
    put_text(&call, folder);
    queue_frame(peer, CALL, SERVER, 1, call.bytes, call.length);
    flush(peer);
    struct frame result = expect(peer, RESULT);
    int64_t pack = find_uint(&result, "pack");
    if (pack < 0) die("open answered without the pack's number");
    return (uint32_t)pack;
}

/* Method, arguments and keyword arguments; the int comes last, where echo() puts each call's own. */
static struct message echo_call(void) {
    struct message call = {0};
    put_bytes(&call, "\x93\xa3run\x91\xa4" "Echo\x81\xa5value", 18);
    put_u32(&call, 0);
    return call;
}

static void write_value(uint8_t *end, uint32_t value) {
    for (int byte = 1; byte <= 4; byte++, value >>= 8) end[-byte] = (uint8_t)value;
}

static uint32_t read_value(const struct frame *result) {
    uint32_t value = 0;
    if (result->header.length < 4) die("an answer without an int");
    for (int byte = 4; byte >= 1; byte--) value = value << 8 | result->body[result->header.length - (uint32_t)byte];
    return value;
}

/* Makes `calls` calls with `depth` of them in flight; returns calls a second. */
static double echo(struct peer *peer, uint32_t pack, uint32_t calls, uint32_t depth) {
    struct message call = echo_call();
    uint32_t sent = 0, answered = 0;
    double start = now();
    while (answered < calls) {
        while (sent < calls && sent - answered < depth) {
            write_value(call.bytes + call.length, ++sent);
            queue_frame(peer, CALL, pack, sent, call.bytes, call.length);
        }
        flush(peer);
        /* Answers, or the credit without which the next calls wait. */
        if (!receive(peer)) die("the server closed the connection");
        for (struct frame result; next_buffered(peer, &result);) {
            if (result.header.kind == ERROR) die_of_error(&result);
            if (result.header.kind != RESULT) continue;
            answered++;
            if (result.header.call != answered || read_value(&result) != answered)
                die("call %u was answered in place of %u", result.header.call, answered);
        }
    }
    return calls / (now() - start);
}

int main(int count, char **arguments) {
    static struct peer peer;
    if (count < 5) die("host SOCKET FOLDER CALLS DEPTH...");
    uint32_t calls = (uint32_t)atol(arguments[3]);
    join(&peer, arguments[1], "host", NULL);
    uint32_t pack = open_pack(&peer, arguments[2]);
    /* The first call starts the worker; the others let the server compile what it runs often. */
    echo(&peer, pack, 1, 1);
    echo(&peer, pack, calls / 5 + 1, 64);
    for (int at = 4; at < count; at++) {
        uint32_t depth = (uint32_t)atol(arguments[at]);
        printf("%s\"%u in flight\": %.0f", at == 4 ? "{" : ", ", depth, echo(&peer, pack, calls, depth));
    }
    puts("}");
    return 0;
}
