import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { StackError } from "./errors.ts";
import { serviceNames } from "./services.ts";
import {
  brokerPorts,
  type Instances,
  instanceName,
  instancePort,
  type PortName,
  portVariable,
  type StackSettings,
  servicePortVariable,
} from "./settings.ts";

/** A port that the stack needs. */
interface NeededPort {
  /** What listens on it, for messages. */
  readonly what: string;
  readonly number: number;
  readonly variable: string;
  readonly protocol: "tcp" | "udp";
}

/**
 * Checks, before anything starts, that every port of the stack is free.
 * @throws StackError that names each taken port, what needs it, and the variable that changes it.
 */
export async function requireFreePorts(settings: StackSettings, instances: Instances): Promise<void> {
  const needed = neededPorts(settings, instances);
  const shared = needed.filter((port, index) => needed.findIndex((it) => it.number === port.number) < index);
  if (shared.length > 0) {
    const names = shared.map(({ what, number, variable }) => `${number} (${what}, ${variable})`).join(", ");
    throw new StackError(`Two parts of the stack have the same port: ${names}. Change one of them.`);
  }
  const taken = (
    await Promise.all(needed.map(async (port) => ((await isFree(port, settings.host)) ? [] : [port])))
  ).flat();
  if (taken.length === 0) return;
  const lines = taken.map(
    ({ what, number, variable, protocol }) =>
      `Port ${number} (${what}, ${protocol}) is taken by another program: stop that program (ss -lnp${protocol === "tcp" ? "t" : "u"} shows it), or set ${variable} to another port.`,
  );
  throw new StackError(`${lines.join("\n")}\nSTACK_PORT_OFFSET shifts all ports at once.`);
}

function neededPorts(settings: StackSettings, instances: Instances): readonly NeededPort[] {
  const single = (name: PortName, what: string): NeededPort => ({
    what,
    number: settings.ports[name],
    variable: portVariable(name),
    protocol: "tcp",
  });
  const forEachInstance = (service: keyof Instances, port: NeededPort): readonly NeededPort[] =>
    Array.from({ length: instances[service] }, (_, index) => ({
      ...port,
      what: `${instanceName(service, index + 1)}, ${port.what}`,
      number: instancePort(port.number, index + 1),
    }));
  const servicePorts = serviceNames.flatMap((service) =>
    Object.entries(settings.servicePorts[service]).flatMap(([what, number]) =>
      forEachInstance(service, { what, number, variable: servicePortVariable(service, what), protocol: "tcp" }),
    ),
  );
  return [
    single("mariadb", "MariaDB"),
    ...brokerPorts(settings).flatMap(({ name, client, controller }) => [
      { ...single("kafka", name), number: client },
      { ...single("kafkaController", `${name}'s controller`), number: controller },
    ]),
    single("gateway", "payment gateway"),
    ...servicePorts,
    ...forEachInstance("relay", single("relayHealth", "health")),
    ...forEachInstance("relay", { ...single("relayHint", "hints"), protocol: "udp" }),
  ];
}

async function isFree(port: NeededPort, host: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  if (port.protocol === "tcp") {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port: port.number, host, exclusive: true }, () => server.close(() => resolve(true)));
  } else {
    const socket = createSocket("udp4");
    socket.once("error", () => {
      socket.close();
      resolve(false);
    });
    socket.bind(port.number, host, () => socket.close(() => resolve(true)));
  }
  return promise;
}
