import { rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { messageOf } from "../kit/errors.ts";
import { say } from "./console.ts";
import { explainFullDisk, StackError } from "./errors.ts";
import { requireFreePorts } from "./free-ports.ts";
import type { DataFolderLock } from "./lock.ts";
import { stopOrphans } from "./orphans.ts";
import { type ProcessPlan, planProcesses } from "./processes.ts";
import { provisionDatabases, provisionTopics } from "./provision.ts";
import { ensurePrograms, type Programs } from "./servers/downloads.ts";
import { prepareBrokers, requireBrokersOfData } from "./servers/kafka.ts";
import { prepareMariadb } from "./servers/mariadb.ts";
import { brokerAddresses, databaseAdminUrl, type Instances, type StackSettings } from "./settings.ts";
import { stackFilePath, writeStackFile } from "./stack-file.ts";
import { Supervisor } from "./supervisor.ts";

const freeBytesMin = 500_000_000;

/** The servers and processes of one `npm start`. `stop` undoes whatever `start` has done so far. */
export class Stack {
  readonly #settings: StackSettings;
  readonly #instances: Instances;
  readonly #lock: DataFolderLock;
  readonly #plan: ProcessPlan;
  readonly #supervisor: Supervisor;
  #isComplete = false;
  #writing: Promise<void> = Promise.resolve();
  #stopped: Promise<void> | undefined;

  /** @param lock of the data folder. `stop` releases it. */
  constructor(settings: StackSettings, instances: Instances, lock: DataFolderLock) {
    this.#settings = settings;
    this.#instances = instances;
    this.#lock = lock;
    this.#plan = planProcesses(settings, instances);
    this.#supervisor = new Supervisor({
      root: settings.root,
      dataFolder: settings.dataFolder,
      logFolder: join(settings.dataFolder, "logs"),
      onChange: () => this.#writeStackFile(),
    });
  }

  /** Where everything listens. */
  get addresses(): ProcessPlan["stackFile"] {
    return this.#plan.stackFile;
  }

  async start(): Promise<void> {
    const { dataFolder, cacheFolder } = this.#settings;
    const orphans = await stopOrphans(dataFolder);
    if (orphans > 0) say(`Ended ${orphans} processes left behind by a stack that was killed.`);
    await rm(stackFilePath(dataFolder), { force: true });
    requireBrokersOfData(this.#settings);
    await requireFreePorts(this.#settings, this.#instances);
    await requireFreeSpace(dataFolder);
    const programs = await ensurePrograms(cacheFolder);
    say("Starting MariaDB, Kafka and the fake payment gateway …");
    await Promise.all([
      this.#startMariadb(programs),
      this.#startKafka(programs),
      this.#supervisor.start(this.#plan.gateway),
    ]);
    say(`Starting ${this.#plan.others.map(({ name }) => name).join(", ")} …`);
    await Promise.all(this.#plan.others.map((spec) => this.#supervisor.start(spec)));
    this.#isComplete = true;
    this.#writeStackFile();
    await this.#writing;
    say("Everything is ready.");
  }

  /** Ends all processes in order and releases the data folder. May be called any number of times. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #startMariadb(programs: Programs): Promise<void> {
    await this.#supervisor.start(await prepareMariadb(this.#settings, programs));
    await provisionDatabases(databaseAdminUrl(this.#settings));
    say("MariaDB is up, with databases, users, tables and demo data.");
  }

  async #startKafka(programs: Programs): Promise<void> {
    const brokers = await prepareBrokers(this.#settings, programs);
    await Promise.all(brokers.map((spec) => this.#supervisor.start(spec)));
    await provisionTopics(brokerAddresses(this.#settings), this.#settings.brokers);
    say(brokers.length === 1 ? "Kafka is up, with its topics." : `${brokers.length} brokers are up, with the topics.`);
  }

  async #stop(): Promise<void> {
    await this.#lock.markStopping();
    await this.#supervisor.stopAll();
    await this.#writing;
    await rm(stackFilePath(this.#settings.dataFolder), { force: true });
    await this.#lock.release();
  }

  #writeStackFile(): void {
    if (!this.#isComplete || this.#stopped !== undefined) return;
    const { dataFolder } = this.#settings;
    this.#writing = this.#writing
      .then(() => writeStackFile(dataFolder, { ...this.#plan.stackFile, processes: this.#supervisor.processIds() }))
      .catch((error) => say(`The stack file could not be written: ${messageOf(explainFullDisk(error))}`));
  }
}

async function requireFreeSpace(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize >= freeBytesMin) return;
  const freeMegabytes = Math.floor((bavail * bsize) / 1_000_000);
  throw new StackError(
    `The disk is nearly full: ${freeMegabytes} MB are free in ${folder}, and the stack needs ${freeBytesMin / 1_000_000} MB. Free some space, or set STACK_DATA_DIR to a folder on another disk.`,
  );
}
