import { collectDefaultMetrics, Registry } from "prom-client";

/** Tells whether one thing that the process needs is there; throws or resolves to false where it is not. */
export type Check = () => Promise<boolean> | boolean;

/** A process's private HTTP port: `/livez`, `/readyz`, `/metrics`. */
export interface HealthServer {
  readonly port: number;
  close(): Promise<void>;
}

/** A registry with the process's own figures in it. One a process. */
export function createMetrics(instance: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ instance });
  collectDefaultMetrics({ register: registry });
  return registry;
}

/**
 * Serves `/livez` (200 while the process can answer at all), `/readyz` (200 when every check holds, else 503; the body
 * names each check) and `/metrics` (Prometheus text).
 */
export function serveHealth(options: {
  readonly host: string;
  readonly port: number;
  readonly checks: Readonly<Record<string, Check>>;
  readonly metrics: Registry;
}): HealthServer {
  const server = Bun.serve({
    hostname: options.host,
    port: options.port,
    async fetch(request) {
      switch (new URL(request.url).pathname) {
        case "/livez":
          return Response.json({ alive: true });
        case "/readyz": {
          const results = await Promise.all(
            Object.entries(options.checks).map(async ([name, check]) => [name, await holds(check)] as const),
          );
          const ready = results.every(([, result]) => result === true);
          return Response.json({ ready, checks: Object.fromEntries(results) }, { status: ready ? 200 : 503 });
        }
        case "/metrics":
          return new Response(await options.metrics.metrics(), {
            headers: { "content-type": options.metrics.contentType },
          });
        default:
          return new Response("There are /livez, /readyz and /metrics.\n", { status: 404 });
      }
    },
  });
  return {
    port: server.port ?? options.port,
    async close() {
      await server.stop(true);
    },
  };
}

async function holds(check: Check): Promise<boolean> {
  const timer = Promise.withResolvers<false>();
  const timeout = setTimeout(() => timer.resolve(false), 1_500);
  try {
    return await Promise.race([Promise.resolve().then(check), timer.promise]);
  } catch {
    return false;
  } finally {
    clearTimeout(timeout);
  }
}
