"use strict";
// A Sparkplug edge node that shares no code with the gateway: MQTT.js and the payload codec of Eclipse Tahu.
// Prints one JSON line per event: {"born": n} after each full birth, {"command": name} for each metric of an NCMD.
// Takes one JSON command per line on stdin:
//   {"data": {"DEV": [{"alias": 1, "type": "Int32", "value": 5}]}}   NDATA ("" as device) or DDATA; other keys of a
//                                                                     metric (timestamp, isHistorical, ...) as they are
//   {"skip": n}               lose n messages: the sequence goes on without them
//   {"ddeath": "DEV"}, {"dbirth": "DEV"}, {"birth": true}
//   {"die": true}             drop the connection without a word: the broker publishes the NDEATH
//   {"stale": true}           publish an NDEATH of an earlier connection
// usage: node node.js <port> <group> <node> <births as JSON: {"": [metrics], "DEV": [metrics]}>

const readline = require("node:readline");
const mqtt = require("mqtt");
const codec = require("sparkplug-payload").get("spBv1.0");

const [port, group, node, described] = process.argv.slice(2);
const births = JSON.parse(described);
const bdSeq = 7;
let seq = 0;
let born = 0;

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const topic = (kind, device) => `spBv1.0/${group}/${kind}/${node}${device ? "/" + device : ""}`;
const encode = (metrics, numbered = true) => {
  const payload = { timestamp: Date.now(), metrics };
  if (numbered) {
    payload.seq = seq;
    seq = (seq + 1) % 256;
  }
  return Buffer.from(codec.encodePayload(payload));
};
const bdSeqMetric = (value) => ({ name: "bdSeq", type: "Int64", value });

const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
  clean: true,
  reconnectPeriod: 0,
  will: { topic: topic("NDEATH"), payload: encode([bdSeqMetric(bdSeq)], false), qos: 1, retain: false },
});

const deviceBirth = (device) => client.publish(topic("DBIRTH", device), encode(births[device]));
const birth = () => {
  seq = 0;
  const control = { name: "Node Control/Rebirth", type: "Boolean", value: false };
  client.publish(topic("NBIRTH"), encode([bdSeqMetric(bdSeq), control, ...births[""]]));
  Object.keys(births).filter(Boolean).forEach(deviceBirth);
  born += 1;
  const told = { born };
  // Births have QoS 0; the acknowledgement of what follows them says that the broker has passed them on.
  client.publish("births/told", "", { qos: 1 }, () => say(told));
};

client.on("connect", () => client.subscribe(topic("NCMD"), { qos: 1 }, birth));
client.on("message", (_topic, data) => {
  for (const metric of codec.decodePayload(data).metrics) {
    say({ command: metric.name });
    if (metric.name === "Node Control/Rebirth" && metric.value === true) birth();
  }
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  for (const [device, metrics] of Object.entries(command.data || {})) {
    client.publish(topic(device ? "DDATA" : "NDATA", device), encode(metrics));
  }
  if (command.skip) seq = (seq + command.skip) % 256;
  if (command.ddeath) client.publish(topic("DDEATH", command.ddeath), encode([]));
  if (command.dbirth) deviceBirth(command.dbirth);
  if (command.birth) birth();
  if (command.stale) client.publish(topic("NDEATH"), encode([bdSeqMetric(bdSeq - 1)], false));
  if (command.die) client.stream.destroy();
});
