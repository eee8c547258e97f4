import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { StackError } from "./errors.ts";
import { serviceNames } from "./services.ts";
import {
  type Instances,
  instanceName,
  instancePort,
  type PortName,
  portVariable,
  type StackSettings,
  servicePortVariable,
} from "./settings.ts";

interface NeededPort {
  readonly what: string;
  readonly number: number;
  readonly variable: string;
  readonly protocol: "tcp" | "udp";
}

/**
 * Makes sure that nobody has a port that the stack needs, before anything is started.
 * @throws StackError naming each such port, whose it is to be, and the variable that moves it.
 */
export async function requireFreePorts(settings: StackSettings, instances: Instances): Promise<void> {
  const needed = neededPorts(settings, instances);
  const twice = needed.filter((port, index) => needed.findIndex((it) => it.number === port.number) < index);
  if (twice.length > 0) {
    const names = twice.map(({ what, number, variable }) => `${number} (${what}, ${variable})`).join(", ");
    throw new StackError(`Two parts of the stack were given the same port: ${names}. Set one of them differently.`);
  }
  const taken = (
    await Promise.all(needed.map(async (port) => ((await isFree(port, settings.host)) ? [] : [port])))
  ).flat();
  if (taken.length === 0) return;
  const lines = taken.map(
    ({ what, number, variable, protocol }) =>
      `Port ${number} (${what}, ${protocol}) is taken by another program: stop it (ss -lnp${protocol === "tcp" ? "t" : "u"} shows it), or set ${variable} to another port.`,
  );
  throw new StackError(`${lines.join("\n")}\nSTACK_PORT_OFFSET moves all ports at once.`);
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
    single("kafka", "Kafka"),
    single("kafkaController", "Kafka's controller"),
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
