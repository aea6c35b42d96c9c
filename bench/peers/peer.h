/*
 * A peer in C: connects, says hello, and exchanges frames as PROTOCOL.md, "Frames", has them. One thread, one socket.
 *
 * For benchmarks: it knows exactly the messages that they exchange, trusts the server, and ends the process with a
 * sentence where something else comes.
 */
#ifndef PEER_H
#define PEER_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HELLO = 1, WELCOME = 2, CALL = 3, RESULT = 4, ERROR = 5, CREDIT = 11 };
enum { SERVER = 0 };
enum { HEADER_BYTES = 16, BUFFER_BYTES = 1 << 20 };

struct header {
    uint32_t length;
    uint8_t kind, flags;
    uint16_t attachments;
    uint32_t peer, call;
};

struct frame {
    struct header header;
    const uint8_t *body;
};

struct peer {
    int socket;
    /*
     * What is left of the window to the one peer that this one talks to, in bytes, where the server counts them: frames
     * are sent while it is above zero, so the last of them may take it below.
     */
    int64_t credit;
    int has_credit;
    uint8_t in[BUFFER_BYTES], out[BUFFER_BYTES];
    size_t in_from, in_to, out_to;
};

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* Ends the process with the text of an ERROR's body; what of it isn't text is left out. */
static void die_of_error(const struct frame *frame) {
    fputs("the server or the worker answered with an error: ", stderr);
    for (uint32_t at = 0; at < frame->header.length; at++)
        if (frame->body[at] >= ' ' && frame->body[at] < 0x7f) fputc(frame->body[at], stderr);
    die(" ");
}

/* Takes credit for the frames that wait to be sent, in their order, as far as there is any; returns where they end. */
static size_t take_credit(struct peer *peer) {
    if (!peer->has_credit) return peer->out_to;
    size_t at = 0;
    while (at < peer->out_to) {
        struct header header;
        memcpy(&header, peer->out + at, HEADER_BYTES);
        size_t length = HEADER_BYTES + header.length;
        if (header.peer != SERVER) {
            if (peer->credit <= 0) break;
            peer->credit -= (int64_t)length;
        }
        at += length;
    }
    return at;
}

/*
 * Sends what was queued, the rest of it once a CREDIT has come and this is called again. Little enough is ever under way
 * that blocking here blocks nobody.
 */
static void flush(struct peer *peer) {
    size_t to = take_credit(peer);
    for (size_t at = 0; at < to;) {
        ssize_t written = write(peer->socket, peer->out + at, to - at);
        if (written <= 0) die("the connection broke while sending");
        at += (size_t)written;
    }
    memmove(peer->out, peer->out + to, peer->out_to - to);
    peer->out_to -= to;
}

/* Appends a frame to what the next flush sends. */
static void queue_frame(struct peer *peer, uint8_t kind, uint32_t to, uint32_t call, const void *body, uint32_t length) {
    struct header header = {.length = length, .kind = kind, .peer = to, .call = call};
    if (peer->out_to + HEADER_BYTES + length > BUFFER_BYTES) flush(peer);
    if (peer->out_to + HEADER_BYTES + length > BUFFER_BYTES) die("more frames wait for credit than this buffer holds");
    memcpy(peer->out + peer->out_to, &header, HEADER_BYTES);
    memcpy(peer->out + peer->out_to + HEADER_BYTES, body, length);
    peer->out_to += HEADER_BYTES + length;
}

/* Cuts the next whole frame out of what has arrived, and takes the credit that comes between; 0 where there is none. */
static int next_buffered(struct peer *peer, struct frame *frame) {
    do {
        size_t have = peer->in_to - peer->in_from;
        if (have < HEADER_BYTES) return 0;
        memcpy(&frame->header, peer->in + peer->in_from, HEADER_BYTES);
        if (frame->header.length > BUFFER_BYTES - HEADER_BYTES) die("a frame of %u bytes", frame->header.length);
        if (have < HEADER_BYTES + frame->header.length) return 0;
        frame->body = peer->in + peer->in_from + HEADER_BYTES;
        peer->in_from += HEADER_BYTES + frame->header.length;
        if (frame->header.kind == CREDIT) peer->credit += frame->header.call;
    } while (frame->header.kind == CREDIT);
    return 1;
}

