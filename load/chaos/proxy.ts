/**
 * A TCP proxy on the way from one process to one server, and what can go wrong on that way: latency, resets, refused
 * connections, and connections that look alive while nothing gets through.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { sleep } from "../../services/kit/backoff.ts";

export interface ProxyOptions {
  /** For people: `payment → gateway`. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly targetPort: number;
}

/** Connections that a fault hit, and how many of them were owed an answer at that moment. */
export interface Hit {
  readonly connections: number;
  readonly unanswered: number;
}

/** What has passed, or has not, since the proxy was opened. */
export interface Traffic {
  readonly requests: number;
  readonly delayedChunks: number;
  readonly swallowedBytes: number;
  /** Connections that were made while nothing got through. */
  readonly connectedInVain: number;
}

/** Called before the bytes go on. A request is what a client sends at a time; `connection` tells connections apart. */
export type RequestListener = (bytes: Buffer, connection: object) => void;

type Mode =
  | { readonly kind: "pass" }
  | { readonly kind: "latency"; readonly delayMs: number }
  | { readonly kind: "lost" };

const pass: Mode = { kind: "pass" };

/** One way through the proxy: what is late stays in order, and an end comes after what was sent before it. */
class Lane {
  readonly #to: Socket;
  #late: { readonly chunk: Buffer; readonly dueMs: number }[] = [];
  #isDraining = false;
  #hasEnded = false;

  constructor(to: Socket) {
    this.#to = to;
  }

