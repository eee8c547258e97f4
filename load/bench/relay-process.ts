/** The relay under measurement: the real process, configured by its environment, with an account of its own. */
import { createSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../../services/kit/backoff.ts";
import { environment, type HostPort } from "../../services/kit/config.ts";
import { freePort } from "../../services/kit/testing.ts";
import { relayRuntimeEnvironment } from "../../services/stack/processes.ts";
import type { BenchOutbox } from "./outbox.ts";

/** A running relay. */
export interface RelayProcess {
  readonly pid: number;
  readonly hints: HostPort;
  /** The peak of its resident memory, in megabytes. */
  memoryMaxMegabytes(): Promise<number>;
  stop(): Promise<void>;
}

const host = "127.0.0.1";
const root = join(import.meta.dir, "../..");
const readyTimeoutMs = 30_000;
const readyPollMs = 20;

/** Starts a relay and resolves once it is ready. */
export async function startRelayProcess(
  outbox: BenchOutbox,
  settings: Readonly<Record<string, string>> = {},
): Promise<RelayProcess> {
  const [healthPort, hintPort] = await Promise.all([freePort(), freeUdpPort()]);
  const { service: name, relayUrl: databaseUrl, table: outboxTable, archiveTable, topic, deadLetterTopic } = outbox;
  const child = Bun.spawn([process.execPath, "relay/main.ts"], {
    cwd: root,
    env: {
      ...environment(),
      ...relayRuntimeEnvironment,
      HOST: host,
      LOG_LEVEL: "warn",
      KAFKA_BROKERS: outbox.kafka.brokers.map((broker) => `${broker.host}:${broker.port}`).join(","),
      HEALTH_PORT: String(healthPort),
      RELAY_HINT_PORT: String(hintPort),
      RELAY_SOURCES: JSON.stringify([{ name, databaseUrl, outboxTable, archiveTable, topic, deadLetterTopic }]),
      ...settings,
    },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
  });
  await untilReady(child, `http://${host}:${healthPort}/readyz`);
  return {
    pid: child.pid,
    hints: { host, port: hintPort },
    async memoryMaxMegabytes() {
      const status = await readFile(`/proc/${child.pid}/status`, "utf8");
      return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1_024;
    },
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

async function untilReady(child: Bun.Subprocess, url: string): Promise<void> {
  const deadlineMs = performance.now() + readyTimeoutMs;
  for (;;) {
    const isReady = await fetch(url).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return;
    if (child.exitCode !== null) throw new Error(`The relay ended with exit code ${child.exitCode}.`);
    if (performance.now() > deadlineMs) throw new Error(`The relay was not ready within ${readyTimeoutMs} ms.`);
    await sleep(readyPollMs);
  }
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, host, resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}
