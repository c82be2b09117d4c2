/* Modbus RTU slaves on libmodbus: an implementation that shares no code with the gateway.
 *
 * usage: rtu_slave PORT BAUDRATE UNIT   (writes "ready" once the port is open)
 *
 * The areas have distinct contents, so that a mix-up shows:
 *   holding register i = i, input register i = 65535 - i, coil i = i is a multiple of 3, discrete i = of 5.
 * Addresses 0..9999 exist in each area; beyond them the slave answers exception 2.
 */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>

#define ADDRESSES 10000

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    modbus_t *modbus = modbus_new_rtu(argv[1], atoi(argv[2]), 'N', 8, 1);
    modbus_mapping_t *map = modbus_mapping_new(ADDRESSES, ADDRESSES, ADDRESSES, ADDRESSES);
    if (modbus == NULL || map == NULL) return 1;
    for (int i = 0; i < ADDRESSES; i++) {
        map->tab_registers[i] = (uint16_t)i;
        map->tab_input_registers[i] = (uint16_t)(65535 - i);
        map->tab_bits[i] = i % 3 == 0;
        map->tab_input_bits[i] = i % 5 == 0;
    }
    modbus_set_slave(modbus, atoi(argv[3]));
    if (modbus_connect(modbus) < 0) {
        perror("connect");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(modbus, query);
        if (length > 0) modbus_reply(modbus, query, length, map);
    }
}
