import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { withDeadline } from "./deadline.ts";
import type { Logger } from "./log.ts";

/** Checks one thing that the process depends on. Throws or returns false if it is not available. */
export type Check = () => Promise<boolean> | boolean;

/** A process's private HTTP server: `/livez`, `/readyz` and `/metrics`. */
export interface HealthServer {
  readonly port: number;
  close(): Promise<void>;
}

/** A registry that holds the process's own metrics (CPU, memory, event loop). One per process. */
export function createMetrics(instance: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ instance });
  // The default precision wakes the process a hundred times a second, which is most of the work of an idle process.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: eventLoopPrecisionMs });
  return registry;
}

const eventLoopPrecisionMs = 1_000;

/** A scrape waits at most this long for a count. */
const countDeadlineMs = 1_000;
/** A readiness check that takes longer has failed. */
const checkDeadlineMs = 1_500;

/**
 * Registers a gauge with one label, counted at every scrape (by a database query, for example). If counting fails or
 * takes longer than a second, the gauge shows no figure rather than an old one.
 * @param options.values label values that are always shown, as 0 if none are counted. Other values are shown only when counted.
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
        const counts = await withDeadline(options.count(), countDeadlineMs, countTimeout);
        for (const value of values) this.set({ [label]: value }, 0);
        for (const [value, count] of counts) this.set({ [label]: value }, count);
      } catch (error) {
        options.log.warn({ err: error, gauge: name }, "gauge not counted");
      }
    },
  });
}

function countTimeout(): Error {
  return new Error(`Not counted within ${countDeadlineMs} ms.`);
}

/**
 * Serves `/livez` (200 as long as the process can answer at all), `/readyz` (200 if every check passes within 1.5 s, else
 * 503; the body lists each check's result) and `/metrics` (Prometheus text format).
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
            Object.entries(options.checks).map(async ([name, check]) => [name, await passes(check)] as const),
          );
          const ready = results.every(([, result]) => result === true);
          return Response.json({ ready, checks: Object.fromEntries(results) }, { status: ready ? 200 : 503 });
        }
        case "/metrics":
          return new Response(await options.metrics.metrics(), {
            headers: { "content-type": options.metrics.contentType },
          });
        default:
          return new Response("Not found. Try /livez, /readyz or /metrics.\n", { status: 404 });
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

async function passes(check: Check): Promise<boolean> {
  try {
    return await withDeadline(Promise.resolve().then(check), checkDeadlineMs, () => new Error("The check timed out."));
  } catch {
    return false;
  }
}
