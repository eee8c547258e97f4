/**
 * A TCP proxy between one process and one server that can inject network faults: latency, resets, refused connections,
 * and half-open connections, which look alive while nothing gets through.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { sleep } from "../../services/kit/backoff.ts";

export interface ProxyOptions {
  /** For reports, for example `payment → gateway`. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly targetPort: number;
}

/** How many connections a fault hit, and how many of these were waiting for an answer. */
export interface Hit {
  readonly connections: number;
  readonly unanswered: number;
}

/** Counters since the proxy was opened. */
export interface Traffic {
  readonly requests: number;
  readonly delayedChunks: number;
  readonly swallowedBytes: number;
  /** Connections that were made while nothing got through. */
  readonly deadConnects: number;
}

/** Called before the bytes are passed on. A request is one chunk from a client; `connection` identifies its connection. */
export type RequestListener = (bytes: Buffer, connection: object) => void;

type Mode =
  | { readonly kind: "pass" }
  | { readonly kind: "latency"; readonly delayMs: number }
  | { readonly kind: "lost" };

const pass: Mode = { kind: "pass" };

/** One direction of a connection. Delayed chunks stay in order, and the end comes after all of them. */
class Lane {
  readonly #to: Socket;
  #late: { readonly chunk: Buffer; readonly dueMs: number }[] = [];
  #isDraining = false;
  #hasEnded = false;

  constructor(to: Socket) {
    this.#to = to;
  }

  /** False if the sender should pause until the receiver has drained. */
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
  /** Undefined if the connection was made while nothing got through. */
  readonly server: Socket | undefined;
  /** Whether the client has sent something since the server's last answer. */
  isUnanswered: boolean;
  /** Whether bytes or an end of it were lost, so that it can only be reset. */
  isBroken: boolean;
}

/** Listens and passes everything on until a fault is injected. */
export class TcpProxy {
  readonly name: string;
  readonly port: number;
  readonly #host: string;
  readonly #connections = new Set<Connection>();
  readonly #listeners = new Set<RequestListener>();
  #server: Server | undefined;
  #targetPort: number;
  #mode: Mode = pass;
  readonly #traffic = { requests: 0, delayedChunks: 0, swallowedBytes: 0, deadConnects: 0 };

  private constructor(options: ProxyOptions) {
    this.name = options.name;
    this.port = options.port;
    this.#host = options.host;
    this.#targetPort = options.targetPort;
  }

  /** @throws Error if the port is taken. */
  static async open(options: ProxyOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(options);
    await proxy.accept();
    return proxy;
  }

  traffic(): Traffic {
    return { ...this.#traffic };
  }

  /** How many connections wait for an answer. A consumer that polls for records always waits. */
  unanswered(): number {
    return [...this.#connections].filter((it) => it.isUnanswered).length;
  }

  /** Calls `listener` for every request, until the returned function is called. */
  onRequest(listener: RequestListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Calls `strike` while the n-th request from now is in flight: it has left the client and not reached the server. False
   * if that request did not come within `timeoutMs`.
   */
  async atRequest(number: number, strike: () => void, timeoutMs = 15_000): Promise<boolean> {
    const struck = new AbortController();
    let seen = 0;
    const stopListening = this.onRequest(() => {
      if (++seen !== number) return;
      strike();
      struck.abort();
    });
    await sleep(timeoutMs, struck.signal);
    stopListening();
    return struck.signal.aborted;
  }

  /** Delays everything from now on by `delayMs`, in both directions. */
  slowDown(delayMs: number): void {
    this.#mode = { kind: "latency", delayMs };
  }

  /** Half-open: loses all bytes and ends of connections from now on. Sockets stay open and new connections are accepted. */
  swallow(): Hit {
    this.#mode = { kind: "lost" };
    return this.#hit();
  }

  /** Ends latency and loss. Resets the connections that lost something, like a firewall that has forgotten them. */
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

  /** Resets all connections and refuses new ones until {@link accept}. */
  refuse(): Hit {
    this.#server?.close();
    this.#server = undefined;
    return this.reset();
  }

  /** Listens again after {@link refuse}. */
  async accept(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer({ noDelay: true }, (client) => this.#join(client));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ port: this.port, host: this.#host, exclusive: true }, resolve);
    });
  }

  /** Connects new clients to another port and resets the existing connections. */
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
    if (isLost) this.#traffic.deadConnects++;
    const toServer = server === undefined ? undefined : new Lane(server);
    const toClient = new Lane(client);

    // Sockets without an encoding emit buffers.
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
      // A close follows every error; the close is what reaches the other side.
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
