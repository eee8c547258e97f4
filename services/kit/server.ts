/**
 * Serves one set of Connect routes on two listeners: HTTP/1.1 by `Bun.serve` (Connect, gRPC-Web and JSON, for browsers
 * and curl) and h2c by `node:http2` (gRPC, which needs trailers; also Connect and gRPC-Web).
 */
import { createServer, type Http2ServerResponse, type ServerHttp2Session } from "node:http2";
import { Code, ConnectError, type ConnectRouter, createConnectRouter, type Interceptor } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { isOutage } from "./database-errors.ts";
import { endsWithin } from "./deadline.ts";
import { DomainError, type DomainErrorCode, UnavailableError } from "./errors.ts";
import type { Logger } from "./log.ts";

/** Larger requests are refused, both compressed and uncompressed. */
const requestSizeMaxBytes = 64 * 1024;
/** A connection that is idle for this long is closed, so that a client cannot hold it without sending its request. */
const idleTimeoutSeconds = 10;
/** How long a closing server lets calls end before it cuts them off. */
const closeGraceMs = 1_000;
/** How long after its answer an h2c stream is closed if its request was not read to the end. */
const unreadCloseDelayMs = 50;

export type Routes = (router: ConnectRouter) => void;

/** The routes as a Web-standard handler, which edge runtimes can run. It returns undefined for an unknown path. */
export function createFetch(routes: Routes, log: Logger): (request: Request) => Promise<Response> | undefined {
  const router = createConnectRouter({ interceptors: interceptors(log), readMaxBytes: requestSizeMaxBytes });
  routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, createFetchHandler(handler)]));
  return (request) => handlers.get(new URL(request.url).pathname)?.(request);
}

export interface RpcServer {
  readonly httpPort: number;
  readonly grpcPort: number;
  /** Accepts no new calls, and after a second cuts off those that have not ended. */
  close(): Promise<void>;
}

/** Serves `routes` on both listeners. Port 0 lets the system choose. @throws Error that names a port in use. */
export async function serveRpc(options: {
  readonly host: string;
  readonly httpPort: number;
  readonly grpcPort: number;
  readonly routes: Routes;
  readonly log: Logger;
}): Promise<RpcServer> {
  const { host, routes, log } = options;
  const fetch = createFetch(routes, log);
  const http = Bun.serve({
    hostname: host,
    port: options.httpPort,
    idleTimeout: idleTimeoutSeconds,
    maxRequestBodySize: 16 * requestSizeMaxBytes,
    async fetch(request, server) {
      const response = await fetch(request);
      if (response === undefined) return new Response("No such method.\n", { status: 404 });
      // A server stream may stay quiet for longer than the idle timeout.
      if (response.headers.get("content-type")?.includes("stream") || isGrpcWeb(response)) server.timeout(request, 0);
      return response;
    },
  });

  const sessions = new Set<ServerHttp2Session>();
  const handler = connectNodeAdapter({
    routes,
    interceptors: interceptors(log),
    readMaxBytes: requestSizeMaxBytes,
  });
  const grpc = createServer((request, response) => {
    closeWhenAnswered(response);
    handler(request, response);
  });
  grpc.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  await new Promise<void>((resolve, reject) => {
    grpc.once("error", reject);
    grpc.listen(options.grpcPort, host, resolve);
  });
  const address = grpc.address();

  return {
    httpPort: http.port ?? options.httpPort,
    grpcPort: typeof address === "object" && address !== null ? address.port : options.grpcPort,
    async close() {
      grpc.close();
      for (const session of sessions) session.close();
      await endsWithin(http.stop(false), closeGraceMs);
      await http.stop(true);
      for (const session of sessions) session.destroy();
    },
  };
}

function isGrpcWeb(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("application/grpc-web") === true;
}

/**
 * Closes a stream after its answer if the request was too large and so was not read to its end. Otherwise the client waits
 * for ever. The delay is needed because connect-node's client treats an early reset as an error.
 */
function closeWhenAnswered(response: Http2ServerResponse): void {
  const { stream } = response;
  response.once("finish", () => {
    setTimeout(() => {
      if (!stream.closed) stream.close(0);
    }, unreadCloseDelayMs);
  });
}

const codes: Record<DomainErrorCode, Code> = {
  INVALID_ARGUMENT: Code.InvalidArgument,
  NOT_FOUND: Code.NotFound,
  ALREADY_EXISTS: Code.AlreadyExists,
  FAILED_PRECONDITION: Code.FailedPrecondition,
};

/** The only place that maps errors to Connect codes. Internal details never reach the caller. */
export function toConnectError(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error;
  if (error instanceof DomainError) return new ConnectError(error.message, codes[error.code]);
  if (error instanceof UnavailableError) return new ConnectError(error.message, Code.Unavailable);
  if (isOutage(error)) return new ConnectError("The database is unavailable; try again.", Code.Unavailable);
  return new ConnectError("Internal error; the details are in the log.", Code.Internal);
}

function interceptors(log: Logger): Interceptor[] {
  return [
    (next) => async (request) => {
      const startedMs = performance.now();
      const done = (error?: ConnectError, cause?: unknown) => {
        const entry = {
          method: request.method.name,
          code: error === undefined ? "ok" : Code[error.code],
          ms: Math.round((performance.now() - startedMs) * 100) / 100,
        };
        if (error?.code === Code.Internal) log.error({ ...entry, err: cause }, "rpc");
        else log.info(entry, "rpc");
      };
      try {
        const response = await next(request);
        if (!response.stream) {
          done();
          return response;
        }
        return { ...response, message: reportEnd(response.message, done) };
      } catch (error) {
        const connectError = toConnectError(error);
        done(connectError, error);
        throw connectError;
      }
    },
  ];
}

/** Passes the messages on, then reports to `done` how the stream ended: complete, failed, or cancelled by the caller. */
async function* reportEnd<T>(messages: AsyncIterable<T>, done: (error?: ConnectError, cause?: unknown) => void) {
  let error: ConnectError | undefined = new ConnectError("The caller cancelled.", Code.Canceled);
  let cause: unknown;
  try {
    yield* messages;
    error = undefined;
  } catch (thrown) {
    cause = thrown;
    error = toConnectError(thrown);
    throw error;
  } finally {
    done(error, cause);
  }
}
