"use strict";
// A Sparkplug host application that shares no code with the gateway: MQTT.js and the payload codec of Eclipse Tahu.
// Prints one JSON line when it is subscribed and one per message, with the payload as the codec reads it. Takes one
// JSON command per line on stdin:
//   {"state": true|false, "timestamp": ms}   publish STATE of the host, retained
//   {"rebirth": "group/node"}                ask for a rebirth
//   {"publish": topic, "metrics": [...]}     publish metrics
//   {"raw": topic, "hex": bytes}             publish bytes
//   {"end": true}                            disconnect
// usage: node host.js <port> <host id> <timestamp of its last will>

const readline = require("node:readline");
const mqtt = require("mqtt");
const codec = require("sparkplug-payload").get("spBv1.0");
const { Payload } = require("sparkplug-payload/lib/sparkplugPayloadProto").org.eclipse.tahu.protobuf;

const [port, hostId, since] = process.argv.slice(2);
const state = `spBv1.0/STATE/${hostId}`;

const plain = (_key, value) => {
  if (value && typeof value === "object" && "low" in value && "high" in value) return Number(value.toString());
  return value;
};
const say = (message) => process.stdout.write(JSON.stringify(message, plain) + "\n");

// Data messages carry aliases without names and types: both come from the births, as in any host.
const FIELDS = { Double: "doubleValue", String: "stringValue", Boolean: "booleanValue", Int64: "longValue" };
const bornAs = new Map();

function decode(topic, bytes) {
  const payload = codec.decodePayload(bytes);
  const node = topic.split("/")[3];
  const birth = topic.split("/")[2].endsWith("BIRTH");
  const raw = Payload.decode(bytes).metrics;
  (payload.metrics || []).forEach((metric, i) => {
    if (metric.alias === undefined) return;
    const key = `${node}/${metric.alias}`;
    if (birth) {
      bornAs.set(key, metric.type);
      return;
    }
    const type = bornAs.get(key);
    if (type === undefined) metric.unknown = true;
    else metric.value = raw[i].isNull ? null : raw[i][FIELDS[type]];
  });
  return payload;
}

const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
  clean: true,
  protocolVersion: 5,
  reconnectPeriod: 50,
  will: {
    topic: state,
    payload: JSON.stringify({ online: false, timestamp: Number(since) }),
    qos: 1,
    retain: true,
  },
});

client.on("connect", () => {
  client.subscribe(["spBv1.0/#"], { qos: 1 }, () => say({ ready: true }));
});

client.on("message", (topic, payload, packet) => {
  const said = { topic, qos: packet.qos, retain: packet.retain, size: payload.length };
  if (topic.startsWith("spBv1.0/STATE/")) said.state = payload.toString();
  else {
    try {
      said.payload = decode(topic, payload);
    } catch (error) {
      said.error = String(error);
    }
  }
  say(said);
});

function publish(topic, metrics) {
  client.publish(topic, Buffer.from(codec.encodePayload({ timestamp: Date.now(), metrics })), { qos: 0 });
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  if ("state" in command) {
    const payload = JSON.stringify({ online: command.state, timestamp: command.timestamp });
    client.publish(state, payload, { qos: 1, retain: true });
  } else if (command.rebirth) {
    const [group, node] = command.rebirth.split("/");
    publish(`spBv1.0/${group}/NCMD/${node}`, [{ name: "Node Control/Rebirth", type: "Boolean", value: true }]);
  } else if (command.publish) {
    publish(command.publish, command.metrics);
  } else if (command.raw) {
    client.publish(command.raw, Buffer.from(command.hex, "hex"), { qos: 0 });
  } else if (command.end) {
    client.end(false, {}, () => process.exit(0));
  }
});