  /** False when the sender should wait until the receiver drains. */
  send(chunk: Buffer, delayMs: number): boolean {
    if (delayMs === 0 && this.#late.length === 0) return this.#write(chunk);
    this.#late.push({ chunk, dueMs: performance.now() + delayMs });
    if (!this.#isDraining) void this.#drain();
    return true;
  }

  end(): void {
    this.#hasEnded = true;
    if (this.#late.length === 0) this.#to.end();
  }

  async #drain(): Promise<void> {
    this.#isDraining = true;
    for (let next = this.#late[0]; next !== undefined; next = this.#late[0]) {
      const waitMs = next.dueMs - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      this.#write(next.chunk);
      this.#late.shift();
    }
    this.#isDraining = false;
    if (this.#hasEnded) this.#to.end();
  }

  #write(chunk: Buffer): boolean {
    return this.#to.writable ? this.#to.write(chunk) : true;
  }
}

interface Connection {
  readonly client: Socket;
  /** Undefined where it was made while nothing got through. */
  readonly server: Socket | undefined;
  /** The client has sent something since the server's last answer. */
  isUnanswered: boolean;
  /** Bytes or an end of it were swallowed: nothing sensible can come of it any more. */
  isBroken: boolean;
}

/** A proxy that listens, and passes everything on until it is told otherwise. */
export class TcpProxy {
  readonly name: string;
  readonly port: number;
  readonly #host: string;
  readonly #connections = new Set<Connection>();
  readonly #listeners = new Set<RequestListener>();
  #server: Server | undefined;
  #targetPort: number;
  #mode: Mode = pass;
  readonly #traffic = { requests: 0, delayedChunks: 0, swallowedBytes: 0, connectedInVain: 0 };

  private constructor(options: ProxyOptions) {
    this.name = options.name;
    this.port = options.port;
    this.#host = options.host;
    this.#targetPort = options.targetPort;
  }

  /** @throws Error when the port is taken. */
  static async open(options: ProxyOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(options);
    await proxy.accept();
    return proxy;
  }

  traffic(): Traffic {
    return { ...this.#traffic };
  }

  /** Connections that are owed an answer now. A consumer that waits for records always is. */
  unanswered(): number {
    return [...this.#connections].filter((it) => it.isUnanswered).length;
  }

  /** Tells of every request, until the returned function is called. */
  onRequest(listener: RequestListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs `strike` at the very moment at which the n-th request from now is under way: it has left the client, and has
   * not reached the server. False when there was none within `timeoutMs`.
   */
  async atRequest(number: number, strike: () => void, timeoutMs = 15_000): Promise<boolean> {
    const struck = new AbortController();
    let seen = 0;
    const forget = this.onRequest(() => {
      if (++seen !== number) return;
      strike();
      struck.abort();
    });
    await sleep(timeoutMs, struck.signal);
    forget();
    return struck.signal.aborted;
  }

  /** Everything that passes from now on takes `delayMs` longer, in both directions. */
  slowDown(delayMs: number): void {
    this.#mode = { kind: "latency", delayMs };
  }

  /**
   * Half-open: all that is sent from now on disappears, and so do the ends of connections, while the sockets stay open
   * and new connections are accepted.
   */
  swallow(): Hit {
    this.#mode = { kind: "lost" };
    return this.#hit();
  }

  /** Ends latency and loss. A connection that lost something is reset, as by a firewall that does not know it any more. */
  heal(): void {
    this.#mode = pass;
    for (const connection of [...this.#connections]) if (connection.isBroken) this.#reset(connection);
  }

  /** Resets all connections. New ones are accepted. */
  reset(): Hit {
    const hit = this.#hit();
    for (const connection of [...this.#connections]) this.#reset(connection);
    return hit;
  }

  /** Resets all connections, and lets nobody connect until {@link accept}. */
  refuse(): Hit {
    this.#server?.close();
    this.#server = undefined;
    return this.reset();
  }

  /** Listens, again. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer({ noDelay: true }, (client) => this.#join(client));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ port: this.port, host: this.#host, exclusive: true }, resolve);
    });
  }

  /** Sends new connections elsewhere, and resets those that lead to where it was. */
  retarget(port: number): void {
    this.#targetPort = port;
    this.reset();
  }

  close(): void {
    this.refuse();
  }

  #hit(): Hit {
    return { connections: this.#connections.size, unanswered: this.unanswered() };
  }

  #join(client: Socket): void {
    const isLost = this.#mode.kind === "lost";
    const server = isLost ? undefined : connect({ port: this.#targetPort, host: this.#host, noDelay: true });
    const connection: Connection = { client, server, isUnanswered: false, isBroken: isLost };
    this.#connections.add(connection);
    if (isLost) this.#traffic.connectedInVain++;
    const toServer = server === undefined ? undefined : new Lane(server);
    const toClient = new Lane(client);

    // Without an encoding, sockets give buffers.
    client.on("data", (data) => {
      const chunk = data as Buffer;
      connection.isUnanswered = true;
      this.#traffic.requests++;
      for (const listener of [...this.#listeners]) listener(chunk, connection);
      this.#pass(connection, chunk, client, server, toServer);
    });
    server?.on("data", (data) => {
      if (this.#mode.kind !== "lost") connection.isUnanswered = false;
      this.#pass(connection, data as Buffer, server, client, toClient);
    });
    for (const [socket, lane] of [
      [client, toServer],
      [server, toClient],
    ] as const) {
      // An error is followed by the close, and the other side is told by that.
      socket?.on("error", () => undefined);
      socket?.on("close", (hadError: boolean) => {
        if (this.#mode.kind === "lost") {
          connection.isBroken = true;
          return;
        }
        if (hadError) this.#reset(connection);
        else lane?.end();
        if (client.destroyed && server?.destroyed !== false) this.#connections.delete(connection);
      });
    }
  }

  #pass(connection: Connection, chunk: Buffer, from: Socket, to: Socket | undefined, lane: Lane | undefined): void {
    if (this.#mode.kind === "lost" || connection.isBroken) {
      this.#traffic.swallowedBytes += chunk.length;
      connection.isBroken = true;
      return;
    }
    const delayMs = this.#mode.kind === "latency" ? this.#mode.delayMs : 0;
    if (delayMs > 0) this.#traffic.delayedChunks++;
    if (lane?.send(chunk, delayMs) !== false) return;
    from.pause();
    to?.once("drain", () => from.resume());
  }

  #reset(connection: Connection): void {
    this.#connections.delete(connection);
    connection.isUnanswered = false;
    if (!connection.client.destroyed) connection.client.resetAndDestroy();
    if (connection.server?.destroyed === false) connection.server.resetAndDestroy();
  }
}
