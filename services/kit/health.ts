import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import type { Logger } from "./log.ts";

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
  // By default it wakes the process a hundred times a second to see how late it is: most of what an idle one would do.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: eventLoopPrecisionMs });
  return registry;
}

const eventLoopPrecisionMs = 1_000;

/** A scrape does not wait longer than this for a database: then there is no figure. */
const countWithinMs = 1_000;

/**
 * A gauge by one label that is counted at every scrape, in a database say. Where that fails, or takes over a second, it
 * shows nothing rather than what was true before.
 * @param options.values are shown always, others where there are some.
 */
export function createCountGauge(options: {
  readonly name: string;
  readonly help: string;
  readonly label: string;
  readonly values: readonly string[];
  readonly count: () => Promise<ReadonlyMap<string, number>>;
  readonly log: Logger;
  readonly metrics: Registry;
}): void {
  const { name, help, label, values } = options;
  new Gauge({
    name,
    help,
    labelNames: [label],
    registers: [options.metrics],
    async collect() {
      this.reset();
      try {
        const counts = await withinMs(countWithinMs, options.count());
        for (const value of values) this.set({ [label]: value }, 0);
        for (const [value, count] of counts) this.set({ [label]: value }, count);
      } catch (error) {
        options.log.warn({ err: error, gauge: name }, "could not be counted");
      }
    },
  });
}

async function withinMs<T>(limitMs: number, answer: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`No answer within ${limitMs} ms.`)), limitMs);
  try {
    return await Promise.race([answer, late.promise]);
  } finally {
    clearTimeout(timer);
  }
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