/* Blocks for more bytes, which invalidates frames; 0 at the end of the stream. */
static int receive(struct peer *peer) {
    memmove(peer->in, peer->in + peer->in_from, peer->in_to - peer->in_from);
    peer->in_to -= peer->in_from;
    peer->in_from = 0;
    ssize_t count = read(peer->socket, peer->in + peer->in_to, BUFFER_BYTES - peer->in_to);
    if (count > 0) peer->in_to += (size_t)count;
    return count > 0;
}

/* The next frame of the kind, whatever comes before it; ends the process at an ERROR. */
static struct frame expect(struct peer *peer, uint8_t kind) {
    struct frame frame;
    for (;;) {
        while (next_buffered(peer, &frame)) {
            if (frame.header.kind == kind) return frame;
            if (frame.header.kind == ERROR) die_of_error(&frame);
        }
        if (!receive(peer)) die("the server closed the connection");
    }
}

/* A message that is being written. msgpack, as far as benchmarks need it. */
struct message {
    uint8_t bytes[8192];
    uint32_t length;
};

static void put_bytes(struct message *message, const void *bytes, size_t count) {
    if (message->length + count > sizeof message->bytes) die("a message is too long");
    memcpy(message->bytes + message->length, bytes, count);
    message->length += (uint32_t)count;
}

static void put_byte(struct message *message, int byte) {
    uint8_t value = (uint8_t)byte;
    put_bytes(message, &value, 1);
}

static void put_array(struct message *message, int count) { put_byte(message, 0x90 | count); }
static void put_map(struct message *message, int count) { put_byte(message, 0x80 | count); }

static void put_text(struct message *message, const char *text) {
    size_t length = strlen(text);
    put_byte(message, 0xda);
    put_byte(message, (int)(length >> 8));
    put_byte(message, (int)(length & 0xff));
    put_bytes(message, text, length);
}

static void put_u32(struct message *message, uint32_t value) {
    put_byte(message, 0xce);
    for (int shift = 24; shift >= 0; shift -= 8) put_byte(message, (int)(value >> shift & 0xff));
}

/* The unsigned integer behind a key of a map; -1 where there is none. Looks for the key's bytes, and parses nothing. */
static int64_t find_uint(const struct frame *frame, const char *key) {
    size_t length = strlen(key);
    for (size_t at = 0; at + length + 2 <= frame->header.length; at++) {
        const uint8_t *found = frame->body + at;
        if (found[0] != (0xa0 | length) || memcmp(found + 1, key, length) != 0) continue;
        const uint8_t *value = found + 1 + length;
        if (value[0] < 0x80) return value[0];
        int width = value[0] == 0xcc ? 1 : value[0] == 0xcd ? 2 : value[0] == 0xce ? 4 : 0;
        uint32_t number = 0;
        for (int byte = 1; byte <= width; byte++) number = number << 8 | value[byte];
        return width == 0 ? -1 : (int64_t)number;
    }
    return -1;
}

/* Connects and says hello; returns when the server has welcomed this peer. A host has no token. */
static void join(struct peer *peer, const char *path, const char *role, const char *token) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) die("the socket's path is too long: %s", path);
    strcpy(address.sun_path, path);
    peer->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(peer->socket, (struct sockaddr *)&address, sizeof address) != 0) die("nobody listens at %s", path);

    struct message hello = {0};
    put_map(&hello, token == NULL ? 5 : 6);
    put_text(&hello, "protocol");
    put_map(&hello, 2);
    put_text(&hello, "min");
    put_byte(&hello, 1);
    put_text(&hello, "max");
    put_byte(&hello, 1);
    put_text(&hello, "features");
    put_array(&hello, 1);
    put_text(&hello, "credit");
    put_text(&hello, "role");
    put_text(&hello, role);
    put_text(&hello, "name");
    put_text(&hello, "bench");
    put_text(&hello, "pid");
    put_u32(&hello, (uint32_t)getpid());
    if (token != NULL) {
        put_text(&hello, "token");
        put_text(&hello, token);
    }
    queue_frame(peer, HELLO, SERVER, 0, hello.bytes, hello.length);
    flush(peer);

    struct frame welcome = expect(peer, WELCOME);
    int64_t window = find_uint(&welcome, "window");
    peer->has_credit = window >= 0;
    peer->credit = window;
}

#endif
