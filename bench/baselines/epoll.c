/* The limit of a fan-out: WebSocket clients in an epoll loop, and one write(2) of a finished frame per client and
 * message. It answers the handshake and reads nothing of what clients say after it.
 *
 * Listens on 127.0.0.1, port $PORT, and prints a line when it does. GET /send?count=C&bytes=B sends C messages of B bytes
 * to every client, one message after the other, and is answered when all have been written. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 65536, MAX_REQUEST = 2048, MAX_FRAME = 65536 + 4 };

struct client {
    char request[MAX_REQUEST + 1];
    size_t length;
    int greeted;
};

static struct client *clients[MAX_FDS];
static int highest;

static uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

/* SHA-1 of a text that fits into two blocks with its padding: at most 119 bytes. */
static void sha1(const char *text, size_t length, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t data[128] = {0};
    size_t blocks = length < 56 ? 1 : 2;
    memcpy(data, text, length);
    data[length] = 0x80;
    data[blocks * 64 - 2] = length * 8 >> 8;
    data[blocks * 64 - 1] = length * 8 & 0xff;
    for (size_t block = 0; block < blocks; block++) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            memcpy(&w[i], data + block * 64 + i * 4, 4);
            w[i] = ntohl(w[i]);
        }
        for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
            else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
            else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
            else f = b ^ c ^ d, k = 0xca62c1d6;
            uint32_t next = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = h[i / 4] >> (24 - i % 4 * 8);
}

/* 20 bytes as 28 characters. */
static void base64(const uint8_t digest[20], char text[29]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t data[21] = {0};
    memcpy(data, digest, 20);
    for (int i = 0; i < 7; i++) {
        uint32_t bits = data[i * 3] << 16 | data[i * 3 + 1] << 8 | data[i * 3 + 2];
        for (int j = 0; j < 4; j++) text[i * 4 + j] = letters[bits >> (18 - j * 6) & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

static void drop(int fd) {
    free(clients[fd]);
    clients[fd] = NULL;
    close(fd);
}

/* Write all of it; a client whose buffer is full is waited for. Clients that keep up never make it wait. */
static void write_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, -1);
        } else if (written < 0) {
            return; /* it is gone; the loop will be told */
        } else {
            data += written;
            length -= written;
        }
    }
}

static void fan_out(int count, int bytes) {
    static char frame[MAX_FRAME];
    size_t head = bytes < 126 ? 2 : 4;
    frame[0] = (char)0x81; /* the last part of a text */
    frame[1] = bytes < 126 ? bytes : 126;
    if (head == 4) frame[2] = bytes >> 8, frame[3] = bytes & 0xff;
    memset(frame + head, 'x', bytes);
    for (int message = 0; message < count; message++)
        for (int fd = 0; fd <= highest; fd++)
            if (clients[fd] && clients[fd]->greeted) write_all(fd, frame, head + bytes);
}

static void greet(int fd, const char *key) {
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[128], accept[29], answer[256];
    uint8_t digest[20];
    size_t length = strcspn(key, "\r");
    if (length > 64) length = 64;
    int size = snprintf(text, sizeof text, "%.*s%s", (int)length, key, guid);
    sha1(text, size, digest);
    base64(digest, accept);
    size = snprintf(answer, sizeof answer,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    write_all(fd, answer, size);
    clients[fd]->greeted = 1;
}

static void serve(int fd) {
    static char ignored[65536];
    static const char header[] = "\r\nSec-WebSocket-Key: ", done[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    struct client *client = clients[fd];
    int count, bytes;
    if (client->greeted) {
        ssize_t got = read(fd, ignored, sizeof ignored);
        if (got == 0 || (got < 0 && errno != EAGAIN)) drop(fd);
        return;
    }
    ssize_t got = read(fd, client->request + client->length, MAX_REQUEST - client->length);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    client->length += got;
    client->request[client->length] = 0;
    if (!strstr(client->request, "\r\n\r\n")) return;
    client->length = 0;
    char *key = strcasestr(client->request, header);
    if (sscanf(client->request, "GET /send?count=%d&bytes=%d", &count, &bytes) == 2 && bytes > 0 && bytes < 65536) {
        fan_out(count, bytes);
        write_all(fd, done, sizeof done - 1);
    } else if (key) {
        greet(fd, key + sizeof header - 1);
    } else {
        drop(fd);
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    struct epoll_event event = {.events = EPOLLIN}, events[256];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), loop = epoll_create1(0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    event.data.fd = listener;
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(loop, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                if (clients[fd]) serve(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= MAX_FDS || !(clients[fd] = calloc(1, sizeof(struct client)))) {
                    close(fd);
                    continue;
                }
                if (fd > highest) highest = fd;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = fd;
                epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
            }
        }
    }
}
