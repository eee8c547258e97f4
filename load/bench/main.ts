/** `npm run bench -- relay`: measures the relay on a MariaDB and a Kafka of its own, over TCP. */
import { join } from "node:path";
import { environment, integer, readConfig } from "../../services/kit/config.ts";
import { printError } from "../../services/stack/errors.ts";
import { startServers } from "../../services/stack/servers/servers.ts";
import { databaseAdminUrl, readStackSettings } from "../../services/stack/settings.ts";
import { type BenchArguments, parseBenchArguments } from "./arguments.ts";
import { benchmarkRelay } from "./relay.ts";
import { formatRelayBench } from "./report.ts";

const root = join(import.meta.dir, "../..");
const textbookRows = 2_000;
const latencySeconds = 20;
const idleSeconds = 20;

/** Progress goes to standard error, so that standard output holds the figures alone. */
function report(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function main({ json, ...sizes }: BenchArguments): Promise<void> {
  // The servers can run beside a stack and beside the tests, whose offset is 10,000.
  const { portOffset } = readConfig(environment(), {
    portOffset: integer("BENCH_PORT_OFFSET", { fallback: 12_000, min: 1, max: 40_000 }),
  });
  const settings = readStackSettings(
    { ...environment(), STACK_DATA_DIR: join(root, ".data/bench"), STACK_PORT_OFFSET: String(portOffset) },
    root,
  );
  const servers = await startServers(settings);
  try {
    const result = await benchmarkRelay({
      databaseAdminUrl: databaseAdminUrl(settings),
      kafkaBrokers: [{ host: settings.host, port: settings.ports.kafka }],
      ...sizes,
      textbookRows,
      latencySeconds,
      idleSeconds,
      report,
    });
    console.log(formatRelayBench(result));
    if (json) console.log(JSON.stringify(result));
  } finally {
    await servers.stop();
  }
}

try {
  await main(parseBenchArguments(process.argv.slice(2)));
  process.exit(0);
} catch (error) {
  printError(error);
  process.exit(1);
}
