"use strict";
// An OPC UA server that shares no code with the gateway: node-opcua. Prints one JSON line when it listens, takes one
// JSON command per line on stdin ({"set": name, "value": x}, {"add": name, "value": x}, {"remove": name},
// {"burst": name, "count": n}, {"record": name, "count": n}) and answers each with {"done": true}.
// usage: node server.js <port> <pki folder> <names as JSON: {"name": initial value}> [<limits as JSON>] [<names whose
// changes the server records, as JSON>]

const path = require("node:path");
const readline = require("node:readline");
const { setTimeout } = require("node:timers/promises");
// Node.js 18, which Debian 12 has, does not offer it without being asked.
globalThis.crypto ??= require("node:crypto").webcrypto;
const {
  DataType,
  MessageSecurityMode,
  OPCUACertificateManager,
  OPCUAServer,
  SecurityPolicy,
  StatusCodes,
  Variant,
} = require("node-opcua");

const [port, pki, names, limits, recorded] = process.argv.slice(2);

function variant(value) {
  if (typeof value === "string") return new Variant({ dataType: DataType.String, value });
  if (typeof value === "boolean") return new Variant({ dataType: DataType.Boolean, value });
  return new Variant({ dataType: DataType.Double, value });
}

async function main() {
  const certificates = new OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: true,
    rootFolder: path.join(pki, "server"),
  });
  const users = new OPCUACertificateManager({
    automaticallyAcceptUnknownCertificate: true,
    rootFolder: path.join(pki, "users"),
  });
  await certificates.initialize();
  await users.initialize();
  const server = new OPCUAServer({
    port: Number(port),
    hostname: "127.0.0.1",
    resourcePath: "/plc",
    serverInfo: { applicationUri: "urn:test:node-opcua" },
    serverCertificateManager: certificates,
    userCertificateManager: users,
    certificateFile: path.join(pki, "server.pem"),
    securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
    securityPolicies: [
      SecurityPolicy.None,
      SecurityPolicy.Basic256Sha256,
      SecurityPolicy.Aes128_Sha256_RsaOaep,
      SecurityPolicy.Aes256_Sha256_RsaPss,
    ],
    allowAnonymous: true,
    userManager: { isValidUser: (user, password) => user === "andon" && password === "s3cret" },
    serverCapabilities: { operationLimits: limits ? JSON.parse(limits) : {} },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const plant = space.registerNamespace("urn:test:plc");
  const variables = new Map();
  const add = (name, value) => {
    const made = plant.addVariable({
      organizedBy: space.rootFolder.objects,
      browseName: name,
      nodeId: `s=${name}`,
      dataType: variant(value).dataType,
      minimumSamplingInterval: 0,
    });
    if (recorded && JSON.parse(recorded).includes(name)) {
      space.installHistoricalDataNode(made, { maxOnlineValues: 10_000 });
    }
    made.setValueFromSource(variant(value));
    variables.set(name, made);
  };
  for (const [name, value] of Object.entries(JSON.parse(names))) add(name, value);
  await server.start();
  const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
  say({ port: Number(port), certificate: path.join(pki, "server.pem") });

  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if (command.set) {
      const status = command.status ? StatusCodes[command.status] : StatusCodes.Good;
      variables.get(command.set).setValueFromSource(variant(command.value), status);
    } else if (command.record) {
      // As fast as the history takes them; each value has a millisecond of its own.
      for (let n = 1; n <= command.count; n += 1) {
        variables.get(command.record).setValueFromSource(variant(n), StatusCodes.Good, new Date(Date.now() + n - 1));
      }
      await setTimeout(command.count);
    } else if (command.burst) {
      // Slower than the server's fastest sampling of 50 ms, so that each value is seen.
      for (let n = 1; n <= command.count; n += 1) {
        variables.get(command.burst).setValueFromSource(variant(n));
        await setTimeout(60);
      }
    } else if (command.add) {
      add(command.add, command.value);
    } else if (command.remove) {
      space.deleteNode(variables.get(command.remove));
      variables.delete(command.remove);
    }
    say({ done: true });
  }
  await server.shutdown(0);
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
