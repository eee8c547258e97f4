/** A broker for a single integration test file, which may stop and kill it. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { environment, type HostPort } from "../kit/config.ts";
import { freePort } from "../kit/testing.ts";
import { ensurePrograms } from "./servers/downloads.ts";
import { prepareBrokers } from "./servers/kafka.ts";
import { readStackSettings } from "./settings.ts";
import { Supervisor } from "./supervisor.ts";

const root = join(import.meta.dir, "../..");

/** A broker for one test file. When it dies it is started again, on the same port and with the same records. */
export interface TestBroker {
  readonly address: HostPort;
  /** The process id, for signals. It changes with every start. */
  pid(): number;
  stop(): Promise<void>;
}

/** Starts an empty broker beside the one that `npm test` started for all files. */
export async function startTestBroker(): Promise<TestBroker> {
  const env = environment();
  if (env.TEST_DATA_DIR === undefined) throw new Error("Run the integration tests with: npm test -- PART_OF_A_PATH");
  const dataFolder = join(env.TEST_DATA_DIR, "own");
  await rm(dataFolder, { recursive: true, force: true });
  const ports = { KAFKA_PORT: String(await freePort()), KAFKA_CONTROLLER_PORT: String(await freePort()) };
  const settings = readStackSettings({ ...env, ...ports, STACK_DATA_DIR: dataFolder }, root);
  const supervisor = new Supervisor({
    root,
    // The shared servers' folder: the next run finds and ends what a kill -9 leaves behind here.
    dataFolder: env.TEST_DATA_DIR,
    logFolder: join(dataFolder, "logs"),
    onChange: () => undefined,
  });
  const brokers = await prepareBrokers(settings, await ensurePrograms(settings.cacheFolder));
  await Promise.all(brokers.map((spec) => supervisor.start(spec)));
  return {
    address: { host: settings.host, port: settings.ports.kafka },
    pid() {
      const pid = supervisor.processIds().kafka;
      if (pid === undefined) throw new Error("The broker is not running.");
      return pid;
    },
    stop: () => supervisor.stopAll(),
  };
}
