/* A Modbus TCP server on libmodbus: an implementation that shares no code with the gateway.
 *
 * usage: server PORT   (0 = any free port; the port stands on the first line of its output)
 *
 * Unit ids are not looked at. The areas have distinct contents, so that a mix-up shows:
 *   holding register i = i, input register i = 65535 - i, coil i = i is a multiple of 3, discrete i = of 5.
 * Addresses 0..9999 exist in each area; beyond them the server answers exception 2.
 */
#include <arpa/inet.h>
#include <modbus.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ADDRESSES 10000
#define EVENTS_MAX 64

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    modbus_t *modbus = modbus_new_tcp("127.0.0.1", argc > 1 ? atoi(argv[1]) : 0);
    modbus_mapping_t *map = modbus_mapping_new(ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES);
    if (modbus == NULL || map == NULL) return 1;
    for (int i = 0; i < ADDRESSES; i++) {
        map->tab_registers[i] = (uint16_t)i;
        map->tab_input_registers[i] = (uint16_t)(65535 - i);
        map->tab_bits[i] = i % 3 == 0;
        map->tab_input_bits[i] = i % 5 == 0;
    }
    int listener = modbus_tcp_listen(modbus, EVENTS_MAX);
    if (listener < 0) {
        perror("listen");
        return 1;
    }
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++) {
            int socket = events[i].data.fd;
            if (socket == listener) {
                int one = 1, client = accept(listener, NULL, NULL);
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = client;
                epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
                continue;
            }
            modbus_set_socket(modbus, socket);
            int length = modbus_receive(modbus, query);
            if (length > 0)
                modbus_reply(modbus, query, length, map);
            else if (length < 0)
                close(socket);
        }
    }
}
