import { sleep } from "../../services/kit/backoff.ts";
import type { KafkaListener } from "../../services/stack/servers/kafka-properties.ts";
import {
  brokerPorts,
  type Instances,
  instanceName,
  numbersOf,
  type StackSettings,
} from "../../services/stack/settings.ts";
import type { ProcessSpec } from "../../services/stack/supervisor.ts";
import type { Random } from "../model/random.ts";
import { TcpProxy } from "./proxy.ts";
import { type Broker, type Client, type LinkName, type Role, roles, type Server, type ServerKind } from "./topology.ts";

/** One network path, with the proxy on it. */
export interface Link {
  readonly name: `${Client} → ${Server}`;
  readonly client: Client;
  readonly server: Server;
  readonly proxy: TcpProxy;
}

interface OpenLink extends Link {
  readonly role: Role;
  readonly kind: ServerKind;
  /** The server's port that the client was configured with. */
  readonly targetPort: number;
}

/** Long enough for a path that is in use to carry several requests. */
const sampleMs = 500;

/** One proxy for every network path between one of our processes and a server. */
export class Links {
  readonly #settings: StackSettings;
  readonly #instances: Instances;
  readonly #links: OpenLink[] = [];

  constructor(settings: StackSettings, instances: Instances) {
    this.#settings = settings;
    this.#instances = instances;
  }

  /**
   * Opens all proxies and returns the listeners of each broker, by its number. There is one for each proxy: a broker tells
   * its clients where to connect, so a client that comes through a proxy must be sent back to the same proxy.
   * @param takePort returns a port that is still free.
   */
  async open(takePort: () => number): Promise<(broker: number) => readonly KafkaListener[]> {
    const { ports } = this.#settings;
    const listeners = new Map<number, KafkaListener[]>();
    for (const role of roles) {
      for (const client of this.clientsOf(role)) {
        await this.#open({ role, client, kind: "mariadb", server: "mariadb", targetPort: ports.mariadb }, takePort());
        for (const broker of brokerPorts(this.#settings)) {
          const port = takePort();
          const server = broker.name as Broker;
          const proxyPort = takePort();
          await this.#open({ role, client, kind: "kafka", server, targetPort: broker.client }, proxyPort, port);
          const listener = { name: client.toUpperCase().replace("-", "_"), port, advertisedPort: proxyPort };
          listeners.set(broker.number, [...(listeners.get(broker.number) ?? []), listener]);
        }
        if (role !== "payment") continue;
        await this.#open({ role, client, kind: "gateway", server: "gateway", targetPort: ports.gateway }, takePort());
      }
    }
    return (broker) => listeners.get(broker) ?? [];
  }

  /** The instances of a role that run throughout. */
  clientsOf<R extends Role>(role: R): readonly (R | `${R}-${number}`)[] {
    return numbersOf(this.#instances[role]).map((number) => instanceName(role, number) as R | `${R}-${number}`);
  }

  /** The path of every instance of the role. */
  all(name: LinkName): readonly Link[] {
    return this.#links.filter(({ role, kind }) => `${role} → ${kind}` === name);
  }

  /** @throws Error if there is no such path. */
  get(client: Client, server: Server): Link {
    const link = this.#links.find((it) => it.client === client && it.server === server);
    if (link === undefined) throw new Error(`There is no path ${client} → ${server}.`);
    return link;
  }

  /** One of the paths of that name that are in use: with several instances or brokers, some may stand idle. */
  async pick(name: LinkName, random: Random): Promise<Link> {
    return random.pick(await this.busiest(this.all(name)));
  }

  /** Those that carry at least a third of the requests of the busiest one. */
  async busiest(candidates: readonly Link[]): Promise<readonly Link[]> {
    const before = candidates.map(({ proxy }) => proxy.traffic().requests);
    if (candidates.length > 1) await sleep(sampleMs);
    const requests = candidates.map(({ proxy }, index) => proxy.traffic().requests - (before[index] ?? 0));
    return candidates.filter((_, index) => (requests[index] ?? 0) * 3 >= Math.max(...requests));
  }

  /** Returns `spec` with each server's address in its environment replaced by that of the client's proxy. */
  reroute(spec: ProcessSpec, client: Client): ProcessSpec {
    const { host } = this.#settings;
    const replacements = this.#links
      .filter((link) => link.client === client)
      .map(({ targetPort, proxy }) => [`${host}:${targetPort}`, `${host}:${proxy.port}`] as const);
    const env = Object.entries(spec.env).map(([name, value]) => [
      name,
      replacements.reduce((changed, [from, to]) => changed.replaceAll(from, to), value),
    ]);
    return { ...spec, env: Object.fromEntries(env) };
  }

  close(): void {
    for (const { proxy } of this.#links) proxy.close();
  }

  /** @param passTo the port that the proxy connects to, if it is not the one that the client was configured with. */
  async #open(link: Omit<OpenLink, "name" | "proxy">, port: number, passTo = link.targetPort) {
    const name = `${link.client} → ${link.server}` as const;
    const proxy = await TcpProxy.open({ name, host: this.#settings.host, port, targetPort: passTo });
    this.#links.push({ ...link, name, proxy });
  }
}
