import type { KafkaListener } from "../../services/stack/servers/kafka-properties.ts";
import type { StackSettings } from "../../services/stack/settings.ts";
import type { ProcessSpec } from "../../services/stack/supervisor.ts";
import { TcpProxy } from "./proxy.ts";
import { type Client, clients, type LinkName, servers } from "./topology.ts";

/** One proxy for every network path between one of our processes and a server. */
export class Links {
  readonly #settings: StackSettings;
  readonly #proxies = new Map<LinkName, TcpProxy>();

  constructor(settings: StackSettings) {
    this.#settings = settings;
  }

  /**
   * Opens all proxies and returns a listener of the broker for each of them: a broker tells its clients where to connect,
   * so a client that comes through a proxy must be sent back to the same proxy.
   * @param takePort returns a port that is still free.
   */
  async open(takePort: () => number): Promise<readonly KafkaListener[]> {
    const { ports } = this.#settings;
    const listeners: KafkaListener[] = [];
    for (const client of clients) {
      await this.#open(`${client} → mariadb`, takePort(), ports.mariadb);
      const port = takePort();
      const proxy = await this.#open(`${client} → kafka`, takePort(), port);
      listeners.push({ name: client.toUpperCase(), port, advertisedPort: proxy.port });
    }
    await this.#open("payment → gateway", takePort(), ports.gateway);
    return listeners;
  }

  /** @throws Error if there is no such link. */
  get(name: LinkName): TcpProxy {
    const proxy = this.#proxies.get(name);
    if (proxy === undefined) throw new Error(`There is no link ${name}.`);
    return proxy;
  }

  /** Returns `spec` with each server's address in its environment replaced by that of the client's proxy. */
  reroute(spec: ProcessSpec, client: Client): ProcessSpec {
    const { host, ports } = this.#settings;
    const replacements = servers.flatMap((server) => {
      const proxy = this.#proxies.get(`${client} → ${server}` as LinkName);
      return proxy === undefined ? [] : [[`${host}:${ports[server]}`, `${host}:${proxy.port}`] as const];
    });
    const env = Object.entries(spec.env).map(([name, value]) => [
      name,
      replacements.reduce((changed, [from, to]) => changed.replaceAll(from, to), value),
    ]);
    return { ...spec, env: Object.fromEntries(env) };
  }

  close(): void {
    for (const proxy of this.#proxies.values()) proxy.close();
  }

  async #open(name: LinkName, port: number, targetPort: number): Promise<TcpProxy> {
    const proxy = await TcpProxy.open({ name, host: this.#settings.host, port, targetPort });
    this.#proxies.set(name, proxy);
    return proxy;
  }
}
